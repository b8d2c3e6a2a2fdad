package ca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const serialA = "0123456789abcdef0123456789abcdef"

func TestBrokenIndexIsRefused(t *testing.T) {
	ok := `{"version":1,"crl":{"number":1,"this_update":"2026-11-29T00:00:00Z","next_update":"2026-12-29T00:00:00Z"},"certificates":[` +
		`{"serial":"` + serialA + `","names":["a"],"for":"client","not_before":"2026-11-29T00:00:00Z","not_after":"2026-11-30T00:00:00Z","fingerprint":"sha256:00"}]}`
	if _, err := parseIndex([]byte(ok)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "EOF"},
		{"cut", ok[:len(ok)-10], "unexpected EOF"},
		{"more behind", ok + "{}", "more behind its end"},
		{"another version", strings.Replace(ok, `"version":1`, `"version":2`, 1), "version is 2, want 1"},
		{"unknown field", strings.Replace(ok, `"names"`, `"nmaes"`, 1), `unknown field "nmaes"`},
		{"no number", strings.Replace(ok, `"number":1`, `"number":0`, 1), "crl.number is 0"},
		{"bad serial", strings.Replace(ok, serialA, "7", 1), "certificates[0] has no serial"},
		{"null", strings.Replace(ok, `[{`, `[null,{`, 1), "certificates[0] has no serial"},
		{"twice", strings.Replace(ok, `"certificates":[`, `"certificates":[`+ok[strings.Index(ok, `{"serial`):len(ok)-2]+",", 1), "occurs twice"},
		{"no end", strings.Replace(ok, `"not_after":"2026-11-30T00:00:00Z",`, "", 1), "not_after is missing"},
		{"no use", strings.Replace(ok, `"for":"client"`, `"for":"both"`, 1), "for or not_after"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, indexFile), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readIndex(dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("%s: got %v, want %q and the cure", tt.name, err, tt.want)
		}
	}
}

// testAuthority makes an authority in a folder.
func testAuthority(t *testing.T, now time.Time, f founding) *authority {
	t.Helper()
	f.life = span{caLife}
	template, err := f.template(now)
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := newAuthority(template, "")
	if err != nil {
		t.Fatal(err)
	}
	a.dir = t.TempDir()
	x := &index{Version: indexVersion}
	list, err := a.list(x, now, listLife)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x.text()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{crlFile: list, indexFile: text} {
		if err := os.WriteFile(filepath.Join(a.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// readList reads the list of revoked certificates and checks its signature.
func readList(t *testing.T, a *authority) *x509.RevocationList {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(a.dir, crlFile))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := pem.Decode(text)
	if b == nil {
		t.Fatalf("no PEM in %q", text)
	}
	list, err := x509.ParseRevocationList(b.Bytes)
	if err == nil {
		err = list.CheckSignatureFrom(a.cert)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func nothing(*index) (bool, error) { return false, nil }

// RFC 5280, section 3.3: an entry may leave only after it was on a list made after its end.
func TestRevokedStaysOnListUntilOneAfterItsEnd(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	a := testAuthority(t, now, founding{})
	at := func(now time.Time, change func(*index) (bool, error)) int {
		t.Helper()
		if _, err := a.record(t.Context(), now, 0, change); err != nil {
			t.Fatal(err)
		}
		return len(readList(t, a).RevokedCertificateEntries)
	}
	relist := func(*index) (bool, error) { return true, nil }
	end := now.Add(24 * time.Hour)
	first := at(now, func(x *index) (bool, error) {
		x.Certificates = append(x.Certificates, &entry{Serial: serialA, For: forClient, NotAfter: end, Revoked: now})
		return true, nil
	})
	for _, tt := range []struct {
		when string
		got  int
		want int
	}{
		{"at once", first, 1},
		{"long after its end, the first list since", at(end.Add(100*day), relist), 1},
		{"the next list", at(end.Add(100*day+time.Hour), relist), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d on the list, want %d", tt.when, tt.got, tt.want)
		}
	}
	x, err := readIndex(a.dir)
	if err != nil || len(x.Certificates) != 0 {
		t.Errorf("the index has %d certificates, %v; want none so long after the end", len(x.Certificates), err)
	}
}

func TestListIsWrittenAnewWhenDue(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, a *authority)
		later time.Duration
		want  int64 // number
	}{
		{"fresh", nil, time.Hour, 1},
		{"half over", nil, listLife/2 + time.Hour, 2},
		{"missing", func(t *testing.T, a *authority) {
			if err := os.Remove(filepath.Join(a.dir, crlFile)); err != nil {
				t.Fatal(err)
			}
		}, 0, 2},
		{"garbage", func(t *testing.T, a *authority) {
			if err := os.WriteFile(filepath.Join(a.dir, crlFile), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 0, 2},
		{"index ahead, as after a crash", func(t *testing.T, a *authority) {
			x, err := readIndex(a.dir)
			if err != nil {
				t.Fatal(err)
			}
			x.CRL.Number = 7
			text, err := x.text()
			if err == nil {
				err = os.WriteFile(filepath.Join(a.dir, indexFile), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, 0, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := testAuthority(t, now, founding{})
			if tt.spoil != nil {
				tt.spoil(t, a)
			}
			at := now.Add(tt.later)
			if _, err := a.record(t.Context(), at, 0, nothing); err != nil {
				t.Fatal(err)
			}
			list := readList(t, a)
			if list.Number.Int64() != tt.want {
				t.Errorf("list %v, want %d", list.Number, tt.want)
			}
			if want := at.Add(listLife); tt.want > 1 && !list.NextUpdate.Equal(want) {
				t.Errorf("until %v, want %v: as long as the last one", list.NextUpdate, want)
			}
		})
	}
}

func TestFailedChangeLeavesIndexAlone(t *testing.T) {
	now := time.Now()
	a := testAuthority(t, now, founding{})
	before, err := os.ReadFile(filepath.Join(a.dir, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no")
	_, err = a.record(t.Context(), now, 0, func(x *index) (bool, error) {
		x.Certificates = append(x.Certificates, &entry{Serial: serialA})
		return true, failed
	})
	after, readErr := os.ReadFile(filepath.Join(a.dir, indexFile))
	if !errors.Is(err, failed) || readErr != nil || string(after) != string(before) {
		t.Errorf("%v, index %q, %v; want it as it was", err, after, readErr)
	}
}

func TestWhatAKilledCommandLeftIsReplaced(t *testing.T) {
	now := time.Now()
	a := testAuthority(t, now, founding{})
	left := filepath.Join(a.dir, indexFile+".new")
	if err := os.WriteFile(left, []byte(strings.Repeat("half of an index", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.record(t.Context(), now, 0, nothing); err != nil {
		t.Fatal(err)
	}
	if _, err := readIndex(a.dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
}

func TestLockExcludesAndGivesUp(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(ended, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("second lock: %v, want a refusal", err)
	}
	unlock()
	again, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	again()
}
