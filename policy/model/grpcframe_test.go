package model

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var v2Shape = nameVersion(1, 2)

// v2Call is a ModelInferRequest for a model.
func v2Call(name string) []byte {
	return slices.Concat(pbText(1, name), pbText(2, "1"), pbText(7, strings.Repeat("tensor", 50)))
}

func TestFramesOfUnaryCalls(t *testing.T) {
	public := framed(0, v2Call("public"))
	zipped := func(s string) []byte { return framed(1, deflated(t, "gzip", v2Call(s), -1)) }
	compressed := ScanOptions{Encoding: "gzip", Inflate: 1 << 20}
	for name, c := range map[string]struct {
		options ScanOptions
		body    []byte
		want    error
	}{
		"one message":                         {ScanOptions{}, public, nil},
		"no message":                          {ScanOptions{}, nil, errFrameNone},
		"a second message":                    {ScanOptions{}, slices.Concat(public, framed(0, v2Call("secret"))), errFrameSecond},
		"a second message of no bytes":        {ScanOptions{}, slices.Concat(public, framed(0, nil)), errFrameSecond},
		"a byte behind the message":           {ScanOptions{}, slices.Concat(public, []byte{0}), errFrameSecond},
		"an empty message first":              {ScanOptions{}, slices.Concat(framed(0, nil), public), errNameless},
		"flag 2":                              {ScanOptions{}, framed(2, v2Call("public")), errFrameFlag},
		"flag 0x81":                           {compressed, framed(0x81, v2Call("public")), errFrameFlag},
		"flag of trailers in gRPC-Web":        {ScanOptions{}, framed(0x80, []byte("grpc-status: 0")), errFrameFlag},
		"half a prefix":                       {ScanOptions{}, public[:3], errFrameCut},
		"prefix alone":                        {ScanOptions{}, public[:5], errFrameCut},
		"half a message":                      {ScanOptions{}, public[:len(public)-1], errFrameCut},
		"length beyond the body":              {ScanOptions{}, append([]byte{0, 0xff, 0xff, 0xff, 0xff}, public[5:]...), errFrameCut},
		"length before the end of a field":    {ScanOptions{}, slices.Concat([]byte{0, 0, 0, 0, 9}, pbText(1, "public"), pbText(2, "1")), errProtoCut},
		"compressed":                          {compressed, zipped("public"), nil},
		"not compressed, with an encoding":    {compressed, public, nil},
		"compressed, no encoding":             {ScanOptions{Inflate: 1 << 20}, zipped("public"), errFramePlain},
		"compressed, identity":                {ScanOptions{Inflate: 1 << 20, Encoding: "identity"}, zipped("public"), errFramePlain},
		"compressed, not inflated":            {ScanOptions{Encoding: "gzip"}, zipped("public"), errFrameInflate},
		"compressed, another encoding":        {ScanOptions{Inflate: 1 << 20, Encoding: "snappy"}, zipped("public"), errEncoding},
		"compressed, two encodings":           {ScanOptions{Inflate: 1 << 20, Encoding: "gzip,deflate"}, zipped("public"), errEncoding},
		"compressed, upper case":              {ScanOptions{Inflate: 1 << 20, Encoding: "GZIP"}, zipped("public"), errEncoding},
		"gzip that is plain":                  {compressed, framed(1, v2Call("public")), errInflate},
		"gzip of nothing":                     {compressed, framed(1, nil), errCompCut},
		"gzip of an empty message":            {compressed, framed(1, deflated(t, "gzip", nil, -1)), errNameless},
		"gzip in two messages":                {compressed, slices.Concat(framed(1, zipped("public")[5:20]), framed(0, zipped("public")[20:])), errCompCut},
		"gzip with a second member":           {compressed, framed(1, slices.Concat(zipped("public")[5:], zipped("secret")[5:])), errCompMore},
		"a model split over two gzip members": {compressed, framed(1, slices.Concat(deflated(t, "gzip", v2Call("public"), -1), deflated(t, "gzip", pbText(1, "secret"), -1))), errCompMore},
		"compressed second name":              {compressed, framed(1, deflated(t, "gzip", slices.Concat(v2Call("public"), pbText(1, "secret")), -1)), errProtoTwice},
		"a compressed second message":         {compressed, slices.Concat(public, zipped("secret")), errFrameSecond},
		"more than inflate":                   {ScanOptions{Encoding: "gzip", Inflate: 100}, zipped("public"), errInflated},
		"many more than inflate":              {ScanOptions{Encoding: "gzip", Inflate: 100}, framed(1, deflated(t, "gzip", bytes.Repeat([]byte{0x48, 1}, 1000), -1)), errInflated},
		"exactly inflate":                     {ScanOptions{Encoding: "gzip", Inflate: int64(len(v2Call("public")))}, zipped("public"), nil},
		"deflate":                             {ScanOptions{Encoding: "deflate", Inflate: 1 << 20}, framed(1, deflated(t, "deflate", v2Call("public"), -1)), nil},
		"deflate that is raw":                 {ScanOptions{Encoding: "deflate", Inflate: 1 << 20}, framed(1, deflated(t, "deflate", v2Call("public"), -1)[2:]), errInflate},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scanPieces(t, v2Shape, false, c.options, c.body)
			switch {
			case c.want == nil && (err != nil || !slices.Equal(got, []Named{{"public", "1", ""}})):
				t.Errorf("%v, %v", got, err)
			case c.want != nil && (!errors.Is(err, c.want) || !errors.Is(err, ErrBody)):
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}

// protocols.md, 1.9, row 8: every message of a stream and every task has its own model.
func TestFramesOfStreamsAreDecidedOneByOne(t *testing.T) {
	denied := errors.New("denied")
	public := ScanOptions{Encoding: "gzip", Inflate: 1 << 20, Decide: func(n Named) error {
		if n.Model != "public" {
			return denied
		}
		return nil
	}}
	v2 := v2Shape
	call := func(name string) []byte { return framed(0, v2Call(name)) }
	zipped := func(name string) []byte { return framed(1, deflated(t, "gzip", v2Call(name), -1)) }
	for name, c := range map[string]struct {
		shape   shape
		streams bool
		body    []byte
		calls   int
		want    error
	}{
		"no message":                {v2, true, nil, 0, nil},
		"three messages":            {v2, true, slices.Concat(call("public"), call("public"), zipped("public")), 3, nil},
		"secret second":             {v2, true, slices.Concat(call("public"), call("secret"), call("public")), 2, denied},
		"secret second, compressed": {v2, true, slices.Concat(zipped("public"), zipped("secret")), 2, denied},
		"half a secret second":      {v2, true, slices.Concat(call("public"), call("secret")[:90]), 1, errFrameCut},
		"no name second":            {v2, true, slices.Concat(call("public"), framed(0, pbText(2, "1")), call("public")), 1, errNameless},
		"empty message second":      {v2, true, slices.Concat(call("public"), framed(0, nil)), 1, errNameless},
		"tasks": {tasksAt1, false, framed(0, slices.Concat(pbText(1, pbText(1, pbText(1, "public"))), pbText(1, pbText(1, pbText(1, "public"))))),
			2, nil},
		"secret task second": {tasksAt1, false, framed(0, slices.Concat(pbText(1, pbText(1, pbText(1, "public"))), pbText(1, pbText(1, pbText(1, "secret"))))),
			1, errProtoMixed},
		"secret tasks": {tasksAt1, false, framed(0, slices.Concat(pbText(1, pbText(1, pbText(1, "secret"))), pbText(1, pbText(1, pbText(1, "secret"))))),
			1, denied},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scanPieces(t, c.shape, c.streams, public, c.body)
			if len(got) != c.calls || !errors.Is(err, c.want) || c.want == denied && err != denied {
				t.Errorf("%d messages decided, %v; want %d, %v", len(got), err, c.calls, c.want)
			}
		})
	}
}

