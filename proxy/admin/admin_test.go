package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serve runs a server until the test ends or stop is called.
func serve(t *testing.T, o Options) (base string, stop func() error) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String(), stop
}

func fetch(t *testing.T, method, url string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(body)
}

func goodState() State {
	return State{
		Ready:   true,
		Version: "1.2.3",
		Configuration: Configuration{
			Hash: "3f9a", Loaded: time.Unix(1700000000, 0).UTC(), Watching: true, Snapshots: 2,
			LastAttempt: time.Unix(1700000030, 0).UTC(), LastSuccess: time.Unix(1700000020, 0).UTC(), LastError: "gateway.yaml:3: x: unknown field", Faults: 2,
			Reloads: ReloadCounts{Changed: 3, Unchanged: 4, Failed: 5},
		},
		Ends:         []End{{Kind: "certificate", Name: "b.example.com"}, {Kind: "signing_key", Name: "acme-1", NotAfter: time.Unix(1800000000, 0).UTC(), Left: "third"}},
		Certificates: []Certificate{{Hosts: []string{"a.example.com"}, Source: "files", Issuer: "CA", NotAfter: time.Unix(1800000000, 0).UTC(), NextRenewal: time.Unix(1795000000, 0).UTC()}},
		Issuers:      []Issuer{{Name: "corp", Keys: 2, Fetched: time.Unix(1700000000, 0).UTC()}, {Name: "away", LastError: "cannot be reached"}},
		Upstreams:    []Upstream{{Name: "tf", Endpoints: []Endpoint{{URL: "http://tf-1:8501", Healthy: true, Active: 3, Idle: 4}}}},
	}
}

func TestOnlyThreePathsAreServed(t *testing.T) {
	base, _ := serve(t, Options{State: goodState})
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/healthz", 200},
		{"HEAD", "/healthz", 200},
		{"GET", "/healthz?verbose", 200},
		{"GET", "/readyz", 200},
		{"GET", "/metrics", 200},
		{"HEAD", "/metrics", 200},
		{"POST", "/healthz", 405},
		{"DELETE", "/metrics", 405},
		{"GET", "/", 404},
		{"GET", "/healthz/", 404},
		{"GET", "/%68ealthz", 404},
		{"GET", "//metrics", 404},
		{"GET", "/x/../metrics", 404},
		{"GET", "/debug/pprof/", 404},
		{"POST", "/reload", 404},
	} {
		if got, _, _ := fetch(t, tt.method, base+tt.path); got != tt.want {
			t.Errorf("%s %s: got %d, want %d", tt.method, tt.path, got, tt.want)
		}
	}
}

func TestOnlyStartingAndDrainingAreUnready(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state func() State
		want  int
	}{
		{"ready, and the last reload failed", goodState, 200},
		{"all upstreams and issuers down", func() State {
			s := goodState()
			s.Upstreams[0].Endpoints[0].Healthy = false
			s.Certificates[0].LastError = "key mismatch"
			return s
		}, 200},
		{"starting", func() State { return State{} }, 503},
		{"draining", func() State { s := goodState(); s.Draining = true; return s }, 503},
		{"no state", nil, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base, _ := serve(t, Options{State: tt.state})
			status, header, body := fetch(t, "GET", base+"/readyz")
			if status != tt.want || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %d with %v, want %d and JSON", status, header, tt.want)
			}
			var got State
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			want := State{}
			if tt.state != nil {
				want = tt.state()
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if alive, _, _ := fetch(t, "GET", base+"/healthz"); alive != 200 {
				t.Errorf("/healthz: got %d, want 200 in every state", alive)
			}
		})
	}
}

