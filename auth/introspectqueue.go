package auth

import "time"

const (
	maxLooks    = 1024 // tokens that wait at an issuer for a look-up
	maxLooksOf  = 128  // of them, those of one client address
	shareOfEach = 4    // no address gets more than this part of the concurrency: a quarter
)

// lookQueue orders the look-ups at one issuer, so that no client address can keep others
// out. A caller whose token was active before counts as an address of its own.
//
// An address has a share of the places. Of those who wait, the address with the fewest
// places is next, and of several the one that waits the longest since its last turn. If too
// many wait, the address with the most loses its last.
//
// The user must hold a lock.
type lookQueue struct {
	free    int // places
	share   int // places that one address may have
	waiting int
	lines   map[uint64]*line // by address, hashed
	events  uint64           // counts arrivals and turns
}

// line is the look-ups of one address.
type line struct {
	running int
	waiting []*look // in the order of arrival
	turn    uint64  // when it last got a place, in events
}

// since returns since when the line waits for a turn, in events.
func (l *line) since() uint64 { return max(l.turn, l.waiting[0].arrival) }

func newLookQueue(places int) lookQueue {
	return lookQueue{free: places, share: max(places/shareOfEach, 1), lines: map[uint64]*line{}}
}

// full reports whether the address has as many look-ups as it may have.
func (q *lookQueue) full(owner uint64) bool {
	l := q.lines[owner]
	return l != nil && l.running+len(l.waiting) >= maxLooksOf
}

// enter adds a look-up. If another one, or this one, loses its place for it, enter returns
// that; otherwise nil.
func (q *lookQueue) enter(k *look) (lost *look) {
	l := q.lines[k.owner]
	if l == nil {
		l = &line{}
		q.lines[k.owner] = l
	}
	q.events++
	k.arrival = q.events
	l.waiting = append(l.waiting, k)
	q.waiting++
	if q.waiting <= maxLooks {
		return nil
	}
	longest := l
	for _, other := range q.lines {
		if len(other.waiting) > len(longest.waiting) {
			longest = other
		}
	}
	lost = longest.waiting[len(longest.waiting)-1]
	q.remove(lost)
	return lost
}

// next gives a free place to a look-up and returns it; nil if none may begin.
func (q *lookQueue) next() *look {
	if q.free == 0 {
		return nil
	}
	var best *line
	for _, l := range q.lines {
		switch {
		case len(l.waiting) == 0 || l.running >= q.share:
		case best == nil, l.running < best.running,
			l.running == best.running && l.since() < best.since():
			best = l
		}
	}
	if best == nil {
		return nil
	}
	k := best.waiting[0]
	best.waiting = best.waiting[1:]
	q.waiting--
	q.events++
	best.turn = q.events
	best.running++
	q.free--
	return k
}

// remove takes out a look-up that waits. It reports whether it did wait.
func (q *lookQueue) remove(k *look) bool {
	l := q.lines[k.owner]
	if l == nil {
		return false
	}
	for i, w := range l.waiting {
		if w == k {
			l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...)
			q.waiting--
			q.forget(k.owner, l)
			return true
		}
	}
	return false
}

// leave gives back the place of a look-up.
func (q *lookQueue) leave(k *look) {
	l := q.lines[k.owner]
	l.running--
	q.free++
	q.forget(k.owner, l)
}

func (q *lookQueue) forget(owner uint64, l *line) {
	if l.running == 0 && len(l.waiting) == 0 {
		delete(q.lines, owner)
	}
}

const (
	// apart is from how many addresses look-ups must have failed, with no success since,
	// until those of all addresses pause. One caller with tokens at which an issuer fails
	// cannot stop the others.
	apart = 3

	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
)

// outage says when an issuer that fails may be asked again. The user must hold a lock.
type outage struct{ failed []failure } // of different addresses, at most apart

// failure is the look-ups of an address that failed in a row.
type failure struct {
	owner uint64
	n     int
	retry time.Time // the earliest time of the next one
}

// concerns reports whether a failure makes an address pause.
func (o *outage) concerns(f *failure, owner uint64) bool {
	return f.owner == owner || len(o.failed) == apart
}

// pauses reports whether an address must not ask now.
func (o *outage) pauses(owner uint64, now time.Time) bool {
	for i := range o.failed {
		if f := &o.failed[i]; o.concerns(f, owner) && now.Before(f.retry) {
			return true
		}
	}
	return false
}

// try reports whether an address may ask now. If the issuer failed before, the others wait
// for the outcome.
func (o *outage) try(owner uint64, now time.Time) bool {
	if o.pauses(owner, now) {
		return false
	}
	for i := range o.failed {
		if f := &o.failed[i]; o.concerns(f, owner) {
			f.retry = now.Add(pause(f.n))
		}
	}
	return true
}

// fail notes that the look-up of an address failed.
func (o *outage) fail(owner uint64, now time.Time) {
	var mine *failure
	for i := range o.failed {
		if f := &o.failed[i]; f.owner == owner {
			mine = f
		}
	}
	switch {
	case mine != nil:
	case len(o.failed) < apart:
		o.failed = append(o.failed, failure{owner: owner})
		mine = &o.failed[len(o.failed)-1]
	default:
		mine = &o.failed[0]
	}
	mine.n++
	mine.retry = now.Add(pause(mine.n))
}

// end notes that the issuer has answered.
func (o *outage) end() { o.failed = o.failed[:0] }

// pause returns how long to wait after the nth failure in a row.
func pause(n int) time.Duration {
	if n > 6 {
		return lastPause
	}
	return min(firstPause<<(n-1), lastPause)
}
