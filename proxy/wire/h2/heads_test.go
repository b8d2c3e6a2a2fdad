package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// pieces sends a header block in frames of at most size bytes.
func (p *peer) pieces(id uint32, end bool, block []byte, size int) {
	first := block[:min(len(block), size)]
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		part := block[:min(len(block), size)]
		block = block[len(part):]
		_ = p.fr.WriteContinuation(id, len(block) == 0, part)
	}
}

// rawField is a literal whose strings are not Huffman code. The mark is 0x40 for a field that the
// table takes, else 0 or 0x10.
func rawField(mark byte, name, value string) []byte {
	b := appendInt([]byte{mark}, 0, 7, len(name))
	b = appendInt(append(b, name...), 0, 7, len(value))
	return append(b, value...)
}

// codedField is a literal in Huffman code.
func codedField(mark byte, name, value string) []byte {
	n, v := hpack.AppendHuffmanString(nil, name), hpack.AppendHuffmanString(nil, value)
	b := append(appendInt([]byte{mark}, 0x80, 7, len(n)), n...)
	return append(appendInt(b, 0x80, 7, len(v)), v...)
}

// tableGoesOn checks that the tables of both sides are in step, with two requests from stream id on. The
// encoder of the peer does not know the fields of raw blocks.
func (p *peer) tableGoesOn(id uint32) {
	p.t.Helper()
	head := slices.Concat(rawField(0, ":method", "GET"), rawField(0, ":scheme", "http"), rawField(0, ":authority", "a"))
	p.pieces(id, true, append(slices.Clone(head), rawField(0x40, ":path", "/new")...), maxFrame)
	p.want(fmt.Sprintf("%d: 200, %d: 4 bytes end", id, id))
	p.pieces(id+2, true, append(head, 0xbe), maxFrame) // the newest entry
	p.want(fmt.Sprintf("%d: 200, %d: 4 bytes end", id+2, id+2))
	if p.body[id+2] != "/new" {
		p.t.Errorf("the table has %q", p.body[id+2])
	}
}

var usualHead = []string{":method: GET", ":scheme: http", ":authority: a", ":path: /p"}

// largeHeads are the fields of heads that are too large, each in another way. None may end more than
// its stream.
func largeHeads() map[string][]byte {
	cookie := func(mark byte) []byte { return rawField(mark, "cookie", "a="+strings.Repeat("b", 4000)) }
	return map[string][]byte{
		"cookies":                   bytes.Repeat(cookie(0x10), 60),
		"cookies in the table":      bytes.Repeat(cookie(0x40), 60),
		"all cookies of a browser":  bytes.Repeat(cookie(0), 180),
		"a large value":             rawField(0, "a", strings.Repeat("b", 500_000)),
		"a large value, indexed":    rawField(0x40, "a", strings.Repeat("b", 500_000)),
		"a large value, coded":      codedField(0, "a", strings.Repeat("b", 500_000)),
		"a large value, both":       codedField(0x40, "a", strings.Repeat("b", 500_000)),
		"a large name":              rawField(0, strings.Repeat("b", 200_000), "c"),
		"a large name, indexed":     rawField(0x40, strings.Repeat("b", 200_000), "c"),
		"a large name and value":    codedField(0x40, strings.Repeat("b", 200_000), strings.Repeat("b", 200_000)),
		"an indexed name":           appendInt(appendInt(nil, 0x40, 6, 32), 0, 7, 0),
		"long codes":                codedField(0, "a", strings.Repeat("{", 40_000)),
		"longest codes":             codedField(0x40, "a", strings.Repeat("\x0a", 40_000)),
		"a bomb of references":      append(rawField(0x40, "a", strings.Repeat("b", 4000)), bytes.Repeat([]byte{0xbe}, 100_000)...),
		"a bomb of crumbs":          append(rawField(0x40, "cookie", "a=1"), bytes.Repeat([]byte{0xbe}, 100_000)...),
		"many small fields, new":    bytes.Repeat(rawField(0x40, "aa", "bb"), 40_000),
		"many small fields":         bytes.Repeat(rawField(0, "aa", "bb"), 40_000),
		"one field, then the table": append(rawField(0, "a", strings.Repeat("b", 100_000)), rawField(0x40, "x", "late")...),
	}
}

