package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// A certificate is renewed at the time that its authority recommends, within safe limits.
func TestRenewalTimeFollowsTheAuthorityWithinLimits(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, tt := range []struct {
		name   string
		life   time.Duration
		window time.Time
		want   time.Duration // after begin
	}{
		{"no recommendation", 90 * day, time.Time{}, 60 * day},
		{"short-lived", 6 * day, time.Time{}, 4 * day},
		{"recommended", 90 * day, begin.Add(50 * day), 50 * day},
		{"recommended now, before a revocation", 90 * day, begin.Add(-day), 9 * day},
		{"recommended too late", 90 * day, begin.Add(95 * day), 81 * day},
	} {
		leaf := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(tt.life)}
		st := &acmeState{stored: &storedCert{cert: &tls.Certificate{Leaf: leaf}, issuer: "ours"}, window: acme.RenewalInfo{SelectedTime: tt.window}}
		if got := (&acmeSource{authorized: []*authorityClient{{key: "ours"}}}).renewalOf(st).Sub(begin); got != tt.want {
			t.Errorf("%s: renewed after %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestExplainACME(t *testing.T) {
	t.Parallel()
	problem := func(kind, detail string) error {
		return fmt.Errorf("order: %w", acme.Problem{Type: "urn:ietf:params:acme:error:" + kind, Detail: detail})
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{problem("connection", "timeout"), "the authority says: timeout (connection); point the DNS of a.test to this gateway"},
		{problem("dns", "NXDOMAIN"), "the authority says: NXDOMAIN (dns); give a.test an A or AAAA record"},
		{problem("caa", "no"), "allow this authority in the CAA record"},
		{problem("rateLimited", "too many"), "letsencrypt-staging"},
		{problem("unauthorized", strings.Repeat("x", 5000)), "something else answers for a.test"},
		{fmt.Errorf("dial: %w", &net.DNSError{Name: "ca.test"}), `the authority's name "ca.test" cannot be resolved`},
		{fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), "the authority cannot be reached"},
		{fmt.Errorf("get: %w", x509.UnknownAuthorityError{}), "name its root in tls.acme.ca"},
		{fmt.Errorf("write: %w", &fs.PathError{Op: "open", Path: "/x", Err: fs.ErrPermission}), "make /store a folder that this process can write"},
		{errors.New("saving assets: no space left on device"), "the storage is full; free space in /store"},
		{fmt.Errorf("x: %w", errClock), "set the clock"},
		{errors.New("adding temporary record for zone: no"), "check tls.acme.dns"},
		{context.DeadlineExceeded, "the order took too long"},
		{errors.New("anything"), "anything; it will be retried"},
	} {
		got := explainACME("a.test", tt.err, "/store")
		if !strings.Contains(got, tt.want) || len(got) > 3*maxDetail {
			t.Errorf("%.80v: got %q, want %q in it", tt.err, got, tt.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for given, want := range map[string]time.Duration{
		"60":                            time.Minute,
		"Sun, 01 Nov 2026 02:00:00 GMT": 2 * time.Hour,
		"999999999999":                  maxRetryAfter,
		"Sun, 01 Nov 2099 02:00:00 GMT": maxRetryAfter,
	} {
		b := &bounds{now: func() time.Time { return now }}
		b.note(given)
		if got := b.until().Sub(now); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
	for _, given := range []string{"", "-1", "soon"} {
		b := &bounds{now: func() time.Time { return now }}
		if b.note(given); !b.until().IsZero() {
			t.Errorf("%q: %s, want none", given, b.until())
		}
	}
}

// Orders after the burst are spaced out.
func TestPaceSpacesOutOrders(t *testing.T) {
	t.Parallel()
	p := pace{now: time.Now}
	r := rhythm{burst: 3, apart: 20 * time.Millisecond}
	began := time.Now()
	for range 6 {
		if err := p.wait(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 40*time.Millisecond {
		t.Errorf("six orders began within %s", took)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.apart = time.Hour
	if err := p.wait(ended, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	refused, tries, at := usualRhythm().refused, 0, time.Duration(0)
	for _, wait := range refused {
		if at < time.Hour {
			tries++
		}
		at += wait * 3 / 4 // the shortest wait after jitter
	}
	if tries > 2 {
		t.Errorf("%d orders of one name in its first hour of failures, want at most 2", tries)
	}
}
