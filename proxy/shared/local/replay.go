// Package local remembers in the memory of one process which signatures were used, with
// a file that a planned stop leaves to the next process.
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

// Config says what a [Replay] remembers and by which clock.
type Config struct {
	Bounds
	Now func() time.Time // time.Now if nil
}

// Bounds are what a reload may change; see [Replay.Adjust]. All but Skew must be given.
type Bounds struct {
	Nonces int           // remembered at once
	PerKey int           // of these, of one key
	Window time.Duration // the greatest age of a signature, at least a second
	Skew   time.Duration // how far the clocks of signers may be ahead
}

func (b *Bounds) sound() bool {
	return b.Nonces > 0 && b.PerKey > 0 && b.Window >= time.Second && b.Skew >= 0
}

// bounds are Bounds as they are used.
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

// Replay remembers which signatures were used, so that each is used once. It is
// safe for concurrent use.
//
// It keeps a claim for as long as the signature could be accepted, and never makes
// room by forgetting: with no room left it refuses. What it has forgotten it
// refuses by time: of every claim that was dropped, and of those that an unclean
// end took along, the signature was created at or before the floor, and nothing
// created then is accepted, whatever the clock says now.
//
// [New] makes one that takes no claims yet; [Replay.Begin] starts it.
type Replay struct {
	now    func() time.Time
	bounds atomic.Pointer[bounds]

	beginning sync.Mutex // guards what follows up to start, until begun is set
	file      string     // where Save leaves the claims; "" for nowhere
	lock      *os.File   // the lock of file, held
	mark      string     // of a store without the lock: the file that tells the owner; "" with it
	note      string
	start     time.Time
	begun     atomic.Bool

	unclean atomic.Bool // after an unclean start, see raiseFloor

	floor   atomic.Int64 // only rises; Unix seconds
	live    atomic.Int64
	stopped atomic.Bool
	refused refusals
	keys    atomic.Pointer[keys]
	mu      sync.Mutex // held to replace keys
	shards  [shards]shard
}

var _ shared.Replay = (*Replay)(nil)

// refusals counts by cause.
type refusals struct{ replayed, full, keyFull, window atomic.Uint64 }

// keys are those that ever made a claim. A value does not change once others see
// it.
type keys struct {
	byID map[string]*key
	all  []*key // by number
}

type key struct {
	id     string
	number uint32
	live   atomic.Int64
}

// noFloor is the floor where nothing was forgotten.
const noFloor = math.MinInt64

// New makes a store that takes no claims before [Replay.Begin]. It touches no file and
// takes a few kilobytes until it is used.
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

var errBounds = errors.New("a replay store needs room, a share for each key and a window of a second or more")

// Adjust changes the bounds while claims go on.
//
// No change lets a replay in. With a greater Window a signature could be accepted whose
// claim was already forgotten; but what is forgotten lifts the floor, and nothing created
// at or before that is accepted. With less room than there are claims, there is none until
// enough of them are over.
func (r *Replay) Adjust(b Bounds) error {
	if !b.sound() {
		return errBounds
	}
	r.bounds.Store(newBounds(b))
	return nil
}

// Begin starts the store, once: later calls do nothing and return nil, whatever file they
// name. state is the file in which [Replay.Save] leaves the claims and from which they are
// taken now; "" means none: the start is as after a crash.
//
// The file is owned by one process: Begin locks a file beside it, named with ".lock" at its
// end, until Save or the end of the process. Without the lock it takes nothing and
// Save leaves nothing, but what it accepts the owner does not know; so it leaves a mark, a
// file with ".unclean" at its end, and the owner's Save leaves nothing either.
// With the lock it reads the state file and removes it, so that after a crash there is none.
//
// Where the claims of the process before are not known for certain (no file, a damaged one,
// one that others could have made, no lock), the start is unclean: signatures that were
// created before now, or up to Skew after, are refused with a [shared.WindowError], and
// [Status] says why. An empty file says that no signature was used before. The error is
// about a file that must not be trusted or is not ours, and a folder in which none could be
// left; Begin may be called again then.
func (r *Replay) Begin(state string) error {
	r.beginning.Lock()
	defer r.beginning.Unlock()
	if r.begun.Load() {
		return nil
	}
	r.start = r.now()
	clean, err := r.load(state)
	if err != nil {
		return fmt.Errorf("taking the state of the replay store: %w", err)
	}
	if !clean {
		r.unclean.Store(true)
		r.raiseFloor(r.start, 0)
	}
	r.begun.Store(true)
	return nil
}

// Begun says whether [Replay.Begin] has started the store.
func (r *Replay) Begun() bool { return r.begun.Load() }

// load takes over what the process before has left, and says whether that is all that it
// had.
func (r *Replay) load(name string) (clean bool, err error) {
	r.note = ""
	if name == "" {
		r.note = "no state file is named: each start is as after a crash"
		return false, nil
	}
	if err := tryFolder(name); err != nil {
		return false, err
	}
	lock, err := acquire(name + ".lock")
	switch {
	case errors.Is(err, errHeld):
		r.mark = name + ".unclean"
		if err := touchMark(r.mark); err != nil {
			return false, err
		}
		r.note = "the start was unclean: another process uses " + name + ": give each gateway an integrity.state of its own, or start one when the other has ended"
		return false, nil
	case errors.Is(err, errors.ErrUnsupported):
		r.note = "the start was unclean: files cannot be locked here, so nobody knows whether another process uses " + name
		return false, nil
	case err != nil:
		return false, err
	}
	b, found, err := take(name)
	if err != nil {
		lock.Close()
		return false, err
	}
	marked, err := removeMark(name + ".unclean")
	if err != nil {
		lock.Close() // Begin may be called again, and finds no file then
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
		r.note = "the start was unclean: others may write in the folder of the state file, so they could have made it: chmod go-w " + filepath.Dir(name)
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

// Claim implements [shared.Replay]. It waits for nothing.
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
	// Not sooner, even if the signer asks for it: what is forgotten must be older
	// than anything that is accepted.
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
		// An owner that has just begun may have removed the mark before this claim was made.
		err = touchMark(r.mark)
	}
	if err != nil {
		r.refused.count(err)
	}
	return err
}

// raiseFloor raises the floor after an unclean start, a time elapsed ago. The process
// before may have accepted what was created up to the start plus the skew. A clock
// that is set right only now (one that began in 1970, say) shows the start anew.
func (r *Replay) raiseFloor(now time.Time, elapsed time.Duration) {
	b := r.bounds.Load()
	if elapsed > time.Duration(b.window+1)*time.Second+b.skew {
		r.unclean.Store(false)
		return
	}
	r.raise(now.Add(b.skew - elapsed).Unix())
}

// raise lifts the floor to at least a time.
func (r *Replay) raise(to int64) {
	for {
		old := r.floor.Load()
		if old >= to || r.floor.CompareAndSwap(old, to) {
			return
		}
	}
}

// key finds a key by its id, or makes it.
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

// count counts an error as put returns it.
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

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Status is how a [Replay] is doing.
type Status struct {
	Live, Capacity int
	// FullestKey has the most claims, FullestLive, of PerKey.
	FullestKey          string
	FullestLive, PerKey int

	Refused Refusals
	// WindowUntil is when signatures made now will no longer be refused with a
	// [shared.WindowError]; zero if they are not.
	WindowUntil time.Time
	Note        string // what was wrong at the start; "" if nothing was
}

// Refusals counts the refused claims by cause.
type Refusals struct {
	Replayed, Full, KeyFull, Window uint64
}

// Status tells how the store is doing now.
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
