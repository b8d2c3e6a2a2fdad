package expiry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const day = 24 * time.Hour

var birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestLeftCountsFractionsOfTheLifetime(t *testing.T) {
	for _, tt := range []struct {
		name string
		life time.Duration // 0: no beginning is known
		left time.Duration
		want Left
	}{
		{"a year, half", 360 * day, 180 * day, Enough},
		{"a year, just more than a third", 360 * day, 120*day + 1, Enough},
		{"a year, a third", 360 * day, 120 * day, Third},
		{"a year, just more than a tenth", 360 * day, 36*day + 1, Third},
		{"a year, a tenth", 360 * day, 36 * day, Tenth},
		{"a year, a moment", 360 * day, 1, Tenth},
		{"a year, nothing", 360 * day, 0, None},
		{"a year, long ended", 360 * day, -day, None},
		{"six days, three", 6 * day, 3 * day, Enough},
		{"six days, two", 6 * day, 2 * day, Third},
		{"a minute, five seconds", time.Minute, 5 * time.Second, Tenth},
		{"no beginning, 31 days", 0, 31 * day, Enough},
		{"no beginning, 30 days", 0, 30 * day, Third},
		{"no beginning, 9 days", 0, 9 * day, Tenth},
	} {
		e := End{NotAfter: birth.Add(tt.life)}
		if tt.life > 0 {
			e.NotBefore = birth
		}
		now := e.NotAfter.Add(-tt.left)
		if got := e.Left(now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if next := e.next(now); !next.IsZero() && (e.Left(next) == tt.want || !next.After(now)) {
			t.Errorf("%s: the next change is said to be at %s", tt.name, next)
		}
	}
	if (&End{}).Left(birth) != Enough || !(&End{}).next(birth).IsZero() {
		t.Error("what does not exist yet ends")
	}
}

func TestEarliestOfOneNameIsKept(t *testing.T) {
	at := func(name string, d int) End {
		return End{Kind: CA, Name: name, NotAfter: birth.Add(time.Duration(d) * day)}
	}
	var got []string
	for _, e := range Sort([]End{at("b", 9), at("a", 5), at("b", 3), {Kind: Certificate, Name: "b"}, at("c", 3)}) {
		got = append(got, e.Kind+" "+e.Name)
	}
	if want := "certificate b, ca b, ca c, ca a"; strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}

// root returns a certificate in PEM that lives from day a to day b.
func root(t *testing.T, a, b int) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: birth.Add(time.Duration(a) * day), NotAfter: birth.Add(time.Duration(b) * day)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestBundleEndsWithItsFirstRootToCome(t *testing.T) {
	old, soon, late := root(t, 0, 10), root(t, 5, 50), root(t, 6, 500)
	for _, tt := range []struct {
		name  string
		roots [][]byte
		want  int // day of the end; -1: none
	}{
		{"one", [][]byte{late}, 500},
		{"several", [][]byte{late, soon}, 50},
		{"one that has ended stands in front", [][]byte{old, late, soon}, 50},
		{"all have ended", [][]byte{root(t, 0, 3), old, root(t, 0, 7)}, 10},
		{"with text around", [][]byte{[]byte("# roots\n"), soon, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}, 50},
		{"none", [][]byte{[]byte("nothing")}, -1},
	} {
		_, end, ok := Bundle(bytes.Join(tt.roots, nil), birth.Add(20*day))
		if ok != (tt.want >= 0) || ok && !end.Equal(birth.Add(time.Duration(tt.want)*day)) {
			t.Errorf("%s: %s, %t, want day %d", tt.name, end, ok, tt.want)
		}
	}
}

// ward is a running watch in a synctest bubble, and its log.
type ward struct {
	mu   sync.Mutex // guards the fields below
	log  bytes.Buffer
	ends []End
}

func (w *ward) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *ward) set(ends ...End) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = ends
}

// said returns the warnings since the last call, as level, name and what is left.
func (w *ward) said() []string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for line := range strings.Lines(w.log.String()) {
		all = append(all, strings.TrimSpace(line))
	}
	w.log.Reset()
	return all
}

