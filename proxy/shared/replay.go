package shared

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Why a claim is refused. An error that is neither of these is a [WindowError].
var (
	// ErrReplayed: the claim was made before.
	ErrReplayed = errors.New("the signature was used before")
	// ErrFull: there is no room to remember another claim, and none is forgotten
	// before its time. Where one key's share is used up it is a [KeyFullError].
	ErrFull = errors.New("no room to remember another signature")
	// ErrStopped: [Replay.Save] was called; what came later would be forgotten.
	ErrStopped = errors.New("signatures are no longer remembered: the process stops")
)

// KeyFullError says that the share of one key is used up. It is an [ErrFull].
type KeyFullError struct {
	KeyID string
}

func (e *KeyFullError) Error() string {
	return fmt.Sprintf("no room to remember another signature of key %q", e.KeyID)
}

func (e *KeyFullError) Unwrap() error { return ErrFull }

// WindowError says that the signature may have been used before: by a process
// that left nothing behind, or before the clock was set back.
type WindowError struct {
	Until time.Time // signatures created from then on are not refused so
}

func (e *WindowError) Error() string {
	return "signatures created before " + e.Until.UTC().Format(time.RFC3339) + " may have been used"
}

// ReplayConfig says what a [Replay] remembers. All but Skew, State and Now must be
// given.
type ReplayConfig struct {
	Nonces int           // remembered at once
	PerKey int           // of these, of one key
	Window time.Duration // the greatest age of a signature
	Skew   time.Duration // how far the clocks of signers may be ahead

	// State is the file in which [Replay.Save] leaves the claims, and from which
	// [NewReplay] takes them. "" means none: each start is as after a crash. Two
	// processes must not use the same file at the same time.
	State string

	Now func() time.Time // time.Now if nil
}

// Replay remembers which signatures were used, so that each is used once. It is
// safe for concurrent use.
//
// It keeps a claim for as long as the signature could be accepted, and never makes
// room by forgetting: with no room left it refuses. What it has forgotten it
// refuses by time: of every claim that was dropped, and of those that an unclean
// end took along, the signature was created at or before the floor, and nothing
// created then is accepted, whatever the clock says now.
type Replay struct {
	nonces, perKey int64
	window, width  int64 // seconds
	skew           time.Duration
	file           string
	now            func() time.Time
	note           string

	start    time.Time
	settling atomic.Bool // after an unclean start, see settle

	floor   atomic.Int64 // only rises; Unix seconds
	live    atomic.Int64
	stopped atomic.Bool
	refused refusals
	keys    atomic.Pointer[keys]
	mu      sync.Mutex // held to replace keys
	shards  [shards]shard
}

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

// NewReplay makes a Replay and takes the state file, if one is named: it reads and
// removes it, so that after a crash there is none.
//
// Without the file, or with one that was damaged, signatures that were created
// before the start, or up to Skew after it, are refused with a [WindowError]. An
// empty file says that none was used before. The error is about a file that must
// not be trusted or is not ours, and a folder in which none could be left.
func NewReplay(c ReplayConfig) (*Replay, error) {
	if c.Nonces <= 0 || c.PerKey <= 0 || c.Window < time.Second || c.Skew < 0 {
		return nil, errors.New("a replay store needs room, a share for each key and a window of a second or more")
	}
	r := &Replay{
		nonces: int64(c.Nonces),
		perKey: int64(c.PerKey),
		window: seconds(c.Window),
		width:  max(seconds((c.Window+c.Skew)/4), 1),
		skew:   c.Skew,
		file:   c.State,
		now:    c.Now,
	}
	if r.now == nil {
		r.now = time.Now
	}
	r.start = r.now()
	r.floor.Store(noFloor)
	r.keys.Store(&keys{byID: map[string]*key{}})
	clean, err := r.load()
	if err != nil {
		return nil, err
	}
	if !clean {
		r.settling.Store(true)
		r.settle(r.start, 0)
	}
	return r, nil
}

// load takes over what the process before has left, and says whether that is all
// that it had.
func (r *Replay) load() (clean bool, err error) {
	if r.file == "" {
		r.note = "no state file is named: each start is as after a crash"
		return false, nil
	}
	b, found, err := take(r.file)
	switch {
	case err != nil:
		return false, fmt.Errorf("taking the state of the replay store: %w", err)
	case !found:
		r.note = "the start was unclean: there was no state file"
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

// Claim uses a signature: of all calls with the same claim, one succeeds while the
// signature could be accepted. claim identifies it among those of all keys,
// created is what the signer wrote, and until the last second at which it counts.
// The caller has verified the signature: keyID is of the configuration.
//
// The error is [ErrReplayed], [ErrFull] or a [KeyFullError], a [WindowError], or
// [ErrStopped].
func (r *Replay) Claim(keyID string, claim [16]byte, created, until time.Time) error {
	now := r.now()
	if r.settling.Load() {
		r.settle(now, now.Sub(r.start))
	}
	c := use{
		claim:   claim,
		key:     r.key(keyID),
		created: created.Unix(),
	}
	// Not sooner, even if the signer asks for it: what is forgotten must be older
	// than anything that is accepted.
	c.end = max(until.Unix(), c.created+r.window)
	err := r.put(&c, now.Unix())
	if errors.Is(err, ErrFull) && r.sweep(now.Unix()) {
		err = r.put(&c, now.Unix())
	}
	if err != nil {
		r.refused.count(err)
	}
	return err
}

// settle raises the floor after an unclean start, a time elapsed ago. The process
// before may have accepted what was created up to the start plus the skew. A clock
// that is set right only now (one that began in 1970, say) shows the start anew.
func (r *Replay) settle(now time.Time, elapsed time.Duration) {
	if elapsed > time.Duration(r.window+1)*time.Second+r.skew {
		r.settling.Store(false)
		return
	}
	r.raise(now.Add(r.skew - elapsed).Unix())
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
	case *WindowError:
		n.window.Add(1)
	case *KeyFullError:
		n.keyFull.Add(1)
	default:
		switch err {
		case ErrReplayed:
			n.replayed.Add(1)
		case ErrFull:
			n.full.Add(1)
		}
	}
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// ReplayStatus is how a [Replay] is doing.
type ReplayStatus struct {
	Live, Capacity int
	// FullestKey has the most claims, FullestLive, of PerKey.
	FullestKey          string
	FullestLive, PerKey int

	Refused ReplayRefusals
	// WindowUntil is when signatures made now will no longer be refused with a
	// [WindowError]; zero if they are not.
	WindowUntil time.Time
	Note        string // what was wrong at the start; "" if nothing was
}

// ReplayRefusals counts the refused claims by cause.
type ReplayRefusals struct {
	Replayed, Full, KeyFull, Window uint64
}

// Status tells how the store is doing now.
func (r *Replay) Status() ReplayStatus {
	now := r.now()
	if r.settling.Load() {
		r.settle(now, now.Sub(r.start))
	}
	r.sweep(now.Unix())
	s := ReplayStatus{
		Live:     int(r.live.Load()),
		Capacity: int(r.nonces),
		PerKey:   int(r.perKey),
		Refused: ReplayRefusals{
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
