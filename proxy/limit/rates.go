package limit

import (
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/proxy/setting"
)

// Rates are the rates of a route, see [Lease.Rates]. The zero Rates limit nothing.
type Rates []*Entry

// Entry is one rate of a route.
type Entry struct {
	scope  scope
	stage  Stage
	limit  setting.Rate
	burst  int
	name   string
	words  string
	policy string // the member of RateLimit-Policy
	*Rate
}

func newEntry(c *RateConfig, name string, counts *Rate) *Entry {
	e := &Entry{scope: c.Scope.compile(), stage: c.stage(), limit: c.Limit, burst: c.burst(), name: name, words: c.Words(), Rate: counts}
	e.policy = ratePolicy(name, c.Limit, e.burst)
	return e
}

// key is one count of a request in one entry.
type key struct {
	entry *Entry
	hash  uint64
	begun uint64 // the caller's key in Rate.begun; used if begins
	// begins reports that the caller begins to use the key.
	begins bool
}

// key returns the count of a request for a group.
func (e *Entry) key(q *Asked, group string) key {
	k := key{entry: e, hash: e.scope.hash(e.seed, q, group)}
	if e.begun == nil || e.ahead(k.hash) > 0 {
		return k
	}
	k.begun, k.begins = maphash.String(e.begun.seed, q.Principal), true
	if e.begun.wait(k.begun) > 0 {
		// The caller's further models share one allowance of the caller's own.
		var h maphash.Hash
		h.SetSeed(e.seed)
		write(&h, "further models")
		write(&h, q.Principal)
		write(&h, group)
		k.hash, k.begins = h.Sum64(), false
	}
	return k
}

// wait returns how long the key must wait for a request.
func (k *key) wait() time.Duration { return k.entry.wait(k.hash) }

// Taken are requests taken from rates, to be undone if the request is refused after all. Its memory
// is reused. The zero Taken holds none.
type Taken []taken

type taken struct {
	key
	overflow bool
	at       int64 // as of Rate.time
}

// take takes a request of k and records it, or returns how long to wait.
func (t *Taken) take(k key) time.Duration {
	e, at := k.entry, k.entry.time()
	wait, overflow := e.take(k.hash)
	if wait > 0 {
		return wait
	}
	if k.begins {
		// A concurrent request of the caller may have been faster; one more entry does not matter.
		e.begun.take(k.begun)
	}
	*t = append(*t, taken{key: k, overflow: overflow, at: at})
	return 0
}

// Give undoes all that was taken since there were n entries. The allowances may have been full since,
// so as much time as has passed stays taken: otherwise late refusals would give a caller more than
// its limit.
func (t *Taken) Give(n int) {
	for _, one := range (*t)[n:] {
		ago := max(one.entry.time()-one.at, 0)
		one.entry.give(one.hash, one.overflow, ago)
		if one.begins {
			one.entry.begun.give(one.begun, false, ago)
		}
	}
	t.Forget(n)
}

// Forget forgets all that was taken since there were n entries. It stays taken.
func (t *Taken) Forget(n int) {
	clear((*t)[n:])
	*t = (*t)[:n]
}

// Over is a limit that refuses a request.
type Over struct {
	Words string        // describes it, such as "200/s per principal"
	Retry time.Duration // until it may allow the request
	Quota Quota         // for the fields of the answer
}

func over(e *Entry, wait time.Duration) *Over {
	return &Over{Words: e.words, Retry: wait, Quota: Quota{Policy: e.policy, State: rateState(e.name, 0, wait)}}
}

// NeedModel reports whether an entry counts the request by its model.
func (s Rates) NeedModel(q *Asked) bool {
	return slices.ContainsFunc(s, func(e *Entry) bool { return e.stage == Late && e.scope.coversCaller(q) })
}

// Wait returns the rate of these stages for which a request must wait longest; nil if all allow it
// now. It takes nothing.
func (s Rates) Wait(q *Asked, stages Stage) *Over {
	var longest time.Duration
	var at *Entry
	for _, e := range s {
		if e.stage&stages == 0 || !e.scope.covers(q) {
			continue
		}
		for _, group := range e.scope.groups {
			if !q.counts(group) {
				continue
			}
			if k := e.key(q, group); k.wait() > longest {
				longest, at = k.wait(), e
			}
		}
	}
	if at == nil {
		return nil
	}
	return over(at, longest)
}

// Take takes one request from each count of each entry of these stages that covers it, and adds them
// to t. If one of them refuses, nothing is taken, and Take returns the rate for which the request
// must wait longest. Call [Rates.Wait] first: otherwise a flood of refused requests would briefly
// take allowances, and others would be refused meanwhile.
func (s Rates) Take(q *Asked, stages Stage, t *Taken) *Over {
	before := len(*t)
	for _, e := range s {
		if e.stage&stages == 0 || !e.scope.covers(q) {
			continue
		}
		for _, group := range e.scope.groups {
			if !q.counts(group) {
				continue
			}
			if wait := t.take(e.key(q, group)); wait > 0 {
				t.Give(before)
				return over(e, wait)
			}
		}
	}
	return nil
}

// Quota is what the fields of an answer say about one limit, in the form of
// draft-ietf-httpapi-ratelimit-headers-11, which is not a standard yet. The zero Quota says nothing.
type Quota struct {
	Policy string // the value of RateLimit-Policy
	State  string // the value of RateLimit
}

// Nearest describes the taken rate of which least is left; the zero Quota if t is empty.
func (t Taken) Nearest() Quota {
	var nearest *Entry
	least, reset := int64(math.MaxInt64), time.Duration(0)
	for i := range t {
		if left, next := t[i].entry.left(&t[i]); left < least || left == least && next > reset {
			nearest, least, reset = t[i].entry, left, next
		}
	}
	if nearest == nil {
		return Quota{}
	}
	return Quota{Policy: nearest.policy, State: rateState(nearest.name, least, reset)}
}

// left returns how many requests are left to the key of t, and the time until there is one more.
func (e *Entry) left(t *taken) (n int64, next time.Duration) {
	ahead := e.ahead(t.hash)
	if ahead > e.slack {
		return 0, time.Duration(ahead - e.slack)
	}
	free := e.slack - ahead
	return free/e.interval + 1, time.Duration(e.interval - free%e.interval)
}

// ratePolicy returns the member of RateLimit-Policy for a rate.
func ratePolicy(name string, r setting.Rate, burst int) string {
	s := quoted(name) + ";q=" + strconv.Itoa(r.N) + ";w=" + strconv.Itoa(int(r.Per/time.Second))
	if burst != r.N {
		s += ";sallyport-burst=" + strconv.Itoa(burst)
	}
	return s
}

// rateState returns the member of RateLimit for a rate. In the time until the next request is
// allowed, the caller cannot use more than what is left.
func rateState(name string, left int64, next time.Duration) string {
	return quoted(name) + ";r=" + strconv.FormatInt(left, 10) + ";t=" + strconv.FormatInt(seconds(next), 10)
}

// seconds rounds up, as for Retry-After.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// quoted returns a string of Structured Fields (RFC 9651, section 3.3.3).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
