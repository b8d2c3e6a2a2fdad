// Package h2spec holds the story of the gateway's HTTP/2 under the eyes of h2spec.
package h2spec

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// How many cases there are, with the one that is strict.
const (
	all       = "146 tests, 146 passed, 0 skipped, 0 failed"
	allButOne = "146 tests, 145 passed, 0 skipped, 1 failed"
)

var failed = regexp.MustCompile(`× .*`)

func TestH2spec(t *testing.T) {
	h2spec := filepath.Join(story.Installed(t, "h2spec", "h2spec/h2spec.version"), "h2spec")
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello\n")
	}))
	defer model.Close()
	plain := story.FreeAddress(t)
	g := story.StartGateway(t, "http://127.0.0.1:5000", model.URL, "127.0.0.1:8081", plain)
	for _, x := range []struct {
		name, address string
		args          []string
		sum, failed   string
	}{
		{"with TLS", g.Address, []string{"-t", "-k"}, all, ""},
		// What does not begin as HTTP/2 does is HTTP/1.1 there, and told so.
		{"without", plain, nil, allButOne, "× 2: Sends invalid connection preface"},
	} {
		t.Run(x.name, func(t *testing.T) {
			host, port, _ := net.SplitHostPort(x.address)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			out, _ := exec.CommandContext(ctx, h2spec, append(x.args, "--strict", "-h", host, "-p", port)...).CombinedOutput()
			sum, bad := regexp.MustCompile(`\d+ tests, .*`).Find(out), failed.Find(out)
			if string(sum) != x.sum || string(bad) != x.failed {
				t.Errorf("%s\n%s", sum, out)
			}
		})
	}
}
