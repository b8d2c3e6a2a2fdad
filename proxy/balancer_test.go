package proxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// connect opens a TCP connection and sends a preamble.
func (h *house) connect(to net.Addr, preamble string) net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, preamble); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// overTLS completes a handshake on a connection and sends a request with a valid token.
func (h *house) overTLS(c net.Conn) (*http.Response, error) {
	h.t.Helper()
	s := tls.Client(c, &tls.Config{RootCAs: h.roots, ServerName: "models.test"})
	if err := s.Handshake(); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(s, "GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+h.token()+"\r\nConnection: close\r\n\r\n"); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(s), nil)
}

const fromClient = "PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\n"

func TestProxyProtocol(t *testing.T) {
	t.Run("the client's address counts", func(t *testing.T) {
		h := build(t, plan{listen: ", proxy_protocol: {from: 127.0.0.1}", routes: `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], allow_from: 192.0.2.0/24}
`})
		res, err := h.overTLS(h.connect(h.addrs.HTTPS[0], fromClient))
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%v, %v", res, err)
		}
		if r, _ := h.model.seen(); r.Header.Get("X-Forwarded-For") != "192.0.2.7" {
			t.Errorf("the upstream was told X-Forwarded-For: %s", r.Header.Get("X-Forwarded-For"))
		}
		if rec := h.ended(); rec["client"] != "192.0.2.7" {
			t.Errorf("record %v", rec)
		}
	})
	t.Run("a listed balancer that says nothing is refused", func(t *testing.T) {
		h := build(t, plan{listen: ", proxy_protocol: {from: 127.0.0.1}"})
		if res, err := h.overTLS(h.connect(h.addrs.HTTPS[0], "")); err == nil {
			t.Errorf("answered %d", res.StatusCode)
		}
		h.untouched()
	})
	t.Run("unless that is optional", func(t *testing.T) {
		h := build(t, plan{listen: ", proxy_protocol: {from: 127.0.0.1, optional: true}"})
		if res, err := h.overTLS(h.connect(h.addrs.HTTPS[0], "")); err != nil || res.StatusCode != 200 {
			t.Errorf("%v, %v", res, err)
		}
	})
	t.Run("a header from elsewhere is refused", func(t *testing.T) {
		h := build(t, plan{listen: ", proxy_protocol: {from: 10.0.0.1}"})
		if res, err := h.overTLS(h.connect(h.addrs.HTTPS[0], fromClient)); err == nil {
			t.Errorf("answered %d", res.StatusCode)
		}
		if res, err := h.overTLS(h.connect(h.addrs.HTTPS[0], "")); err != nil || res.StatusCode != 200 {
			t.Errorf("without a header: %v, %v", res, err)
		}
		h.model.hits.Add(-1)
		c := h.connect(h.addrs.HTTP[0], fromClient+"GET / HTTP/1.1\r\nHost: models.test\r\n\r\n")
		if all, _ := io.ReadAll(c); !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
			t.Errorf("on plain HTTP: %s", all)
		}
		h.untouched()
	})
	t.Run("on plain HTTP", func(t *testing.T) {
		h := build(t, plan{listen: ", proxy_protocol: {from: 127.0.0.1}"})
		c := h.connect(h.addrs.HTTP[0], fromClient+"GET /x HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n\r\n")
		if all, _ := io.ReadAll(c); !strings.HasPrefix(string(all), "HTTP/1.1 308 ") {
			t.Errorf("got %s", all)
		}
		if rec := h.ended(); rec["client"] != "192.0.2.7" {
			t.Errorf("record %v", rec)
		}
	})
}

