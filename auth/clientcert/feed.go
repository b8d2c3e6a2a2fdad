package clientcert

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	longestPause = time.Hour // between two fetches of a list
	shortestWait = time.Minute
	firstRetry   = time.Second
	lastRetry    = time.Minute
)

// feed is a revocation list that is fetched from a URL. One goroutine fetches it, so never two at
// once, and never for a request.
type feed struct {
	url    string
	memory *Memory
	// lists are the last good one of each CA that has a user, the last fetched first; nil: none has
	// come yet. The slice is immutable. A list of another CA must not displace one: whoever controls
	// the server or the path could hide a revocation so, or replay an older list after it.
	lists atomic.Pointer[[]*list]

	life context.Context // of fetches
	stop context.CancelFunc
	work sync.WaitGroup
	wake chan struct{} // has a token if a fetch is due at once

	mu       sync.Mutex // guards the fields below
	started  bool
	users    []*revocation // of active Hosts; an entry that has the URL twice is there twice
	failures int           // since the last success
	failed   error         // of the last fetch; nil if it succeeded
}

func newFeed(url string, m *Memory) *feed {
	f := &feed{url: url, memory: m, wake: make(chan struct{}, 1)}
	f.life, f.stop = context.WithCancel(context.Background())
	return f
}

// fetched returns the lists, the last fetched first.
func (f *feed) fetched() []*list {
	if all := f.lists.Load(); all != nil {
		return *all
	}
	return nil
}

// of returns the list of a CA; nil if none has come.
func (f *feed) of(issuer keyID) *list {
	for _, l := range f.fetched() {
		if l.issuer == issuer {
			return l
		}
	}
	return nil
}

// use adds an entry. If no list is of one of its CAs, as after a change of CAs, another fetch is
// due.
func (f *feed) use(r *revocation) {
	f.mu.Lock()
	f.users = append(f.users, r)
	f.mu.Unlock()
	if !slices.ContainsFunc(f.fetched(), func(l *list) bool { return r.known[l.issuer] }) {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// leave removes an entry and reports whether none is left.
func (f *feed) leave(r *revocation) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, u := range f.users {
		if u == r {
			f.users = append(f.users[:i:i], f.users[i+1:]...)
			break
		}
	}
	return len(f.users) == 0
}

// start starts fetching. Later calls have no effect.
func (f *feed) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started {
		f.started = true
		f.work.Go(f.loop)
	}
}

// end cancels a fetch and waits for it. Later none starts.
func (f *feed) end() {
	f.stop()
	f.work.Wait()
}

func (f *feed) loop() {
	for f.life.Err() == nil {
		select { // this fetch serves those who have asked for one
		case <-f.wake:
		default:
		}
		if !f.fetch() {
			return
		}
		pause := time.NewTimer(f.pause())
		select {
		case <-pause.C:
		case <-f.wake:
		case <-f.life.Done():
		}
		pause.Stop()
	}
}

// pause returns the time until the next fetch: half of what is left of the list, so that a CA's
// server may fail for long before the list ends.
func (f *feed) pause() time.Duration {
	f.mu.Lock()
	failures := f.failures
	f.mu.Unlock()
	if failures > 0 {
		d := lastRetry
		if failures < 7 {
			d = min(firstRetry<<(failures-1), lastRetry)
		}
		return d/2 + rand.N(d/2)
	}
	d := min(max(f.fetched()[0].nextUpdate.Sub(f.memory.now())/2, shortestWait), longestPause)
	return d - rand.N(d/10)
}

// fetch fetches the list once. A list that cannot be used leaves the last good one in place. fetch
// returns false if the feed has ended meanwhile.
func (f *feed) fetch() bool {
	l, err := f.download()
	if f.life.Err() != nil {
		return false
	}
	f.mu.Lock()
	before := f.failed
	f.failed = err
	if err != nil {
		f.failures++
	} else {
		f.failures = 0
	}
	f.mu.Unlock()
	if err != nil {
		if before == nil || before.Error() != err.Error() {
			f.memory.log.Warn("revocation list not fetched", "url", f.url, "cause", err)
		}
		return true
	}
	old := f.of(l.issuer)
	f.store(l)
	if old == nil || old.sum != l.sum {
		f.memory.generation.Add(1)
	}
	if before != nil || old == nil {
		f.memory.log.Info("revocation list fetched", "url", f.url, "issuer", l.name, "revoked", len(l.revoked), "next_update", stamp(l.nextUpdate))
	}
	return true
}

// store puts a list in front, in the place of that of its CA. It drops those of CAs without users.
func (f *feed) store(l *list) {
	used := map[keyID]bool{}
	for _, ca := range f.cas() {
		used[keyIDOf(ca)] = true
	}
	all := []*list{l}
	for _, o := range f.fetched() {
		if o.issuer != l.issuer && used[o.issuer] {
			all = append(all, o)
		}
	}
	f.lists.Store(&all)
}

var errSeveralLists = errors.New("more than one revocation list")

func (f *feed) download() (*list, error) {
	text, err := f.memory.get(f.life, f.url)
	if err != nil {
		return nil, err
	}
	parts, err := unwrapLists(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the document %w", err)
	case len(parts) > 1:
		return nil, errSeveralLists
	}
	l, err := readList(parts[0], f.cas())
	if err != nil {
		return nil, fmt.Errorf("the document %w", err)
	}
	// Anyone on the path could replay a list that lacks the newest certificates.
	if old := f.of(l.issuer); old != nil && l.thisUpdate.Before(old.thisUpdate) {
		return nil, fmt.Errorf("the document is older than the list in use: it is of %s, that of %s", stamp(l.thisUpdate), stamp(old.thisUpdate))
	}
	return l, nil
}

// cas returns the CAs of all users.
func (f *feed) cas() []*x509.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*x509.Certificate
	for _, r := range f.users {
		all = append(all, r.bundle.all...)
	}
	return all
}

func (f *feed) status() ListStatus {
	st := ListStatus{URL: f.url}
	if all := f.fetched(); len(all) > 0 {
		l := all[0]
		st.Issuer, st.ThisUpdate, st.NextUpdate, st.Revoked = l.name, l.thisUpdate, l.nextUpdate, len(l.revoked)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st.Failures = f.failures
	if f.failed != nil {
		st.LastError = f.failed.Error()
	}
	return st
}
