package h2

import (
	"errors"
	"time"
)

// watch holds the state that sweeps check, and the budgets for frames that cost the server more
// than the client. The connection's mu guards it.
type watch struct {
	due     time.Time // deadline of the greeting, or of the grace after a warning; zero: none
	idle    time.Time // when the last request ended
	used    bool      // there was a request since the last sweep
	partial uint64    // the incomplete frame, or the first of an incomplete block; 0: none

	seenPartial, seenWrites uint64 // values at the last sweep
	partialSince            time.Time
	came                    bool      // bytes have arrived since the last sweep
	heard                   time.Time // time of the last sweep that found came set
	pinged                  bool      // a PING has been sent since heard
	writingSince            time.Time

	frames, resets int // remaining budgets
	updates        updates
	regained       time.Time
	kicked         bool // a goroutine is about to write
	resting        bool // sweeps do not look until Wake
}

var (
	errTooSlow = errors.New("the client is too slow")
	errAbsent  = errors.New("the client did not answer PING in time")
)

// spend charges an unproductive frame to the budget; mu is held.
func (c *serverConn) spend() error {
	c.frames--
	if c.frames < 0 || c.out != nil && len(c.out.B) > maxWaiting {
		return broken(enhanceYourCalm, "too many frames that ask for nothing")
	}
	return nil
}

// spendReset counts a stream that the client reset (CVE-2023-44487), or made the server reset
// (CVE-2025-8671); mu is held.
func (c *serverConn) spendReset() error {
	c.resets--
	if c.resets < 0 {
		return broken(enhanceYourCalm, "too many resets")
	}
	return nil
}

// earn adds to the frame budget for requests and for answer content, which causes window updates;
// mu is held.
func (c *serverConn) earn(frames int) {
	c.frames = min(c.frames+frames, c.options.Frames)
}

// Look implements [wire.Looked]. It skips a connection whose mutex is held.
func (c *serverConn) Look(now time.Time) (until time.Time) {
	if !c.mu.TryLock() {
		return time.Time{}
	}
	defer c.mu.Unlock()
	if c.stage == over {
		return time.Time{}
	}
	c.regain(now)
	if c.overdue(now) {
		c.die(errTooSlow)
		c.Cut()
		return time.Time{}
	}
	if !c.present(now) {
		c.die(errAbsent)
		c.Cut()
		return time.Time{}
	}
	switch {
	case c.counted > 0 || c.used || c.idle.IsZero():
		c.idle, c.used = now, false
	case now.Sub(c.idle) >= c.options.IdleTime:
		c.close()
	case c.rests():
		until = c.idle.Add(c.options.IdleTime)
	}
	if c.stage == warned && now.After(c.due) {
		c.close()
	}
	for _, s := range c.streams {
		s.look(now)
	}
	c.resting = !until.IsZero()
	return until
}

// present reports whether the client counts as alive. A stream may wait long for an event, so it
// sends PING to a silent client with open streams. Any bytes from the client count as an answer. mu
// is held.
func (c *serverConn) present(now time.Time) bool {
	t := c.options.PingTime
	switch {
	case c.came || len(c.streams) == 0 || c.heard.IsZero():
		c.came, c.heard, c.pinged = false, now, false
	case c.pinged:
		return now.Sub(c.heard) < 3*t
	case now.Sub(c.heard) >= t:
		c.pinged = true
		b := c.control()
		b.B = appendPing(b.B, 0, []byte(alivePing))
		c.kick()
	}
	return true
}

// rests reports whether only the end of the idle time needs watching; mu is held.
func (c *serverConn) rests() bool {
	o := c.options
	return c.stage == open && c.due.IsZero() && c.partial == 0 && c.out == nil && !c.writing &&
		len(c.streams) == 0 && c.serving == 0 && c.frames == o.Frames && c.resets == o.Resets
}

func (c *serverConn) regain(now time.Time) {
	o := c.options
	if c.regained.IsZero() {
		c.regained = now
	}
	d := now.Sub(c.regained)
	if d < time.Second {
		return
	}
	c.regained = now
	tenths := int(min(d/time.Second, 10))
	c.frames = min(c.frames+(o.Frames*tenths+9)/10, o.Frames)
	c.resets = min(c.resets+(o.Resets*tenths+9)/10, o.Resets)
}

// overdue reports whether the greeting, a header block or a write takes too long.
func (c *serverConn) overdue(now time.Time) bool {
	o := c.options
	if c.partial != c.seenPartial {
		c.seenPartial, c.partialSince = c.partial, now
	}
	stuck := c.writing && c.writes == c.seenWrites // the same write as at the last sweep
	if !stuck {
		c.seenWrites, c.writingSince = c.writes, now
	}
	switch {
	case c.stage == open && !c.due.IsZero() && now.After(c.due):
	case c.partial != 0 && now.Sub(c.partialSince) > o.HeadTime:
	case stuck && now.Sub(c.writingSince) > o.WriteTime:
	case stuck && c.author != nil && passed(c.author.writeBy, now):
	default:
		return false
	}
	return true
}

func passed(by, now time.Time) bool { return !by.IsZero() && now.After(by) }
