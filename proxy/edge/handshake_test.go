package edge

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/ratelog"
	"sallyport/proxy/setting"
)

// failuresBecome waits until e has counted exactly these failed handshakes.
func failuresBecome(t *testing.T, e *Edge, want map[string]uint64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		got := e.FailedHandshakes()
		same := true
		for _, reason := range failureReasons() {
			same = same && got[string(reason)] == want[string(reason)]
		}
		if same {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("failed handshakes: got %v, want %v", e.FailedHandshakes(), want)
}

func TestFailedHandshakesAreCountedByReason(t *testing.T) {
	ca, dir := newTestCA(t), t.TempDir()
	tlsOf := func(c *tls.Config) func(string) {
		return func(addr string) {
			if _, err := connect(addr, c); err == nil {
				t.Error("the handshake succeeded")
			}
		}
	}
	for _, c := range []struct {
		reason string
		client func(addr string)
		warned string // "" if nothing is logged
	}{
		{"no_route", tlsOf(&tls.Config{ServerName: "b.example.com"}), `no route for \"b.example.com\"`},
		{"version", tlsOf(&tls.Config{ServerName: "a.example.com", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}), "the client offers at most TLS 1.1"},
		{"untrusted", tlsOf(&tls.Config{ServerName: "a.example.com"}), `a client does not accept the certificate of \"a.example.com\"`},
		{"untrusted", tlsOf(&tls.Config{ServerName: "a.example.com", MaxVersion: tls.VersionTLS12}), `a client does not accept the certificate of \"a.example.com\"`},
		{"untrusted", func(addr string) { distrust(t, addr, 45, &tls.Config{ServerName: "a.example.com"}) }, `: expired certificate; renew it if sallyport status shows that it has ended; else the clock of the client is wrong`},
		{"untrusted", func(addr string) { distrust(t, addr, 48, &tls.Config{ServerName: "a.example.com"}) }, `a client does not accept the certificate of \"a.example.com\": unknown certificate authority`},
		{"client_gone", func(addr string) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}, ""},
		{"timeout", func(addr string) { closed(t, dial(t, addr)) }, ""},
		{"protocol", func(addr string) {
			c := dial(t, addr)
			io.WriteString(c, "SSH-2.0-OpenSSH_9.2p1\r\n")
			closed(t, c)
		}, ""},
		{"plain_http", func(addr string) {
			c := dial(t, addr)
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
			closed(t, c)
		}, "a client speaks HTTP without TLS"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			var j journal
			e := newEdge(t, Config{MinVersion: "1.2", Files: setting.List[FileConfig]{ca.write(t, dir, "a", forHosts("a.example.com"))}},
				Options{Hosts: []string{"a.example.com"}, Log: j.log()})
			limit := time.Minute
			if c.reason == "timeout" {
				limit = time.Second
			}
			addr := listen(t, e, Limits{HandshakeTime: limit})
			c.client(addr)
			failuresBecome(t, e, map[string]uint64{c.reason: 1})
			if got := j.String(); c.warned == "" && got != "" || !strings.Contains(got, c.warned) {
				t.Errorf("logged %q, want %q", got, c.warned)
			}
			if _, err := connect(addr, &tls.Config{ServerName: "a.example.com", RootCAs: ca.pool}); err != nil {
				t.Errorf("an honest client: %v", err)
			}
			failuresBecome(t, e, map[string]uint64{c.reason: 1})
		})
	}
}

// distrust begins a handshake of TLS 1.3 and then rejects the certificate as OpenSSL does: its alert is
// not encrypted.
func distrust(t *testing.T, addr string, alert byte, c *tls.Config) {
	t.Helper()
	raw := dial(t, addr)
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(tls.ConnectionState) error {
		_, _ = raw.Write([]byte{21, 3, 3, 0, 2, 2, alert})
		closed(t, raw)
		return errors.New("the certificate is rejected")
	}
	if tls.Client(raw, c).Handshake() == nil {
		t.Error("the handshake succeeded")
	}
}

func TestLogNamesTheRootThatADistrustingClientNeeds(t *testing.T) {
	var j journal
	e := newEdge(t, Config{Local: &LocalConfig{Dir: setting.Place(t.TempDir() + "/ca")}}, Options{Hosts: []string{"localhost"}, Log: j.log()})
	if _, err := connect(listen(t, e, Limits{}), &tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool()}); err == nil {
		t.Fatal("the handshake succeeded")
	}
	failuresBecome(t, e, map[string]uint64{"untrusted": 1})
	if got := j.String(); !strings.Contains(got, e.RootPath()) {
		t.Errorf("the log does not name %s: %s", e.RootPath(), got)
	}
}

// The client gets the whole answer although the gateway does not read its body.
func TestPlainHTTPToATLSPortIsAnswered(t *testing.T) {
	e, _ := anyEdge(t)
	addr := listen(t, e, Limits{})
	c := dial(t, addr)
	if _, err := io.WriteString(c, "POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100000)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := "HTTP/1.1 400 Bad Request\r\n"; err != nil || !strings.HasPrefix(string(got), want) || !strings.HasSuffix(string(got), "\r\n\r\n"+plainWords) {
		t.Errorf("got %q, %v, want %q and the reason", got, err, want)
	}
}

func TestHTTP2WithoutTLSToATLSPortGetsGoAwayWithTheReason(t *testing.T) {
	e, _ := anyEdge(t)
	c := dial(t, listen(t, e, Limits{}))
	io.WriteString(c, http2.ClientPreface)
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(io.Discard, bytes.NewReader(got))
	if _, err := f.ReadFrame(); err != nil {
		t.Fatalf("the first frame: %v", err)
	}
	frame, err := f.ReadFrame()
	away, ok := frame.(*http2.GoAwayFrame)
	if err != nil || !ok || away.ErrCode != http2.ErrCodeInadequateSecurity || string(away.DebugData()) != plainWords {
		t.Errorf("got %v, %v", frame, err)
	}
	if _, err := f.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("after GOAWAY: %v", err)
	}
}

// The clients read nothing and never close. An honest client must still complete its handshake.
func TestPlainHTTPClientsBlockNoHandshakes(t *testing.T) {
	e, client := anyEdge(t)
	addr := listen(t, e, Limits{Handshakes: 8, HandshakeTime: time.Minute})
	for range 32 {
		io.WriteString(dial(t, addr), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	if _, err := connect(addr, client); err != nil {
		t.Errorf("after 32 clients of plain HTTP: %v", err)
	}
}

func TestFailuresOfOneKindHideNoOthers(t *testing.T) {
	var j journal
	e := newEdge(t, Config{Local: &LocalConfig{Dir: setting.Place(t.TempDir() + "/ca")}}, Options{Hosts: []string{"localhost"}, Log: j.log()})
	addr := listen(t, e, Limits{})
	for range ratelog.PerMinute + 5 {
		if _, err := connect(addr, &tls.Config{ServerName: "scanned.example"}); err == nil {
			t.Fatal("an unknown name was accepted")
		}
	}
	if _, err := connect(addr, &tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool()}); err == nil {
		t.Fatal("the handshake succeeded")
	}
	failuresBecome(t, e, map[string]uint64{"no_route": ratelog.PerMinute + 5, "untrusted": 1})
	if got := j.String(); !strings.Contains(got, "does not accept the certificate") {
		t.Errorf("a scanner hid another line:\n%s", got)
	}
}
