package upstream

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

func TestConfigFaults(t *testing.T) {
	rest := func(urls ...string) (l setting.List[setting.URL]) {
		for _, s := range urls {
			l = append(l, endpointURL(t, s))
		}
		return l
	}
	for name, c := range map[string]struct {
		config Config
		want   []string // parts of the faults in order
	}{
		"smallest":            {Config{Rest: rest("http://a:1")}, nil},
		"everything":          {Config{Serves: "ollama", Rest: rest("https://a:1", "http://b", "unix:///c"), CA: "ca.pem", ServerName: "a.example", Host: "b.example:80", MaxConnections: 1, MaxIdle: 1}, nil},
		"slash":               {Config{Rest: rest("http://a/")}, nil},
		"no endpoint":         {Config{}, []string{"u.rest: an upstream without endpoints"}},
		"empty URL":           {Config{Rest: setting.List[setting.URL]{{}}}, []string{"u.rest: an endpoint without a URL"}},
		"scheme":              {Config{Rest: rest("ftp://a")}, []string{`u.rest: "ftp://a": endpoints do not support the scheme ftp`}},
		"path":                {Config{Rest: rest("http://a/b")}, []string{"u.rest: \"http://a/b\": an endpoint with a path"}},
		"query":               {Config{Rest: rest("http://a?b")}, []string{"an endpoint with a query"}},
		"empty query":         {Config{Rest: rest("http://a?")}, []string{"an endpoint with a query"}},
		"second":              {Config{Rest: rest("http://a", "ftp://b")}, []string{"u.rest[1]: "}},
		"twice":               {Config{Rest: rest("http://a", "http://a")}, []string{"u.rest[1]: \"http://a\": is listed twice"}},
		"host":                {Config{Rest: rest("http://a"), Host: "a b"}, []string{`u.host: "a b": not a host`}},
		"server name":         {Config{Rest: rest("https://a"), ServerName: "a:1"}, []string{`u.server_name: "a:1": not a host name`}},
		"TLS without https":   {Config{Rest: rest("http://a"), CA: "x", ServerName: "y", InsecureSkipVerify: true}, []string{"u.ca: ", "u.server_name: ", "u.insecure_skip_verify: "}},
		"CA and verification": {Config{Rest: rest("https://a"), CA: "x", InsecureSkipVerify: true}, []string{"contradicts ca"}},
		"negative":            {Config{Rest: rest("http://a"), MaxConnections: -1, MaxIdle: -1}, []string{"u.max_connections", "u.max_idle"}},
		"trailers for nobody": {Config{Rest: rest("http://a"), GRPC: rest("h2c://a"), RequestTrailers: true}, []string{"u.request_trailers: "}},
		"several":             {Config{Host: "?", MaxIdle: -1}, []string{"u.rest", "u.host", "u.max_idle"}},
	} {
		t.Run(name, func(t *testing.T) {
			var f setting.Faults
			c.config.Check("u", &f)
			if len(f) != len(c.want) {
				t.Fatalf("faults are %v, want %d", f, len(c.want))
			}
			for i, want := range c.want {
				if got := f[i].Error(); !strings.Contains(got, want) || f[i].Cure == "" {
					t.Errorf("fault is %q, want %q and a cure", got, want)
				}
			}
		})
	}
}

