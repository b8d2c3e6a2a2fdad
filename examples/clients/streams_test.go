package clients

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
	"sallyport/examples/story"
)

// sign runs bash/sign.sh and returns the file with the headers for curl.
func (h *house) sign(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("bash", append([]string{"bash/sign.sh", "bash-2026-11", h.key("bash")}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sign.sh: %v", err)
	}
	file := filepath.Join(t.TempDir(), "headers")
	write(t, file, string(out))
	return file
}

// bash sees that sign.sh reproduces the RFC's vector, and that curl gets through
// with what it prints.
func (h *house) bash(t *testing.T) {
	cmd := exec.Command("bash", "bash/sign.sh", "--mac", "../../auth/httpsig/testdata/keys/test-shared-secret.b64")
	cmd.Stdin = strings.NewReader(`"date": Tue, 20 Apr 2021 02:07:55 GMT
"@authority": example.com
"content-type": application/json
"@signature-params": ("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`)
	out, err := cmd.Output()
	if want := "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="; string(out) != want || err != nil {
		t.Errorf("RFC 9421, B.2.5: %q, want %q, %v", out, want, err)
	}
	body := filepath.Join(t.TempDir(), "body.json")
	write(t, body, "{\"a\": 40,\n \"b\": 2}\n")
	url := h.gateway.URL("/predict?x=%20y")
	for _, version := range []string{"--http1.1", "--http2"} {
		headers := h.sign(t, "POST", url, body, "application/json")
		a := story.Curl(t, h.gateway.CA, version, "-H", "@"+headers, "--data-binary", "@"+body, url)
		if a.Status != 200 || strings.TrimSpace(a.Body) != `{"caller":"key:bash","prediction":42}` {
			t.Errorf("curl %s: %d %s", version, a.Status, a.Body)
		}
	}
	url = h.gateway.URL("/echo")
	if a := story.Curl(t, h.gateway.CA, "-H", "@"+h.sign(t, "GET", url), url); a.Status != 200 {
		t.Errorf("GET: %d %s", a.Status, a.Body)
	}
}

// streams sees how answers are signed that are not held: in trailers for who takes
// them, and else by their head alone.
func (h *house) streams(t *testing.T) {
	for _, path := range []string{"/events", "/weights"} {
		url := h.gateway.URL(path)
		a := story.Curl(t, h.gateway.CA, "-H", "@"+h.sign(t, "GET", url), url)
		if in := a.Header.Get("Signature-Input"); a.Status != 200 || !strings.Contains(in, `tag="sallyport-resp-head-only"`) {
			t.Errorf("%s without TE: %d, signed %s", path, a.Status, in)
		}
		b, err := exec.Command("curl", "-sS", "--cacert", h.gateway.CA, "--http1.1", "-D", "-", "-o", os.DevNull,
			"-H", "TE: trailers", "-H", "@"+h.sign(t, "GET", url), url).Output()
		if err != nil {
			t.Fatal(err)
		}
		head, tail, _ := strings.Cut(string(b), "\r\n\r\n")
		if !strings.Contains(head, `tag="sallyport-resp-head"`) || !strings.Contains(tail, `tag="sallyport-resp"`) {
			t.Errorf("%s with TE: curl saw\n%s", path, b)
		}
	}
	for _, p := range h.all {
		for path, want := range map[string]string{"/events": "200 data: 0\n\ndata: 1\n\ndata: 2", "/weights": "200 " + strings.Repeat("\x00", 2<<20)} {
			out, errs, ok := h.call(t, p, h.gateway.CA, h.gateway.URL(path))
			if sees := p.name == "go"; ok != sees || ok && out != want {
				t.Errorf("%s of %s: %d bytes, taken: %v; %s", path, p.name, len(out), ok, errs)
			}
		}
	}
	t.Run("cut", func(t *testing.T) {
		change := func(r *http.Response) {
			b, _ := io.ReadAll(r.Body)
			replace(r, b)
			r.Trailer = nil
		}
		h.between.change.Store(&change)
		defer h.between.change.Store(nil)
		for _, p := range h.all {
			if out, errs, ok := h.call(t, p, h.between.ca, h.between.url("/events")); ok {
				t.Errorf("%s took a stream whose tail was cut off: %q %s", p.name, out, errs)
			}
		}
	})
}

// upstream sees that the app answers the gateway alone.
func (h *house) upstream(t *testing.T) {
	h.relay.Take()
	if res, body := h.gateway.Raw(t, []byte(h.bytesOf(t, h.predict()))); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	seen := h.relay.Take()
	if len(seen) != 1 {
		t.Fatalf("the app was asked %d times", len(seen))
	}
	forwarded := string(seen[0].Request)
	if strings.Contains(forwarded, `"`+httpsig.TagRequest+`"`) || !strings.Contains(forwarded, httpsig.TagForward) {
		t.Errorf("what the app got: %s", forwarded)
	}
	head, content, _ := strings.Cut(forwarded, "\r\n\r\n")
	headers := filepath.Join(t.TempDir(), "headers")
	_, fields, _ := strings.Cut(head, "\r\n")
	for _, c := range []struct {
		name         string
		fields, body string
		status       int
		reason       string
	}{
		{"again", fields, content, 401, "replayed"},
		{"another caller", strings.Replace(fields, "key:go", "key:root", 1), content, 401, "bad_signature"},
		{"a scope added", fields + "\r\nX-Sallyport-Groups: admin", content, 401, "coverage"},
		{"nothing signed", "Content-Type: application/json\r\nX-Sallyport-Principal: key:root", content, 401, "signature_missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// An empty field is written so for curl.
			write(t, headers, strings.NewReplacer("\r\n", "\n", ": \r\n", ";\n").Replace(c.fields))
			a := story.Curl(t, "", "-H", "@"+headers, "--data-binary", c.body, "http://"+h.relay.Address+"/predict")
			if a.Status != c.status || !strings.Contains(a.Body, `"reason": "`+c.reason+`"`) {
				t.Errorf("%d %s, want %d %s", a.Status, a.Body, c.status, c.reason)
			}
		})
	}
}
