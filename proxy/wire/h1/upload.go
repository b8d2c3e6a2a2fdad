package h1

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

const (
	uploadBuffer = 64 << 10
	// gatherRoom is the buffer space, that of a TLS record's content, without which gather does not
	// read again.
	gatherRoom = 16 << 10
)

// upload sends a body in a goroutine of its own while the response is read, so that an early
// response is noticed. The response owns the upload and waits for it.
type upload struct {
	c    *Client
	r    *wire.Request
	done chan struct{}
	// whole reports, once done is closed, that the whole request was sent.
	whole bool
	stop  atomic.Bool // write nothing more
	last  atomic.Bool // the body has ended cleanly; it is not read again

	mu       sync.Mutex    // guards the fields below, and the client's read deadline until over
	over     bool          // done is about to be closed
	patience time.Duration // read limit to set when over
	heard    bool          // the final head has arrived
}

func startUpload(c *Client, r *wire.Request) *upload {
	u := &upload{c: c, r: r, done: make(chan struct{})}
	go u.run()
	return u
}

// armRead limits reads of the response to d from now. While the upload runs, d counts from its end:
// the server may be silent until then, and writes have their own deadline. An upload that has been
// told to stop does not extend the limit.
func (u *upload) armRead(d time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.over && !u.stop.Load() {
		u.patience, d = d, 0
	}
	return u.c.setRead(d)
}

// answered is called when the final head has arrived. A server that refuses does not want the rest
// of the body, so the upload stops; one that accepts may respond while it still reads.
func (u *upload) answered(status int) {
	u.mu.Lock()
	u.heard = true
	u.mu.Unlock()
	if status >= 300 {
		u.stop.Store(true)
	}
}

// errStopped ends an upload whose rest is not wanted.
var errStopped = errors.New("upload stopped")

func (u *upload) run() {
	defer close(u.done)
	err := u.send()
	u.whole = err == nil

	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	_ = u.c.setRead(u.patience) // if this fails, so does the next read
	var own *wire.Error
	switch {
	case err == nil, u.stop.Load():
	case errors.As(err, &own):
		u.c.abort(own)
	case errors.Is(err, os.ErrDeadlineExceeded) && !u.heard:
		u.c.abort(&wire.Error{Fault: wire.FaultTimeout, Err: wire.LateWrite.Or(u.c.limit)})
	}
	// Any other write error is left to the reader: the server may have responded before it closed.
}

// send copies the body to the connection. It writes the last piece, or the last chunk, only after
// the body has ended cleanly, so that a truncated request never looks complete.
func (u *upload) send() error {
	lent := u.c.bufs.Get(uploadBuffer)
	defer u.c.bufs.Put(lent)
	const room = 10 // for the size of a chunk and its CRLF
	buf := lent.B[:uploadBuffer]
	left := u.r.Length
	for {
		n, err := u.gather(buf[room:len(buf)-2], left)
		if left >= 0 && int64(n) > left {
			return &wire.Error{Fault: wire.FaultBody, Err: wire.ErrHalfBody}
		}
		if left > 0 {
			left -= int64(n)
		}
		if err == nil && left == 0 {
			err = u.r.ReadEnd(buf[len(buf)-1:])
		}
		if err != nil && err != io.EOF {
			return wire.BodyError(err)
		}
		if err == io.EOF {
			if left > 0 {
				return &wire.Error{Fault: wire.FaultBody, Err: wire.ErrHalfBody}
			}
			u.last.Store(true)
		}
		out := buf[room : room+n]
		if left < 0 {
			out = u.chunk(buf, room, n, err == io.EOF)
		}
		if u.stop.Load() {
			return errStopped
		}
		if len(out) > 0 {
			if err := u.c.write(out, u.r.Idle); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// gather reads from the body, and reads on while more is ready: one write costs more than the reads
// saved. left is the number of bytes still to come, negative if unknown.
func (u *upload) gather(p []byte, left int64) (n int, err error) {
	coming, _ := u.r.Body.(message.Coming)
	for {
		m, err := u.r.Body.Read(p[n:])
		n += m
		if err != nil || coming == nil || int64(n) == left || len(p)-n < gatherRoom || u.stop.Load() || !coming.Coming() {
			return n, err
		}
	}
}

// chunk frames the n bytes at buf[at:] in place; with last, it appends the end of the body.
func (u *upload) chunk(buf []byte, at, n int, last bool) []byte {
	out := buf[at:at]
	if n > 0 {
		var size [16]byte
		digits := append(strconv.AppendInt(size[:0], int64(n), 16), '\r', '\n')
		copy(buf[at-len(digits):], digits)
		out = append(buf[at-len(digits):at+n], '\r', '\n')
	}
	if !last {
		return out
	}
	out = append(out, "0\r\n"...) // may outgrow the buffer: it is the last
	if u.r.Trailers != nil {
		out = appendTrailers(out, u.r.Trailers(u.r.Body.Trailers()), u.r.Fields)
	}
	return append(out, "\r\n"...)
}

// appendTrailers writes the permitted trailers and drops the others: the content has been sent and
// is complete without them.
func appendTrailers(b []byte, trailers, head message.Fields) []byte {
	kept := message.KeptTrailers(append(message.Fields(nil), trailers...), head)
	for i := range kept {
		if out, err := appendFields(b, kept[i:i+1]); err == nil {
			b = out
		}
	}
	return b
}

// joinGrace is how long join waits for an upload that is probably finished.
const joinGrace = 100 * time.Millisecond

// join ends the upload and reports whether the whole request was sent.
func (u *upload) join() (whole bool) {
	if u.last.Load() {
		// The server has responded, so it probably has the whole request and the goroutine has only
		// not been scheduled yet.
		t := time.NewTimer(joinGrace)
		defer t.Stop()
		select {
		case <-u.done:
			return u.whole
		case <-t.C:
		}
	}
	select {
	case <-u.done:
		return u.whole
	default:
	}
	u.stop.Store(true)
	u.c.abort(&wire.Error{Fault: wire.FaultBroken, Err: errStopped}) // the connection is not used again
	for {
		if u.r.Interrupt != nil && !u.last.Load() {
			u.r.Interrupt()
		}
		// Repeat the interruption: a reader that moves its own deadline may have done so just after
		// it.
		select {
		case <-u.done:
			return u.whole
		case <-time.After(joinGrace):
		}
	}
}
