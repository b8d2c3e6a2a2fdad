package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type doc struct {
	Issuer string `json:"issuer"`
}

// kind is that of an error, "" for none.
func kind(t *testing.T, err error) Kind {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %T, want *Error: %v", err, err)
	}
	return e.Kind
}

func TestAnswers(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write([]byte(`{"issuer":"a"}`))
	z.Close()
	release := make(chan struct{})
	defer close(release)
	cases := map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   Kind
	}{
		"good": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"issuer":"a","x":[1]}`) }, ""},
		"longest": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"issuer":"a"}`+strings.Repeat(" ", MaxBytes-14))
		}, ""},
		"too long": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"issuer":"a"}`+strings.Repeat(" ", MaxBytes-13))
		}, TooLarge},
		"endless":         {endless, TooLarge},
		"huge by header":  {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "1000000000") }, TooLarge},
		"redirect":        {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, BadStatus},
		"not found":       {http.NotFound, BadStatus},
		"no content":      {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, BadStatus},
		"partial":         {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(206); fmt.Fprint(w, `{"issuer":"a"}`) }, BadStatus},
		"empty":           {func(w http.ResponseWriter, r *http.Request) {}, Garbage},
		"HTML":            {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }, Garbage},
		"two values":      {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"issuer":"a"}{}`) }, Garbage},
		"a name twice":    {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"issuer":"a","issuer":"b"}`) }, Garbage},
		"name twice deep": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"issuer":"a","x":{"y":1,"y":2}}`) }, Garbage},
		"not UTF-8":       {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{\"issuer\":\"\xff\"}") }, Garbage},
		"wrong type":      {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"issuer":1}`) }, Garbage},
		"very deep":       {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"x":`+strings.Repeat("[", 1<<19)) }, Garbage},
		"compressed": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(zipped.Bytes())
		}, Garbage},
		"cut off": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"issuer":"a"}`)
		}, Unreachable},
		"hangs": {func(w http.ResponseWriter, r *http.Request) { <-release }, TimedOut},
		"stops short": {func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"iss`)
			w.(http.Flusher).Flush()
			<-release
		}, TimedOut},
		"huge head": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", maxHead)) }, Unreachable},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1); r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("Accept-Encoding %q", r.Header.Get("Accept-Encoding"))
				}
				c.answer(w, r)
			}))
			defer s.CloseClientConnections()
			timeout, fewest := time.Minute, int64(1)
			if c.want == TimedOut {
				timeout, fewest = 50*time.Millisecond, 0 // a busy machine may need longer to ask
			}
			var d doc
			err := New(Options{Timeout: timeout}).JSON(context.Background(), s.URL, &d)
			if got := kind(t, err); got != c.want {
				t.Errorf("got %q, want %q: %v", got, c.want, err)
			}
			if n := asked.Load(); n < fewest || n > 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for line := bytes.Repeat([]byte("[1,"), 1000); ; {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

func TestTrust(t *testing.T) {
	quiet := log.New(io.Discard, "", 0)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"issuer":"a"}`) }))
	s.Config.ErrorLog = quiet
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	old := httptest.NewUnstartedServer(s.Config.Handler)
	old.Config.ErrorLog = quiet
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.StartTLS()
	defer old.Close()
	port := s.Listener.Addr().(*net.TCPAddr).Port
	for name, c := range map[string]struct {
		address string
		roots   *x509.CertPool
		want    Kind
	}{
		"own root":         {s.URL, roots, ""},
		"system's roots":   {s.URL, nil, Untrusted},
		"no roots":         {s.URL, x509.NewCertPool(), Untrusted},
		"another name":     {fmt.Sprintf("https://localhost:%d", port), roots, Untrusted},
		"TLS 1.1":          {old.URL, roots, Untrusted},
		"http to a secure": {strings.Replace(s.URL, "https", "http", 1), roots, BadStatus},
	} {
		t.Run(name, func(t *testing.T) {
			var d doc
			if err := New(Options{Roots: c.roots}).JSON(context.Background(), c.address, &d); kind(t, err) != c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestHTTPKeepsTheKindOfAnError checks that a library with our client gets all bounds, and
// that every failure is an error of Do.
func TestHTTPKeepsTheKindOfAnError(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			w.Write(bytes.Repeat([]byte(" "), MaxBytes+1))
		case "/cut":
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("{}"))
		case "/hang":
			<-r.Context().Done()
		case "/good":
			w.Write([]byte("{}"))
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	quick, patient := New(Options{Timeout: 100 * time.Millisecond}), New(Options{Timeout: time.Minute})
	for path, want := range map[string]Kind{
		s.URL + "/large": TooLarge, s.URL + "/cut": Unreachable, s.URL + "/hang": TimedOut, s.URL + "/none": BadStatus,
		s.URL + "/moved": BadStatus, "http://192.0.2.1/": BadURL, s.URL + "/good": "",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := patient
		if want == TimedOut {
			c = quick
		}
		answer, err := c.HTTP().Do(r)
		if want == "" {
			if err != nil || answer.Body == nil {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		var got *Error
		if !errors.As(err, &got) || got.Kind != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

func transportOf(c *Client) *transport { return c.http.Transport.(*transport) }

// TestNoProxyFromTheEnvironment: the environment must not redirect fetches to a proxy that
// could read or forge them.
func TestNoProxyFromTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	c := New(Options{})
	for _, h := range []*http.Transport{transportOf(c).secure, transportOf(c).plain} {
		if h.Proxy != nil {
			t.Error("the transport has a proxy")
		}
	}
}

func TestRefused(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	for address, want := range map[string]Kind{
		s.URL:                               Unreachable,
		"http://192.0.2.1/":                 BadURL,
		"http://issuer.example/":            BadURL,
		"ftp://issuer.example/":             BadURL,
		"file:///etc/passwd":                BadURL,
		"https://user:secret@127.0.0.1/":    BadURL,
		"https:///x":                        BadURL,
		"":                                  BadURL,
		"https://169.254.169.254/latest":    BadURL,
		"http://169.254.169.254/latest":     BadURL,
		"https://[fe80::1]/":                BadURL,
		"https://[::ffff:169.254.169.254]/": BadURL,
		"https://[64:ff9b::a9fe:a9fe]/":     BadURL,
		"https://100.100.100.200/":          BadURL,
		"https://[fd00:ec2::254]/":          BadURL,
		"https://0.0.0.0/":                  BadURL,
		"https://[::]/":                     BadURL,
		"https://224.0.0.1/":                BadURL,
		"https://255.255.255.255/":          BadURL,
	} {
		t.Run(address, func(t *testing.T) {
			var d doc
			got := kind(t, New(Options{Timeout: time.Minute}).JSON(t.Context(), address, &d))
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestAddressesAreCheckedWhenDialed checks that the resolved address decides and not the
// name.
func TestAddressesAreCheckedWhenDialed(t *testing.T) {
	dial := func(h *http.Transport, address string) error {
		conn, err := h.DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	c := New(Options{InsecureHTTP: true})
	for _, h := range []*http.Transport{transportOf(c).secure, transportOf(c).plain} {
		for _, address := range []string{"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[fe80::1%lo]:80", "100.100.100.200:443", "0.0.0.0:80"} {
			if err := wrap(dial(h, address)); err.Kind != AddressRefused {
				t.Errorf("%s: got %v, want address refused", address, err)
			}
		}
	}
	if err := wrap(dial(transportOf(New(Options{})).plain, "192.0.2.1:80")); err.Kind != AddressRefused {
		t.Errorf("http to another machine: got %v, want address refused", err)
	}
}

func TestAllowed(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.0.0.1": true, "172.16.0.1": true, "192.168.1.1": true, "fd12::1": true,
		"100.64.0.1": true, "8.8.8.8": true, "2001:db8::1": true, "64:ff9b::808:808": true, "2002:0808:0808::1": true,
		"169.254.0.1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false,
		"224.0.0.1": false, "ff02::1": false, "240.0.0.1": false, "255.255.255.255": false, "168.63.129.16": false,
		"100.100.100.200": false, "192.0.0.192": false, "fd00:ec2::254": false, "fd20:ce::254": false,
		"64:ff9b::a9fe:a9fe": false, "2002:a9fe:a9fe::": false, "::ffff:0:169.254.169.254": false, "::a9fe:a9fe": false,
	} {
		if got := allowed(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for address, want := range map[string]struct{ plain, insecure bool }{
		"https://login.example.com/realms/ml": {true, true},
		"http://127.0.0.1:8080":               {true, true},
		"http://[::1]:8080":                   {true, true},
		"http://localhost:8080":               {true, true},
		"http://idp.localhost":                {true, true},
		"http://keycloak:8080":                {false, true},
		"http://localhost.evil.example":       {false, true},
		"http://127.0.0.1.evil.example":       {false, true},
		"http://10.0.0.1":                     {false, true},
		"ws://127.0.0.1":                      {false, false},
		"https://169.254.169.254":             {false, false},
		"mailto:a@b":                          {false, false},
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := CheckURL(u, false) == nil; got != want.plain {
			t.Errorf("%s: got %v, want %v", address, got, want.plain)
		}
		if got := CheckURL(u, true) == nil; got != want.insecure {
			t.Errorf("%s, insecure: got %v, want %v", address, got, want.insecure)
		}
	}
}

func TestRoots(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, filepath.Join(dir, "absent.pem")} {
		if pool, err := Roots(file); err == nil || pool != nil {
			t.Errorf("%s: got a pool, want an error", file)
		}
	}
}

func ExampleClient_JSON() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"issuer": "https://login.example.com"}`)
	}))
	defer s.Close()
	var d struct {
		Issuer string `json:"issuer"`
	}
	fmt.Println(New(Options{}).JSON(context.Background(), s.URL, &d), d.Issuer)
	fmt.Println(New(Options{}).JSON(context.Background(), "http://169.254.169.254/latest", &d))
	// Output:
	// <nil> https://login.example.com
	// bad url: an address that is never dialed: link-local, or a cloud's metadata service
}
