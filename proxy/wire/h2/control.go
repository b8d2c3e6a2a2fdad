package h2

import (
	"bytes"
	"time"
)

// take handles a frame.
func (c *serverConn) take(f *frame) error {
	switch {
	case c.block != 0 && (f.kind != frameContinuation || f.stream != c.block):
		return broken(protocolError, "frame within a header block")
	case c.block == 0 && f.kind == frameContinuation:
		return broken(protocolError, "CONTINUATION of nothing")
	case !c.greeted && (f.kind != frameSettings || f.has(flagAck)):
		return broken(protocolError, "the first frame is not SETTINGS")
	}
	if err := f.validate(); err != nil {
		return err
	}
	switch f.kind {
	case frameHeaders, frameContinuation:
		return c.takeBlock(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f.kind {
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
		// After GOAWAY the client opens no more streams. It closes once it has its answers, or
		// reaches the end of the idle time.
	}
	return c.spend()
}

func (c *serverConn) takeSettings(f *frame) error {
	if f.has(flagAck) {
		return c.spend()
	}
	if c.greeted = true; c.stage == open {
		c.due = time.Time{}
	}
	before := c.grant
	err := f.settings(func(s setting) error {
		if s.id == settingWindow {
			c.grant = int64(s.value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.grant != before {
		for _, s := range c.streams {
			s.send += sending(c.grant - before)
			if s.send > maxWindow {
				return broken(flowControlError, "window is too large")
			}
			s.writable.Signal()
		}
	}
	b := c.control()
	b.B = appendSettingsAck(b.B)
	return c.spend()
}

func (c *serverConn) takePing(f *frame) error {
	if f.has(flagAck) {
		if c.stage == warned && bytes.Equal(f.payload, []byte(drainPing)) {
			c.close()
		}
		return c.spend()
	}
	b := c.control()
	b.B = appendPing(b.B, flagAck, f.payload)
	return c.spend()
}

func (c *serverConn) takeWindow(f *frame) error {
	if err := c.openWindow(f); err != nil || c.updates.take() {
		return err
	}
	return c.spend()
}

// openWindow adds to the window of a stream or the connection; mu is held.
func (c *serverConn) openWindow(f *frame) error {
	if f.stream == 0 {
		if !c.send.grant(f.increment()) {
			return broken(flowControlError, "window is too large")
		}
		for _, s := range c.streams {
			if s.stuck {
				s.writable.Signal()
			}
		}
		return nil
	}
	s := c.streams[f.stream]
	if s == nil {
		if f.stream > c.last {
			return broken(protocolError, "window update for an idle stream")
		}
		return nil
	}
	if !s.send.grant(f.increment()) {
		return spoilt(s.id, flowControlError, "window is too large")
	}
	s.writable.Signal()
	return nil
}

func (c *serverConn) takeReset(f *frame) error {
	if f.stream > c.last {
		return broken(protocolError, "reset of an idle stream")
	}
	s := c.streams[f.stream]
	if s == nil {
		return c.spend()
	}
	s.fail(spoilt(s.id, f.code(), resetByClient))
	c.forget(s)
	return c.spendReset()
}
