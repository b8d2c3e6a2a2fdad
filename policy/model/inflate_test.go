package model

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// inflateIn inflates data that comes in pieces of size bytes.
func inflateIn(encoding string, data []byte, size int, limit int64) ([]byte, error) {
	var out []byte
	z, err := newInflater(encoding, limit, func(p []byte) error { out = append(out, p...); return nil })
	if err != nil {
		return nil, err
	}
	defer z.free()
	for len(data) > 0 {
		n := min(size, len(data))
		if err := z.write(data[:n]); err != nil {
			return nil, err
		}
		data = data[n:]
	}
	return out, z.end()
}

// deflated compresses data. level is one of compress/flate.
func deflated(t testing.TB, encoding string, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	if encoding == "gzip" {
		w, err = gzip.NewWriterLevel(&b, level)
	} else {
		w, err = zlib.NewWriterLevel(&b, level)
	}
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 { // several blocks
		n := min(70_000, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// inflatedByGo inflates exactly one stream with package compress.
func inflatedByGo(encoding string, data []byte) ([]byte, error) {
	src := bytes.NewReader(data)
	var r io.Reader
	if encoding == "gzip" {
		z, err := gzip.NewReader(src)
		if err != nil {
			return nil, err
		}
		z.Multistream(false)
		r = z
	} else {
		z, err := zlib.NewReader(src)
		if err != nil {
			return nil, err
		}
		r = z
	}
	out, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err == nil && src.Len() > 0 {
		err = errCompMore
	}
	return out, err
}

// refusedHead reports whether data has a head that package compress takes, and the inflater does not.
func refusedHead(encoding string, data []byte) bool {
	if encoding == "gzip" {
		return data[3]&^(1|8|16) != 0
	}
	return data[1]&0x20 != 0
}

// texts are contents of different kinds: of long and short repeats, and of none.
func texts() [][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 150_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	words := make([]byte, 0, 200_000)
	for len(words) < 190_000 {
		words = append(words, strings.Repeat(string(rune('a'+random.IntN(26))), 1+random.IntN(300))...)
		words = append(words, noise[random.IntN(1000):][:random.IntN(40)]...)
	}
	// Repeats from near and from as far as a window reaches, which cross its end.
	var far []byte
	for len(far) < 150_000 {
		if len(far) < 100 || random.IntN(3) == 0 {
			far = append(far, noise[random.IntN(1000):][:random.IntN(200)]...)
			continue
		}
		offset := min(len(far), []int{1 + random.IntN(9), 1 + random.IntN(300), 1 + random.IntN(32768), 32768 - random.IntN(300)}[random.IntN(4)])
		for range 3 + random.IntN(256) {
			far = append(far, far[len(far)-offset])
		}
	}
	return [][]byte{nil, []byte("a"), []byte(strings.Repeat("sallyport", 3)), noise[:300], noise, words, far, make([]byte, 300_000)}
}

func TestInflaterReadsWhatEncodersWrite(t *testing.T) {
	for _, encoding := range []string{"gzip", "deflate"} {
		for _, level := range []int{flate.NoCompression, flate.BestSpeed, flate.DefaultCompression, flate.BestCompression, flate.HuffmanOnly} {
			for i, want := range texts() {
				data := deflated(t, encoding, want, level)
				for _, size := range []int{1, 7, 4096, len(data)} {
					if got, err := inflateIn(encoding, data, size, int64(len(want))); err != nil || !bytes.Equal(got, want) {
						t.Fatalf("%s, level %d, text %d in pieces of %d: %d bytes (%v), want %d", encoding, level, i, size, len(got), err, len(want))
					}
				}
			}
		}
	}
}

func TestInflaterStopsAtTheLimit(t *testing.T) {
	bomb := deflated(t, "gzip", make([]byte, 10<<20), flate.BestCompression)
	var delivered int
	z, err := newInflater("gzip", 1<<20, func(p []byte) error { delivered += len(p); return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer z.free()
	if err := z.write(bomb); !errors.Is(err, errInflated) || delivered > 1<<20 {
		t.Fatalf("%v after %d bytes, want %v after 1 MiB at most", err, delivered, errInflated)
	}
	if _, err := inflateIn("gzip", deflated(t, "gzip", make([]byte, 100), -1), 9, 99); !errors.Is(err, errInflated) {
		t.Errorf("100 bytes with a limit of 99: %v", err)
	}
}

func TestInflaterRefusesWhatServersReadDifferently(t *testing.T) {
	one := deflated(t, "gzip", []byte("public"), -1)
	two := deflated(t, "gzip", []byte("secret"), -1)
	z := deflated(t, "deflate", []byte("public"), -1)
	raw := z[2 : len(z)-4]
	edit := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[(at+len(b))%len(b)] = to
		return b
	}
	for name, c := range map[string]struct {
		encoding string
		data     []byte
		want     error
	}{
		"second gzip member":       {"gzip", append(bytes.Clone(one), two...), errCompMore},
		"zero behind gzip":         {"gzip", append(bytes.Clone(one), 0), errCompMore},
		"garbage behind zlib":      {"deflate", append(bytes.Clone(z), 'x'), errCompMore},
		"nothing":                  {"gzip", nil, errCompCut},
		"gzip without its size":    {"gzip", one[:len(one)-4], errCompCut},
		"zlib without its end":     {"deflate", z[:len(z)-1], errCompCut},
		"wrong CRC":                {"gzip", edit(one, -8, one[len(one)-8]^1), errCompCheck},
		"wrong size":               {"gzip", edit(one, -4, 7), errCompCheck},
		"wrong Adler-32":           {"deflate", edit(z, -1, z[len(z)-1]^1), errCompCheck},
		"raw deflate":              {"deflate", raw, errInflate},
		"zlib as gzip":             {"gzip", append(bytes.Clone(z), make([]byte, 8)...), errInflate},
		"gzip as zlib":             {"deflate", one, errInflate},
		"preset dictionary":        {"deflate", append([]byte{0x78, 0xbb, 0, 0, 0, 1}, raw...), errInflate},
		"gzip header with a CRC":   {"gzip", edit(one, 3, 2), errInflate},
		"gzip header with extras":  {"gzip", edit(one, 3, 4), errInflate},
		"gzip with reserved flags": {"gzip", edit(one, 3, 0x80), errInflate},
		"offset before the start":  {"deflate", []byte{0x78, 0x9c, 0x4b, 0x04, 0x22, 0x00}, errInflate},
		"gzip with a long name":    {"gzip", slices.Concat(edit(one, 3, 8)[:10], bytes.Repeat([]byte{'a'}, 600), []byte{0}, one[10:]), errInflate},
		"empty dictionary":         {"deflate", slices.Concat([]byte{0x78, 0xbb, 0, 0, 0, 1}, raw, z[len(z)-4:]), errInflate},
		"brotli":                   {"br", one, errEncoding},
		"two encodings":            {"gzip, gzip", one, errEncoding},
	} {
		for _, size := range []int{1, 2, 3, 1 << 20} {
			if _, err := inflateIn(c.encoding, c.data, size, 1<<20); !errors.Is(err, c.want) {
				t.Errorf("%s in pieces of %d: %v, want %v", name, size, err, c.want)
			}
		}
	}
}

// A caller may leave at any byte. What it leaves behind must not stay, nor disturb the next caller.
func TestInflaterEndsWhereverItIsFreed(t *testing.T) {
	before := runtime.NumGoroutine()
	want := texts()[5]
	for _, encoding := range []string{"gzip", "deflate"} {
		data := deflated(t, encoding, want, -1)
		for n := 0; n < len(data); n += 1 + n/2 {
			z, err := newInflater(encoding, 1<<20, func([]byte) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if err := z.write(data[:n]); err != nil {
				t.Fatal(err)
			}
			z.free()
			if got, err := inflateIn(encoding, data, len(data), 1<<20); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s, after one that was left at byte %d: %d bytes (%v)", encoding, n, len(got), err)
			}
		}
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func TestInflaterReadsGzipWithNames(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name, w.Comment = "body.json", "of a file"
	w.Write([]byte("{}"))
	w.Close()
	if got, err := inflateIn("gzip", b.Bytes(), 3, 10); err != nil || string(got) != "{}" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzInflater(f *testing.F) {
	for _, text := range texts()[:4] {
		for _, level := range []int{0, 1, 9, flate.HuffmanOnly} {
			f.Add(true, deflated(f, "gzip", text, level), uint16(1))
			f.Add(false, deflated(f, "deflate", text, level), uint16(3))
		}
	}
	f.Fuzz(func(t *testing.T, zipped bool, data []byte, size uint16) {
		encoding := map[bool]string{true: "gzip", false: "deflate"}[zipped]
		got, err := inflateIn(encoding, data, int(size)+1, 1<<20)
		whole, wholeErr := inflateIn(encoding, data, len(data)+1, 1<<20)
		if (err == nil) != (wholeErr == nil) || err == nil && !bytes.Equal(got, whole) {
			t.Fatalf("pieces of %d: %v; whole: %v", int(size)+1, err, wholeErr)
		}
		want, wantErr := inflatedByGo(encoding, data)
		switch {
		case err == nil && (wantErr != nil || !bytes.Equal(got, want)):
			t.Fatalf("%q, package compress gives %q (%v)", got, want, wantErr)
		case err != nil && wantErr == nil && !refusedHead(encoding, data) && len(want) < 1<<20:
			t.Fatalf("%v, package compress gives %q", err, want)
		}
		level := []int{0, 1, 6, flate.HuffmanOnly}[size%4]
		back, err := inflateIn(encoding, deflated(t, encoding, data, level), int(size)+1, int64(len(data)))
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("level %d: %q (%v)", level, back, err)
		}
	})
}
