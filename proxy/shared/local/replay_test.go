package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/shared"
)

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex // guards at
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	maxAge = 60 * time.Second
	skew   = 30 * time.Second
)

// fresh returns a store whose start was clean.
func fresh(t testing.TB, nonces, perKey int) (*Replay, *clock) {
	t.Helper()
	c := &clock{at: noon}
	r, err := started(startConfig{
		Nonces: nonces, PerKey: perKey, Window: maxAge, Skew: skew, Now: c.now,
		State: touch(t, filepath.Join(t.TempDir(), "nonces"), nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

// numbered returns a distinct claim for each n.
func numbered(n uint64) (claim [16]byte) {
	binary.LittleEndian.PutUint64(claim[:], n*0x9e3779b97f4a7c15) // odd, so one to one
	return claim
}

// sign claims signature n, created at a time by a signer with a correct clock.
func sign(r *Replay, n uint64, created time.Time) error {
	return r.Claim(context.Background(), "acme", numbered(n), created, created.Add(maxAge))
}

func TestClaimOnce(t *testing.T) {
	r, _ := fresh(t, 10, 10)
	if err := sign(r, 1, noon); err != nil {
		t.Errorf("first use: got %v", err)
	}
	if err := sign(r, 1, noon); !errors.Is(err, shared.ErrReplayed) {
		t.Errorf("second use: got %v, want %v", err, shared.ErrReplayed)
	}
	if err := r.Claim(context.Background(), "other", numbered(1), noon, noon.Add(maxAge)); !errors.Is(err, shared.ErrReplayed) {
		t.Errorf("use under another key: got %v, want %v", err, shared.ErrReplayed)
	}
	if err := r.Claim(context.Background(), "acme", numbered(1), noon, noon.Add(time.Hour)); !errors.Is(err, shared.ErrReplayed) {
		t.Errorf("use with another expiry: got %v, want %v", err, shared.ErrReplayed)
	}
	if err := sign(r, 2, noon); err != nil {
		t.Errorf("another signature: got %v", err)
	}
	if got := r.Status(); got.Live != 2 || got.Refused.Replayed != 3 || got.FullestKey != "acme" || got.FullestLive != 2 {
		t.Errorf("got status %+v, want 2 live, both of acme, 3 replays", got)
	}
}

// Many goroutines make the same claims at once.
func TestConcurrentClaimsAreGrantedOnce(t *testing.T) {
	const workers, claims = 16, 500
	r, c := fresh(t, claims, claims)
	var won [claims]int
	var mu sync.Mutex // guards won
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			key := fmt.Sprintf("key-%d", w%4)
			for i := range claims {
				n := (i + w*31) % claims
				created := noon.Add(time.Duration(n%40) * time.Second)
				err := r.Claim(context.Background(), key, numbered(uint64(n)), created, created.Add(maxAge))
				switch {
				case err == nil:
					mu.Lock()
					won[n]++
					mu.Unlock()
				case !errors.Is(err, shared.ErrReplayed):
					t.Errorf("claim %d: got %v", n, err)
				}
				if i%100 == 0 {
					r.Status()
					c.add(time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	for n, times := range won {
		if times != 1 {
			t.Errorf("claim %d was granted %d times", n, times)
		}
	}
	if got := r.Status().Live; got != claims {
		t.Errorf("got %d live, want %d", got, claims)
	}
}

// A signature is refused in every second of its life, and its claim is dropped within a quarter
// of the window after its end.
func TestClaimsAreDroppedOnlyAfterTheirEnd(t *testing.T) {
	const width = 23 // seconds: a quarter of the window, rounded up
	for _, tt := range []struct {
		name    string
		created time.Duration // from the first use
		until   time.Duration // from created
		end     time.Duration // from created
	}{
		{"correct clock", 0, maxAge, maxAge},
		{"clock ahead", skew, maxAge, maxAge},
		{"clock behind", -maxAge, maxAge, maxAge},
		{"short life", 0, time.Second, maxAge},
		{"longer life than configured", 0, 5 * time.Minute, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for phase := range width {
				r, c := fresh(t, 10, 10)
				c.add(time.Duration(phase) * time.Second)
				created := c.now().Add(tt.created)
				end := created.Add(tt.end)
				claim := func() error {
					return r.Claim(context.Background(), "acme", numbered(1), created, created.Add(tt.until))
				}
				if err := claim(); err != nil {
					t.Fatalf("first use: got %v", err)
				}
				for ; !c.now().After(end.Add((width + 2) * time.Second)); c.add(500 * time.Millisecond) {
					err := claim()
					live := r.Status().Live
					counts := c.now().Unix() <= end.Unix() // as the verifier computes it
					over := c.now().Unix() > end.Unix()+width
					switch {
					case err == nil:
						t.Fatalf("%v after the end: used again", c.now().Sub(end))
					case counts && !errors.Is(err, shared.ErrReplayed):
						t.Fatalf("%v before the end: got %v, want %v", end.Sub(c.now()), err, shared.ErrReplayed)
					case counts && live != 1 || over && live != 0:
						t.Fatalf("%v after the end: got %d live", c.now().Sub(end), live)
					}
				}
				if err := sign(r, 2, c.now()); err != nil {
					t.Fatalf("a new signature: got %v", err)
				}
			}
		})
	}
}

func TestFullStoreRefusesNewClaims(t *testing.T) {
	r, c := fresh(t, 5, 3)
	claim := func(key string, n uint64) error {
		return r.Claim(context.Background(), key, numbered(n), c.now(), c.now().Add(maxAge))
	}
	var keyFull *shared.KeyFullError
	for i, tt := range []struct {
		key  string
		n    uint64
		want error
	}{
		{"a", 1, nil},
		{"a", 2, nil},
		{"a", 3, nil},
		{"a", 4, &shared.KeyFullError{KeyID: "a"}},
		{"a", 1, shared.ErrReplayed}, // still reported as a replay
		{"b", 5, nil},
		{"b", 6, nil},
		{"b", 7, shared.ErrFull},
		{"c", 8, shared.ErrFull},
		{"b", 5, shared.ErrReplayed}, // nothing was dropped
		{"a", 1, shared.ErrReplayed},
	} {
		err := claim(tt.key, tt.n)
		switch want := tt.want.(type) {
		case *shared.KeyFullError:
			if !errors.As(err, &keyFull) || keyFull.KeyID != want.KeyID || !errors.Is(err, shared.ErrFull) {
				t.Errorf("claim %d: got %v, want that key %s is full", i, err, want.KeyID)
			}
		default:
			if !errors.Is(err, want) || errors.As(err, &keyFull) {
				t.Errorf("claim %d: got %v, want %v", i, err, want)
			}
		}
	}
	got := r.Status()
	want := Status{
		Live: 5, Capacity: 5, FullestKey: "a", FullestLive: 3, PerKey: 3,
		Refused: Refusals{Replayed: 3, Full: 2, KeyFull: 1},
	}
	if got != want {
		t.Errorf("got status\n%+v, want\n%+v", got, want)
	}
	c.add(2 * (maxAge + skew))
	for n := uint64(11); n <= 13; n++ {
		if err := claim("a", n); err != nil {
			t.Errorf("after the others expired: got %v", err)
		}
	}
}

// Expired claims in other shards are dropped too when the store is full.
func TestFullStoreDropsExpiredClaimsOfAllShards(t *testing.T) {
	r, c := fresh(t, 1000, 1000)
	for n := range uint64(1000) {
		if err := sign(r, n, c.now()); err != nil {
			t.Fatal(err)
		}
	}
	if err := sign(r, 1000, c.now()); !errors.Is(err, shared.ErrFull) {
		t.Errorf("got %v, want %v", err, shared.ErrFull)
	}
	c.add(2 * maxAge)
	claim := numbered(0) // one shard only
	for n := range 1000 {
		claim[8], claim[9] = byte(n), byte(n>>8)
		if err := r.Claim(context.Background(), "acme", claim, c.now(), c.now().Add(maxAge)); err != nil {
			t.Fatalf("claim %d: got %v", n, err)
		}
	}
}

func TestUncleanStartRefusesOlderSignatures(t *testing.T) {
	c := &clock{at: noon.Add(400 * time.Millisecond)}
	r, err := started(startConfig{Nonces: 1000, PerKey: 1000, Window: maxAge, Skew: skew, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	opens := noon.Add(skew + time.Second)
	if s := r.Status(); !s.WindowUntil.Equal(opens) || s.Note == "" {
		t.Errorf("got status %+v, want a note and a window until %v", s, opens)
	}
	for n := uint64(0); c.now().Before(noon.Add(3 * time.Minute)); n++ {
		created := c.now().Truncate(time.Second)
		err := sign(r, n, created)
		var window *shared.WindowError
		switch {
		case created.Before(opens) && (!errors.As(err, &window) || !window.Until.Equal(opens)):
			t.Fatalf("created at %v: got %v, want a window until %v", created, err, opens)
		case !created.Before(opens) && err != nil:
			t.Fatalf("created at %v: got %v", created, err)
		}
		if err := sign(r, 1<<32+n, noon.Add(skew)); !errors.As(err, &window) {
			t.Fatalf("at %v, created at the last second of the skew: got %v, want a window", created, err)
		}
		c.add(time.Second)
	}
	if s := r.Status(); !s.WindowUntil.IsZero() || s.Live == 0 || s.Refused.Window == 0 {
		t.Errorf("got status %+v, want claims, and the window closed", s)
	}
}

// After an unclean start, the clock is corrected, as on a machine without a battery-backed
// clock.
func TestFloorAfterUncleanStart(t *testing.T) {
	const second = time.Second
	for _, tt := range []struct {
		name           string
		begin          time.Time
		then           time.Time     // the clock at the later time
		elapsed        time.Duration // time since the start
		created, again time.Time     // the last that is refused, the first that is accepted
	}{
		{"correct", noon, noon.Add(10 * second), 10 * second, noon.Add(skew), noon.Add(skew + second)},
		{"starts in 1970", time.Unix(5, 0), noon.Add(10 * second), 10 * second, noon.Add(skew), noon.Add(skew + second)},
		{"starts ahead", noon.Add(5 * time.Minute), noon.Add(10 * second), 10 * second,
			noon.Add(5*time.Minute + skew), noon.Add(5*time.Minute + skew + second)},
		{"corrected after the window", time.Unix(5, 0), noon.Add(time.Hour), time.Hour,
			time.Unix(5, 0).Add(skew), noon.Add(time.Hour - maxAge)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &clock{at: tt.begin}
			r, err := started(startConfig{Nonces: 10, PerKey: 10, Window: maxAge, Skew: skew, Now: c.now})
			if err != nil {
				t.Fatal(err)
			}
			r.raiseFloor(tt.then, tt.elapsed)
			r.unclean.Store(false) // the test's clock cannot measure elapsed time
			var window *shared.WindowError
			if err := sign(r, 1, tt.created); !errors.As(err, &window) {
				t.Errorf("created at %v: got %v, want a window", tt.created, err)
			}
			if err := sign(r, 2, tt.again); err != nil {
				t.Errorf("created at %v: got %v", tt.again, err)
			}
		})
	}
}

// A used signature is refused whatever happens to the clock.
func TestClockChangesLetNoReplayIn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []time.Duration
	}{
		{"back a second", []time.Duration{-time.Second}},
		{"back an hour", []time.Duration{-time.Hour}},
		{"back ten years", []time.Duration{-87600 * time.Hour}},
		{"far forward and back", []time.Duration{87600 * time.Hour, -87600 * time.Hour}},
		{"to the edge and back", []time.Duration{maxAge + 30*time.Second, -maxAge - 30*time.Second}},
		{"back and forth", []time.Duration{time.Hour, -2 * time.Hour, 4 * time.Hour, -3*time.Hour + time.Second}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, c := fresh(t, 100, 100)
			n := uint64(0)
			use := func() error { n++; return sign(r, n, c.now()) }
			created := c.now()
			if err := use(); err != nil {
				t.Fatal(err)
			}
			for _, step := range tt.steps {
				c.add(step)
				var window *shared.WindowError
				if err := use(); err != nil && !errors.As(err, &window) {
					t.Errorf("another at %v: got %v", c.now(), err)
				}
				if err := sign(r, 1, created); err == nil {
					t.Errorf("at %v the signature of %v was used again", c.now(), created)
				}
			}
			// Signers are served once the clock is correct again.
			c.add(noon.Add(2 * time.Minute).Sub(c.now()))
			if err := sign(r, 1<<32, c.now()); err != nil {
				t.Errorf("with the correct clock: got %v", err)
			}
		})
	}
}

// A claim may come after the signature's end, if its exchange had to wait.
func TestLateClaimIsRefused(t *testing.T) {
	r, c := fresh(t, 10, 10)
	created := c.now()
	if err := sign(r, 1, created); err != nil {
		t.Fatal(err)
	}
	c.add(3 * maxAge)
	var window *shared.WindowError
	if err := sign(r, 1, created); !errors.As(err, &window) {
		t.Errorf("got %v, want a window: the claim was dropped", err)
	}
}

func TestNewRefusesMissingBounds(t *testing.T) {
	good := startConfig{Nonces: 1, PerKey: 1, Window: time.Second}
	if _, err := started(good); err != nil {
		t.Errorf("minimal: got %v", err)
	}
	for name, spoil := range map[string]func(*startConfig){
		"nothing":       func(c *startConfig) { *c = startConfig{} },
		"no room":       func(c *startConfig) { c.Nonces = 0 },
		"no share":      func(c *startConfig) { c.PerKey = 0 },
		"no window":     func(c *startConfig) { c.Window = 0 },
		"negative skew": func(c *startConfig) { c.Skew = -1 },
	} {
		c := good
		spoil(&c)
		if _, err := started(c); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
