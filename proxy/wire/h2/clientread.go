package h2

import (
	"errors"
	"time"

	"sallyport/proxy/wire"
)

// run is the goroutine that reads.
func (c *Client) run() {
	defer close(c.done)
	err := c.read()
	c.in.drop()
	c.mu.Lock()
	defer c.mu.Unlock()
	var bad *fault
	if errors.As(err, &bad) && c.gone == nil && !c.writing {
		// The last word, if it can be said without waiting.
		c.writing = true
		b := appendGoAway(nil, 0, bad.code)
		c.mu.Unlock()
		_ = c.conn.SetWriteDeadline(time.Now().Add(lastWord))
		_, _ = c.conn.Write(b)
		c.mu.Lock()
		c.writing = false
	}
	if c.unwritable != nil && !errors.As(err, &bad) {
		err = c.unwritable
	}
	c.die(ofConnection(err))
}

// lastWord is how long a server may take to be told why the connection ends.
const lastWord = 100 * time.Millisecond

// read reads frames until the connection ends; its error says why.
func (c *Client) read() error {
	for {
		if c.waited = !c.in.whole(); c.waited {
			c.pause()
		}
		f, err := c.in.next()
		if err != nil && !c.greeted && c.in.begins("HTTP/1.") {
			return &fault{code: protocolError, why: "HTTP/1", err: &wire.Error{Fault: wire.FaultMalformed, Err: errSpeaksHTTP1}}
		}
		if err == nil {
			err = c.take(&f)
		}
		if err != nil {
			err = c.spoilt(err)
		}
		if err != nil {
			return err
		}
	}
}

// errSpeaksHTTP1 is told in the place of the error of framing, of which the bytes "HTT" would
// be the size of a frame.
var errSpeaksHTTP1 = errors.New("the server speaks HTTP/1: write http:// for h2c://, https:// for h2://")

// spoilt ends a call alone where only that is at fault; nil then.
func (c *Client) spoilt(err error) error {
	var bad *fault
	if !errors.As(err, &bad) || bad.stream == 0 {
		return err
	}
	return c.spoil(bad)
}

// pause is what is done before the reader waits: whoever has something to read is
// woken, once for all frames that have come, and what is to be written is.
func (c *Client) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, k := range c.ready {
		k.marked = false
		k.readable.Broadcast()
		c.ready[i] = nil
	}
	c.ready = c.ready[:0]
	c.kick()
}

