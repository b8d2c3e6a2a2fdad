package h2

import (
	"errors"
	"time"

	"sallyport/proxy/wire"
)

// run is the reader goroutine.
func (c *Client) run() {
	defer close(c.done)
	err := c.read()
	c.in.drop()
	c.mu.Lock()
	defer c.mu.Unlock()
	var bad *fault
	if errors.As(err, &bad) && c.gone == nil && !c.writing {
		// Send a last GOAWAY if that does not block.
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

// lastWord limits the time for sending the last GOAWAY.
const lastWord = 100 * time.Millisecond

// read reads frames until the connection ends, and returns the reason.
func (c *Client) read() error {
	for {
		if c.waited = !c.in.whole(); c.waited {
			c.pause()
		}
		f, err := c.in.next()
		if err != nil && !c.greeted && c.in.begins("HTTP/1.") {
			return &fault{code: protocolError, why: "HTTP/1", err: &wire.Error{Fault: wire.FaultMalformed, Err: ErrSpeaksHTTP1}}
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

// ErrSpeaksHTTP1 is the error of a server that answers in HTTP/1. It replaces the one about a frame
// size, as which the bytes "HTT" would be read.
var ErrSpeaksHTTP1 = errors.New("the server speaks HTTP/1: write http:// for h2c://, https:// for h2://")

// spoilt handles an error of one stream and returns nil; other errors are returned.
func (c *Client) spoilt(err error) error {
	var bad *fault
	if !errors.As(err, &bad) || bad.stream == 0 {
		return err
	}
	return c.spoil(bad)
}

// pause runs before the reader blocks. It wakes the waiters once for all buffered frames and writes
// pending output.
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

// take handles a frame.
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

// spend charges an unproductive frame to the budget; mu is held.
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

// earn adds to the frame budget; mu is held.
func (c *Client) earn(frames int) { c.frames = min(c.frames+frames, c.options.Frames) }

// idle reports whether no request was sent on a stream.
func (c *Client) idle(stream uint32) bool { return stream%2 == 0 || stream >= c.next }

// takeBlock reads a frame of a header block. It decodes blocks of ended streams too, because the
// compression table belongs to the connection.
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
		if f.size > 0 {
			return nil
		}
		return c.spend()
	}
	if err := c.blocks.end(); err != nil {
		return err
	}
	err := c.endBlock(c.block)
	c.block = 0
	c.blocks.release()
	return err
}

// endBlock hands the decoded block to its call.
func (c *Client) endBlock(id uint32) error {
	k := c.calls[id]
	if k == nil {
		return c.spend() // the server had not yet seen the reset
	}
	c.earn(2)
	c.pings = 0
	k.mark()
	err := k.takeBlock(c.blocks, c.ends)
	c.settle(k)
	return err
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
	switch {
	case k == nil && 0 < f.size && f.size <= c.stale:
		c.stale -= f.size // the server had not yet seen the reset
		return nil
	case k == nil:
		return c.spend()
	}
	if err := k.takeData(f); err != nil {
		return err
	}
	k.mark()
	c.settle(k)
	if len(f.payload) == 0 && !k.inEnded {
		return c.spend()
	}
	c.earn(1)
	c.pings = 0
	return nil
}

// takeReset ends a call. After a complete answer, a reset only means that the rest of the request
// is not wanted.
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
		c.settle(k)
		return c.spend()
	}
	k.answered = true
	if f.code() == refusedStream && !k.headed {
		k.answered, k.unprocessed = false, true
	}
	k.fail(&wire.Error{Fault: wire.FaultBroken, Err: &wire.Reset{Code: uint32(f.code()), Name: f.code().String()}})
	c.forget(k)
	c.rest()
	return c.spend()
}

func (c *Client) takeWindow(f *frame) error {
	if err := c.openWindow(f); err != nil || c.updates.take() {
		return err
	}
	return c.spend()
}

// openWindow adds to the window of a stream or the connection; mu is held.
func (c *Client) openWindow(f *frame) error {
	if f.stream == 0 {
		if !c.send.grant(f.increment()) {
			return broken(flowControlError, "window is too large")
		}
		c.dryAt = time.Time{}
		for _, k := range c.calls {
			if k.stuck {
				k.writable.Signal()
			}
		}
		return nil
	}
	if c.idle(f.stream) {
		return broken(protocolError, "window update for an idle stream")
	}
	k := c.calls[f.stream]
	if k == nil {
		return nil
	}
	if !k.send.grant(f.increment()) {
		return spoilt(k.id, flowControlError, "window is too large")
	}
	k.writable.Signal()
	return nil
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
		case settingHeadSize:
			c.takes = int64(s.value)
		case settingStreams:
			c.most = int(min(s.value, maxStream))
		case settingPush:
			if s.value != 0 {
				return broken(protocolError, "the server sent ENABLE_PUSH")
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

// takeGoAway records that the server accepts no more requests. Those above its last stream were not
// processed and can be sent elsewhere, unless too much was asked of the server: one of them may be
// the cause, and would end the next connection too.
func (c *Client) takeGoAway(f *frame) {
	last, why := f.goAway()
	c.leaving = true
	c.calm = c.calm || why == enhanceYourCalm
	for id, k := range c.calls {
		if id <= last {
			continue
		}
		k.mark()
		k.reset, k.unprocessed = true, !c.calm
		k.fail(c.calmed(&wire.Error{Fault: wire.FaultBroken, Err: &wire.Reset{Code: uint32(why), Name: "GOAWAY, " + why.String(), Connection: true}}))
		c.forget(k)
	}
	c.rest()
}

// spoil resets the stream of a fault and fails its call.
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