// TestLargeHeadCostsOnlyItsStream has a victim on the connection of a client with a head that is too
// large. Behind a proxy both may be callers that know nothing of each other.
func TestLargeHeadCostsOnlyItsStream(t *testing.T) {
	for name, fields := range largeHeads() {
		for _, size := range []int{maxFrame, 8<<10 + 1} {
			if len(fields)/size >= maxFragments {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				var faults []string
				h := func(s wire.Stream) {
					if f := s.Head().Fault; f != nil {
						faults = append(faults, f.Error())
					}
					ok(s)
				}
				bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
					p.greet()
					p.ask(1, false, ":method: POST", "x-before: in the table")
					p.data(1, false, "he")
					block := slices.Concat(p.block(usualHead...), fields)
					if name == "an indexed name" { // the rest of the field is to come
						block = append(block[:len(block)-1], appendInt(nil, 0, 7, 300_000)...)
						block = append(block, make([]byte, 300_000)...)
					}
					p.pieces(3, true, block, size)
					p.want("3: 400, 3: 2 bytes end")
					p.data(1, true, "llo")
					p.want("1: 200, 1: 5 bytes end")
					if len(faults) != 1 || !strings.HasPrefix(faults[0], message.ErrHeadTooLarge.Error()) && !strings.HasPrefix(faults[0], message.ErrTooManyLines.Error()) {
						t.Errorf("faults %q", faults)
					}
					p.tableGoesOn(5)
				})
			})
		}
	}
}

// TestLargeTrailersCostOnlyTheirStream: trailers are bounded more narrowly than heads.
func TestLargeTrailersCostOnlyTheirStream(t *testing.T) {
	for name, fields := range largeHeads() {
		if len(fields) < trailerBytes {
			continue
		}
		t.Run(name, func(t *testing.T) {
			bubble(t, ok, testOptions, func(t *testing.T, p *peer, _ *Server) {
				p.greet()
				p.ask(1, false, ":method: POST")
				p.ask(3, false, ":method: POST")
				p.pieces(3, true, fields, maxFrame)
				p.want("3: 400, 3: 2 bytes end")
				p.data(1, true, "hello")
				p.want("1: 200, 1: 5 bytes end")
				p.tableGoesOn(5)
			})
		})
	}
}

// TestBadTrailersAreAnswered: one caller with bad trailers must not spend what its connection has for
// resets. The content before them is not taken for whole.
func TestBadTrailersAreAnswered(t *testing.T) {
	for name, x := range map[string]struct{ trailer, want string }{
		"too large":       {"x: " + strings.Repeat("v", trailerBytes), "400, %[1]d: 2 bytes end"},
		"a pseudo field":  {":path: /x", "400, %[1]d: 2 bytes end, %[1]d: PROTOCOL_ERROR"},
		"of a connection": {"connection: x", "400, %[1]d: 2 bytes end, %[1]d: PROTOCOL_ERROR"},
	} {
		for _, content := range []string{"hello", ""} {
			t.Run(name+"/"+content, func(t *testing.T) {
				var ends []error
				h := func(s wire.Stream) {
					_, err := io.ReadAll(s.Body())
					ends = append(ends, err)
					if n, whole := message.ArrivedOf(s.Body()); n > 0 || whole || s.Body().Trailers() != nil {
						t.Errorf("%d bytes, whole %t, trailers %v", n, whole, s.Body().Trailers())
					}
					_ = s.Respond(&message.Response{Status: 400, ContentLength: 2}, false)
					_, _ = s.Write([]byte("no"))
					_ = s.Finish(nil)
				}
				bubble(t, h, testOptions, func(t *testing.T, p *peer, s *Server) {
					p.greet()
					for i := range 2 * uint32(s.options.Load().Resets) {
						id := 1 + 2*i
						p.ask(id, false, ":method: POST")
						p.data(id, false, content)
						p.headers(id, true, x.trailer)
						p.want(fmt.Sprintf("%d: "+x.want, id))
						if err := ends[i]; err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
							t.Errorf("the content ends with %v", err)
							return
						}
					}
				})
			})
		}
	}
}

