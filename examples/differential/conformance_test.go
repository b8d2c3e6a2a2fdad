package differential_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/examples/story"
)

// conformed are the servers of the columns of deploy/CONFORMANCE.md that this test can start: the version
// that the page names, and a configuration with defaults. In it, ADDRESS is where the server listens,
// ORIGIN is the server behind it.
var conformed = []struct {
	column, version, config string
	run, ask                []string
}{
	{"nginx", "1.22.1", `
worker_processes 1; pid nginx.pid; error_log stderr; events {}
http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    access_log off;
    server { listen ADDRESS; location / { proxy_pass http://ORIGIN; } }
}
`, []string{"nginx", "-g", "daemon off;", "-p", "DIR", "-c", "CONFIG"}, []string{"nginx", "-v"}},
	{"HAProxy", "2.6.12", `
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend all
    bind ADDRESS
    default_backend origin
backend origin
    server origin ORIGIN
`, []string{"haproxy", "-db", "-f", "CONFIG"}, []string{"haproxy", "-v"}},
}

// TestConformancePageHoldsForOthers compares the columns of nginx and HAProxy with what they answer. It
// has the test of package proxy do that, which owns the requests and reads the page.
func TestConformancePageHoldsForOthers(t *testing.T) {
	story.Need(t, "haproxy", "nginx")
	origin := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer origin.Close()
	var peers []string
	for _, c := range conformed {
		said, err := exec.CommandContext(t.Context(), c.ask[0], c.ask[1:]...).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(said), c.version) {
			t.Logf("not compared: the page is about %s %s, and here is %s", c.column, c.version, said)
			continue
		}
		dir, address := t.TempDir(), story.FreeAddress(t)
		config := filepath.Join(dir, "config")
		fill := strings.NewReplacer("ADDRESS", address, "ORIGIN", strings.TrimPrefix(origin.URL, "http://"), "DIR", dir, "CONFIG", config)
		if err := os.WriteFile(config, []byte(fill.Replace(c.config)), 0o600); err != nil {
			t.Fatal(err)
		}
		run := make([]string, len(c.run))
		for i, arg := range c.run {
			run[i] = fill.Replace(arg)
		}
		story.Start(t, c.column, exec.Command(run[0], run[1:]...)).Listens(t, address)
		peers = append(peers, fmt.Sprintf("%s=%s", c.column, address))
	}
	if len(peers) == 0 {
		story.Missing(t, "neither nginx nor HAProxy is the version of the page")
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "./proxy", "-count=1", "-v", "-parallel", "16", "-run", "^TestConformanceOfOthers$", "-args", "-peers", strings.Join(peers, ","))
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestConformanceOfOthers") {
		t.Errorf("%v\n%s", err, out)
	}
}
