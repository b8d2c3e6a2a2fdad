// Package local is a replay store in the memory of one process. A planned stop writes a state
// file for the next process.
package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/shared"
)

// Config configures a [Replay].
type Config struct {
	Bounds
	Now func() time.Time // time.Now if nil
}

// Bounds are the limits that [Replay.Adjust] may change. All but Skew are required.
type Bounds struct {
	Nonces int           // maximum number of remembered signatures
	PerKey int           // maximum per key
	Window time.Duration // maximum age of a signature, at least a second
	Skew   time.Duration // maximum lead of a signer's clock
}

func (b *Bounds) sound() bool {
	return b.Nonces > 0 && b.PerKey > 0 && b.Window >= time.Second && b.Skew >= 0
}

// bounds are Bounds in internal units.
type bounds struct {
	nonces, perKey int64
	window, width  int64 // seconds; width is the span of a bucket
	skew           time.Duration
}

func newBounds(b Bounds) *bounds {
	return &bounds{
		nonces: int64(b.Nonces), perKey: int64(b.PerKey), skew: b.Skew,
		window: seconds(b.Window), width: max(seconds((b.Window+b.Skew)/4), 1),
	}
}

// Replay remembers used signatures, so that each is accepted once. It is safe for concurrent
// use.
//
// It keeps a claim while the signature could be accepted, and never drops it earlier: a full
// store refuses new claims. It refuses older signatures by time. The floor is at or above the
// creation time of every dropped claim, and of every claim that an unclean stop lost. Nothing
// created at or before the floor is accepted, whatever the clock says.
//
// [New] returns a store that refuses all claims; [Replay.Begin] starts it.
type Replay struct {
	now    func() time.Time
	bounds atomic.Pointer[bounds]

	beginning sync.Mutex // guards the fields up to start until begun is set
	begunWith string     // the argument of the Begin that started the store
	file      string     // where Save writes the claims; "" for nowhere
	lock      *os.File   // the locked lock file of file
	mark      string     // in a store without the lock: the file that tells the owner of our use; else ""
	note      string
	start     time.Time
	begun     atomic.Bool

	unclean atomic.Bool // after an unclean start, see raiseFloor

	floor   atomic.Int64 // only increases; Unix seconds
	live    atomic.Int64
	stopped atomic.Bool
	refused refusals
	keys    atomic.Pointer[keys]
	mu      sync.Mutex // serializes changes of keys
	shards  [shards]shard
}

var _ shared.Replay = (*Replay)(nil)

// refusals counts refusals by cause.
type refusals struct{ replayed, full, keyFull, window atomic.Uint64 }

// keys are all keys that ever made a claim. It is immutable once published.
type keys struct {
	byID map[string]*key
	all  []*key // by number
}

type key struct {
	id     string
	number uint32
	live   atomic.Int64
}

// noFloor is the floor of a store that has dropped nothing.
const noFloor = math.MinInt64

// New returns a store that refuses all claims until [Replay.Begin]. It uses no file, and only a
// few kilobytes until then.
func New(c Config) (*Replay, error) {
	if !c.sound() {
		return nil, errBounds
	}
	r := &Replay{now: c.Now}
	if r.now == nil {
		r.now = time.Now
	}
	r.bounds.Store(newBounds(c.Bounds))
	r.floor.Store(noFloor)
	r.keys.Store(&keys{byID: map[string]*key{}})
	return r, nil
}

var errBounds = errors.New("a replay store needs positive limits in total and per key, and a window of a second or more")

// Adjust changes the limits; it may run concurrently with claims.
//
// No change lets a replay in. A longer Window would accept signatures whose claims were dropped
// already, but every drop raises the floor to their creation time. If there are more claims than
// a new limit allows, new ones are refused until enough have expired.
func (r *Replay) Adjust(b Bounds) error {
	if !b.sound() {
		return errBounds
	}
	r.bounds.Store(newBounds(b))
	return nil
}

// LockEnding and MarkEnding are the ends of the names of files beside a state file; see [Replay.Begin].
const (
	LockEnding = ".lock"
	MarkEnding = ".unclean"
)

