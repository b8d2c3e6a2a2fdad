package login

import (
	"encoding/binary"
	"errors"
)

// writer appends values to what is sealed. Numbers are not negative.
type writer struct{ b []byte }

func (w *writer) raw(b []byte)   { w.b = append(w.b, b...) }
func (w *writer) number(n int64) { w.b = binary.AppendUvarint(w.b, uint64(n)) }
func (w *writer) text(s string) {
	w.number(int64(len(s)))
	w.b = append(w.b, s...)
}

// reader reads values in the same order. After a fault, all values are zero and end returns an error.
type reader struct {
	s   string // the texts that are read lie in it
	bad bool
}

func (r *reader) fail() {
	r.s, r.bad = "", true
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

func (r *reader) text() string {
	n := r.number()
	if n > int64(len(r.s)) {
		r.fail()
		return ""
	}
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}

// end returns an error unless everything was read, and no more.
func (r *reader) end() error {
	if r.bad || r.s != "" {
		return errors.New("it has not the form of this version")
	}
	return nil
}
