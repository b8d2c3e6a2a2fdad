package doctor

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/proxy"
)

// directory serves an ACME directory with some metadata. It returns its URL.
func directory(t *testing.T, w *world, meta string) string {
	t.Helper()
	var url string
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meta == "" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"newNonce":"%[1]s/nonce","newAccount":"%[1]s/account","newOrder":"%[1]s/order","meta":%[2]s}`, url, meta)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	url = s.URL
	w.file(t, "acme.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return url
}

func TestAuthorities(t *testing.T) {
	var b strings.Builder
	for _, c := range []struct{ name, meta, ca, more string }{
		{"good", `{"termsOfService":"https://acme.example/terms"}`, "acme.pem", ""},
		{"wants a binding", `{"externalAccountRequired":true}`, "acme.pem", ""},
		{"without the profile", `{"profiles":{"classic":"x"}}`, "acme.pem", ", profile: shortlived"},
		{"no directory", "", "acme.pem", ""},
		{"not trusted", `{}`, "", ""},
	} {
		w := newWorld(t)
		url := directory(t, w, c.meta)
		ca := ""
		if c.ca != "" {
			ca = ", ca: " + c.ca
		}
		config := strings.Replace(start, "http: off", "http: \"127.0.0.1:0\"", 1)
		config = strings.Replace(config, "{local: {}}", "{acme: {directory: \""+url+"\", storage: acme"+ca+c.more+"}}", 1) +
			"routes:\n" + route("models.example.com", "http://127.0.0.1:1", "callers: anonymous")
		fmt.Fprintf(&b, "== %s\n", c.name)
		for line := range strings.SplitAfterSeq(w.examine(t, config, "", ""), "\n") {
			if !strings.Contains(line, "upstream") && !strings.Contains(line, "exposed") && !strings.Contains(line, "container") {
				b.WriteString(line)
			}
		}
	}
	golden(t, "authorities.txt", b.String())
}

// TestPorts checks what is said about the ports at which authorities connect while a gateway runs.
func TestPorts(t *testing.T) {
	w := newWorld(t)
	w.names["models.example.com"] = "192.0.2.10 203.0.113.7"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &patient{Options: w.options(""), status: &proxy.StatusReport{}}
	w.opens["192.0.2.10:443"] = l.Addr().String()
	found := p.port(t.Context(), "models.example.com", "443")
	w.opens["203.0.113.7:443"] = l.Addr().String()
	golden(t, "ports.txt", w.text(append(found, p.port(t.Context(), "models.example.com", "443")...)))
}
