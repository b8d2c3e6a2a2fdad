package admin

import (
	"errors"
	"strings"
	"sync"
	"time"

	"sallyport/proxy/setting"
)

// Configuration describes the active configuration and the last attempt to load another one. A
// failed reload changes nothing else in [State]: the gateway keeps serving with the old
// configuration.
type Configuration struct {
	Hash     string    `json:"hash"`     // a short digest of the active configuration
	Loaded   time.Time `json:"loaded"`   // when it became active
	Watching bool      `json:"watching"` // whether file changes start a reload
	// Snapshots is the number of configurations in memory: the active one, and earlier ones
	// with requests in flight.
	Snapshots int `json:"snapshots"`

	LastAttempt time.Time `json:"last_attempt"` // of loading a configuration
	LastSuccess time.Time `json:"last_success"` // the last successful attempt
	// LastError is the first line of the last attempt's error; "" if it succeeded.
	LastError string `json:"last_error,omitempty"`
	// Faults is the number of faults in the last attempt's configuration; zero if it failed for
	// another reason.
	Faults  int          `json:"faults,omitempty"`
	Reloads ReloadCounts `json:"reloads"`
}

// ReloadCounts counts reloads by result, without the start.
type ReloadCounts struct {
	Changed   uint64 `json:"changed"`   // a different configuration became active
	Unchanged uint64 `json:"unchanged"` // the configuration was the active one
	Failed    uint64 `json:"failed"`    // the configuration was refused
}

// Reloads records the results of reloads for [State]. It is safe for concurrent use.
type Reloads struct {
	now func() time.Time

	mu    sync.Mutex // guards state
	state Configuration
}

// NewReloads records that the configuration with this digest became active now. now is the
// clock; nil means [time.Now].
func NewReloads(hash string, now func() time.Time) *Reloads {
	if now == nil {
		now = time.Now
	}
	at := now()
	return &Reloads{now: now, state: Configuration{Hash: hash, Loaded: at, LastAttempt: at, LastSuccess: at}}
}

// Changed records that the configuration with this digest became active.
func (r *Reloads) Changed(hash string) {
	r.attempt(nil, func(c *Configuration) {
		c.Hash, c.Loaded = hash, c.LastAttempt
		c.Reloads.Changed++
	})
}

// Unchanged records that a reload found the active configuration. It clears the error of an
// earlier attempt.
func (r *Reloads) Unchanged() {
	r.attempt(nil, func(c *Configuration) { c.Reloads.Unchanged++ })
}

// Failed records the error of a reload. If it is [setting.Faults], it also records their
// number.
func (r *Reloads) Failed(err error) {
	r.attempt(err, func(c *Configuration) { c.Reloads.Failed++ })
}

// attempt records an attempt that ended with err, and applies more to the record.
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

// SetWatching records whether file changes start a reload.
func (r *Reloads) SetWatching(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Watching = on
}

// Configuration returns the record. The caller sets Snapshots.
func (r *Reloads) Configuration() Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}