// TestEndlessHeads: a head far above the limit ends the connection, because reading on costs time, and
// so do frames that bring nothing (CVE-2023-45288, CVE-2024-27316, CVE-2024-28182).
func TestEndlessHeads(t *testing.T) {
	o := testOptions
	o.HeadBytes = 4 << 10
	for name, send := range map[string]func(p *peer){
		"one value":        func(p *peer) { p.pieces(1, true, rawField(0, "a", strings.Repeat("b", maxBlock+maxFrame)), maxFrame) },
		"many fields":      func(p *peer) { p.pieces(1, true, bytes.Repeat([]byte{0x82}, maxBlock+maxFrame), maxFrame) },
		"small frames":     func(p *peer) { p.pieces(1, true, make([]byte, 100*(maxFragments+1)), 100) },
		"a length for all": func(p *peer) { p.pieces(1, true, appendInt([]byte{0, 1, 'a'}, 0, 7, 1<<28), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, ok, o, func(t *testing.T, p *peer, _ *Server) {
				p.greet()
				send(p)
				pass(2 * time.Second)
				switch got := p.got(); {
				case name == "a length for all" && got != "away 0 COMPRESSION_ERROR, closed":
					t.Errorf("got %s; want an error, as the field is cut off", got)
				case name != "a length for all" && got != "away 0 ENHANCE_YOUR_CALM, closed":
					t.Errorf("got %s", got)
				}
			})
		})
	}
	t.Run("empty frames in many blocks", func(t *testing.T) {
		bubble(t, ok, o, func(t *testing.T, p *peer, s *Server) {
			p.greet()
			block := p.block(usualHead...)
			for id := uint32(1); id < 200; id += 2 {
				_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true})
				for range maxFragments - 2 {
					_ = p.fr.WriteContinuation(id, false, nil)
				}
				_ = p.fr.WriteContinuation(id, true, nil)
			}
			pass(2 * time.Second)
			if got := p.got(); !strings.Contains(got, "ENHANCE_YOUR_CALM") || !strings.HasSuffix(got, "closed") {
				t.Errorf("got %.200s", got)
			}
		})
	})
}

// A head that is too large is not stored, however it arrives.
func TestLargeHeadsAreNotStored(t *testing.T) {
	const most = 16 << 10
	for name, fields := range largeHeads() {
		for _, size := range []int{maxFrame, len(fields)/maxFragments + 1} {
			b := newBlockReader()
			b.begin(most, 128)
			for p := fields; len(p) > 0; p = p[min(len(p), size):] {
				if err := b.add(p[:min(len(p), size)]); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				kept := 0
				for i := range b.fields {
					kept += fieldSize(&b.fields[i])
				}
				if kept > most || cap(b.rest) > 8*most || cap(b.text) > 8*most || b.table.size > tableSize {
					t.Fatalf("%s: %d bytes of fields, %d of an incomplete one, %d of text, %d in the table", name, kept, cap(b.rest), cap(b.text), b.table.size)
				}
			}
			b.release()
			if cap(b.fields) > keptFields {
				t.Errorf("%s: the idle connection keeps room for %d fields", name, cap(b.fields))
			}
		}
	}
}

// The table after a block does not depend on whether the block was too large.
func TestTableIsTheSameAfterLargeHeads(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 30, 500, 4000, 4090, 5000, 15_000, 15_400, 17_000, 20_000}
	for range 100 {
		small, large := newBlockReader(), newBlockReader()
		for range 3 {
			var block []byte
			if r.IntN(3) == 0 {
				block = appendInt(block, 0x20, 5, r.IntN(tableSize+1))
			}
			for range 1 + r.IntN(6) {
				mark := []byte{0, 0x10, 0x40, 0x40}[r.IntN(4)]
				name, value := strings.Repeat("n", 1+sizes[r.IntN(len(sizes))]), strings.Repeat(string(rune('0'+r.IntN(10))), sizes[r.IntN(len(sizes))])
				if r.IntN(2) == 0 {
					block = append(block, rawField(mark, name, value)...)
				} else {
					block = append(block, codedField(mark, name, value)...)
				}
			}
			piece := 1 + r.IntN(maxFrame)
			piece = max(piece, len(block)/maxFragments+1)
			for _, b := range []*blockReader{small, large} {
				b.begin(map[*blockReader]int{small: 100, large: 1 << 20}[b], 1000)
				for p := block; len(p) > 0; p = p[min(len(p), piece):] {
					if err := b.add(p[:min(len(p), piece)]); err != nil {
						t.Fatal(err)
					}
				}
				if err := b.end(); err != nil {
					t.Fatal(err)
				}
			}
			if a, b := small.table, large.table; a.size != b.size || !slices.Equal(a.entries[a.first:], b.entries[b.first:]) {
				t.Fatalf("%d bytes and %d entries; want %d and %d", a.size, len(a.entries)-a.first, b.size, len(b.entries)-b.first)
			}
		}
	}
}