// take does what a frame asks for.
func (c *Client) take(f *frame) error {
	switch {
	case c.block != 0 && (f.kind != frameContinuation || f.stream != c.block):
		return broken(protocolError, "frame within a header block")
	case c.block == 0 && f.kind == frameContinuation:
		return broken(protocolError, "CONTINUATION of nothing")
	case !c.greeted && (f.kind != frameSettings || f.has(flagAck)): // only this goroutine writes it
		return broken(protocolError, "the first frame is not SETTINGS")
	}
	if err := f.validate(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waited {
		c.heard, c.pinged = time.Now(), false
	}
	switch f.kind {
	case frameHeaders, frameContinuation:
		return c.takeBlock(f)
	case frameData:
		return c.takeData(f)
	case frameReset:
		return c.takeReset(f)
	case frameWindow:
		return c.takeWindow(f)
	case frameSettings:
		return c.takeSettings(f)
	case framePing:
		return c.takePing(f)
	case frameGoAway:
		c.takeGoAway(f)
	}
	return c.spend()
}

// spend counts a frame that brings no answer further; mu is held.
func (c *Client) spend() error {
	c.frames--
	if c.frames >= 0 {
		return nil
	}
	now := time.Now()
	tenths := 10
	if !c.regained.IsZero() {
		tenths = int(min(now.Sub(c.regained)/time.Second, 10))
	}
	if tenths == 0 {
		return broken(enhanceYourCalm, "too many frames that bring nothing")
	}
	c.regained = now
	c.earn((c.options.Frames*tenths + 9) / 10)
	return nil
}

// earn counts what gives cause for frames; mu is held.
func (c *Client) earn(frames int) { c.frames = min(c.frames+frames, c.options.Frames) }

// idle says whether no request was sent on a stream.
func (c *Client) idle(stream uint32) bool { return stream%2 == 0 || stream >= c.next }

// takeBlock reads a frame of a header block. Blocks of streams that are over are
// decoded too: the table is the connection's.
func (c *Client) takeBlock(f *frame) error {
	if f.kind == frameHeaders {
		if c.idle(f.stream) {
			return broken(protocolError, "HEADERS on an idle stream")
		}
		c.block, c.ends = f.stream, f.has(flagEndStream)
		if k := c.calls[f.stream]; k != nil && k.headed {
			c.blocks.begin(trailerBytes, trailerRows)
		} else {
			c.blocks.begin(wire.MaxHead, wire.MaxFields+1)
		}
	}
	if err := c.blocks.add(f.payload); err != nil {
		return err
	}
	if !f.has(flagEndHeaders) {
		return nil
	}
	id := c.block
	c.block = 0
	if err := c.blocks.end(); err != nil {
		return err
	}
	k := c.calls[id]
	if k == nil {
		return c.spend() // sent before the server knew
	}
	c.earn(2)
	k.mark()
	return k.takeBlock(c.blocks, c.ends)
}

// takeData reads DATA.
func (c *Client) takeData(f *frame) error {
	if c.idle(f.stream) {
		return broken(protocolError, "DATA on an idle stream")
	}
	if !c.receive.arrive(f.size) {
		return broken(flowControlError, "more content than the window holds")
	}
	if more := c.receive.read(f.size, false); more > 0 {
		b := c.control()
		b.B = appendWindow(b.B, 0, more)
	}
	k := c.calls[f.stream]
	if k == nil {
		return c.spend() // sent before the server knew
	}
	if err := k.takeData(f); err != nil {
		return err
	}
	k.mark()
	if len(f.payload) == 0 && !k.inEnded {
		return c.spend()
	}
	c.earn(1)
	return nil
}

// takeReset ends a call. Behind the whole answer a reset only says that the rest of
// the request is not wanted.
func (c *Client) takeReset(f *frame) error {
	if c.idle(f.stream) {
		return broken(protocolError, "reset of an idle stream")
	}
	k := c.calls[f.stream]
	if k == nil {
		return c.spend()
	}
	k.mark()
	k.reset = true
	if k.inEnded {
		k.outEnded = true
		k.writable.Broadcast()
		return c.spend()
	}
	k.answered = true
	if f.code() == refusedStream && !k.headed {
		k.answered, k.unprocessed = false, true
	}
	k.fail(&wire.Error{Fault: wire.FaultBroken, Err: &wire.Reset{Code: uint32(f.code()), Name: f.code().String()}})
	c.forget(k)
	return c.spend()
}

func (c *Client) takeWindow(f *frame) error {
	if f.stream == 0 {
		if !c.send.grant(f.increment()) {
			return broken(flowControlError, "window is too large")
		}
		for _, k := range c.calls {
			if k.stuck {
				k.writable.Signal()
			}
		}
		return c.spend()
	}
	if c.idle(f.stream) {
		return broken(protocolError, "window update for an idle stream")
	}
	k := c.calls[f.stream]
	if k == nil {
		return c.spend()
	}
	if !k.send.grant(f.increment()) {
		return spoilt(k.id, flowControlError, "window is too large")
	}
	k.writable.Signal()
	return c.spend()
}

func (c *Client) takeSettings(f *frame) error {
	if f.has(flagAck) {
		return c.spend()
	}
	before := c.grant
	err := f.settings(func(s setting) error {
		switch s.id {
		case settingWindow:
			c.grant = int64(s.value)
		case settingStreams:
			c.most = int(min(s.value, maxStream))
		case settingPush:
			if s.value != 0 {
				return broken(protocolError, "the server takes pushes")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range c.calls {
		if k.send += sending(c.grant - before); k.send > maxWindow {
			return broken(flowControlError, "window is too large")
		}
		k.writable.Signal()
	}
	c.greeted = true
	c.changed.Broadcast()
	b := c.control()
	b.B = appendSettingsAck(b.B)
	return c.spend()
}

func (c *Client) takePing(f *frame) error {
	if f.has(flagAck) {
		return c.spend()
	}
	b := c.control()
	b.B = appendPing(b.B, flagAck, f.payload)
	return c.spend()
}

// takeGoAway notes that the server takes no more requests. What it says it has not
// looked at can be sent elsewhere.
func (c *Client) takeGoAway(f *frame) {
	last, why := f.goAway()
	c.leaving = true
	for id, k := range c.calls {
		if id <= last {
			continue
		}
		k.mark()
		k.reset, k.unprocessed = true, true
		k.fail(&wire.Error{Fault: wire.FaultBroken, Err: &wire.Reset{Code: uint32(why), Name: "GOAWAY, " + why.String()}})
		c.forget(k)
	}
	c.rest()
}

// spoil ends a call that the server has spoilt.
func (c *Client) spoil(bad *fault) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle(bad.stream) {
		return broken(bad.code, bad.why)
	}
	k := c.calls[bad.stream]
	if k == nil {
		return c.spend()
	}
	k.mark()
	k.answered = true
	k.fail(&wire.Error{Fault: wire.FaultMalformed, Err: bad})
	c.end(k, bad.code)
	return c.spend()
}
