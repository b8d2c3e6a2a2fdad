package h2

import (
	"errors"
	"io"
	"os"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// upload sends a body in a goroutine of its own while the answer is read, so that an early answer
// is noticed. The response owns the upload and waits for it.
type upload struct {
	k    *call
	r    *wire.Request
	done chan struct{}

	// The connection's mu guards the fields below.

	touched  bool // some of the body was read
	stop     bool // send nothing more
	last     bool // the body has ended cleanly; it is not read again
	over     bool // nothing more is sent
	heard    bool // the final head has arrived
	patience time.Duration
}

// startUpload is called with mu held.
func startUpload(k *call, r *wire.Request) *upload {
	u := &upload{k: k, r: r, done: make(chan struct{})}
	go u.run()
	return u
}

// answered is called when the final head has arrived; mu is held. A server that refuses does not
// want the rest of the body, so the upload stops; one that accepts may answer while it still reads.
func (u *upload) answered(status int) {
	u.heard = true
	if status >= 300 {
		u.stop = true
		u.k.writable.Broadcast()
	}
}

// errStopped ends an upload whose rest is not wanted.
var errStopped = errors.New("upload stopped")

func (u *upload) run() {
	defer close(u.done)
	err := u.send()
	k := u.k
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	u.over = true
	var own *wire.Error
	switch {
	case err == nil, u.stop:
	case errors.As(err, &own):
		k.abort(own)
	case errors.Is(err, os.ErrDeadlineExceeded) && !u.heard:
		k.c.ping()
		k.abort(&wire.Error{Fault: wire.FaultTimeout, Err: err})
	}
	// Any other error is left to the reader: the server may have answered first.
	if k.readBy = k.due(u.patience); k.reading {
		k.c.remind(k.readBy)
	}
	k.c.flush()
}

// send copies the body to the connection. It sends the last piece, and the end of the stream, only
// after the body has ended cleanly, so that a truncated request never looks complete.
func (u *upload) send() error {
	if !u.r.Streams() {
		return u.sendContent()
	}
	lent := u.k.c.bufs.Get(maxFrame + 1)
	defer u.k.c.bufs.Put(lent)
	buf := lent.B[:maxFrame+1]
	left := u.r.Length
	for {
		if u.stopped() {
			return errStopped
		}
		n, err := u.r.Body.Read(buf[:maxFrame])
		if left >= 0 && int64(n) > left {
			return &wire.Error{Fault: wire.FaultBody, Err: wire.ErrHalfBody}
		}
		if left > 0 {
			left -= int64(n)
		}
		if err == nil && left == 0 {
			err = u.r.ReadEnd(buf[maxFrame:])
		}
		if err != nil && err != io.EOF {
			return wire.BodyError(err)
		}
		if err == io.EOF && left > 0 {
			return &wire.Error{Fault: wire.FaultBody, Err: wire.ErrHalfBody}
		}
		if werr := u.put(buf[:n], err == io.EOF, err == nil && u.ahead()); werr != nil || err == io.EOF {
			return werr
		}
	}
}

// stopped reports whether the upload must end. If not, it notes that the body is about to be read.
func (u *upload) stopped() bool {
	u.k.c.mu.Lock()
	defer u.k.c.mu.Unlock()
	stopped := u.stop || u.k.err != nil || u.k.outEnded
	u.touched = u.touched || !stopped
	return stopped
}

// sendContent sends content that is in memory.
func (u *upload) sendContent() error {
	p := u.k.content
	for len(p) > maxFrame {
		if err := u.put(p[:maxFrame], false, true); err != nil {
			return err
		}
		p = p[maxFrame:]
	}
	return u.put(p, true, false)
}

// ahead reports whether more of the body can be read without waiting.
func (u *upload) ahead() bool {
	n, whole := message.ArrivedOf(u.r.Body)
	return n > 0 || whole
}

// put sends a piece of content, at most a frame, as the windows allow. With end it also ends the
// request. With followed the piece may wait for the next one and share its write.
func (u *upload) put(p []byte, end, followed bool) error {
	k, c := u.k, u.k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	var trailers *wire.Buffer
	if end {
		u.last = true
		if trailers = u.trailers(); trailers != nil {
			defer c.bufs.Put(trailers)
		}
	}
	var head [frameHead]byte
	for len(p) > 0 {
		n, err := u.window(len(p))
		if err != nil {
			return err
		}
		var flags uint8
		if end && n == len(p) && trailers == nil {
			flags = flagEndStream
		}
		c.append(appendFrameHead(head[:0], n, frameData, flags, k.id), p[:n])
		c.earn(2)
		c.updates.sent(n)
		k.outEnded = flags != 0
		p = p[n:]
	}
	if end && !k.outEnded {
		if k.err != nil || u.stop {
			return errStopped
		}
		k.outEnded = true
		if trailers != nil {
			c.append(nil, sealBlock(trailers.B, 0, k.id, true))
		} else {
			c.append(appendFrameHead(head[:0], 0, frameData, flagEndStream, k.id), nil)
		}
	}
	if !followed { // else the next piece flushes once the output is full
		c.flush()
	}
	return nil
}

// trailers returns the permitted trailers after space for a frame head; nil if there are none, or
// more than the server accepts. It releases mu while the caller's function chooses them.
func (u *upload) trailers() *wire.Buffer {
	if u.r.Trailers == nil || u.r.Body == nil {
		return nil
	}
	c := u.k.c
	takes := c.takes
	c.mu.Unlock()
	defer c.mu.Lock()
	all := u.r.Trailers(u.r.Body.Trailers())
	if len(all) == 0 {
		return nil
	}
	kept := message.KeptTrailers(append(message.Fields(nil), all...), u.r.Fields)
	if takes >= 0 && fieldsSize(kept) > takes {
		return nil
	}
	lent := c.bufs.Get(0)
	b := append(lent.B, make([]byte, frameHead)...)
	for i := range kept {
		if wider, err := appendFields(b, kept[i:i+1]); err == nil {
			b = wider
		}
	}
	if len(b) == frameHead {
		c.bufs.Put(lent)
		return nil
	}
	lent.B = b
	return lent
}

// window waits until up to n bytes may be sent and subtracts them from the windows. It releases mu
// while it waits.
func (u *upload) window(n int) (int, error) {
	k, c := u.k, u.k.c
	k.stuckBy = k.due(u.r.Idle)
	for {
		full := c.out != nil && len(c.out.B) >= maxHeld
		m := min(sending(n), k.send, c.send)
		switch {
		case k.err != nil || u.stop || k.outEnded || c.gone != nil || c.unwritable != nil:
			return 0, errStopped // nothing is written any more
		case full && !c.writing:
			c.flush()
			continue
		case !full && m > 0:
			k.send -= m
			c.spendWindow(m)
			return int(m), nil
		case !full && c.out != nil && !c.writing:
			c.flush() // so that the server can open the window
			continue
		case passed(k.stuckBy, time.Now()):
			return 0, wire.LateWrite.Or(k.limit)
		}
		c.remind(k.stuckBy)
		k.stuck = true
		if full {
			c.changed.Wait()
		} else {
			k.writable.Wait()
		}
		k.stuck = false
	}
}

// joinGrace is how long join waits for an upload that is probably finished.
const joinGrace = 100 * time.Millisecond

// join ends the upload.
func (u *upload) join() {
	k, c := u.k, u.k.c
	c.mu.Lock()
	last := u.last
	c.mu.Unlock()
	if last {
		// The server has answered, so it probably has the whole request and the goroutine has only
		// not been scheduled yet.
		t := time.NewTimer(joinGrace)
		defer t.Stop()
		select {
		case <-u.done:
			return
		case <-t.C:
		}
	}
	c.mu.Lock()
	if u.stop = true; !u.over {
		c.end(k, cancel)
		c.kick()
	}
	k.writable.Broadcast()
	c.changed.Broadcast()
	c.mu.Unlock()
	for {
		c.mu.Lock()
		last = u.last
		c.mu.Unlock()
		if u.r.Interrupt != nil && !last {
			select {
			case <-u.done:
				return
			default:
				u.r.Interrupt()
			}
		}
		// Repeat the interruption: a reader that moves its own deadline may have done so just after
		// it.
		select {
		case <-u.done:
			return
		case <-time.After(joinGrace):
		}
	}
}
