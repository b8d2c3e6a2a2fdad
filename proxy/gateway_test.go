package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRedirect(t *testing.T) {
	h := build(t, plan{more: "public_https: 8443"})
	talk := func(request string) string {
		c, err := net.Dial("tcp", h.addrs.HTTP[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, strings.ReplaceAll(request, "TOKEN", h.token()))
		all, _ := io.ReadAll(c)
		return string(all)
	}
	if got := talk("POST /v1/%6D?x=1 HTTP/1.1\r\nHost: Models.Test:80\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 308 ") || !strings.Contains(got, "Location: https://models.test:8443/v1/m?x=1\r\n") {
		t.Errorf("got %s", got)
	}
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\nConnection: close\r\n\r\n": "403",
		"GET / HTTP/1.1\r\nHost: models.test\r\nX-Api-Key: abc\r\nConnection: close\r\n\r\n":              "403",
		"GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n":                                  "404",
		"GET //evil.test/ HTTP/1.1\r\nHost: models.test\r\n\r\n":                                          "400",
		"GET http://evil.test/ HTTP/1.1\r\nHost: models.test\r\n\r\n":                                     "400",
	} {
		if got := talk(request); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%q got %s; want %s", request, got, want)
		}
	}
	h.untouched()
}

func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := build(t, plan{handler: func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		_, _ = io.WriteString(w, "late")
	}})
	got := make(chan *reply, 1)
	go func() { got <- h.do("GET", "/", "", nil) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	for { // no new connections
		c, err := net.Dial("tcp", h.addrs.HTTPS[0].String())
		if err != nil {
			break
		}
		c.Close()
	}
	close(leave)
	if r := <-got; r.StatusCode != 200 || r.body != "late" {
		t.Errorf("the request in flight got %d %q", r.StatusCode, r.body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestDrainAbortsRequestsAfterTheGracePeriod(t *testing.T) {
	entered := make(chan struct{}, 2)
	h := build(t, plan{more: "drain: 200ms", routes: strings.TrimRight(oneRoute, "\n") + "\n    websocket: true\n", handler: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, _, _ := w.(http.Hijacker).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+wsAccept+"\r\n\r\n")
			entered <- struct{}{}
			_, _ = io.Copy(io.Discard, c)
			c.Close()
			return
		}
		entered <- struct{}{}
		<-r.Context().Done()
	}})
	token := h.token()
	var ends sync.WaitGroup
	for _, fields := range []string{"", "Connection: Upgrade\r\nUpgrade: websocket\r\n" + wsKey + "\r\n"} {
		c := h.dial("models.test")
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer %s\r\n%s\r\n", token, fields)
		ends.Go(func() {
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection was left open")
			}
		})
		<-entered
	}
	if err := h.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	ends.Wait()
}

// Every exit writes one record, without secrets.
func TestEveryRequestWritesOneRecord(t *testing.T) {
	h := build(t, plan{})
	ok := h.do("POST", "/v1/x?secret=1", `{"a":1}`, nil)
	h.do("GET", "/", "", map[string]string{"Authorization": ""})
	h.do("GET", "/", "", map[string]string{"X-Sallyport-Principal": "x"})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	rec := h.audit.records(t)
	if len(rec) != 3 {
		t.Fatalf("%d records; want 3", len(rec))
	}
	for key, want := range map[string]any{
		"id": ok.Header.Get("X-Request-Id"), "client": "127.0.0.1", "host": "models.test", "method": "POST", "path": "/v1/x", "route": "models.test/", "protocol": "HTTP/1.1",
		"principal": "issuer/corp:alice", "credential": "bearer", "status": 200., "bytes_in": 7., "bytes_out": 22.,
	} {
		if rec[0][key] != want {
			t.Errorf("%s is %v; want %v", key, rec[0][key], want)
		}
	}
	for _, key := range []string{"key_id", "duration_us", "upstream_us", "own_us", "upstream"} {
		if rec[0][key] == nil {
			t.Errorf("no %s in %v", key, rec[0])
		}
	}
	if rec[1]["reason"] != "no_credential" || rec[2]["reason"] != "protected_field" {
		t.Errorf("reasons %v, %v", rec[1]["reason"], rec[2]["reason"])
	}
}

func TestHealthIsOnItsOwnListener(t *testing.T) {
	h := build(t, plan{})
	h.do("GET", "/", "", nil)
	get := func(path string) (int, string) {
		res, err := http.Get("http://" + h.addrs.Health.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		all, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(all)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, body := get("/readyz"); code != 200 || !strings.Contains(body, `"ready": true`) && !strings.Contains(body, `"ready":true`) {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `sallyport_requests_total{code="200",dialect="raw",method="GET",reason="",route="models.test/",verb="get"} 1`) {
		t.Errorf("/metrics: %d %s", code, body)
	}
	if c, err := tls.Dial("tcp", h.addrs.HTTPS[0].String(), &tls.Config{ServerName: "models.test", RootCAs: x509.NewCertPool()}); err == nil {
		c.Close()
		t.Error("a client without the root certificate trusts the gateway")
	}
	eventually(t, "the failed handshake is counted", func() bool {
		_, body := get("/metrics")
		return strings.Contains(body, `sallyport_tls_handshake_failures_total{reason="untrusted"} 1`)
	})
	if code, _ := get("/"); code != 404 {
		t.Errorf("/: %d; the health listener proxies nothing", code)
	}
}

func TestUnknownNamesAreRefusedInTheHandshake(t *testing.T) {
	h := build(t, plan{})
	for _, name := range []string{"", "elsewhere.test"} {
		c, err := tls.Dial("tcp", h.addrs.HTTPS[0].String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil {
			c.Close()
			t.Errorf("a handshake for %q succeeds", name)
		}
	}
}