// TestCookieCrumbs: clients may send each cookie in a field of its own (RFC 9113, section 8.2.3). They
// count as one field, as over HTTP/1.1, and all their bytes count.
func TestCookieCrumbs(t *testing.T) {
	crumbs := func(n int) []string {
		lines := make([]string, n)
		for i := range lines {
			lines[i] = fmt.Sprintf("cookie: name%d=value%d", i, i)
		}
		return lines
	}
	for name, x := range map[string]struct {
		lines []string
		want  string // "", or the fault
	}{
		"as many as a browser keeps for a host": {crumbs(180), ""},
		"beside as many fields as there may be": {append(manyLines(127), crumbs(180)...), ""},
		"beside one field more":                 {append(manyLines(129), crumbs(180)...), "too many fields: over 128 (limits.fields)"},
		"one field more, behind":                {append(crumbs(180), manyLines(129)...), "too many fields: over 128 (limits.fields)"},
		"too many bytes":                        {crumbs(2000), "head is too large: over 32KiB (limits.head_bytes)"},
		"far too many":                          {slices.Repeat([]string{"cookie: a=1"}, 100_000), "head is too large: over 32KiB (limits.head_bytes)"},
	} {
		t.Run(name, func(t *testing.T) {
			var fault, cookie string
			h := func(s wire.Stream) {
				if err := s.Head().Settle(); err != nil {
					fault = err.Error()
				}
				if n := s.Head().Fields.Count("cookie"); n > 1 {
					t.Errorf("%d fields of cookies", n)
				}
				cookie = s.Head().Fields.Get("cookie")
				ok(s)
			}
			bubble(t, h, testOptions, func(t *testing.T, p *peer, _ *Server) {
				p.greet()
				p.pieces(1, true, p.block(append(slices.Clone(usualHead), x.lines...)...), maxFrame)
				pass(time.Second)
				_ = p.got()
				if fault != x.want {
					t.Errorf("%q; want %q", fault, x.want)
				}
				if x.want == "" && cookie != strings.ReplaceAll(strings.Join(crumbs(180), "; "), "cookie: ", "") {
					t.Errorf("joined: %.300s", cookie)
				}
			})
		})
	}
}

// TestManyResetStreamsAreRemembered: content that a client sent before it received a reset is no fault,
// however many streams were reset at once.
func TestManyResetStreamsAreRemembered(t *testing.T) {
	o := testOptions
	o.Streams = 300
	early := func(s wire.Stream) {
		_ = s.Respond(&message.Response{Status: 403, ContentLength: 0}, false)
		_ = s.Finish(nil)
	}
	bubble(t, early, o, func(t *testing.T, p *peer, _ *Server) {
		p.greet()
		for i := range uint32(300) {
			p.ask(1+2*i, false, ":method: POST")
		}
		pass(time.Minute / 2)
		if got := p.got(); strings.Count(got, "NO_ERROR") != 300 {
			t.Fatalf("got %.200s", got)
		}
		p.headers(1, true, "x-sum: 1")
		p.headers(599, true, "x-sum: 1")
		p.ask(601, true)
		pass(time.Second)
		p.want("601: 403 end")
	})
}

// TestLargeAnswerCostsOnlyItsCall: requests of many callers share a connection to an upstream, so one
// answer with a head or trailers that are too large must not end the others.
func TestLargeAnswerCostsOnlyItsCall(t *testing.T) {
	for name, fields := range largeHeads() {
		if len(fields) < wire.MaxHead/2 && name != "a bomb of references" {
			continue
		}
		for _, within := range []string{"head", "trailers", "interim"} {
			t.Run(name+"/"+within, func(t *testing.T) {
				victim, attacked := make(chan uint32, 1), make(chan struct{})
				addr := script(t, nil, func(o *origin) {
					victim <- o.request()
					id := o.request()
					p := &peer{fr: o.fr}
					block := []byte{0x88} // :status 200
					switch within {
					case "trailers":
						o.headers(id, false, ":status:200")
						block = nil
					case "interim":
						block = rawField(0, ":status", "103")
					}
					p.pieces(id, within == "trailers", append(block, fields...), maxFrame)
					<-attacked
					o.headers(1, false, ":status:200", "x-indexed:by the encoder")
					_ = o.fr.WriteData(1, true, []byte("still here"))
					if id = o.request(); id != 0 {
						o.headers(id, true, ":status:200", "x-indexed:by the encoder")
					}
					o.drain()
				})
				cl := dialClient(t, addr, ClientOptions{})
				r := wire.Request{Head: time.Minute, Idle: time.Minute}
				got := make(chan string, 1)
				go func() {
					_, body, err := cl.get(context.Background(), r)
					got <- fmt.Sprintf("%s, %v", body, err)
				}()
				if id := <-victim; id != 1 {
					t.Fatalf("stream %d", id)
				}
				_, _, err := cl.get(context.Background(), r)
				close(attacked)
				if faultOf(err) != wire.FaultMalformed {
					t.Errorf("the call ends with %v", err)
				}
				if s := <-got; s != "still here, <nil>" {
					t.Errorf("the other call: %s", s)
				}
				if x, _, err := cl.get(context.Background(), r); err != nil || x.Head.Fields.Get("x-indexed") != "by the encoder" {
					t.Errorf("the next call: %v, %v", x.Head.Fields, err)
				}
			})
		}
	}
}
