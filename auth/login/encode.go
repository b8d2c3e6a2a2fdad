package login

import (
	"encoding/binary"
	"errors"
)

// writer appends values to what is sealed. Numbers are not negative.
type writer struct {
	b      []byte
	shared []byte // texts to be compressed together
}

func (w *writer) raw(b []byte)   { w.b = append(w.b, b...) }
func (w *writer) number(n int64) { w.b = binary.AppendUvarint(w.b, uint64(n)) }
func (w *writer) text(s string) {
	w.number(int64(len(s)))
	w.b = append(w.b, s...)
}

// delta writes any number in fewer bytes if it is near the base.
func (w *writer) delta(n, base int64) { w.b = binary.AppendVarint(w.b, n-base) }

// common writes a text that others may repeat.
func (w *writer) common(s string) {
	w.number(int64(len(s)))
	w.shared = append(w.shared, s...)
}

// reader reads values in the same order. After a fault, all values are zero and end returns an error.
type reader struct {
	s      string // the texts that are read lie in it
	shared string // texts that were compressed together
	bad    bool
}

func (r *reader) fail() {
	r.s, r.shared, r.bad = "", "", true
}

func (r *reader) raw(into []byte) {
	if len(r.s) < len(into) {
		r.fail()
		return
	}
	copy(into, r.s)
	r.s = r.s[len(into):]
}

func (r *reader) number() int64 {
	var first [binary.MaxVarintLen64]byte
	n, size := binary.Uvarint(first[:copy(first[:], r.s)])
	if size <= 0 || n > 1<<62 {
		r.fail()
		return 0
	}
	r.s = r.s[size:]
	return int64(n)
}

func (r *reader) delta(base int64) int64 {
	var first [binary.MaxVarintLen64]byte
	n, size := binary.Varint(first[:copy(first[:], r.s)])
	if size <= 0 {
		r.fail()
		return 0
	}
	r.s = r.s[size:]
	return base + n
}

func (r *reader) text() string { return r.cut(&r.s, r.number()) }

// cut returns the next n bytes of a text that is read.
func (r *reader) cut(from *string, n int64) string {
	if n > int64(len(*from)) {
		r.fail()
		return ""
	}
	s := (*from)[:n]
	*from = (*from)[n:]
	return s
}

// decompress reads the shared texts.
func (r *reader) decompress() {
	shared, ok := decompress([]byte(r.text()))
	if !ok {
		r.fail()
		return
	}
	r.shared = string(shared)
}

func (r *reader) common() string { return r.cut(&r.shared, r.number()) }

// end returns an error unless everything was read, and no more.
func (r *reader) end() error {
	if r.bad || r.s != "" || r.shared != "" {
		return errors.New("it has not the form of this version")
	}
	return nil
}