// Whoever forwards a piece after Write must not forward the end of a message that is not decided.
func TestFramesAreDecidedBeforeTheirLastByteIsForwarded(t *testing.T) {
	for name, body := range map[string][]byte{
		"plain":   framed(0, v2Call("m")),
		"gzip":    framed(1, deflated(t, "gzip", v2Call("m"), flate.BestSpeed)),
		"nothing": framed(0, nil),
	} {
		var decided bool
		s := v2Shape
		if name == "nothing" {
			s = nothing
		}
		scanner := newFrameScanner(s, true, ScanOptions{Encoding: "gzip", Inflate: 1 << 20, Decide: func(Named) error { decided = true; return nil }})
		defer scanner.Close()
		for i, c := range body {
			if _, err := scanner.Write([]byte{c}); err != nil || decided != (i == len(body)-1) {
				t.Fatalf("%s: after byte %d of %d decided is %v (%v)", name, i, len(body), decided, err)
			}
		}
	}
}

// A caller learns early that a long message is refused, and an early consent decides nothing.
func TestFramesOfLongMessagesAreSightedEarly(t *testing.T) {
	denied := errors.New("denied")
	tensor := pbText(7, strings.Repeat("x", 1<<20))
	for name, c := range map[string]struct {
		shape shape
		head  []byte
		more  []byte // behind the tensor
		want  error  // of the whole, if the early sight is allowed
	}{
		"V2":              {v2Shape, slices.Concat(pbText(1, "m"), pbText(2, "3")), nil, nil},
		"V2, two names":   {v2Shape, slices.Concat(pbText(1, "m"), pbText(2, "3")), pbText(1, "secret"), errProtoTwice},
		"spec":            {specAt1, pbText(1, slices.Concat(pbText(1, "m"), pbText(2, pbNum(1, 3)))), nil, nil},
		"spec, two specs": {specAt1, pbText(1, slices.Concat(pbText(1, "m"), pbText(2, pbNum(1, 3)))), pbText(1, pbText(1, "secret")), errProtoTwice},
	} {
		body := framed(0, slices.Concat(c.head, tensor, c.more))
		var sighted, decided []Named
		early := ScanOptions{
			Early:  func(n Named) error { sighted = append(sighted, n); return nil },
			Decide: func(n Named) error { decided = append(decided, n); return nil },
		}
		scanner := newFrameScanner(c.shape, false, early)
		if _, err := scanner.Write(body[:5+len(c.head)+10]); err != nil || !slices.Equal(sighted, []Named{{"m", "3", ""}}) || decided != nil {
			t.Errorf("%s: before the tensor: sighted %v, decided %v, %v", name, sighted, decided, err)
		}
		_, err := scanner.Write(body[5+len(c.head)+10:])
		if !errors.Is(err, c.want) || len(sighted) != 1 || (c.want == nil) != slices.Equal(decided, []Named{{"m", "3", ""}}) {
			t.Errorf("%s: at the end: sighted %v, decided %v, %v; want %v", name, sighted, decided, err, c.want)
		}
		early.Early = func(Named) error { return denied }
		if _, err := newFrameScanner(c.shape, false, early).Write(body[:5+len(c.head)+10]); err != denied {
			t.Errorf("%s: %v, want the error of Early as it is", name, err)
		}
	}
}

