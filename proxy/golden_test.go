package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// golden is an exchange with a real server, recorded by the end-to-end tests of examples/. It holds
// the client's request without its token, the forwarded request, and the server's answer.
type golden struct {
	client, request, response []byte
}

// readGolden reads a file in the format of examples/story/golden.go.
func readGolden(t *testing.T, name string) golden {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := bytes.Cut(b, []byte("\n\n"))
	var g golden
	var sizes [3]int
	if _, err := fmt.Sscanf(string(head), "client: %d\nrequest: %d\nresponse: %d", &sizes[0], &sizes[1], &sizes[2]); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for i, block := range []*[]byte{&g.client, &g.request, &g.response} {
		if len(rest) < sizes[i]+1 || rest[sizes[i]] != '\n' {
			t.Fatalf("%s: block %d is not %d bytes long", name, i, sizes[i])
		}
		*block, rest = rest[:sizes[i]], rest[sizes[i]+1:]
	}
	return g
}

// replayed are the parts of requests that differ from run to run.
var replayed = map[string]*regexp.Regexp{
	"${1}80\r": regexp.MustCompile(`(?im)^(host: 127\.0\.0\.1:)[0-9]+\r$`),
	"${1}ID\r": regexp.MustCompile(`(?im)^(x-sallyport-request-id: ).*\r$`),
}

// replay plays the server of golden exchanges: it reads one request at a time, passes on its bytes
// and sends the recorded answer.
type replay struct {
	net.Listener
	response chan []byte // to answer the next request
	got      chan []byte // the request's bytes
}

func newReplay(t *testing.T) *replay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replay{Listener: l, response: make(chan []byte, 1), got: make(chan []byte, 1)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() }) // the gateway has ended by then and closed its connections
	return r
}

// serve answers the requests of a connection until the gateway closes it. If the server closed it,
// an arriving POST could be lost, which nobody retries.
func (r *replay) serve(c net.Conn) {
	defer c.Close()
	var raw bytes.Buffer
	in := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		req, err := http.ReadRequest(in)
		if err == io.EOF {
			return
		}
		if err == nil {
			_, err = io.Copy(io.Discard, req.Body)
		}
		if err != nil {
			r.got <- []byte("no request: " + err.Error())
			return
		}
		r.got <- bytes.Clone(raw.Bytes())
		raw.Reset()
		if _, err := c.Write(<-r.response); err != nil {
			return
		}
	}
}

// story runs the gateway.yaml of a story. A test issuer replaces the provider, and the replay
// replaces the server.
func story(t *testing.T, dir string, server *replay) (h *house, token string) {
	t.Helper()
	h = &house{t: t, audit: &lines{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if h.issuer, err = authtest.NewIssuer(authtest.IssuerConfig{URL: url, Audience: "models"}); err != nil {
		t.Fatal(err)
	}
	issuer := &httptest.Server{Listener: l, Config: &http.Server{Handler: h.issuer}}
	issuer.Start()
	t.Cleanup(issuer.Close)
	b, err := os.ReadFile(filepath.Join(dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(
		"127.0.0.1:8443", "127.0.0.1:0", "127.0.0.1:8080", "127.0.0.1:0", "127.0.0.1:9902", "127.0.0.1:0",
		"127.0.0.1:5000", server.Addr().String(), "127.0.0.1:8501", server.Addr().String(),
		"https://localhost:9000", url, ", ca: ../openid-provider/provider.crt", "",
	).Replace(string(b))
	name := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(name)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	h.run(cfg)
	if token, err = h.issuer.Sign(h.issuer.Claims("batch", scopesOf(dir)...)); err != nil {
		t.Fatal(err)
	}
	return h, token
}

// scopesOf returns the scopes with which the story's golden exchanges were recorded.
func scopesOf(dir string) []string {
	if filepath.Base(dir) == "flask" {
		return []string{"models.predict", "models.read"}
	}
	return []string{"models.predict"}
}

// refusedGolden are the exchanges in which the gateway refuses what the server would be asked, with the
// reasons. Its servers answer them with an error of their own.
var refusedGolden = map[string]string{
	"tensorflow/predict-long-version": "bad_model_name",
	"tensorflow/status-of-none":       "unknown_call",
	"tensorflow/verb-in-capitals":     "unknown_call",
}

// TestGolden replays the answers of real servers. The gateway must forward the recorded requests
// and return the recorded answers.
func TestGolden(t *testing.T) {
	for _, dir := range []string{"../examples/flask", "../examples/tensorflow"} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(dir, "testdata", "golden", "*.http"))
			if err != nil || len(files) == 0 {
				t.Fatalf("no golden exchanges: %v", err)
			}
			server := newReplay(t)
			h, token := story(t, dir, server)
			for _, file := range files {
				t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
					g := readGolden(t, file)
					server.response <- g.response
					status, head, body := h.ask(t, g.client, token)
					select {
					case got := <-server.got:
						checkRequest(t, got, g.request)
					default:
						<-server.response // the next exchange has its own
						name := filepath.Base(dir) + "/" + strings.TrimSuffix(filepath.Base(file), ".http")
						if reason := refusedGolden[name]; reason != "" && strings.Contains(string(body), `"reason":"`+reason+`"`) {
							return
						}
						t.Fatalf("the server was asked nothing; the client was told %d %s", status, body)
					}
					checkAnswer(t, g, status, head, body)
				})
			}
		})
	}
}

// ask sends the client's bytes with a token and reads the answer.
func (h *house) ask(t *testing.T, client []byte, token string) (status int, head http.Header, body []byte) {
	t.Helper()
	c := h.dial("localhost", "http/1.1")
	defer c.Close()
	if _, err := c.Write(bytes.Replace(client, []byte("\r\n"), []byte("\r\nAuthorization: Bearer "+token+"\r\n"), 1)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: methodOf(client)})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, body
}

func methodOf(request []byte) string {
	method, _, _ := bytes.Cut(request, []byte(" "))
	return string(method)
}

func checkRequest(t *testing.T, got, want []byte) {
	t.Helper()
	for instead, pattern := range replayed {
		got = pattern.ReplaceAll(got, []byte(instead))
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the server was sent\n%q\nwant\n%q", got, want)
	}
}

func checkAnswer(t *testing.T, g golden, status int, head http.Header, body []byte) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(g.response)), &http.Request{Method: methodOf(g.client)})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	want, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if status != res.StatusCode || !bytes.Equal(body, want) {
		t.Errorf("the client was told %d %q; the server said %d %q", status, body, res.StatusCode, want)
	}
	for _, name := range []string{"Content-Type", "Allow", "Location"} {
		if got, want := head.Get(name), res.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q as the server said", name, got, want)
		}
	}
	if head.Get("Server") != "" {
		t.Errorf("the client was told what the server is: %s", head.Get("Server"))
	}
	if head.Get("X-Request-Id") == "" || head.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the answer lacks fields of the gateway: %v", head)
	}
}
