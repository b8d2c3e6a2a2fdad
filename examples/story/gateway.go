package story

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Gateway is a running `sallyport serve`.
type Gateway struct {
	Address string // host:port of its HTTPS listener
	Plain   string // host:port of its HTTP listener, if the config has one
	Health  string // host:port
	CA      string // file with the root of its development authority
	Process *Process
	config  string // file
}

// The addresses in the stories' gateway.yaml, which a test replaces by free ones.
const (
	writtenHTTPS  = "127.0.0.1:8443"
	writtenHTTP   = "127.0.0.1:8080"
	writtenHealth = "127.0.0.1:9902"
)

// StartGateway starts the binary with the gateway.yaml of the story, changed only
// in its addresses: those of the gateway, and the pairs of old and new text in
// replace, each of which must occur.
func StartGateway(t testing.TB, replace ...string) *Gateway {
	t.Helper()
	b, err := os.ReadFile("gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := &Gateway{Address: FreeAddress(t), Plain: FreeAddress(t), Health: FreeAddress(t), CA: filepath.Join(dir, "ca", "root.pem")}
	for i := 0; i < len(replace); i += 2 {
		if !bytes.Contains(b, []byte(replace[i])) {
			t.Fatalf("gateway.yaml has no %q any more", replace[i])
		}
	}
	all := append([]string{writtenHTTPS, g.Address, writtenHTTP, g.Plain, writtenHealth, g.Health}, replace...)
	g.config = filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(g.config, []byte(strings.NewReplacer(all...).Replace(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Process = Start(t, "sallyport", exec.Command(os.Getenv("SALLYPORT"), "serve", "-c", g.config))
	g.Process.Listens(t, g.Address)
	g.Process.Listens(t, g.Health)
	return g
}

// URL is the address of a path, by the name that the certificate has.
func (g *Gateway) URL(path string) string {
	_, port, _ := net.SplitHostPort(g.Address)
	return "https://localhost:" + port + path
}

// Curl runs curl on a path of the gateway; see [Curl].
func (g *Gateway) Curl(t testing.TB, path string, args ...string) Answer {
	t.Helper()
	return Curl(t, g.CA, append(args, g.URL(path))...)
}

// Raw sends the bytes of one HTTP/1.1 request over TLS and returns the answer
// with its content.
func (g *Gateway) Raw(t testing.TB, request []byte) (*http.Response, []byte) {
	t.Helper()
	pem, err := os.ReadFile(g.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c, err := tls.Dial("tcp", g.Address, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(string(request[:min(len(request), 20)]), " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

// Reload replaces text in the gateway's configuration, and makes the gateway read it.
func (g *Gateway) Reload(t testing.TB, old, new string) {
	t.Helper()
	text, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("gateway.yaml has no %q any more", old)
	}
	const said = `"msg":"configuration reloaded"`
	before := strings.Count(g.Process.Output(), said)
	if err := os.WriteFile(g.config, bytes.Replace(text, []byte(old), []byte(new), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	g.Process.Signal(syscall.SIGHUP)
	g.Process.until(t, "read its configuration again", func() bool { return strings.Count(g.Process.Output(), said) > before })
}

// Record is a line of the audit log.
type Record struct {
	ID, Route, Principal, Reason, Method, Path string
	Status                                     int
}

// Record waits for the audit record of a request id.
func (g *Gateway) Record(t testing.TB, id string) Record {
	t.Helper()
	var r Record
	g.Process.until(t, "record request "+id, func() bool {
		for line := range strings.Lines(g.Process.Output()) {
			if strings.Contains(line, `"id":"`+id+`"`) {
				return json.Unmarshal([]byte(line), &r) == nil
			}
		}
		return false
	})
	return r
}
