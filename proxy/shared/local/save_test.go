package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/shared"
)

// touch writes a state file, as an operator would.
func touch(t testing.TB, name string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// next starts the next process.
func next(t testing.TB, c *clock, file string, change func(*startConfig)) *Replay {
	t.Helper()
	config := startConfig{Nonces: 1 << 20, PerKey: 1 << 20, Window: maxAge, Skew: skew, State: file, Now: c.now}
	if change != nil {
		change(&config)
	}
	r, err := started(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func gone(t testing.TB, name string) {
	t.Helper()
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: got %v, want it removed", name, err)
	}
}

func TestClaimsSurviveAPlannedStop(t *testing.T) {
	const claims = 20_000
	file := touch(t, filepath.Join(t.TempDir(), "nonces"), nil)
	c := &clock{at: noon}
	r := next(t, c, file, nil)
	gone(t, file)
	created := make([]time.Time, claims)
	for n := range created {
		created[n] = c.now()
		if err := r.Claim(context.Background(), fmt.Sprint("key-", n%3), numbered(uint64(n)), created[n], created[n].Add(maxAge)); err != nil {
			t.Fatal(err)
		}
		c.add(2 * time.Millisecond)
	}
	before := r.Status()
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v with %v, want mode 0600", info.Mode(), err)
	}
	if err := sign(r, claims, c.now()); !errors.Is(err, shared.ErrStopped) {
		t.Errorf("after the stop: got %v, want %v", err, shared.ErrStopped)
	}
	if err := r.Save(); err != nil {
		t.Errorf("a second stop: got %v", err)
	}

	for name, change := range map[string]func(*startConfig){
		"same":                nil,
		"longer window":       func(c *startConfig) { c.Window = 5 * time.Minute },
		"shorter window":      func(c *startConfig) { c.Window = 10 * time.Second },
		"different skew":      func(c *startConfig) { c.Skew = 7 * time.Second },
		"lower limits":        func(c *startConfig) { c.Nonces, c.PerKey = claims/2, claims/2 },
		"lower limit per key": func(c *startConfig) { c.PerKey = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			own := touch(t, filepath.Join(t.TempDir(), "nonces"), text)
			c := &clock{at: c.now()}
			r := next(t, c, own, change)
			gone(t, own)
			after := r.Status()
			if after.Live != before.Live || after.FullestLive != before.FullestLive || after.Note != "" || !after.WindowUntil.IsZero() {
				t.Errorf("got status\n%+v, want that of the stop\n%+v", after, before)
			}
			for range 10 {
				for n, at := range created {
					if c.now().After(at.Add(maxAge)) {
						continue
					}
					if err := r.Claim(context.Background(), "key-0", numbered(uint64(n)), at, at.Add(maxAge)); err == nil {
						t.Fatalf("claim %d was granted again", n)
					}
				}
				c.add(7 * time.Second)
			}
			c.add(maxAge)
			if err := sign(r, claims, c.now()); err != nil {
				t.Errorf("a new signature: got %v", err)
			}
		})
	}
}

// A planned stop during the window of an unclean start: the next process must continue the
// window.
func TestWindowSurvivesAPlannedStop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nonces")
	c := &clock{at: noon}
	r := next(t, c, file, nil)
	c.add(5 * time.Second)
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	r = next(t, c, file, nil)
	var window *shared.WindowError
	if err := sign(r, 1, noon.Add(-time.Second)); !errors.As(err, &window) {
		t.Errorf("got %v, want a window", err)
	}
	if got, want := r.Status().WindowUntil, noon.Add(skew+time.Second); !got.Equal(want) {
		t.Errorf("got a window until %v, want %v", got, want)
	}
}

// After a crash there is no state file.
func TestStartAfterACrashIsUnclean(t *testing.T) {
	file := touch(t, filepath.Join(t.TempDir(), "nonces"), nil)
	c := &clock{at: noon}
	r := next(t, c, file, nil)
	if err := sign(r, 1, noon); err != nil {
		t.Fatal(err)
	}
	r.crash(t)
	r = next(t, c, file, nil)
	var window *shared.WindowError
	if err := sign(r, 1, noon); !errors.As(err, &window) {
		t.Errorf("got %v, want a window", err)
	}
	if note := r.Status().Note; !strings.Contains(note, "no state file") {
		t.Errorf("got the note %q", note)
	}
}

