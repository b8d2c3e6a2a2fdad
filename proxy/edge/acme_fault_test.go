package edge

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"sallyport/proxy/setting"
)

// breakAuthority makes the authority answer with f; nil repairs it.
func (h *acmeHouse) breakAuthority(f http.HandlerFunc) {
	if f == nil {
		h.broken.Store(nil)
		return
	}
	h.broken.Store(&f)
}

// A broken authority delays only its own orders. It is retried, but not hammered.
func TestACMERetriesABrokenAuthority(t *testing.T) {
	t.Parallel()
	var slowed atomic.Pointer[time.Time] // when the first request was told to wait
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string // part of the status
	}{
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "it will be retried"},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>maintenance</html>"))
		}, "is not valid ACME"},
		{"broken JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"newNonce":`))
		}, "is not valid ACME"},
		{"an endless answer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, "larger than"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "302"},
		{"errors", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) }, "500"},
		{"too many requests", func(w http.ResponseWriter, _ *http.Request) {
			slowed.CompareAndSwap(nil, new(time.Now()))
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
			_, _ = w.Write([]byte(`{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "slow down", "status": 429}`))
		}, "slow down (rateLimited); it will be retried later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newACMEHouse(t, acmePlan{})
			h.breakAuthority(tt.answer)
			r := h.start(h.config(only(challengeTLS)), "a.example.com")
			if _, err := h.leaf("a.example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("got %v, want the name refused meanwhile", err)
			}
			eventually(t, "the failure is in the status", func() bool { return r.statusOf(t, "a.example.com").LastError != "" })
			if got := r.statusOf(t, "a.example.com").LastError; !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
			if tt.name == "too many requests" {
				s := r.statusOf(t, "a.example.com")
				before := h.requests.Load()
				if wait := s.NextRenewal.Sub(*slowed.Load()); wait < time.Second {
					t.Errorf("retried after %s, want the Retry-After of one second", wait)
				}
				time.Sleep(300 * time.Millisecond)
				if n := h.requests.Load() - before; n != 0 && time.Now().Before(s.NextRenewal) {
					t.Errorf("%d requests before Retry-After", n)
				}
			}
			h.breakAuthority(nil)
			h.obtained(r, "a.example.com")
			if s := r.statusOf(t, "a.example.com"); s.LastError != "" {
				t.Errorf("the error stays: %q", s.LastError)
			}
		})
	}
}

// An unreachable authority does not prevent startup.
func TestACMEStartsWhileTheAuthorityIsDown(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	gone := listenTCP(t)
	directory := "https://" + gone.Addr().String() + "/dir"
	gone.Close()
	r := h.start(h.config(func(c *ACMEConfig) { c.Directory = directory }), "a.example.com")
	eventually(t, "the failure is in the status", func() bool { return r.statusOf(t, "a.example.com").LastError != "" })
	if got := r.statusOf(t, "a.example.com").LastError; !strings.Contains(got, "cannot be reached") {
		t.Errorf("got %q", got)
	}
	// With several issuers, the next one is used.
	r.stop()
	second := h.start(h.config(func(c *ACMEConfig) {
		c.Directory, c.CA = "", ""
		c.Issuers = setting.List[ACMEIssuer]{{Directory: directory}, {Directory: h.directory, CA: setting.Path(h.bundle)}}
	}), "a.example.com")
	h.obtained(second, "a.example.com")
}

// While the authority is down, the old certificate stays in use and the status shows the
// failure. Renewal succeeds once the authority is back.
func TestACMEKeepsTheCertificateWhileTheAuthorityIsDown(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	r := h.start(h.config(nil), "a.example.com")
	cert := h.obtained(r, "a.example.com")
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	h.broken.Store(&down)
	command := newEdge(t, h.config(nil), Options{Hosts: []string{"a.example.com"}, PlainHTTP: true})
	if err := command.Obtain(t.Context(), nil, true); err == nil {
		t.Error("renewed by an authority that is down")
	}
	if got, err := h.leaf("a.example.com"); err != nil || !got.Equal(cert) {
		t.Errorf("while it is down: %v; want the old certificate", err)
	}
	if s := command.Certificates(); len(s) != 1 || s[0].LastError == "" {
		t.Errorf("the status does not show the failure: %+v", s)
	}
	h.broken.Store(nil)
	if err := command.Obtain(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new certificate is served, once it is back", func() bool {
		got, err := h.leaf("a.example.com")
		return err == nil && !got.Equal(cert)
	})
}

// Rejected nonces are retried; they are no failure.
func TestACMERetriesRejectedNonces(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{nonces: 40})
	r := h.start(h.config(nil), "a.example.com")
	h.obtained(r, "a.example.com")
}