func TestMetricsShowTheState(t *testing.T) {
	extra := prometheus.NewCounter(prometheus.CounterOpts{Name: "extra_total", Help: "Extra."})
	extra.Add(7)
	o := Options{
		State: func() State {
			s := goodState()
			s.Issuers[0].Introspection = &Introspection{Active: 20, Inactive: 21, Refused: 22, Failed: 23, Skipped: 24, CachedActive: 25, CachedRefused: 26, LastError: "timed out"}
			s.Certificates = append(s.Certificates, Certificate{Hosts: []string{"a.example.com"}, Source: "files", NotAfter: time.Unix(1790000000, 0), LastError: "broken"})
			return s
		},
		Counts: func() Counts {
			return Counts{InFlight: 5, Connections: 6, AuditWritten: 8, AuditDropped: 9, AuditFailed: 10, AuditPending: 11, HandshakesFailed: map[string]uint64{"untrusted": 18}}
		},
		Replay: func() Replay {
			return Replay{Live: 12, Capacity: 13, Replayed: 14, Full: 15, KeyFull: 16, Window: 17}
		},
		Collectors: []prometheus.Collector{extra},
		Now:        func() time.Time { return time.Unix(1700000060, 0) },
	}
	base, _ := serve(t, o)
	status, _, body := fetch(t, "GET", base+"/metrics")
	if status != 200 {
		t.Fatalf("got %d: %s", status, body)
	}
	for _, want := range []string{
		"sallyport_ready 1",
		`sallyport_build_info{version="1.2.3"} 1`,
		`sallyport_config_info{hash="3f9a"} 1`,
		"sallyport_config_last_reload_successful 0",
		"sallyport_config_last_reload_success_timestamp_seconds 1.70000002e+09",
		"sallyport_config_snapshots 2",
		`sallyport_config_reloads_total{result="changed"} 3`,
		`sallyport_config_reloads_total{result="unchanged"} 4`,
		`sallyport_config_reloads_total{result="failed"} 5`,
		`sallyport_not_after_timestamp_seconds{kind="signing_key",name="acme-1"} 1.8e+09`,
		`sallyport_not_after_timestamp_seconds{kind="certificate",name="b.example.com"} 0`,
		`sallyport_certificate_fault{host="a.example.com",source="files"} 1`,
		`sallyport_certificate_next_renewal_timestamp_seconds{host="a.example.com",source="files"} 1.795e+09`,
		`sallyport_issuer_keys{issuer="corp"} 2`,
		`sallyport_issuer_keys_age_seconds{issuer="corp"} 60`,
		`sallyport_issuer_fault{issuer="corp"} 0`,
		`sallyport_introspection_fault{issuer="corp"} 1`,
		`sallyport_introspection_lookups_total{issuer="corp",outcome="active"} 20`,
		`sallyport_introspection_lookups_total{issuer="corp",outcome="inactive"} 21`,
		`sallyport_introspection_lookups_total{issuer="corp",outcome="refused"} 22`,
		`sallyport_introspection_lookups_total{issuer="corp",outcome="failed"} 23`,
		`sallyport_introspection_lookups_total{issuer="corp",outcome="skipped"} 24`,
		`sallyport_introspection_cached_total{issuer="corp",outcome="active"} 25`,
		`sallyport_introspection_cached_total{issuer="corp",outcome="refused"} 26`,
		`sallyport_issuer_keys{issuer="away"} 0`,
		`sallyport_issuer_fault{issuer="away"} 1`,
		`sallyport_upstream_healthy{endpoint="http://tf-1:8501",upstream="tf"} 1`,
		`sallyport_upstream_requests_in_flight{endpoint="http://tf-1:8501",upstream="tf"} 3`,
		`sallyport_upstream_connections_idle{endpoint="http://tf-1:8501",upstream="tf"} 4`,
		"sallyport_requests_in_flight 5",
		"sallyport_connections 6",
		"sallyport_audit_records_total 8",
		"sallyport_audit_records_dropped_total 9",
		"sallyport_audit_write_failures_total 10",
		"sallyport_audit_pending_bytes 11",
		"sallyport_replay_live 12",
		"sallyport_replay_capacity 13",
		`sallyport_replay_refused_total{cause="replayed"} 14`,
		`sallyport_tls_handshake_failures_total{reason="untrusted"} 18`,
		`sallyport_replay_refused_total{cause="full"} 15`,
		`sallyport_replay_refused_total{cause="key_full"} 16`,
		`sallyport_replay_refused_total{cause="window"} 17`,
		"extra_total 7",
		"go_goroutines ",
		"process_open_fds ",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, `keys_age_seconds{issuer="away"}`) {
		t.Error("keys that were never fetched have an age")
	}
}

