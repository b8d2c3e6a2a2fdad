package admin

import (
	"time"

	"sallyport/proxy/setting"
)

// ReloadResult is the result of a reload.
type ReloadResult string

// Results of a reload.
const (
	ReloadChanged   ReloadResult = "changed"   // the new configuration is active
	ReloadUnchanged ReloadResult = "unchanged" // the configuration did not change
	ReloadRefused   ReloadResult = "refused"   // the files are invalid; the old configuration stays active
)

// ReloadReport describes a reload.
type ReloadReport struct {
	Result ReloadResult `json:"result"`
	// From and To are short hashes of the active configuration before and after. They differ
	// only if Result is changed.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Summary is one line, such as "config 3f9a -> 81c2: 2 routes changed, 1 added".
	Summary string `json:"summary"`
	// Changes lists the changes that Summary only counts, one line each, such as "route
	// a.example/v1 changed".
	Changes []string `json:"changes,omitempty"`
	// Faults are the faults of refused files. They may be empty if the refusal has another
	// cause, which is in Summary.
	Faults setting.Faults `json:"faults,omitempty"`
	// LoadedAt is when the now active configuration was loaded.
	LoadedAt time.Time `json:"loaded_at"`
}

// StatusReport is [State] with details of the process, the configuration and the load.
type StatusReport struct {
	State
	PID         int        `json:"pid"`
	Since       time.Time  `json:"since"` // when the process started to serve
	File        string     `json:"file"`  // of the configuration
	Listeners   []Listener `json:"listeners,omitempty"`
	Routes      int        `json:"routes"`
	InFlight    int        `json:"in_flight"`   // requests in flight
	Connections int        `json:"connections"` // connections of clients
}

// Listener describes an address on which the gateway listens.
type Listener struct {
	For  string `json:"for"` // such as "https", "health", "control"
	Addr string `json:"addr"`
}