// Files damaged by a crash or a bad disk are replaced or ignored.
func TestACMERecoversFromDamagedStorage(t *testing.T) {
	t.Parallel()
	files := func(h *acmeHouse) (cert, key, meta, account, lock string) {
		issuer := issuerKey(must2(url.Parse(h.directory)))
		at := func(key string) string { return filepath.Join(h.storage, filepath.FromSlash(key)) }
		return at(certmagic.StorageKeys.SiteCert(issuer, "a.example.com")), at(certmagic.StorageKeys.SitePrivateKey(issuer, "a.example.com")),
			at(certmagic.StorageKeys.SiteMeta(issuer, "a.example.com")), at("accounts/" + issuer + "/ops@example.com.json"),
			at("locks/issue_cert_a.example.com.lock")
	}
	cut := func(t *testing.T, name string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		writeTest(t, name, b[:len(b)/2])
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, h *acmeHouse)
		served bool // whether the stored certificate is usable
	}{
		{"certificate truncated", func(t *testing.T, h *acmeHouse) { c, _, _, _, _ := files(h); cut(t, c) }, false},
		{"certificate empty", func(t *testing.T, h *acmeHouse) { c, _, _, _, _ := files(h); writeTest(t, c, nil) }, false},
		{"key truncated", func(t *testing.T, h *acmeHouse) { _, k, _, _, _ := files(h); cut(t, k) }, false},
		{"metadata truncated", func(t *testing.T, h *acmeHouse) { _, _, m, _, _ := files(h); cut(t, m) }, true},
		{"metadata and certificate truncated", func(t *testing.T, h *acmeHouse) { c, _, m, _, _ := files(h); cut(t, c); cut(t, m) }, false},
		{"account truncated, certificate missing", func(t *testing.T, h *acmeHouse) {
			c, _, _, a, _ := files(h)
			cut(t, a)
			if err := os.RemoveAll(filepath.Dir(c)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"locks truncated and left over, certificate missing", func(t *testing.T, h *acmeHouse) {
			c, _, _, _, l := files(h)
			writeTest(t, l, []byte(`{"created":"20`))
			if err := os.RemoveAll(filepath.Dir(c)); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newACMEHouse(t, acmePlan{})
			first := h.start(h.config(nil), "a.example.com")
			old := h.obtained(first, "a.example.com")
			first.stop()
			tt.damage(t, h)
			second := h.start(h.config(nil), "a.example.com")
			if _, err := h.leaf("a.example.com"); (err == nil) != tt.served {
				t.Errorf("served at once: %v, want %t", err, tt.served)
			}
			got := h.obtained(second, "a.example.com")
			if got.Equal(old) != tt.served {
				t.Errorf("the certificate is the old one: %t, want %t", got.Equal(old), tt.served)
			}
			if !tt.served {
				return
			}
			// The certificate must still be renewable.
			second.stop()
			third := newEdge(t, h.config(nil), Options{Hosts: []string{"a.example.com"}, PlainHTTP: true})
			st := third.view.Load().acme.state["a.example.com"]
			if err := third.view.Load().acme.removeUnusable(t.Context(), st); err != nil {
				t.Fatal(err)
			}
			if _, _, m, _, _ := files(h); !strings.Contains(string(must(os.ReadFile(m))), "a.example.com") {
				t.Error("the metadata is not repaired")
			}
		})
	}
}

func must2(u *url.URL, _ error) *url.URL { return u }

func must(b []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

// Without write access, stored certificates are served and the status shows the fault.
func TestACMEServesFromUnwritableStorage(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	first := h.start(h.config(nil), "a.example.com")
	cert := h.obtained(first, "a.example.com")
	first.stop()
	// A file in place of a folder makes writes fail for every user, even root.
	locks := filepath.Join(h.storage, "locks")
	if err := os.RemoveAll(locks); err != nil {
		t.Fatal(err)
	}
	writeTest(t, locks, nil)
	second := h.start(h.config(nil), "a.example.com", "b.example.com")
	if got, err := h.leaf("a.example.com"); err != nil || !got.Equal(cert) {
		t.Errorf("a.example.com: %v, want the stored certificate", err)
	}
	eventually(t, "the failure is in the status", func() bool { return second.statusOf(t, "b.example.com").LastError != "" })
	if got := second.statusOf(t, "b.example.com").LastError; !strings.Contains(got, "storage of certificates cannot be used") || !strings.Contains(got, h.storage) {
		t.Errorf("got %q", got)
	}
}

func TestACMERefusesUnsafeStorage(t *testing.T) {
	t.Parallel()
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	writeTest(t, file, nil)
	for dir, want := range map[string]string{open: "chmod 700", file: "is not a folder", filepath.Join(file, "below"): "not a directory"} {
		c := Config{ACME: &ACMEConfig{Storage: setting.Place(dir)}}
		if _, err := New(c, Options{Hosts: []string{"a.example.com"}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: got %v, want %q", err, want)
		}
		var f setting.Faults
		c.CheckFiles("tls", []string{"a.example.com"}, true, &f)
		if !strings.Contains(f.Error(), want) {
			t.Errorf("CheckFiles: got %v, want %q", f, want)
		}
	}
}

// A wrong clock must not cause endless orders.
func TestACMEWrongClockCausesOneOrder(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	c := h.config(nil)
	ahead := func() time.Time { return time.Now().Add(365 * 24 * time.Hour) }
	var j journal
	e := newEdge(t, c, Options{Hosts: []string{"a.example.com"}, PlainHTTP: true, Now: ahead, Log: j.log()})
	e.view.Load().acme.rhythm = fast()
	st := e.view.Load().acme.state["a.example.com"]
	r := h.start(c, "a.example.com") // answers the challenges of both, through the common storage
	h.obtained(r, "a.example.com")
	e.view.Load().acme.maintain(t.Context(), st)
	if st.lastError == "" || !strings.Contains(st.lastError, "clock") || !st.retry.After(ahead()) {
		t.Errorf("a certificate that has already expired: error %q, next attempt %s", st.lastError, st.retry)
	}
	e.view.Load().acme.maintain(t.Context(), st)
	if st.failures != 1 {
		t.Errorf("%d orders, want no further one at once", st.failures)
	}
}

// Any process with the same storage can answer a challenge.
func TestACMEAnswersChallengesOfOtherProcesses(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{challengeHTTP, challengeTLS} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			h := newACMEHouse(t, acmePlan{})
			c := h.config(only(challenge))
			r := h.start(c, "a.example.com")
			cert := h.obtained(r, "a.example.com")
			other := newEdge(t, c, Options{Hosts: []string{"a.example.com"}, PlainHTTP: true})
			if err := other.view.Load().acme.renew(t.Context(), other.view.Load().acme.state["a.example.com"], true); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the new certificate is taken from the storage", func() bool {
				got, err := h.leaf("a.example.com")
				return err == nil && !got.Equal(cert)
			})
		})
	}
}

