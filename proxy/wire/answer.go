package wire

import (
	"errors"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
)

// These errors report misuse of a Stream by its handler.
var (
	ErrBegun     = errors.New("the answer has begun")
	ErrNotBegun  = errors.New("the answer has not begun")
	ErrNoContent = errors.New("content after an answer without content")
	ErrTooMuch   = errors.New("more content than announced")
	ErrTooLittle = errors.New("less content than announced")
	ErrStatus    = errors.New("not a status of this kind of answer")
)

// Content is how the end of an answer's content is marked.
type Content uint8

const (
	NoContent Content = iota // there is none
	Announced                // by Content-Length
	Open                     // by the engine's own framing
)

// Answer tracks the state of a stream's answer. Engines embed it in their streams, so that all of
// them refuse the same misuse. The zero Answer has not begun. It is not safe for concurrent use.
type Answer struct {
	Began, Finished bool
	Content         Content

	head bool  // the request was a HEAD
	left int64 // bytes of announced content still to come
}

// Interim returns an error if an interim response with this status may not be sent now.
func (a *Answer) Interim(status int) error {
	switch {
	case a.Began:
		return ErrBegun
	case status < 100 || status > 199 || status == 101:
		return ErrStatus
	}
	return nil
}

// Begin records that m is about to be sent as the final head, in answer to a request with this
// method. It returns an error if that is not allowed.
func (a *Answer) Begin(method string, m *message.Response) error {
	switch {
	case a.Began:
		return ErrBegun
	case m.Status < 200 || m.Status > 599:
		return ErrStatus
	}
	a.Began, a.head = true, method == "HEAD"
	switch {
	case !message.MayHaveBody(method, m.Status):
	case m.ContentLength >= 0:
		a.Content, a.left = Announced, m.ContentLength
	default:
		a.Content = Open
	}
	return nil
}

// Take counts n bytes of content. send is false for an answer to HEAD, whose content is not sent.
func (a *Answer) Take(n int) (send bool, err error) {
	switch {
	case !a.Began:
		return false, ErrNotBegun
	case n == 0, a.Content == NoContent && a.head:
		return false, nil
	case a.Content == NoContent:
		return false, ErrNoContent
	case a.Content == Announced && int64(n) > a.left:
		return false, ErrTooMuch
	case a.Content == Announced:
		a.left -= int64(n)
	}
	return true, nil
}

// Whole reports whether all announced content was taken.
func (a *Answer) Whole() bool { return a.Content == Announced && a.left == 0 }

// End records the end of the content. first is false on every call but the first.
func (a *Answer) End() (first bool, err error) {
	switch {
	case !a.Began:
		return false, ErrNotBegun
	case a.Content == Announced && a.left > 0:
		return false, ErrTooLittle
	}
	first = !a.Finished
	a.Finished = true
	return first, nil
}

// Dates renders the Date field of answers, once a second. It is safe for concurrent use; [NewDates]
// makes one.
type Dates struct {
	field func(b []byte, date string) []byte
	last  atomic.Pointer[date]
}

type date struct {
	second int64
	field  []byte
}

// NewDates returns a Dates that renders the field with the function given.
func NewDates(field func(b []byte, date string) []byte) *Dates { return &Dates{field: field} }

// Append appends the field for the time now.
func (d *Dates) Append(b []byte, now time.Time) []byte {
	last := d.last.Load()
	if last == nil || last.second != now.Unix() {
		last = &date{now.Unix(), d.field(nil, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))}
		d.last.Store(last)
	}
	return append(b, last.field...)
}