// Begin starts the store. Later calls do nothing and return nil, even with another file.
// state is the file that [Replay.Save] writes and Begin reads; "" means none, and every start is
// then unclean.
//
// One process owns the file. Begin locks a file beside it, named with ".lock" appended, until
// Save or the end of the process. A process without the lock neither reads nor writes the state
// file. The owner does not know what it accepts, so it creates a mark file, named with ".unclean"
// appended, and the owner's Save then writes nothing either. With the lock, Begin reads and
// removes the state file, so that none is left after a crash.
//
// The start is unclean if the claims of the previous process are unknown: the file is missing or
// damaged, others could have written it, or there is no lock. Signatures created before now plus
// Skew are then refused with a [shared.WindowError], and [Status] gives the reason. An empty file
// says that no signature was used before.
//
// Begin returns an error if the file must not be trusted or is no state file, or if its folder is
// not writable. Begin may then be called again.
func (r *Replay) Begin(state string) error {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.begun.Load() {
		return nil
	}
	r.start = r.now()
	clean, err := r.load(state)
	if err != nil {
		return fmt.Errorf("reading the state of the replay store: %w", err)
	}
	r.begunWith = state
	if !clean {
		r.unclean.Store(true)
		r.raiseFloor(r.start, 0)
	}
	r.begun.Store(true)
	return nil
}

// Begun reports whether [Replay.Begin] has started the store.
func (r *Replay) Begun() bool { return r.begun.Load() }

// File returns the state file that the store was begun with; "" for none.
func (r *Replay) File() string {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	return r.begunWith
}

// load reads the claims of the previous process and reports whether they are complete.
func (r *Replay) load(name string) (clean bool, err error) {
	r.note = ""
	if name == "" {
		r.note = "no state file is configured, so every start is unclean"
		return false, nil
	}
	if err := tryFolder(name); err != nil {
		return false, err
	}
	lock, err := acquire(name + LockEnding)
	switch {
	case errors.Is(err, errLocked):
		r.mark = name + MarkEnding
		if err := touchMark(r.mark); err != nil {
			return false, err
		}
		r.note = "the start was unclean: another process uses " + name + ": give each gateway its own integrity.state, or start one after the other has ended"
		return false, nil
	case errors.Is(err, errors.ErrUnsupported):
		r.note = "the start was unclean: this file system has no locks, so another process may use " + name
		return false, nil
	case err != nil:
		return false, err
	}
	b, found, err := readAndRemove(name)
	if err != nil {
		lock.Close()
		return false, err
	}
	marked, err := removeMark(name + MarkEnding)
	if err != nil {
		lock.Close() // a later Begin finds no state file, so it is unclean
		return false, err
	}
	r.file, r.lock = name, lock
	switch {
	case marked:
		r.note = "the start was unclean: another process used " + name + " besides its owner"
		return false, nil
	case !found:
		r.note = "the start was unclean: there was no state file"
		return false, nil
	case othersMayWrite(filepath.Dir(name), len(b) == 0):
		r.note = "the start was unclean: others may write in the folder of the state file, so they could have written it: chmod go-w " + filepath.Dir(name)
		return false, nil
	case len(b) == 0:
		return true, nil
	}
	s, err := parseState(b)
	if err != nil {
		r.note = "the start was unclean: the state file is damaged: " + err.Error()
		return false, nil
	}
	r.restore(s)
	return true, nil
}

