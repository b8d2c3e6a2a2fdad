package h2

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// FuzzBlocks compares the decoder with that of golang.org/x/net, block by block on the same tables.
// Both must accept or refuse a block, and read the same fields.
func FuzzBlocks(f *testing.F) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, x := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":path", Value: "/a?b"}, {Name: "authorization", Value: "Bearer " + strings.Repeat("eyJh", 100), Sensitive: true}, {Name: "x-odd", Value: "\x00\xff"}} {
		_ = e.WriteField(x)
	}
	f.Add(b.Bytes(), b.Bytes(), uint8(7))
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, []byte{0xbe, 0x3f}, uint8(0))
	f.Add(append(b.Bytes(), 0x40, 1, 'a', 1, 'b'), []byte{0x3f, 0x30, 0x3f, 0x30}, uint8(0))
	f.Add([]byte{0x40, 1, 'a', 0x83, 0xff, 0xff, 0xff}, []byte{0x00, 0x81, 0x07, 0x80}, uint8(1))
	f.Fuzz(func(t *testing.T, one, two []byte, piece uint8) {
		ours := newBlockReader()
		var want []hpack.HeaderField
		theirs := hpack.NewDecoder(tableSize, func(f hpack.HeaderField) { want = append(want, f) })
		for _, block := range [][]byte{one, two, one} {
			if len(block) > 16<<10 {
				return
			}
			want = nil
			_, terr := theirs.Write(block)
			terr = errors.Join(terr, theirs.Close())
			ours.begin(1<<30, 1<<30)
			var err error
			for left := block; len(left) > 0 && err == nil; {
				n := len(left)
				if piece > 0 && len(block) < int(piece)*maxFragments {
					n = min(n, int(piece))
				}
				err = ours.add(left[:n])
				left = left[n:]
			}
			if err == nil {
				err = ours.end()
			}
			if (err == nil) != (terr == nil) {
				// golang.org/x/net accepts a table size update after fields while the table is
				// empty, and endless integers while they are zero.
				if terr == nil {
					return
				}
				// golang.org/x/net refuses the second of two updates, which RFC 7541, section 4.2,
				// allows.
				if err == nil && block[0]&0xe0 == 0x20 && strings.Contains(terr.Error(), "MUST occur at the beginning") {
					return
				}
				t.Fatalf("block %x: %v; want %v", block, err, terr)
			}
			if err != nil {
				return
			}
			if len(want) != len(ours.fields) {
				t.Fatalf("block %x: %d fields; want %d", block, len(ours.fields), len(want))
			}
			for i, w := range want {
				if g := ours.fields[i]; g.Name != w.Name || g.Value != w.Value {
					t.Fatalf("block %x: %q; want %v", block, g, w)
				}
			}
		}
	})
}

// Every string is decoded from its code, whether cached or not.
func TestHuffman(t *testing.T) {
	b := newBlockReader()
	for n := range 600 {
		var s strings.Builder
		for i := range n {
			s.WriteByte(byte(i*7 + n))
		}
		code := hpack.AppendHuffmanString(nil, s.String())
		for range 2 {
			if got, err := b.decode(code); err != nil || got != s.String() {
				t.Fatalf("%q: %q, %v", s.String(), got, err)
			}
		}
		if n > 0 {
			if _, err := b.decode(append(code, 0xff)); err == nil {
				t.Errorf("%d bytes of padding more are taken", n)
			}
		}
	}
}

func BenchmarkBlock(b *testing.B) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, x := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "127.0.0.1:8443"},
		{Name: ":path", Value: "/v1/models/half_plus_two:predict", Sensitive: true}, {Name: "content-type", Value: "application/json"},
		{Name: "authorization", Value: "Bearer " + strings.Repeat("eyJhbGciOiJSUzI1NiI", 40), Sensitive: true}} {
		_ = e.WriteField(x)
	}
	r := newBlockReader()
	b.ReportAllocs()
	for b.Loop() {
		r.begin(64<<10, 128)
		if r.add(block.Bytes()) != nil || r.end() != nil {
			b.Fatal("refused")
		}
	}
}
