package fetch

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// secured starts an issuer over TLS that records the Authorization fields it gets.
func secured(t *testing.T) (s *httptest.Server, got func() []string) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, r.Header.Get("Authorization"))
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/keys", http.StatusFound)
		case r.Header.Get("Authorization") == "" && r.URL.Path == "/private":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprint(w, `{"issuer":"a"}`)
		}
	}))
	t.Cleanup(s.Close)
	return s, func() []string {
		mu.Lock()
		defer mu.Unlock()
		taken := all
		all = nil
		return taken
	}
}

func rootsOf(servers ...*httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, s := range servers {
		pool.AddCert(s.Certificate())
	}
	return pool
}

func parsed(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestTokenGoesToItsOriginOnly checks what each server sees of the token, which is read again for
// each fetch. No error repeats it.
func TestTokenGoesToItsOriginOnly(t *testing.T) {
	own, seen := secured(t)
	other, otherSeen := secured(t) // another port, so another origin
	plainly := make(chan string, 1)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plainly <- r.Header.Get("Authorization")
		fmt.Fprint(w, `{"issuer":"a"}`)
	}))
	t.Cleanup(plain.Close)
	token, failure := "secret-one", error(nil)
	c := New(Options{
		Roots: rootsOf(own, other), Origins: []*url.URL{parsed(t, own.URL), parsed(t, plain.URL)},
		Token: func() ([]byte, error) { return []byte(token), failure },
	})
	get := func(address string) error {
		var d doc
		err := c.JSON(context.Background(), address, &d)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the token: %v", err)
		}
		return err
	}
	if err := get(own.URL + "/private"); err != nil {
		t.Error(err)
	}
	token = "secret-two"
	if err := get(strings.ToUpper(own.URL[:8]) + own.URL[8:] + "/private"); err != nil {
		t.Error(err)
	}
	if got := seen(); fmt.Sprint(got) != "[Bearer secret-one Bearer secret-two]" {
		t.Errorf("the issuer saw %q", got)
	}
	err := get(other.URL + "/private")
	var e *Error
	if !errors.As(err, &e) || e.Status != 401 || !strings.Contains(err.Error(), "write its URL as jwks") {
		t.Errorf("got %v", err)
	}
	if got := otherSeen(); fmt.Sprint(got) != "[]" && fmt.Sprint(got) != `[]` && got[0] != "" {
		t.Errorf("another origin saw %q", got)
	}
	if err := get(plain.URL); err != nil {
		t.Error(err)
	}
	if got := <-plainly; got != "" {
		t.Errorf("plain http carried %q", got)
	}
	if err := get(own.URL + "/moved"); kind(t, err) != BadStatus {
		t.Errorf("redirect: got %v", err)
	}
	if got := seen(); len(got) != 1 {
		t.Errorf("%d requests after a redirect, want one", len(got))
	}
	for _, bad := range []string{"secret\r\nX: y", "secret one", "secret\x00"} {
		token = bad
		if err := get(own.URL); kind(t, err) != NoToken {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	token, failure = "", errors.New("file token is empty")
	if err := get(own.URL); kind(t, err) != NoToken {
		t.Errorf("no token: got %v", err)
	}
	if got := seen(); len(got) != 0 {
		t.Errorf("the issuer saw %q without a token that can be sent", got)
	}
}

// connectProxy is a proxy that demands credentials; "" demands none. It returns what it was asked.
func connectProxy(t *testing.T, credentials string) (address *url.URL, asked func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				br := bufio.NewReader(c)
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				mu.Lock()
				all = append(all, r.Method+" "+r.RequestURI+" "+r.Header.Get("Authorization"))
				mu.Unlock()
				if user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); credentials != "" && user+":"+password != credentials {
					_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
					return
				}
				up, err := net.Dial("tcp", r.RequestURI)
				if err != nil {
					_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
					return
				}
				defer up.Close()
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				work.Go(func() { _, _ = io.Copy(up, br); _ = up.(*net.TCPConn).CloseWrite() })
				_, _ = io.Copy(c, up)
			})
		}
	})
	t.Cleanup(func() { l.Close(); work.Wait() })
	return parsed(t, "http://"+l.Addr().String()), func() []string {
		mu.Lock()
		defer mu.Unlock()
		taken := all
		all = nil
		return taken
	}
}

// TestProxyCarriesTLSOnly checks that fetches go through the proxy, which sees neither documents
// nor the token, and that nothing goes around it.
func TestProxyCarriesTLSOnly(t *testing.T) {
	s, seen := secured(t)
	at := strings.TrimPrefix(s.URL, "https://")
	proxy, asked := connectProxy(t, "egress:secret:1")
	fetch := func(o Options, address string) error {
		var d doc
		o.Roots = rootsOf(s)
		err := New(o).JSON(context.Background(), address, &d)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
		return err
	}
	o := Options{Proxy: proxy, ProxyUser: url.UserPassword("egress", "secret:1"), Token: func() ([]byte, error) { return []byte("t"), nil }, Origins: []*url.URL{parsed(t, s.URL)}}
	if err := fetch(o, s.URL); err != nil {
		t.Error(err)
	}
	if got := asked(); fmt.Sprint(got) != "[CONNECT "+at+" ]" {
		t.Errorf("the proxy was asked %q", got)
	}
	if got := seen(); fmt.Sprint(got) != "[Bearer t]" {
		t.Errorf("the issuer saw %q", got)
	}
	for name, x := range map[string]struct {
		user    *url.Userinfo
		address string
		kind    Kind
		text    string
		asked   int
	}{
		"no credentials":    {nil, s.URL, ProxyRefused, "refused by the proxy 407", 1},
		"wrong password":    {url.UserPassword("egress", "secret"), s.URL, ProxyRefused, "407", 1},
		"plain http":        {o.ProxyUser, "http://" + at, BadURL, "http through a proxy", 0},
		"a metadata server": {o.ProxyUser, "https://169.254.169.254/", BadURL, "never dialed", 0},
		"nobody there":      {o.ProxyUser, "https://127.0.0.1:1/", ProxyRefused, "502", 1},
	} {
		o := o
		o.ProxyUser = x.user
		if err := fetch(o, x.address); kind(t, err) != x.kind || !strings.Contains(err.Error(), x.text) {
			t.Errorf("%s: got %v", name, err)
		}
		if got := asked(); len(got) != x.asked {
			t.Errorf("%s: the proxy was asked %q", name, got)
		}
	}
	o.Proxy = parsed(t, "http://127.0.0.1:1")
	if err := fetch(o, s.URL); kind(t, err) != Unreachable {
		t.Errorf("no proxy: got %v", err)
	}
	if got := seen(); len(got) != 0 {
		t.Errorf("the issuer saw %q without the proxy", got)
	}
}