func TestFrameErrorsAreFinal(t *testing.T) {
	denied := errors.New("denied")
	scanner := newFrameScanner(v2Shape, true, ScanOptions{Decide: func(Named) error { return denied }})
	for range 2 {
		if n, err := scanner.Write(framed(0, v2Call("m"))); n != 0 || err != denied {
			t.Errorf("%d, %v", n, err)
		}
	}
	if err := scanner.Check(); err != denied {
		t.Error(err)
	}
}

func TestFrameScannersDoNotAllocatePerPiece(t *testing.T) {
	tensor := slices.Concat(pbText(1, "resnet"), pbText(2, "1"), pbText(7, strings.Repeat("x", 1<<16)))
	scanner := newFrameScanner(v2Shape, true, ScanOptions{Encoding: "gzip", Inflate: 1 << 20, Decide: func(Named) error { return nil }})
	defer scanner.Close()
	bodies := map[string][]byte{"plain": framed(0, tensor), "gzip": framed(1, deflated(t, "gzip", tensor, -1))}
	for name, body := range bodies {
		allocations := func(piece int) float64 {
			send := func() {
				for p := range slices.Chunk(body, piece) {
					if _, err := scanner.Write(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			send()
			return testing.AllocsPerRun(20, send)
		}
		// A compressed message costs some, in one piece or in a hundred.
		whole, pieces := allocations(len(body)), allocations(max(len(body)/100, 1))
		if name == "plain" && whole > 0 || pieces > whole+20 {
			t.Errorf("%s: %v allocations a message, %v in pieces", name, whole, pieces)
		}
	}
}

// Whoever abandons a call in mid-message leaves nothing behind, and can never take it up again.
func TestFrameScannersThatAreClosedLeaveNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	body := framed(1, deflated(t, "gzip", v2Call("m"), -1))
	for n := range len(body) {
		scanner := newFrameScanner(v2Shape, true, ScanOptions{Encoding: "gzip", Inflate: 1 << 20, Decide: func(Named) error { return errors.New("decided") }})
		if _, err := scanner.Write(body[:n]); err != nil {
			t.Fatal(err)
		}
		scanner.Close()
		scanner.Close()
		if _, err := scanner.Write(body[n:]); err != errClosed {
			t.Errorf("closed at byte %d, Write: %v", n, err)
		}
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// served is what a server reads from the part of a body that has come: frames by the book, package
// compress, and the real decoder. It returns an error for what the server would refuse.
func served(message string, s shape, encoding string, body []byte) (all []Named, err error) {
	for len(body) >= 5 && int64(binary.BigEndian.Uint32(body[1:])) <= int64(len(body)-5) {
		flag, content := body[0], body[5:5+binary.BigEndian.Uint32(body[1:])]
		body = body[5+len(content):]
		if flag == 1 {
			if content, err = inflatedByGo(encoding, content); err != nil {
				return all, err
			}
		}
		names, _, err := oracle(message, s, content)
		if err != nil {
			return all, err
		}
		all = append(all, names...)
	}
	if len(body) > 0 {
		return all, errFrameCut
	}
	return all, nil
}

// FuzzFrames gives a server the pieces that the scanner has taken. The server must never have a
// whole message that was not decided, or read another model from it.
func FuzzFrames(f *testing.F) {
	for i, c := range pbShapes {
		for _, message := range [][]byte{nil, pbText(1, pbText(1, "m")), pbText(1, pbText(1, pbText(1, "m"))), v2Call("m"), pbText(2, "m")} {
			for _, encoding := range []string{"gzip", "deflate"} {
				body := slices.Concat(framed(0, message), framed(1, deflated(f, encoding, message, -1)))
				f.Add(byte(i), true, encoding == "gzip", body, uint16(len(c.message)))
				f.Add(byte(i), false, encoding == "gzip", body[5+len(message):], uint16(100))
			}
		}
	}
	// The output of the first bytes is wrong, and so are the bytes that follow.
	f.Add(byte(0), true, true, []byte("\x00\x00\x00\x00\x05\n\x03\n\x010\x010000\x1f\x8b\b\x0000000020a0A9000000"), uint16(7))
	f.Fuzz(func(t *testing.T, which byte, streams, zipped bool, body []byte, size uint16) {
		c := pbShapes[int(which)%len(pbShapes)]
		o := ScanOptions{Inflate: 1 << 20, Encoding: map[bool]string{true: "gzip", false: "deflate"}[zipped]}
		got, err := scanFrames(c.shape, streams, o, body, int(size)+1)
		if whole, other := scanFrames(c.shape, streams, o, body, len(body)+1); !slices.Equal(got, whole) || !sameError(other, err) {
			t.Fatalf("in pieces of %d: %v, %v; whole: %v, %v", int(size)+1, got, err, whole, other)
		}
		if err == nil {
			want, err := served(c.message, c.shape, o.Encoding, body)
			if err != nil || !slices.Equal(got, want) || !streams && len(body) == 0 {
				t.Fatalf("the scanner reads %v, the server %v (%v)", got, want, err)
			}
			return
		}
		var decided []Named
		o.Decide = func(n Named) error { decided = append(decided, n); return nil }
		scanner, taken := newFrameScanner(c.shape, streams, o), 0
		for p := range slices.Chunk(body, int(size)+1) {
			if _, err := scanner.Write(p); err != nil {
				break
			}
			taken += len(p)
		}
		scanner.Close()
		want, err := served(c.message, c.shape, o.Encoding, body[:taken])
		if err != nil && err != errFrameCut || !slices.Equal(decided[:min(len(decided), len(want))], want) {
			t.Fatalf("decided are %v, and the server has %v (%v)", decided, want, err)
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	messages := map[string][]byte{
		"1KB":   slices.Concat(pbText(1, slices.Concat(pbText(1, "resnet"), pbText(3, "serving_default"))), pbText(2, strings.Repeat("x", 1000))),
		"32MiB": slices.Concat(pbText(1, pbText(1, "resnet")), pbText(2, strings.Repeat("x", 32<<20))),
		// 2 bytes a field: the most work a byte can cause.
		"1MiB-of-fields": slices.Concat(pbText(1, pbText(1, "resnet")), bytes.Repeat([]byte{0x48, 1}, 1<<19)),
	}
	decide := func(Named) error { return nil }
	run := func(name string, body []byte, size int64, o ScanOptions) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(size)
			for b.Loop() {
				scanner := newFrameScanner(specAt1, false, o)
				for rest := body; len(rest) > 0; {
					n := min(len(rest), 16<<10)
					if _, err := scanner.Write(rest[:n]); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := scanner.Check(); err != nil {
					b.Fatal(err)
				}
				scanner.Close()
			}
		})
	}
	for _, name := range []string{"1KB", "32MiB", "1MiB-of-fields"} {
		run(name, framed(0, messages[name]), int64(len(messages[name])), ScanOptions{Decide: decide})
	}
	o := ScanOptions{Decide: decide, Encoding: "gzip", Inflate: 1 << 30}
	run("1KB-gzip", framed(1, deflated(b, "gzip", messages["1KB"], -1)), int64(len(messages["1KB"])), o)
	noise := slices.Concat(pbText(1, pbText(1, "resnet")), pbText(2, bytes.Join(texts(), nil)))
	run("mixed-gzip", framed(1, deflated(b, "gzip", noise, -1)), int64(len(noise)), o)
}

// A scanner says the same of a body in new memory and in that of other bodies, also of those that were
// refused or cut.
func TestFrameScannersInUsedMemory(t *testing.T) {
	spec := func(name string, more ...byte) []byte { return pbText(1, append(pbText(1, name), more...)) }
	bodies := []struct {
		shape   shape
		streams bool
		body    []byte
	}{
		{specAt1, false, framed(0, spec("secret", pbText(2, pbNum(1, 3))...))},
		{specAt1, false, framed(0, pbText(2, "a tensor"))},
		{specAt1, false, framed(0, spec("open"))},
		{specAt1, false, framed(0, spec("open", pbText(4, "stable")...))},
		{specAt1, false, framed(0, spec("secret", pbText(3, "signature")...))[:12]},
		{specAt1, false, framed(0, slices.Concat(spec("open"), spec("secret")))},
		{specAt1, false, slices.Concat(framed(0, spec("open")), framed(0, spec("secret")))},
		{tasksAt1, false, framed(0, slices.Concat(pbText(1, spec("open")), pbText(1, spec("open"))))},
		{tasksAt1, false, framed(0, slices.Concat(pbText(1, spec("open")), pbText(1, spec("secret"))))},
		{tasksAt1, false, framed(0, nil)},
		{v2Shape, true, slices.Concat(framed(0, v2Call("open")), framed(0, v2Call("secret")))},
		{v2Shape, true, framed(1, deflated(t, "gzip", v2Call("secret"), -1))},
		{v2Shape, true, framed(1, deflated(t, "gzip", v2Call("secret"), -1))[:20]},
		{v2Shape, true, nil},
		{v2Shape, false, nil},
		{nothing, true, framed(0, nil)},
		{specAt1, false, []byte{9, 0, 0, 0, 0}},
	}
	scan := func(i int, memory *ScanMemory) (all []Named, err error) {
		b := bodies[i]
		s := newFrameScanner(b.shape, b.streams, ScanOptions{
			Encoding: "gzip", Inflate: 1 << 20, Memory: memory,
			Decide: func(n Named) error { all = append(all, n); return nil },
		})
		defer s.Close()
		if _, err := s.Write(b.body); err != nil {
			return all, err
		}
		return all, s.Check()
	}
	var memory ScanMemory
	for first := range bodies {
		for second := range bodies {
			_, _ = scan(first, &memory)
			want, wantErr := scan(second, nil)
			if got, err := scan(second, &memory); !slices.Equal(got, want) || err != wantErr {
				t.Errorf("body %d after body %d names %v, %v; in new memory %v, %v", second, first, got, err, want, wantErr)
			}
		}
	}
	body := framed(0, spec("half_plus_two"))
	decide := func(Named) error { return nil }
	if n := testing.AllocsPerRun(100, func() {
		s := newFrameScanner(specAt1, false, ScanOptions{Memory: &memory, Decide: decide})
		_, _ = s.Write(body)
		_ = s.Check()
		s.Close()
	}); n > 0 {
		t.Errorf("a scan in used memory allocates %v times", n)
	}
}
