package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestACMEObtainsACertificate(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{challengeHTTP, challengeTLS} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			h := newACMEHouse(t, acmePlan{})
			r := h.start(h.config(only(challenge)), "a.example.com")
			cert := h.obtained(r, "a.example.com")
			if k, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
				t.Errorf("got a key of %T, want P-256", cert.PublicKey)
			}
			s := r.statusOf(t, "a.example.com")
			if s.Source != "acme" || !strings.Contains(s.Issuer, "Pebble") || !s.NotAfter.Equal(cert.NotAfter) || s.LastError != "" {
				t.Errorf("status %+v", s)
			}
			if !s.NextRenewal.After(time.Now()) || !s.NextRenewal.Before(s.NotAfter) {
				t.Errorf("next renewal %s, want before %s", s.NextRenewal, s.NotAfter)
			}
			// Names outside the configuration are refused without an order.
			before := h.requests.Load()
			if _, err := h.leaf("b.example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("b.example.com: got %v, want unrecognized name", err)
			}
			if n := h.requests.Load() - before; n > 1 { // one for the renewal window
				t.Errorf("%d requests to the authority for a name without a route", n)
			}
			// No challenge is pending, so validators are refused.
			if _, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: "a.example.com", InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}}); err == nil {
				t.Error("a validator was served although no order is pending")
			}
			entries, err := os.ReadDir(filepath.Join(h.storage, "challenges"))
			if err != nil || len(entries) != 0 {
				t.Errorf("challenges left in the storage: %v (%v)", entries, err)
			}
			err = filepath.Walk(h.storage, func(path string, info os.FileInfo, err error) error {
				if err == nil && info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s has mode %s: others can read it", path, info.Mode())
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// After a restart, stored certificates are served at once, without new orders, even if the
// authority is down.
func TestACMEServesStoredCertificatesAfterRestart(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	first := h.start(h.config(nil), "a.example.com")
	cert := h.obtained(first, "a.example.com")
	first.stop()
	h.server.Close()
	second := h.start(h.config(nil), "a.example.com")
	got, err := h.leaf("a.example.com")
	if err != nil || !got.Equal(cert) {
		t.Errorf("after a restart: %v, want the same certificate", err)
	}
	if s := second.statusOf(t, "a.example.com"); s.LastError != "" {
		t.Errorf("status %+v", s)
	}
}

// After a reset, the authority knows neither our account nor the certificate to replace.
// Renewal must succeed anyway.
func TestACMERenewsAfterTheAuthorityWasReset(t *testing.T) {
	t.Parallel()
	before, anew := newACMEHouse(t, acmePlan{}), newACMEHouse(t, acmePlan{})
	first := before.start(before.config(nil), "a.example.com")
	cert := before.obtained(first, "a.example.com")
	first.stop()
	handler := http.HandlerFunc(anew.server.Config.Handler.ServeHTTP)
	before.broken.Store(&handler)
	anew.directory, anew.bundle, anew.storage = before.directory, before.bundle, before.storage
	anew.start(anew.config(nil), "a.example.com")
	command := newEdge(t, anew.config(nil), Options{Hosts: []string{"a.example.com"}, PlainHTTP: true})
	if err := command.Obtain(t.Context(), nil, true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the certificate of the new authority is served", func() bool {
		got, err := anew.leaf("a.example.com")
		return err == nil && !got.Equal(cert)
	})
}

// A new host gets a certificate after a restart; existing ones keep theirs.
func TestACMEObtainsForAnAddedHost(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	first := h.start(h.config(nil), "a.example.com")
	cert := h.obtained(first, "a.example.com")
	first.stop()
	second := h.start(h.config(nil), "a.example.com", "b.example.com")
	h.obtained(second, "b.example.com")
	if got, err := h.leaf("a.example.com"); err != nil || !got.Equal(cert) {
		t.Errorf("a.example.com: %v, want its old certificate", err)
	}
}

// A failing name does not affect others. Its status names the reason and a remedy.
func TestACMEFailureOfOneNameAffectsNoOther(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	h.dns.absent = []string{"bad.example.com"}
	r := h.start(h.config(nil), "good.example.com", "bad.example.com")
	h.obtained(r, "good.example.com")
	eventually(t, "the failure is in the status", func() bool { return r.statusOf(t, "bad.example.com").LastError != "" })
	s := r.statusOf(t, "bad.example.com")
	if !strings.Contains(s.LastError, "the authority says") || !strings.Contains(s.LastError, "; ") || !s.NextRenewal.After(time.Now().Add(-time.Minute)) || !s.NotAfter.IsZero() {
		t.Errorf("status %+v", s)
	}
	if _, err := h.leaf("bad.example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("got %v, want the name refused", err)
	}
	if !strings.Contains(r.log.String(), `no certificate for \"bad.example.com\" yet: `) {
		t.Errorf("the refusal is not explained: %s", r.log)
	}
	h.dns.mu.Lock()
	h.dns.absent = nil
	h.dns.mu.Unlock()
	h.obtained(r, "bad.example.com")
	if s := r.statusOf(t, "bad.example.com"); s.LastError != "" {
		t.Errorf("the error stays after success: %+v", s)
	}
}

// The authority's server certificate is verified against the configured roots only.
func TestACMERefusesAnUntrustedAuthority(t *testing.T) {
	t.Parallel()
	h := newACMEHouse(t, acmePlan{})
	r := h.start(h.config(func(c *ACMEConfig) { c.CA = "" }), "a.example.com")
	eventually(t, "the failure is in the status", func() bool { return r.statusOf(t, "a.example.com").LastError != "" })
	if got := r.statusOf(t, "a.example.com").LastError; !strings.Contains(got, "is not trusted") || !strings.Contains(got, "tls.acme.ca") {
		t.Errorf("got %q", got)
	}
}