func TestOpenRefusesBadConfigurations(t *testing.T) {
	dir := t.TempDir()
	_, ca := testCertificate(t)
	text, err := os.ReadFile(string(ca))
	if err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large.pem")
	if err := os.WriteFile(large, append(text, make([]byte, setting.MaxFile)...), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	https := setting.List[setting.URL]{endpointURL(t, "https://a")}
	for name, c := range map[string]Config{
		"faults":     {},
		"missing CA": {Rest: https, CA: setting.Path(filepath.Join(dir, "none.pem"))},
		"empty CA":   {Rest: https, CA: setting.Path(empty)},
		"large CA":   {Rest: https, CA: setting.Path(large)},
	} {
		if u, err := NewPools(Options{}).Open("u", c, false); err == nil || u != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestHostField(t *testing.T) {
	addr, heads := rawRecorder(t)
	port := addr[strings.LastIndexByte(addr, ':'):]
	for name, c := range map[string]struct {
		config    Config
		localhost bool
		want      string
	}{
		"default":                  {Config{}, false, addr},
		"upstream":                 {Config{Host: "upstream"}, false, addr},
		"client":                   {Config{Host: "client"}, false, "client.example"},
		"literal":                  {Config{Host: "app.internal:81"}, false, "app.internal:81"},
		"localhost":                {Config{}, true, "localhost" + port},
		"localhost, as configured": {Config{Host: "upstream"}, true, addr},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Rest = setting.List[setting.URL]{endpointURL(t, addr)}
			u, err := NewPools(Options{}).Open("test", c.config, c.localhost)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			r := get()
			r.Host = "client.example"
			if _, _, err := outcome(u, r); err != nil {
				t.Fatal(err)
			}
			if got := <-heads; !strings.Contains(got, "\r\nHost: "+c.want+"\r\n") || strings.Count(got, "Host:") != 1 {
				t.Errorf("head is %q, want Host %s", got, c.want)
			}
		})
	}
}

func TestDefaultTimeoutsBoundAllButTheTotal(t *testing.T) {
	if w := DefaultTimeouts(); w.Connect <= 0 || w.Head <= 0 || w.Idle <= 0 || w.Total != 0 {
		t.Errorf("timeouts are %+v", w)
	}
}

// Requests that must not reach the wire are refused as the caller's fault.
func TestUnsafeRequestsAreNotSent(t *testing.T) {
	for name, change := range map[string]func(*Request){
		"method":              func(r *Request) { r.Method = "GET /x HTTP/1.1\r\nA: b\r\n\r\nGET" },
		"empty method":        func(r *Request) { r.Method = "" },
		"CONNECT":             func(r *Request) { r.Method = "CONNECT" },
		"space in the target": func(r *Request) { r.Target = "/a b" },
		"CRLF in the target":  func(r *Request) { r.Target = "/a\r\nb" },
		"fragment":            func(r *Request) { r.Target = "/a#b" },
		"absolute target":     func(r *Request) { r.Target = "http://a/" },
		"authority":           func(r *Request) { r.Target = "//a/b" },
		"no target":           func(r *Request) { r.Target = "" },
		"CRLF in a value":     func(r *Request) { r.Fields = message.Fields{{Name: "a", Value: "b\r\nc: d"}} },
		"NUL in a value":      func(r *Request) { r.Fields = message.Fields{{Name: "a", Value: "b\x00"}} },
		"space before value":  func(r *Request) { r.Fields = message.Fields{{Name: "a", Value: " b"}} },
		"colon in a name":     func(r *Request) { r.Fields = message.Fields{{Name: "a:", Value: "b"}} },
		"upper-case name":     func(r *Request) { r.Fields = message.Fields{{Name: "Content-Length", Value: "5"}} },
		"empty name":          func(r *Request) { r.Fields = message.Fields{{Name: "", Value: "b"}} },
		"host":                func(r *Request) { r.Fields = message.Fields{{Name: "host", Value: "b"}} },
		"length":              func(r *Request) { r.Fields = message.Fields{{Name: "content-length", Value: "5"}} },
		"encoding":            func(r *Request) { r.Fields = message.Fields{{Name: "transfer-encoding", Value: "chunked"}} },
		"connection":          func(r *Request) { r.Fields = message.Fields{{Name: "connection", Value: "x"}} },
		"upgrade":             func(r *Request) { r.Fields = message.Fields{{Name: "upgrade", Value: "h2c"}} },
		"expect":              func(r *Request) { r.Fields = message.Fields{{Name: "expect", Value: "100-continue"}} },
		"Host with a space":   func(r *Request) { r.Host = "a b" },
		"Host with CRLF":      func(r *Request) { r.Host = "a\r\nb" },
		"no Host":             func(r *Request) { r.Host = "" },
		"protocol":            func(r *Request) { r.Upgrade = "a\r\nb" },
		"length without body": func(r *Request) { r.Length = 5 },
		"negative length":     func(r *Request) { r.Length, r.Body = -2, plainBody{strings.NewReader("")} },
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan []byte, 1)
			addr := rawServer(t, func(c net.Conn) {
				b, _ := io.ReadAll(c)
				seen <- b
			})
			u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, addr)}, Host: "client"}, Options{})
			r := get()
			change(r)
			_, _, err := outcome(u, r)
			if fault := (*Error)(nil); err == nil || errors.As(err, &fault) {
				t.Errorf("error is %v, want one that does not blame the upstream", err)
			}
			if statusOf(u)[0].Dials == 0 {
				return
			}
			if n := statusOf(u)[0].Idle; n != 1 {
				t.Errorf("%d connections are kept; want the one on which nothing was sent", n)
			}
			u.Close()
			if b := <-seen; len(b) > 0 {
				t.Errorf("the server saw %q", b)
			}
		})
	}
}