// Claim implements [shared.Replay]. It does not block.
func (r *Replay) Claim(ctx context.Context, keyID string, claim [16]byte, created, until time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !r.begun.Load() {
		return shared.ErrStopped
	}
	now := r.now()
	if r.unclean.Load() {
		r.raiseFloor(now, now.Sub(r.start))
	}
	c := use{
		claim:   claim,
		key:     r.key(keyID),
		created: created.Unix(),
	}
	// Not earlier, even if the signer asks for it: dropped claims must be older than any
	// signature that is accepted.
	c.end = max(until.Unix(), c.created+r.bounds.Load().window)
	if r.mark != "" {
		if err := touchMark(r.mark); err != nil {
			return fmt.Errorf("marking %s: %w", r.mark, err)
		}
	}
	err := r.put(&c, now.Unix())
	if errors.Is(err, shared.ErrFull) && r.sweep(now.Unix()) {
		err = r.put(&c, now.Unix())
	}
	if r.mark != "" && err == nil {
		// An owner that started meanwhile may have removed the mark before this claim.
		err = touchMark(r.mark)
	}
	if err != nil {
		r.refused.count(err)
	}
	return err
}

// raiseFloor raises the floor after an unclean start, which was the time elapsed ago. The
// previous process may have accepted signatures created up to the start plus the skew. If the
// clock was wrong at the start (in 1970, say) and is right now, now minus elapsed is the true
// start.
func (r *Replay) raiseFloor(now time.Time, elapsed time.Duration) {
	b := r.bounds.Load()
	if elapsed > time.Duration(b.window+1)*time.Second+b.skew {
		r.unclean.Store(false)
		return
	}
	r.raise(now.Add(b.skew - elapsed).Unix())
}

// raise raises the floor to at least a time.
func (r *Replay) raise(to int64) {
	for {
		old := r.floor.Load()
		if old >= to || r.floor.CompareAndSwap(old, to) {
			return
		}
	}
}

// key returns the key with this ID, or makes it.
func (r *Replay) key(id string) *key {
	if k := r.keys.Load().byID[id]; k != nil {
		return k
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.keys.Load()
	if k := old.byID[id]; k != nil {
		return k
	}
	k := &key{id: strings.Clone(id), number: uint32(len(old.all))}
	next := &keys{byID: make(map[string]*key, len(old.all)+1), all: append(old.all, k)}
	for _, k := range next.all {
		next.byID[k.id] = k
	}
	r.keys.Store(next)
	return k
}

// count counts an error of put.
func (n *refusals) count(err error) {
	switch err.(type) {
	case *shared.WindowError:
		n.window.Add(1)
	case *shared.KeyFullError:
		n.keyFull.Add(1)
	default:
		switch err {
		case shared.ErrReplayed:
			n.replayed.Add(1)
		case shared.ErrFull:
			n.full.Add(1)
		}
	}
}

// seconds converts to seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Status is the state of a [Replay].
type Status struct {
	Live, Capacity int
	// FullestKey is the key with the most claims, FullestLive; PerKey is the limit.
	FullestKey          string
	FullestLive, PerKey int

	Refused Refusals
	// WindowUntil is the creation time from which signatures are no longer refused with a
	// [shared.WindowError]; zero if new ones are accepted.
	WindowUntil time.Time
	Note        string // why the start was unclean; "" if it was clean
}

// Refusals counts refused claims by cause.
type Refusals struct {
	Replayed, Full, KeyFull, Window uint64
}

// Status returns the current state of the store.
func (r *Replay) Status() Status {
	b := r.bounds.Load()
	if !r.begun.Load() {
		return Status{Capacity: int(b.nonces), PerKey: int(b.perKey)}
	}
	now := r.now()
	if r.unclean.Load() {
		r.raiseFloor(now, now.Sub(r.start))
	}
	r.sweep(now.Unix())
	s := Status{
		Live:     int(r.live.Load()),
		Capacity: int(b.nonces),
		PerKey:   int(b.perKey),
		Refused: Refusals{
			Replayed: r.refused.replayed.Load(),
			Full:     r.refused.full.Load(),
			KeyFull:  r.refused.keyFull.Load(),
			Window:   r.refused.window.Load(),
		},
		Note: r.note,
	}
	if floor := r.floor.Load(); floor >= now.Unix() {
		s.WindowUntil = time.Unix(floor+1, 0)
	}
	for _, k := range r.keys.Load().all {
		if n := int(k.live.Load()); n > s.FullestLive {
			s.FullestKey, s.FullestLive = k.id, n
		}
	}
	return s
}
