package clientcert

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/fetch"
)

// MemoryOptions configure a [Memory]. The zero value is usable.
type MemoryOptions struct {
	Now func() time.Time // time.Now if nil
	Log *slog.Logger     // nil disables logging
}

// Memory has the revocation lists that were fetched, by URL. A process has one; it outlives
// configurations, so that a reload loses no list. It is safe for concurrent use.
type Memory struct {
	now func() time.Time
	log *slog.Logger
	get func(ctx context.Context, url string) ([]byte, error)
	// generation counts the changes of lists. Verdicts of another one are void.
	generation atomic.Uint64

	mu      sync.Mutex       // guards the fields below, and activated and closed of each Hosts
	feeds   map[string]*feed // used by active Hosts
	running bool             // Run is running
	ended   bool             // Run has returned: nothing may be fetched
}

// fetchTime bounds the fetch of a list, which may have many megabytes.
const fetchTime = 30 * time.Second

// NewMemory returns an empty Memory. It starts no goroutine.
func NewMemory(o MemoryOptions) *Memory {
	m := &Memory{now: o.Now, log: o.Log, feeds: map[string]*feed{}}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	// Lists are signed, so http is no risk to what they say.
	client := fetch.New(fetch.Options{InsecureHTTP: true, Timeout: fetchTime, MaxBytes: maxCRL})
	m.get = func(ctx context.Context, url string) ([]byte, error) {
		return client.Bytes(ctx, url, "application/pkix-crl, */*;q=0.1")
	}
	return m
}

// Run fetches the lists of all active Hosts, and again before they end, until ctx ends. It returns
// once every fetch has ended; its error is nil. It may be called once. Without Run nothing is fetched.
func (m *Memory) Run(ctx context.Context) error {
	m.mu.Lock()
	m.running = true
	for _, f := range m.feeds {
		f.start()
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	m.running, m.ended = false, true
	all := slices.Collect(maps.Values(m.feeds))
	m.mu.Unlock()
	for _, f := range all {
		f.end()
	}
	return nil
}

// ListStatus is the state of a revocation list that is fetched.
type ListStatus struct {
	URL        string
	Issuer     string    // of the list that came last; "" if none has come yet
	ThisUpdate time.Time // zero if none has come yet
	NextUpdate time.Time
	Revoked    int // certificates in it
	// LastError says why the last fetch failed; "" if it succeeded.
	LastError string
	Failures  int // failed fetches since the last success
}

// Status returns the state of each list that active Hosts use, ordered by URL.
func (m *Memory) Status() []ListStatus {
	m.mu.Lock()
	feeds := slices.Collect(maps.Values(m.feeds))
	m.mu.Unlock()
	var all []ListStatus
	for _, f := range feeds {
		all = append(all, f.status())
	}
	slices.SortFunc(all, func(a, b ListStatus) int { return cmp.Compare(a.URL, b.URL) })
	return all
}

// Activate makes the Hosts active: from now on the lists of their URLs are fetched. Only the first
// call has an effect, and none has after Close.
func (h *Hosts) Activate() {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.activated || h.closed {
		return
	}
	h.activated = true
	for _, t := range h.all {
		if t.revoked != nil {
			t.revoked.activate(m)
		}
	}
}

// Close makes the Hosts inactive. No request may use them any more. It drops the lists that no
// other active Hosts use, and waits for their fetches. Closing twice, or without Activate, is safe.
func (h *Hosts) Close() {
	var unused []*feed
	m := h.memory
	m.mu.Lock()
	if h.activated && !h.closed {
		for _, t := range h.all {
			if t.revoked != nil {
				unused = append(unused, t.revoked.release(m)...)
			}
		}
	}
	h.closed = true
	m.mu.Unlock()
	for _, f := range unused {
		f.end()
	}
}

// activate takes the feeds of an entry into use. The caller must hold m.mu.
func (r *revocation) activate(m *Memory) {
	feeds := make([]*feed, 0, len(r.urls))
	for _, url := range r.urls {
		f := m.feeds[url]
		if f == nil {
			f = newFeed(url, m)
			m.feeds[url] = f
		}
		f.use(r)
		feeds = append(feeds, f)
		if m.running {
			f.start()
		}
	}
	r.feeds.Store(&feeds)
}

// release undoes activate, and returns the feeds that nobody uses any more. The caller must hold
// m.mu, unlock it and then end them.
func (r *revocation) release(m *Memory) (unused []*feed) {
	feeds := r.feeds.Swap(nil)
	for _, f := range *feeds {
		if f.leave(r) {
			delete(m.feeds, f.url)
			unused = append(unused, f)
		}
	}
	return unused
}
