package h2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// Every name of the static table is found under its index, and a decoder reads what was written.
func TestFieldsAreReadAsWritten(t *testing.T) {
	var got []string
	d := hpack.NewDecoder(0, func(f hpack.HeaderField) { got = append(got, f.Name+": "+f.Value) })
	static := hpack.NewDecoder(0, func(f hpack.HeaderField) {
		if i := staticName(f.Name); i == 0 {
			t.Errorf("%s is not found", f.Name)
		}
		got = append(got, f.Name)
	})
	for i := byte(1); i <= 61; i++ {
		got = nil
		if _, err := static.Write([]byte{0x80 | i}); err != nil {
			t.Fatal(err)
		}
		name := got[0]
		b := appendField(nil, name, "v")
		got = nil
		if _, err := d.Write(b); err != nil || len(got) != 1 || got[0] != name+": v" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, n := range []int{0, 1, 126, 127, 128, 254, 255, 16511, 16512, 70000} {
		for _, name := range []string{"x-odd", "set-cookie", strings.Repeat("n", n+1)} {
			value := strings.Repeat("v", n)
			got = nil
			if _, err := d.Write(appendField(nil, name, value)); err != nil || len(got) != 1 || got[0] != name+": "+value {
				t.Errorf("%.9s of %d bytes: %.40v, %v", name, n, got, err)
			}
		}
		got = nil
		if _, err := d.Write(appendLength(nil, int64(n))); err != nil || got[0] != fmt.Sprint("content-length: ", n) {
			t.Errorf("%v, %v", got, err)
		}
	}
	for status := 100; status < 600; status++ {
		got = nil
		if _, err := d.Write(appendStatus(nil, status)); err != nil || got[0] != fmt.Sprint(":status: ", status) {
			t.Errorf("%d: %v, %v", status, got, err)
		}
	}
}

// Blocks of every size are sent in frames that a strict parser accepts.
func TestSealedBlocksAreWhole(t *testing.T) {
	for _, n := range []int{0, 1, maxFrame - 50, maxFrame - 1, maxFrame, maxFrame + 1, 2 * maxFrame, 5*maxFrame - 3} {
		b := append([]byte("before"), make([]byte, frameHead)...)
		b = appendField(appendStatus(b, 200), "x", strings.Repeat("y", n))
		b = sealBlock(b, 6, 7, true)
		fr := http2.NewFramer(nil, bytes.NewReader(b[6:]))
		fr.ReadMetaHeaders = hpack.NewDecoder(0, nil)
		f, err := fr.ReadFrame()
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
			continue
		}
		m, ok := f.(*http2.MetaHeadersFrame)
		if !ok || m.StreamID != 7 || !m.StreamEnded() || m.PseudoValue("status") != "200" || len(m.RegularFields()[0].Value) != n {
			t.Errorf("%d bytes: %v", n, f)
		}
	}
}

func TestBlocksAreBounded(t *testing.T) {
	var good []byte
	good = appendField(good, "a", "b")
	for name, x := range map[string]struct {
		block []byte
		want  error
	}{
		"many bytes":  {appendField(nil, "a", strings.Repeat("b", 970)), message.ErrHeadTooLarge},
		"many rows":   {bytes.Repeat(good, 11), message.ErrTooManyLines},
		"at the edge": {bytes.Repeat(good, 10), nil},
	} {
		b := newBlockReader()
		b.begin(1000, 10)
		if err := b.add(x.block); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.end(); err != nil || b.excess != x.want {
			t.Errorf("%s: %v, %v; want %v", name, err, b.excess, x.want)
		}
		b.begin(1000, 10) // the next block is not affected
		if err := b.add(good); err != nil || b.end() != nil || b.excess != nil || len(b.fields) != 1 {
			t.Errorf("%s: the next block: %v, %v", name, err, b.fields)
		}
	}
	b := newBlockReader()
	b.begin(1000, 10)
	if err := b.add(make([]byte, maxBlock+1)); err == nil {
		t.Errorf("a block of %d bytes is taken", maxBlock+1)
	}
	b.begin(1000, 10)
	var err error
	for range maxFragments + 1 {
		if err == nil {
			err = b.add(nil)
		}
	}
	if err == nil {
		t.Errorf("%d fragments are taken", maxFragments+1)
	}
}

// TestUpdatesOfTheTable: a block may begin with at most two table size updates, none above the
// announced size.
func TestUpdatesOfTheTable(t *testing.T) {
	good := appendField(nil, "a", "b")
	for name, x := range map[string]struct {
		updates string
		ok      bool
	}{
		"none":           {"", true},
		"to nothing":     {"\x20", true},
		"down and up":    {"\x20\x3f\xe1\x1f", true}, // 4096
		"three":          {"\x20\x20\x20", false},
		"beyond 4096":    {"\x3f\xe2\x1f", false},
		"an endless one": {"\x3f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", false},
	} {
		b := newBlockReader()
		for range 2 { // the limit applies to each block
			b.begin(1000, 10)
			if err := b.add(append([]byte(x.updates), good...)); (err == nil) != x.ok {
				t.Errorf("%s: %v", name, err)
			}
			if !x.ok {
				break
			}
		}
	}
	b := newBlockReader()
	b.begin(1000, 10)
	if err := b.add(append(good, 0x20)); err == nil {
		t.Error("one behind a field is taken")
	}
}

func TestWindows(t *testing.T) {
	w := receiving{left: 100, size: 100, most: 400}
	if !w.arrive(100) || w.arrive(1) {
		t.Fatal("the window is not kept")
	}
	if n := w.read(49, true); n != 0 {
		t.Errorf("an update of %d for 49 of 100", n)
	}
	if n := w.read(1, false); n != 50 {
		t.Errorf("an update of %d; want 50", n)
	}
	if n := w.read(50, true); n != 150 { // 50, and 100 more
		t.Errorf("an update of %d; want 150", n)
	}
	if w.left != 200 || w.size != 200 {
		t.Errorf("%+v", w)
	}
	s := sending(startWindow)
	if !s.grant(maxWindow-startWindow) || s.grant(1) {
		t.Error("a window may be wider than there is")
	}
}

// The reader returns the bytes sent, whatever the size of the pieces.
func TestReaderInPieces(t *testing.T) {
	var sent []byte
	for i, n := range []int{0, 1, maxFrame, 5, maxFrame - 1, maxFrame} {
		sent = append(appendFrameHead(sent, n, frameData, 0, uint32(i+1)), bytes.Repeat([]byte{byte(i)}, n)...)
	}
	for _, piece := range []int{1, 2, 9, 1000, 16 << 10, 1 << 20} {
		in := reader{conn: &pieces{sent, piece}, bufs: &wire.Buffers{}}
		for i, n := range []int{0, 1, maxFrame, 5, maxFrame - 1, maxFrame} {
			f, err := in.next()
			if err != nil || f.stream != uint32(i+1) || len(f.payload) != n || bytes.Count(f.payload, []byte{byte(i)}) != n {
				t.Fatalf("pieces of %d, frame %d: stream %d, %d bytes, %v", piece, i, f.stream, len(f.payload), err)
			}
		}
	}
}

type pieces struct {
	left  []byte
	piece int
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b, p.left[:min(len(p.left), p.piece)])
	p.left = p.left[n:]
	return n, nil
}
