package h1

import (
	"errors"
	"fmt"
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
	// gatherRoom is what must be left of the buffer for another read to be worth it:
	// the content of a record of TLS.
	gatherRoom = 16 << 10
)

// upload sends a body in a goroutine of its own while the answer is read, so that
// an early answer is seen. The response owns it and joins it.
type upload struct {
	c    *Client
	r    *wire.Request
	done chan struct{}
	// whole says, after done, that the request was sent to its end.
	whole bool
	stop  atomic.Bool // nothing more is to be written
	last  atomic.Bool // the body has ended well: it will not be read again

	mu       sync.Mutex    // guards what follows, and the client's read deadline until over
	over     bool          // done is about to be closed
	patience time.Duration // to be armed when over
	heard    bool          // the head of the final response is in
}

func startUpload(c *Client, r *wire.Request) *upload {
	u := &upload{c: c, r: r, done: make(chan struct{})}
	go u.run()
	return u
}

// armRead bounds the reads of the answer by d from now or, while the upload goes
// on, from its end: until then the server may well be silent, and the upload has
// bounds of its own. An upload that is to stop is no such reason.
func (u *upload) armRead(d time.Duration) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.over && !u.stop.Load() {
		u.patience, d = d, 0
	}
	return u.c.setRead(d)
}

// answered tells the upload that the head of the final response is in. Servers
// that refuse do not want the rest; those that agree may well answer while they read.
func (u *upload) answered(status int) {
	u.mu.Lock()
	u.heard = true
	u.mu.Unlock()
	if status >= 300 {
		u.stop.Store(true)
	}
}

// errStopped ends an upload that nobody wants any more.
var errStopped = errors.New("upload stopped")

func (u *upload) run() {
	defer close(u.done)
	err := u.send()
	u.whole = err == nil

	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	_ = u.c.setRead(u.patience) // if this fails, so does the read that it is for
	var own *wire.Error
	switch {
	case err == nil, u.stop.Load():
	case errors.As(err, &own):
		u.c.abort(own)
	case errors.Is(err, os.ErrDeadlineExceeded) && !u.heard:
		u.c.abort(&wire.Error{Fault: wire.FaultTimeout, Err: fmt.Errorf("sending request body: %w", err)})
	}
	// Any other error of a write is left to the reader: the server may have
	// answered before it closed.
}

// send copies the body to the connection. The last piece of a known length, as the
// last chunk of an unknown one, is written only after the body's clean end, so
// that a request whose end is bad never looks whole.
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

// gather reads some of the body, and what comes right behind it: a write costs more
// than all reads of it. left is how many bytes are to come, negative if that is unknown.
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

// chunk frames the n bytes at buf[at:] in place, and with last, what ends the body.
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

// appendTrailers writes the trailers that may be written. One that may not is
// dropped: the content is sent, and it is whole without.
func appendTrailers(b []byte, trailers, head message.Fields) []byte {
	kept := message.KeptTrailers(append(message.Fields(nil), trailers...), head)
	for i := range kept {
		if out, err := appendFields(b, kept[i:i+1]); err == nil {
			b = out
		}
	}
	return b
}

// joinGrace is how long an upload may take to notice that it is finished.
const joinGrace = 100 * time.Millisecond

// join ends the upload, and says whether all of it had been sent.
func (u *upload) join() (whole bool) {
	if u.last.Load() {
		// The server has answered, so most likely it has all, and only the
		// goroutine has not been scheduled yet.
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
		// Again after a while: a reader that moves its own deadline may have done
		// so just behind the interruption.
		select {
		case <-u.done:
			return u.whole
		case <-time.After(joinGrace):
		}
	}
}