func TestChallengeAnswerServesOnlyPendingTokens(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	e := newEdge(t, h.config(nil), Options{Hosts: []string{"a.example.com"}, PlainHTTP: true})
	token := strings.Repeat("t", 43)
	file := filepath.Join(h.storage, "challenges", "http-"+token+".json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	writeTest(t, file, []byte(fmt.Sprintf(`{"token": %q, "keyAuthorization": "%[1]s.x", "identifier": {"type": "dns", "value": "a.example.com"}}`, token)))
	for _, tt := range []struct {
		host, path string
		want       bool
	}{
		{"a.example.com", challengePath + token, true},
		{"b.example.com", challengePath + token, false},
		{"a.example.com", challengePath + token + "x", false},
		{"a.example.com", challengePath + "../" + token, false},
		{"a.example.com", challengePath, false},
		{"a.example.com", challengePath + "..%2f" + token, false},
		{"a.example.com", "/", false},
	} {
		if _, got := e.ChallengeAnswer(tt.host, tt.path); got != tt.want {
			t.Errorf("%s%s: answered %t, want %t", tt.host, tt.path, got, tt.want)
		}
	}
	plain := newEdge(t, Config{Local: &LocalConfig{Dir: setting.Place(filepath.Join(t.TempDir(), "ca"))}}, Options{Hosts: []string{"a.example.com"}})
	if _, ok := plain.ChallengeAnswer("a.example.com", challengePath+token); ok {
		t.Error("answered without acme")
	}
}

// For any input, only the pending challenge is answered, and no file outside the folder of
// challenges is accessed.
func FuzzChallengeAnswer(f *testing.F) {
	token := strings.Repeat("t", 43)
	for _, path := range []string{challengePath + token, challengePath + "../../etc/passwd", challengePath, "/", challengePath + "%2e%2e", challengePath + strings.Repeat("a", 500)} {
		f.Add("a.example.com", path)
	}
	storage, err := newCertStorage(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	c := newChallenges(storage, []string{"a.example.com"})
	c.tokens[token] = acme.Challenge{Token: token, KeyAuthorization: "answer", Identifier: acme.Identifier{Value: "a.example.com"}}
	f.Fuzz(func(t *testing.T, host, path string) {
		text, ok := c.answer(host, path)
		if pending := host == "a.example.com" && path == challengePath+token; ok != pending || ok && text != "answer" {
			t.Errorf("%q %q: answered %q, %t", host, path, text, ok)
		}
		if rest, ok := strings.CutPrefix(path, challengePath); ok && validToken(rest) && strings.ContainsAny(rest, "/.\\\x00%") {
			t.Errorf("%q is accepted as a token", rest)
		}
	})
}
