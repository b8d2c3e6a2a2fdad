package upstream

import "time"

// A server closes an idle connection without asking. A request that is then on its way fails, and
// unless it is idempotent it cannot be repeated: gunicorn closes after 2 s, uvicorn and Node after
// 5 s. So a connection is only used again well before the server would close it. The server
// announces that time (Keep-Alive: timeout=5), or the pool learns it: it leaves its oldest idle
// connection unused and looks when the server closes it.

const (
	// firstKept is how long a server is taken to keep an idle connection until more is known.
	firstKept = 2 * time.Second
	// leastUse is the idle time within which connections are always used again. It limits the harm
	// of a wrong conclusion: a server that restarts closes connections of any age.
	leastUse = 500 * time.Millisecond
)

// keptOpen holds what is known about how long one server keeps idle connections open. The pool's mu
// guards it.
type keptOpen struct {
	// limit is for how long a connection may be idle before the server closes it.
	limit time.Duration
	// known says that a connection was watched to its end. Until then, limit is the longest time
	// for which one was seen open.
	known bool
}

// usable returns how long a connection may be idle and still be used. most is the configured time.
// announced is the server's own; 0 if it has none.
func (k *keptOpen) usable(most, announced time.Duration) time.Duration {
	promised := announced - min(announced/2, time.Second)
	if announced > 0 && (!k.known || k.limit >= promised) {
		return min(most, promised)
	}
	learned := k.limit / 4 * 3
	if !k.known {
		learned = max(k.limit, firstKept) / 2
	}
	return min(most, max(learned, leastUse))
}

// watched returns how long an idle connection is watched. If one is still open then, connections may
// be used for the whole configured time.
func watched(most time.Duration) time.Duration { return most / 3 * 4 }

// seen records that an idle connection is still open.
func (k *keptOpen) seen(idle time.Duration) {
	if !k.known {
		k.limit = max(k.limit, idle)
	}
}

// ended records that a connection was closed after this idle time, or was open to the end of the
// watch. A shorter time counts at once, a longer one slowly: servers close some time after the limit.
func (k *keptOpen) ended(idle time.Duration) {
	if k.known && idle > k.limit {
		idle = k.limit + (idle-k.limit)/8
	}
	k.limit, k.known = idle, true
}

// nextLook returns the time until the oldest connection is checked again. It limits the error of the
// measured time to an eighth.
func nextLook(idle, idleTime time.Duration) time.Duration {
	return min(max(idle/8, 250*time.Millisecond), reapEvery(idleTime))
}