// saved returns the state file of a store with two claims under two keys.
func saved(t testing.TB) []byte {
	t.Helper()
	r, c := fresh(t, 10, 10)
	for n, key := range []string{"acme", "bert"} {
		if err := r.Claim(context.Background(), key, numbered(uint64(n)), c.now(), c.now().Add(maxAge)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A state file that is truncated at any byte, or has any bit changed, makes the start unclean
// and is removed.
func TestDamagedStateFileMakesTheStartUnclean(t *testing.T) {
	whole := saved(t)
	if _, err := parseState(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := parseState(whole[:n]); err == nil {
			t.Errorf("the first %d bytes of %d are accepted", n, len(whole))
		}
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[n] ^= 1 << bit
			if _, err := parseState(b); err == nil {
				t.Errorf("byte %d is accepted with bit %d flipped", n, bit)
			}
		}
	}
	other := bytes.Clone(whole)
	other[len(stateMagic)+3]++
	for name, text := range map[string][]byte{
		"truncated":        whole[:len(whole)-1],
		"truncated magic":  whole[:5],
		"longer":           append(bytes.Clone(whole), 0),
		"twice":            append(bytes.Clone(whole), whole...),
		"another version":  other,
		"bit in a claim":   append(append(bytes.Clone(whole[:120]), whole[120]^1), whole[121:]...),
		"only the opening": []byte(stateMagic),
	} {
		t.Run(name, func(t *testing.T) {
			file := touch(t, filepath.Join(t.TempDir(), "nonces"), text)
			r := next(t, &clock{at: noon}, file, nil)
			gone(t, file)
			var window *shared.WindowError
			if err := sign(r, 1, noon); !errors.As(err, &window) {
				t.Errorf("got %v, want a window", err)
			}
			if s := r.Status(); !strings.Contains(s.Note, "damaged") || s.Live != 0 {
				t.Errorf("got status %+v, want nothing live, and that the file was damaged", s)
			}
		})
	}
}

// Files that must not be used fail the start and stay unchanged.
func TestUntrustedStateFilesAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		make       func(file string) error
	}{
		{"foreign", "not a state file", func(file string) error { return os.WriteFile(file, []byte("listen: :443\n"), 0o600) }},
		{"one newline", "not a state file", func(file string) error { return os.WriteFile(file, []byte("\n"), 0o600) }},
		{"others can write", "can be written by every user", func(file string) error {
			return errors.Join(os.WriteFile(file, nil, 0o600), os.Chmod(file, 0o606))
		}},
		{"folder", "not a regular file", func(file string) error { return os.Mkdir(file, 0o700) }},
		{"link", "not a regular file", func(file string) error { return os.Symlink("/dev/null", file) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "nonces")
			if err := tt.make(file); err != nil {
				t.Fatal(err)
			}
			_, err := started(startConfig{Nonces: 1, PerKey: 1, Window: maxAge, State: file})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Lstat(file); err != nil {
				t.Errorf("the file was removed: %v", err)
			}
		})
	}
}

// The start, not the stop, detects that no state file can be written.
func TestUnwritableFolderFailsTheStart(t *testing.T) {
	dir := t.TempDir()
	folders := map[string]string{
		"missing":  filepath.Join(dir, "missing"),
		"a file":   touch(t, filepath.Join(dir, "file"), nil),
		"readonly": filepath.Join(dir, "readonly"),
	}
	if err := os.Mkdir(folders["readonly"], 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		folders["readonly"] = "/proc/self" // root may write to all folders except the kernel's own
	}
	for name, folder := range folders {
		t.Run(name, func(t *testing.T) {
			_, err := started(startConfig{Nonces: 1, PerKey: 1, Window: maxAge, State: filepath.Join(folder, "nonces")})
			if err == nil {
				t.Error("got no error")
			}
		})
	}
}

// The folder is missing during the first Save.
func TestSaveMayBeRepeatedAfterAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "var")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := &clock{at: noon}
	file := touch(t, filepath.Join(dir, "nonces"), nil)
	r := next(t, c, file, nil)
	if err := sign(r, 1, noon); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err == nil {
		t.Error("got no error without a folder")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("got %v, %v, want the state file and its lock alone", entries, err)
	}
	if err := sign(next(t, c, file, nil), 1, noon); !errors.Is(err, shared.ErrReplayed) {
		t.Errorf("got %v, want %v", err, shared.ErrReplayed)
	}
}

// Arbitrary files, and such with a correct length and checksum: whatever decodes must encode to
// the same bytes, and restore.
func FuzzState(f *testing.F) {
	f.Add(saved(f))
	f.Add([]byte(stateMagic))
	f.Add(appendState(nil, &state{floor: noFloor, keys: []string{"", "a"}}))
	f.Add(appendState(nil, &state{floor: 1, keys: []string{"a"}, buckets: []savedBucket{{from: 1, to: 2, last: 1, end: 9, records: make([]byte, recordSize)}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		files := [][]byte{b}
		if len(b) > lengthAt+8+32 {
			files = append(files, seal(bytes.Clone(b[:len(b)-32]), 0))
		}
		for _, b := range files {
			s, err := parseState(b)
			if err != nil {
				continue
			}
			if again := appendState(nil, s); !bytes.Equal(again, b) {
				t.Fatalf("got\n%q, want\n%q", again, b)
			}
			r, err := started(startConfig{Nonces: 10, PerKey: 10, Window: maxAge, Skew: skew, Now: func() time.Time { return noon }})
			if err != nil {
				t.Fatal(err)
			}
			r.restore(s)
			live := 0
			for _, k := range s.buckets {
				live += len(k.records) / recordSize
			}
			if got := int(r.live.Load()); got > live {
				t.Fatalf("got %d live of %d", got, live)
			}
			r.Status()
			r.stopped.Store(true)
			if _, err := parseState(appendState(nil, r.state())); err != nil {
				t.Fatalf("the restored state does not decode: %v", err)
			}
		}
	})
}
