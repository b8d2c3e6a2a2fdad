//go:build unix

package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/shared"
)

// A drains while B already uses the same file. B is killed, and C starts before or after A
// ends. A's file must not make C accept what B accepted.
func TestFileOfADrainingProcessDoesNotCoverASecondOne(t *testing.T) {
	for name, order := range map[string]struct{ aEndsFirst bool }{"A ends before C starts": {true}, "C starts before A ends": {false}} {
		t.Run(name, func(t *testing.T) {
			file := touch(t, filepath.Join(t.TempDir(), "nonces"), nil)
			c := &clock{at: noon}
			a := next(t, c, file, nil)
			b := next(t, c, file, nil)
			if note := b.Status().Note; !strings.Contains(note, "another process uses") {
				t.Errorf("B's note is %q", note)
			}
			c.add(skew + 2*time.Second) // B's window is over: it accepts signatures
			usedAtB := c.now()
			if err := sign(b, 7, usedAtB); err != nil {
				t.Fatal(err)
			}
			b.crash(t)
			if order.aEndsFirst {
				if err := a.Save(); err != nil {
					t.Fatal(err)
				}
			}
			last := next(t, c, file, nil)
			var window *shared.WindowError
			if err := sign(last, 7, usedAtB); !errors.As(err, &window) {
				t.Errorf("what B accepted: got %v; want it refused", err)
			}
			if err := a.Save(); err != nil {
				t.Fatal(err)
			}
			gone(t, file) // no process may rely on it
		})
	}
}

func TestStoreWithoutTheLockWritesNothing(t *testing.T) {
	file := touch(t, filepath.Join(t.TempDir(), "nonces"), nil)
	c := &clock{at: noon}
	owner := next(t, c, file, nil)
	second := next(t, c, file, nil)
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	gone(t, file)
	if err := owner.Save(); err != nil {
		t.Fatal(err)
	}
	gone(t, file) // the owner does not know what the second one accepted
	third := next(t, c, file, nil)
	var window *shared.WindowError
	if err := sign(third, 1, noon); !errors.As(err, &window) {
		t.Errorf("got %v", err)
	}
	c.add(skew + 2*time.Second)
	if err := sign(third, 2, c.now()); err != nil {
		t.Fatal(err)
	}
	if err := third.Save(); err != nil {
		t.Fatal(err)
	}
	if err := sign(next(t, c, file, nil), 2, c.now()); !errors.Is(err, shared.ErrReplayed) {
		t.Errorf("after a planned stop of an owner alone: got %v, want %v", err, shared.ErrReplayed)
	}
}

// The second process continues after the owner has ended and the next owner has removed its mark.
func TestStoreWithoutTheLockMarksEachOwner(t *testing.T) {
	file := touch(t, filepath.Join(t.TempDir(), "nonces"), nil)
	c := &clock{at: noon}
	owner, second := next(t, c, file, nil), next(t, c, file, nil)
	owner.crash(t)
	owner = next(t, c, file, nil)
	gone(t, file+".unclean")
	c.add(2 * (skew + 2*time.Second))
	used := c.now()
	if err := sign(second, 1, used); err != nil {
		t.Fatal(err)
	}
	if err := owner.Save(); err != nil {
		t.Fatal(err)
	}
	var window *shared.WindowError
	if err := sign(next(t, c, file, nil), 1, used); !errors.As(err, &window) {
		t.Errorf("what the second accepted: got %v", err)
	}
}

func TestLockFileOfADeadProcessDoesNotBlock(t *testing.T) {
	file := touch(t, filepath.Join(t.TempDir(), "nonces"), nil)
	touch(t, file+".lock", []byte("left by a process that was killed"))
	r := next(t, &clock{at: noon}, file, nil)
	if err := sign(r, 1, noon); err != nil {
		t.Error(err)
	}
}

func TestFileInAFolderThatOthersWriteIsNotTrusted(t *testing.T) {
	for _, mode := range []os.FileMode{0o777 | os.ModeSticky, 0o702, 0o770} {
		dir := filepath.Join(t.TempDir(), "open")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		file := touch(t, filepath.Join(dir, "nonces"), nil)
		r := next(t, &clock{at: noon}, file, nil)
		var window *shared.WindowError
		if err := sign(r, 1, noon); !errors.As(err, &window) {
			t.Errorf("%v: an empty file that somebody else could have made: got %v", mode, err)
		}
		if note := r.Status().Note; !strings.Contains(note, "others may write") {
			t.Errorf("%v: the note is %q", mode, note)
		}
	}
}

func TestStoreRefusesClaimsBeforeBegin(t *testing.T) {
	r, err := New(Config{Bounds: Bounds{Nonces: 10, PerKey: 10, Window: maxAge}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := r.Claim(context.Background(), "acme", numbered(1), now, now.Add(maxAge)); !errors.Is(err, shared.ErrStopped) {
		t.Errorf("got %v", err)
	}
	if err := r.Save(); err != nil {
		t.Errorf("Save of a store that never began: %v", err)
	}
}

func TestClaimEndsWithItsContext(t *testing.T) {
	r, c := fresh(t, 10, 10)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Claim(ctx, "acme", numbered(1), c.now(), c.now().Add(maxAge)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := sign(r, 1, c.now()); err != nil {
		t.Errorf("the claim that was not made: %v", err)
	}
}

func TestAdjustLetsNoReplayIn(t *testing.T) {
	usual := Bounds{Nonces: 100, PerKey: 100, Window: maxAge, Skew: skew}
	for name, c := range map[string]struct {
		change func(*Bounds)
		later  time.Duration // from the first use to the second
	}{
		"longer window, claim still there":           {func(b *Bounds) { b.Window = 5 * time.Minute }, 50 * time.Second},
		"longer window, claim forgotten":             {func(b *Bounds) { b.Window = 5 * time.Minute }, 100 * time.Second},
		"shorter window":                             {func(b *Bounds) { b.Window = 10 * time.Second }, 30 * time.Second},
		"more skew":                                  {func(b *Bounds) { b.Skew = 4 * time.Minute }, 100 * time.Second},
		"limits below the claims":                    {func(b *Bounds) { b.Nonces, b.PerKey = 1, 1 }, 30 * time.Second},
		"longer window, forgotten before the change": {func(b *Bounds) { b.Window = 5 * time.Minute }, 4 * time.Minute},
	} {
		for _, beforehand := range []bool{true, false} {
			r, clock := fresh(t, 100, 100)
			used := clock.now()
			for n := range uint64(3) {
				if err := sign(r, n, used); err != nil {
					t.Fatal(err)
				}
			}
			b := usual
			c.change(&b)
			adjust := func() {
				if err := r.Adjust(b); err != nil {
					t.Fatal(err)
				}
			}
			if beforehand {
				adjust()
			}
			clock.add(c.later)
			r.Status() // drops expired claims
			if !beforehand {
				adjust()
			}
			if err := r.Claim(context.Background(), "acme", numbered(1), used, used.Add(b.Window)); err == nil {
				t.Errorf("%s, adjusted beforehand %v: a replay was accepted", name, beforehand)
			}
		}
	}
	if r, _ := fresh(t, 1, 1); r.Adjust(Bounds{}) == nil {
		t.Error("zero bounds were accepted")
	}
}
