package upstream

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/proxy/setting"
)

// testCertificate returns httptest's certificate, for 127.0.0.1 and example.com, and a CA file
// for it.
func testCertificate(tb testing.TB) (tls.Certificate, setting.Path) {
	tb.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(tb.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	return srv.TLS.Certificates[0], setting.Path(ca)
}

// secureOrNot returns an upstream of a server with handle, with or without TLS.
func secureOrNot(tb testing.TB, secure bool, handle func(net.Conn)) *Upstream {
	tb.Helper()
	if !secure {
		return newUpstream(tb, rawServer(tb, handle))
	}
	cert, ca := testCertificate(tb)
	addr := rawServer(tb, func(c net.Conn) {
		t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer t.Close()
		handle(t)
	})
	return configured(tb, Config{Rest: setting.List[setting.URL]{endpointURL(tb, "https://"+addr)}, CA: setting.Path(ca)}, still)
}

func TestTLSVerification(t *testing.T) {
	var names = make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	srv.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		select {
		case names <- h.ServerName:
		default:
		}
		return nil, nil
	}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = quiet()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600)
	for name, c := range map[string]struct {
		config Config
		ok     bool
		sni    string
	}{
		"own CA":                {Config{CA: setting.Path(ca)}, true, ""},
		"own CA and name":       {Config{CA: setting.Path(ca), ServerName: "example.com"}, true, "example.com"},
		"wrong name":            {Config{CA: setting.Path(ca), ServerName: "other.example"}, false, "other.example"},
		"unknown CA":            {Config{}, false, ""},
		"verification off":      {Config{InsecureSkipVerify: true}, true, ""},
		"verification off, SNI": {Config{InsecureSkipVerify: true, ServerName: "other.example"}, true, "other.example"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Rest = setting.List[setting.URL]{endpointURL(t, srv.URL)}
			u := configured(t, c.config, still)
			for range 2 {
				_, body, err := outcome(u, get())
				if c.ok && (body != "HTTP/1.1" || err != nil) {
					t.Errorf("got %q, %v", body, err)
				}
				if fault := (*Error)(nil); !c.ok && (!errors.As(err, &fault) || fault.Kind != Refused) {
					t.Errorf("error is %v, want refused", err)
				}
			}
			if s := statusOf(u)[0]; c.ok && s.Reuses != 1 {
				t.Errorf("status is %+v, want one reuse", s)
			}
			if sni := <-names; sni != c.sni {
				t.Errorf("SNI is %q, want %q", sni, c.sni)
			}
		})
	}
}

// Content that ends with the connection is complete only after close_notify. Otherwise an
// attacker on the network could truncate it.
func TestTLSTruncationIsDetected(t *testing.T) {
	for name, goodbye := range map[string]bool{"with close_notify": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			u := secureOrNot(t, true, func(c net.Conn) {
				readRequestHead(bufio.NewReader(c))
				io.WriteString(c, ok200+"\r\nabc")
				if !goodbye {
					c.(*tls.Conn).NetConn().Close()
				}
			})
			_, body, err := outcome(u, get())
			if body != "abc" {
				t.Errorf("content is %q", body)
			}
			if goodbye && err != nil || !goodbye && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// TLS 1.3 servers send session tickets after the handshake. They must not make an idle
// connection unusable.
func TestSessionTicketsDoNotCloseIdleConnections(t *testing.T) {
	u := secureOrNot(t, true, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, err := readRequestHead(in); err != nil {
				return
			}
			io.WriteString(c, ok200+"Content-Length: 2\r\n\r\nok")
		}
	})
	for range 5 {
		if _, body, err := outcome(u, post("x")); body != "ok" || err != nil {
			t.Fatalf("got %q, %v", body, err)
		}
	}
	if s := statusOf(u)[0]; s.Dials != 1 || s.Reuses != 4 {
		t.Errorf("status is %+v, want one connection", s)
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })}}
	srv.Start()
	t.Cleanup(srv.Close)
	u := newUpstream(t, "unix://"+path)
	for range 3 {
		if _, body, err := outcome(u, get()); body != "localhost" || err != nil {
			t.Errorf("got %q, %v", body, err)
		}
	}
	if s := statusOf(u)[0]; s.Dials != 1 {
		t.Errorf("%d dials, want one", s.Dials)
	}
}

// Somebody wrote https:// for a server that speaks HTTP alone: the error says what to write.
func TestServerWithoutTLSIsNamed(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	for _, scheme := range []string{"https", "h2"} {
		u := newUpstream(t, scheme+strings.TrimPrefix(srv.URL, "http"))
		_, _, err := outcome(u, get())
		if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Refused || !strings.Contains(err.Error(), "the server speaks no TLS: write http://") {
			t.Errorf("%s: got %v", scheme, err)
		}
	}
}

// Somebody wrote http:// for a server that speaks TLS alone, and that says nothing before it closes.
func TestServerWithTLSIsGuessed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var answers atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			if answers.Load() {
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			}
			c.Close()
		}
	}()
	for scheme, want := range map[string]string{"http": "; if it speaks TLS, write https://", "h2c": "; if it speaks TLS, write h2://"} {
		_, _, err := outcome(newUpstream(t, scheme+"://"+l.Addr().String()), get())
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v", scheme, err)
		}
	}
	u := newUpstream(t, "http://"+l.Addr().String())
	answers.Store(true)
	if _, _, err := outcome(u, get()); err != nil {
		t.Fatal(err)
	}
	answers.Store(false)
	if _, _, err := outcome(u, get()); err == nil || strings.Contains(err.Error(), "TLS") {
		t.Errorf("a server that has answered before: got %v", err)
	}
}

// A server that cannot be trusted is refused with the setting that says whom to trust.
func TestUntrustedServerNamesTheSetting(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = quiet()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600)
	for want, c := range map[string]Config{
		"; ca: of the upstream names the authority to trust":   {},
		"; server_name: of the upstream is the name to expect": {CA: setting.Path(ca), ServerName: "other.example"},
	} {
		c.Rest = setting.List[setting.URL]{endpointURL(t, srv.URL)}
		if _, _, err := outcome(configured(t, c, still), get()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
