package differential

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sallyport/examples/story"
)

// record is one request as a reader had it, whole.
type record struct {
	Method, Target, Host string
	Length, Coding       string // the fields by which the reader found the end of the body
	Body                 string // bytes as Latin-1
}

// reader is a server behind the gateway, with a relay that keeps every byte
// between the two.
type reader struct {
	name, host string
	relay      *story.Relay
	records    func(testing.TB) []record
}

// startReaders starts all four.
func startReaders(t *testing.T) []*reader {
	t.Helper()
	story.Need(t, "haproxy", "nginx")
	address, records := startEcho(t)
	readers := []*reader{{"net/http", "go.test", story.StartRelay(t, address), records}}
	address, records = startHAProxy(t)
	readers = append(readers, &reader{"HAProxy", "ha.test", story.StartRelay(t, address), records})
	address, records = startNginx(t)
	readers = append(readers, &reader{"nginx", "ng.test", story.StartRelay(t, address), records})
	address, records = startGunicorn(t)
	return append(readers, &reader{"gunicorn", "gu.test", story.StartRelay(t, address), records})
}

// startEcho starts a server of net/http that records what arrives whole.
func startEcho(t *testing.T) (address string, records func(testing.TB) []record) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // guards all
	var all []record
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // it was cut
		}
		one := record{r.Method, r.RequestURI, r.Host, r.Header.Get("Content-Length"), strings.Join(r.TransferEncoding, ","), latin1(body)}
		if _, proxied := r.Header["X-Read-Length"]; proxied || r.Header["X-Read-Coding"] != nil {
			one.Length, one.Coding = r.Header.Get("X-Read-Length"), r.Header.Get("X-Read-Coding")
		}
		mu.Lock()
		all = append(all, one)
		mu.Unlock()
		w.Header().Set("X-Echo", "yes")
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); serving.Wait() })
	return l.Addr().String(), func(testing.TB) []record {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

// startHAProxy starts HAProxy before an echo of its own.
func startHAProxy(t *testing.T) (address string, records func(testing.TB) []record) {
	t.Helper()
	echo, records := startEcho(t)
	address = story.FreeAddress(t)
	b, err := os.ReadFile("haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := strings.NewReplacer("127.0.0.1:8712", address, "127.0.0.1:8722", echo).Replace(string(b))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	story.Start(t, "haproxy", exec.Command("haproxy", "-db", "-f", config)).Listens(t, address)
	return address, records
}

// startNginx starts nginx before an echo of its own.
func startNginx(t *testing.T) (address string, records func(testing.TB) []record) {
	t.Helper()
	echo, records := startEcho(t)
	address = story.FreeAddress(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	story.StartNginx(t, "nginx.conf", dir, address, "127.0.0.1:8713", address, "127.0.0.1:8723", echo)
	return address, records
}

// startGunicorn starts echo.py.
func startGunicorn(t *testing.T) (address string, records func(testing.TB) []record) {
	t.Helper()
	python := filepath.Join(story.Installed(t, "flask", "flask/requirements.txt"), "bin", "python")
	address = story.FreeAddress(t)
	file := filepath.Join(t.TempDir(), "records")
	cmd := exec.Command(python, "-m", "gunicorn", "--no-control-socket", "--threads", "16", "--keep-alive", "30", "--limit-request-line", "0",
		"--limit-request-fields", "300", "--limit-request-field_size", "65500", "--log-level", "warning", "--bind", address, "echo:app")
	cmd.Env = append(os.Environ(), "RECORDS="+file, "PYTHONDONTWRITEBYTECODE=1")
	story.Start(t, "gunicorn", cmd).Listens(t, address)
	return address, func(t testing.TB) []record {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var all []record
		for line := range strings.Lines(string(b)) {
			var one record
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatalf("record %q: %v", line, err)
			}
			all = append(all, one)
		}
		return all
	}
}