// Configured names that are not valid labels lose their own metric only.
func TestBadLabelCostsItsOwnMetricOnly(t *testing.T) {
	base, _ := serve(t, Options{State: func() State { return State{Ready: true, Issuers: []Issuer{{Name: "\xff"}}} }})
	status, _, body := fetch(t, "GET", base+"/metrics")
	if status != 200 || !strings.Contains(body, "\nsallyport_ready 1") {
		t.Errorf("got %d: %.200s", status, body)
	}
}

func TestNewRefusesConflictingCollectors(t *testing.T) {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "twice_total", Help: "Twice."})
	if _, err := New(Options{Collectors: []prometheus.Collector{c, c}}); err == nil {
		t.Error("the same collector was registered twice")
	}
}

func TestLargeHeadIsRefused(t *testing.T) {
	base, _ := serve(t, Options{})
	req, err := http.NewRequest("GET", base+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return // the server closed while the head was being sent
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d, want 431", res.StatusCode)
	}
}

// A client that holds all connections cannot open more. A further connection is served once one
// closes.
func TestConnectionsAreBounded(t *testing.T) {
	base, _ := serve(t, Options{})
	addr := strings.TrimPrefix(base, "http://")
	var open []net.Conn
	for range connections {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	waits, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	if _, err := io.WriteString(waits, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	open[0].Close()
	waits.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := io.ReadAll(waits)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		t.Errorf("got %q, %v, want 200", answer, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	base, stop := serve(t, Options{State: goodState})
	if status, _, _ := fetch(t, "GET", base+"/healthz"); status != 200 {
		t.Fatalf("got %d", status)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(base, "http://")); err == nil {
		t.Error("still listening after Run has ended")
	}
}

func TestRunReturnsTheListenersError(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := s.Run(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func TestOnlyCallersOnThisMachineGetDetail(t *testing.T) {
	o := Options{Log: slog.New(slog.DiscardHandler), Now: time.Now, State: func() State {
		s := goodState()
		s.Upstreams = []Upstream{
			{Name: "churn", Endpoints: []Endpoint{{URL: "http://churn.internal:8000", Healthy: true, LastError: "dial tcp 10.0.0.7:8000"}}},
			{Name: "https://direct.internal", Endpoints: []Endpoint{{URL: "https://direct.internal"}}},
		}
		return s
	}}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(from, path string) string {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != 200 {
			t.Errorf("%s from %s: %d", path, from, w.Code)
		}
		return w.Body.String()
	}
	for _, from := range []string{"127.0.0.1:4096", "[::1]:4096", "[::ffff:127.0.0.1]:4096"} {
		for path, want := range map[string]string{"/readyz": "http://churn.internal:8000", "/metrics": `endpoint="http://churn.internal:8000",upstream="churn"`} {
			if got := ask(from, path); !strings.Contains(got, want) {
				t.Errorf("%s from %s lacks %s:\n%s", path, from, want, got)
			}
		}
	}
	for _, from := range []string{"192.0.2.7:4096", "[2001:db8::1]:4096", "10.0.0.7:4096", "@", ""} {
		if got := ask(from, "/readyz"); got != "{\n  \"ready\": true,\n  \"draining\": false\n}\n" {
			t.Errorf("/readyz from %q: %s", from, got)
		}
		got := ask(from, "/metrics")
		if strings.Contains(got, "internal") || !strings.Contains(got, `sallyport_upstream_healthy{endpoint="1",upstream="churn"} 1`) {
			t.Errorf("/metrics from %q: %s", from, got)
		}
	}
}
