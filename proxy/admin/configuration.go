package admin

import (
	"errors"
	"strings"
	"sync"
	"time"

	"sallyport/proxy/setting"
)

// Configuration tells which configuration runs and how it went to load another. A reload
// that fails changes nothing else in [State]: the gateway serves by the configuration
// that it has, and is as ready as before.
type Configuration struct {
	Hash     string    `json:"hash"`     // a short digest of what runs
	Loaded   time.Time `json:"loaded"`   // when it began to run
	Watching bool      `json:"watching"` // whether changes of files start a reload
	// Snapshots is how many configurations are in memory: the one that runs, and those
	// before it that wait for their last requests.
	Snapshots int `json:"snapshots"`

	LastAttempt time.Time `json:"last_attempt"` // to load it or another
	LastSuccess time.Time `json:"last_success"` // of those, the last that did not fail
	// LastError is the first line of why the last attempt failed, "" if it did not.
	LastError string `json:"last_error,omitempty"`
	// Faults is how many faults the configuration of the last attempt had; zero also
	// where it failed for another reason.
	Faults  int          `json:"faults,omitempty"`
	Reloads ReloadCounts `json:"reloads"`
}

// ReloadCounts counts reloads since the start, by how they ended. The start is none.
type ReloadCounts struct {
	Changed   uint64 `json:"changed"`   // another configuration runs since
	Unchanged uint64 `json:"unchanged"` // it was the one that runs already
	Failed    uint64 `json:"failed"`    // it could not be taken
}

// Reloads remembers how loading the configuration went, for [State]. It is safe for
// concurrent use.
type Reloads struct {
	now func() time.Time

	mu    sync.Mutex // guards state
	state Configuration
}

// NewReloads remembers that the configuration with this digest began to run now. now is
// the clock; nil means [time.Now].
func NewReloads(hash string, now func() time.Time) *Reloads {
	if now == nil {
		now = time.Now
	}
	at := now()
	return &Reloads{now: now, state: Configuration{Hash: hash, Loaded: at, LastAttempt: at, LastSuccess: at}}
}

// Changed records that the configuration with this digest runs from now on.
func (r *Reloads) Changed(hash string) {
	r.attempt(nil, func(c *Configuration) {
		c.Hash, c.Loaded = hash, c.LastAttempt
		c.Reloads.Changed++
	})
}

// Unchanged records that a reload found the configuration that runs already. What an
// attempt before it found wrong is mended by that.
func (r *Reloads) Unchanged() {
	r.attempt(nil, func(c *Configuration) { c.Reloads.Unchanged++ })
}

// Failed records why a reload changed nothing. An error that is [setting.Faults] tells
// how many there are.
func (r *Reloads) Failed(err error) {
	r.attempt(err, func(c *Configuration) { c.Reloads.Failed++ })
}

// attempt records an attempt that ended with err and what else is to be said of it.
func (r *Reloads) attempt(err error, more func(*Configuration)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &r.state
	c.LastAttempt, c.LastError, c.Faults = r.now(), "", 0
	if err == nil {
		c.LastSuccess = c.LastAttempt
	} else {
		var faults setting.Faults
		if errors.As(err, &faults) {
			c.Faults = len(faults)
		}
		c.LastError, _, _ = strings.Cut(err.Error(), "\n")
	}
	more(c)
}

// SetWatching says whether changes of files start a reload.
func (r *Reloads) SetWatching(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Watching = on
}

// Configuration tells what is remembered. Snapshots is left for the caller, who has them.
func (r *Reloads) Configuration() Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}