func watch(t *testing.T, ends ...End) *ward {
	t.Helper()
	w := &ward{ends: ends}
	o := Options{List: func() []End { w.mu.Lock(); defer w.mu.Unlock(); return w.ends }, Log: slog.New(slog.NewTextHandler(w, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = NewWatch(o).Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func TestEachThresholdIsWarnedOfOnce(t *testing.T) {
	for _, life := range []time.Duration{60 * day, 6 * day, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			now := time.Now()
			w := watch(t, End{Kind: SigningKey, Name: "acme-1", NotBefore: now, NotAfter: now.Add(life), Cure: "make a new one"})
			if got := w.said(); len(got) > 0 {
				t.Errorf("at the start: %q", got)
			}
			for _, step := range []struct {
				after time.Duration // of the lifetime
				want  string
			}{
				{life * 6 / 10, ""}, {life * 7 / 10, "less than a third"}, {life * 8 / 10, ""},
				{life * 92 / 100, "less than a tenth"}, {life * 98 / 100, ""}, {life + time.Second, "a key, certificate or list has ended"}, {life * 2, ""},
			} {
				time.Sleep(time.Until(now.Add(step.after)))
				got := w.said()
				if step.want == "" && len(got) > 0 || step.want != "" && (len(got) != 1 || !strings.Contains(got[0], step.want)) {
					t.Errorf("lifetime %s, after %s: %q, want one with %q", life, step.after, got, step.want)
				}
				for _, line := range got {
					for _, part := range []string{"level=WARN", "kind=signing_key", "name=acme-1", `cure="make a new one"`, "not_after=20", "Z left="} {
						if !strings.Contains(line, part) {
							t.Errorf("%q lacks %s", line, part)
						}
					}
				}
			}
		})
	}
}

func TestReloadNeitherRepeatsNorHidesWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		near := End{Kind: CA, Name: "upstreams.tf.ca", NotBefore: now.Add(-95 * day), NotAfter: now.Add(5 * day)}
		far := near
		far.NotAfter = now.Add(400 * day)
		w := watch(t, near)
		if got := w.said(); len(got) != 1 || !strings.Contains(got[0], "less than a tenth") {
			t.Fatalf("at the start: %q, want one of a tenth", got)
		}
		w.set(near, End{Kind: SigningKey, Name: "new", NotAfter: now.Add(-time.Hour)})
		time.Sleep(2 * longest)
		if got := w.said(); len(got) != 1 || !strings.Contains(got[0], "name=new") || !strings.Contains(got[0], "has ended") {
			t.Errorf("after a reload with another key: %q, want one of that", got)
		}
		w.set(far)
		time.Sleep(2 * longest)
		w.set(near)
		time.Sleep(2 * longest)
		if got := w.said(); len(got) != 1 || !strings.Contains(got[0], "upstreams.tf.ca") {
			t.Errorf("after the old file came back: %q, want one warning", got)
		}
	})
}

func TestRenewedCertificatesAreWarnedOfOnlyAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		e := End{Kind: Certificate, Name: "a.test", NotBefore: now.Add(-70 * day), NotAfter: now.Add(20 * day), Renewing: true}
		w := watch(t, e)
		if got := w.said(); len(got) > 0 {
			t.Errorf("while it is being renewed: %q", got)
		}
		e.Renewing = false
		w.set(e)
		time.Sleep(2 * longest)
		if got := w.said(); len(got) != 1 || !strings.Contains(got[0], "third") {
			t.Errorf("after the renewal failed: %q, want one of a third", got)
		}
	})
}

func TestWarningsOfOneLookAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []End
		for i := range 5000 {
			all = append(all, End{Kind: SigningKey, Name: fmt.Sprint("k", i), NotAfter: time.Now().Add(-time.Hour)})
		}
		w := watch(t, all...)
		got := w.said()
		if len(got) != maxLines+1 || !strings.Contains(got[maxLines], "more=4900") {
			t.Errorf("%d lines, want %d and one for the rest", len(got), maxLines)
		}
		time.Sleep(time.Hour)
		if got := w.said(); len(got) > 0 {
			t.Errorf("an hour later: %d lines, want none", len(got))
		}
	})
}
