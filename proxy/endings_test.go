package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// certificateFor makes a self-signed certificate for a host, and its key, in PEM.
func certificateFor(t *testing.T, host string, from, to time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// endingHouse builds a gateway with keys and certificates that have expired, or will soon.
func endingHouse(t *testing.T, log io.Writer) (h *house, dir string, key func(id string, from, to time.Time) string) {
	t.Helper()
	dir = t.TempDir()
	now := time.Now()
	write := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	cert, private := certificateFor(t, "models.test", now.Add(-80*time.Hour), now.Add(20*time.Hour))
	root, _ := certificateFor(t, "root", now.Add(-95*time.Hour), now.Add(5*time.Hour))
	next, _ := certificateFor(t, "root", now, now.Add(9000*time.Hour))
	write("a.pem", cert)
	write("a.key", private)
	write("roots.pem", next+root)
	secret := write("secret", base64.StdEncoding.EncodeToString(make([]byte, 64)))
	key = func(id string, from, to time.Time) string {
		return fmt.Sprintf("  %s: {principal: acme, secret: {file: %q}, not_before: %s, not_after: %s}\n", id, secret, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	text := fmt.Sprintf(`
listen: {https: "127.0.0.1:0", http: off, health: "127.0.0.1:0"}
tls: {files: [{cert: %q, key: %q}]}
upstreams: {tf: {rest: "https://127.0.0.1:1", ca: %q}}
routes: [{host: models.test, respond: 200, callers: [key], integrity: {body: headers_only}}, {host: models.test, path: /tf, upstream: tf, callers: [key], rules: [{allow: "*"}]}]
integrity: {state: off}
signing_keys:
%s%s`, filepath.Join(dir, "a.pem"), filepath.Join(dir, "a.key"), filepath.Join(dir, "roots.pem"),
		key("ended-1", now.Add(-9*time.Hour), now.Add(-time.Hour)), key("late-1", now, now.Add(9*time.Hour)))
	h = &house{t: t, audit: &lines{}, options: proxy.Options{Log: slog.New(slog.NewTextHandler(log, nil))}, file: write("gateway.yaml", text)}
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		t.Fatal(err)
	}
	h.start(cfg)
	return h, dir, key
}

// announced returns the expiry warnings of a log, sorted: kind, name, and the part of the lifetime left.
func announced(log string) []string {
	var all []string
	for line := range strings.Lines(log) {
		_, rest, ok := strings.Cut(line, "kind=")
		if !ok || !strings.Contains(line, "level=WARN") {
			continue
		}
		what := strings.Fields(rest)
		left := "ended"
		if _, part, soon := strings.Cut(line, "less than a "); soon {
			left, _, _ = strings.Cut(part, " ")
		}
		all = append(all, what[0]+" "+strings.TrimPrefix(what[1], "name=")+" "+left)
	}
	slices.Sort(all)
	return all
}

func TestExpiryIsWarnedOfOnce(t *testing.T) {
	var log lines
	h, _, key := endingHouse(t, &log)
	want := []string{"ca upstreams.tf.ca tenth", "certificate models.test third", "signing_key ended-1 ended"}
	eventually(t, "the warnings come", func() bool { return len(announced(log.text())) >= len(want) })
	if got := announced(log.text()); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}

	get := func(path string) string {
		res, err := http.Get("http://" + h.addrs.Health.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return string(text)
	}
	for _, name := range []string{`kind="ca",name="upstreams.tf.ca"`, `kind="certificate",name="models.test"`, `kind="signing_key",name="ended-1"`, `kind="signing_key",name="late-1"`} {
		if text := get("/metrics"); strings.Count(text, "sallyport_not_after_timestamp_seconds{"+name+"} 1.") != 1 {
			t.Errorf("/metrics has not %s", name)
		}
	}
	var state struct {
		Ends []struct{ Kind, Name, Left string }
	}
	if err := json.Unmarshal([]byte(get("/readyz")), &state); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(state.Ends), "[{signing_key ended-1 ended} {ca upstreams.tf.ca tenth} {signing_key late-1 } {certificate models.test third}]"; got != want {
		t.Errorf("/readyz lists %s, want %s", got, want)
	}

	// A reload warns of new keys only.
	text, err := os.ReadFile(h.file)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := os.WriteFile(h.file, append(text, key("near-1", now.Add(-99*time.Hour), now.Add(time.Hour))...), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.gateway.Reload(t.Context()); r.Result != proxy.ReloadChanged && r.Result != proxy.ReloadUnchanged {
		t.Fatalf("reload: %+v", r)
	}
	want = append(want, "signing_key near-1 tenth")
	slices.Sort(want)
	eventually(t, "the new key is warned of", func() bool { return len(announced(log.text())) >= len(want) })
	if got := announced(log.text()); !slices.Equal(got, want) {
		t.Errorf("after the reload: %q, want %q", got, want)
	}
}

func TestCheckWarnsOfExpiry(t *testing.T) {
	h, _, _ := endingHouse(t, io.Discard)
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		offline bool
		after   time.Duration
		want    []string
	}{
		{false, 0, []string{"ca upstreams.tf.ca ends in", "signing_key ended-1 has ended"}},
		{true, 0, []string{"signing_key ended-1 has ended"}},
		{false, 30 * time.Hour, []string{"certificate models.test has ended", "signing_key ended-1 has ended", "signing_key late-1 has ended"}},
	} {
		var got []string
		for _, f := range proxy.EndWarnings(cfg, tt.offline, time.Now().Add(tt.after)) {
			if f.Line == 0 || f.Cure == "" {
				t.Errorf("%v has no line, or no cure", f)
			}
			got = append(got, f.Problem)
		}
		slices.Sort(got)
		if len(got) != len(tt.want) {
			t.Errorf("offline %t, in %s: %q, want %q", tt.offline, tt.after, got, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(got[i], want) {
				t.Errorf("offline %t, in %s: %q, want %q", tt.offline, tt.after, got[i], want)
			}
		}
	}
}