func TestInsecurePlain(t *testing.T) {
	listen := ", insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}"
	request := func(fields string) string {
		return "GET /p HTTP/1.1\r\nHost: models.test\r\n" + fields + "Connection: close\r\n\r\n"
	}
	t.Run("a listed balancer", func(t *testing.T) {
		h := build(t, plan{listen: listen, more: "trusted_proxies: 127.0.0.1"})
		c := h.connect(h.addrs.Plain, request("Authorization: Bearer "+h.token()+"\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"))
		if all, _ := io.ReadAll(c); !strings.HasPrefix(string(all), "HTTP/1.1 200 ") {
			t.Fatalf("got %s", all)
		}
		r, _ := h.model.seen()
		if r.Header.Get("X-Forwarded-Proto") != "https" || r.Header.Get("X-Forwarded-For") != "192.0.2.7, 127.0.0.1" || r.Header.Get("X-Sallyport-Principal") != "issuer/corp:alice" {
			t.Errorf("the upstream got %v", r.Header)
		}
		if rec := h.ended(); rec["client"] != "192.0.2.7" {
			t.Errorf("record %v", rec)
		}
	})
	t.Run("https to clients, whoever says it", func(t *testing.T) {
		h := build(t, plan{listen: listen, more: "trusted_proxies: 127.0.0.1"})
		_, _ = io.ReadAll(h.connect(h.addrs.Plain, request("Authorization: Bearer "+h.token()+"\r\n")))
		if r, _ := h.model.seen(); r == nil || r.Header.Get("X-Forwarded-Proto") != "https" {
			t.Errorf("the upstream got %v", r)
		}
	})
	t.Run("the whole way, no shorter one", func(t *testing.T) {
		h := build(t, plan{listen: listen, more: "trusted_proxies: 127.0.0.1"})
		if all, _ := io.ReadAll(h.connect(h.addrs.Plain, request(""))); !strings.HasPrefix(string(all), "HTTP/1.1 401 ") {
			t.Errorf("got %s", all)
		}
		if all, _ := io.ReadAll(h.connect(h.addrs.Plain, request("X-Sallyport-Principal: root\r\n"))); !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
			t.Errorf("got %s", all)
		}
		if all, _ := io.ReadAll(h.connect(h.addrs.Plain, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); strings.Contains(string(all), " 200 ") {
			t.Errorf("got %s", all)
		}
		h.untouched()
	})
	t.Run("HTTP/2 where it is said", func(t *testing.T) {
		h := build(t, plan{listen: strings.Replace(listen, "}", ", h2c: true}", 1), more: "trusted_proxies: 127.0.0.1"})
		for _, scheme := range []string{"http", "https"} { // as the balancer connects here, or as clients connect to it
			f := h.framesOn(h.connect(h.addrs.Plain, ""))
			lines := h.usual("GET", "/p", "x-forwarded-for: 192.0.2.7")
			lines[1] = ":scheme: " + scheme
			f.headers(1, true, lines...)
			if got := f.wait(1); got != "200" {
				t.Errorf("%s: %s", scheme, got)
			}
			if r, _ := h.model.seen(); r == nil || r.Header.Get("X-Forwarded-Proto") != "https" || r.Header.Get("X-Forwarded-For") != "192.0.2.7, 127.0.0.1" {
				t.Errorf("the upstream got %v", r)
			}
		}
		c := h.connect(h.addrs.Plain, request("Authorization: Bearer "+h.token()+"\r\n"))
		if all, _ := io.ReadAll(c); !strings.HasPrefix(string(all), "HTTP/1.1 200 ") {
			t.Errorf("over HTTP/1.1: %s", all)
		}
		c = h.connect(h.addrs.Plain, "PRI / HTTP/1.1\r\nHost: models.test\r\n\r\n")
		if all, _ := io.ReadAll(c); strings.Contains(string(all), " 200 ") {
			t.Errorf("over something else: %s", all)
		}
	})
	t.Run("with the PROXY protocol", func(t *testing.T) {
		h := build(t, plan{listen: listen + ", proxy_protocol: {from: 127.0.0.1}"})
		_, _ = io.ReadAll(h.connect(h.addrs.Plain, fromClient+request("Authorization: Bearer "+h.token()+"\r\nX-Forwarded-For: 10.9.9.9\r\n")))
		if r, _ := h.model.seen(); r == nil || r.Header.Get("X-Forwarded-For") != "192.0.2.7" {
			t.Errorf("the upstream got %v", r)
		}
	})
	t.Run("anybody else is closed at accept", func(t *testing.T) {
		h := build(t, plan{listen: ", insecure_plain: {addr: '127.0.0.1:0', from: 10.0.0.1}", more: "trusted_proxies: 10.0.0.1"})
		c, err := net.Dial("tcp", h.addrs.Plain.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if all, err := io.ReadAll(c); len(all) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %q, %v", all, err)
		}
		h.untouched()
	})
}

// If a balancer ends TLS for all clients, no certificate is needed.
func TestHTTPSOff(t *testing.T) {
	cfg, err := proxy.ParseConfig("gateway.yaml", []byte(`
listen: {https: off, http: off, health: off, insecure_plain: {addr: '127.0.0.1:0', from: 127.0.0.1}}
trusted_proxies: 127.0.0.1
routes:
  - {host: models.test, callers: anonymous, respond: {status: 200, body: hello}}
`))
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, audit: &lines{}}
	h.start(cfg)
	c := h.connect(h.addrs.Plain, "GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\n\r\n")
	if all, _ := io.ReadAll(c); !strings.HasSuffix(string(all), "\r\n\r\nhello") {
		t.Errorf("got %s", all)
	}
}
