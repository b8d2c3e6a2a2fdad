package admin

import (
	"time"

	"sallyport/proxy/setting"
)

// ReloadResult is what became of a reload.
type ReloadResult string

// Results of a reload.
const (
	ReloadChanged   ReloadResult = "changed"   // the new configuration is in force
	ReloadUnchanged ReloadResult = "unchanged" // the files say what they said before
	ReloadRefused   ReloadResult = "refused"   // the files cannot be used: the old configuration stays in force
)

// ReloadReport tells what a reload did.
type ReloadReport struct {
	Result ReloadResult `json:"result"`
	// From and To are short hashes of the configuration in force before and after. They are the
	// same unless Result is changed.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Summary is all of it in one line, such as "config 3f9a -> 81c2: 2 routes changed, 1 added".
	Summary string `json:"summary"`
	// Changes are what changed, one line each, such as "route a.example/v1 changed".
	Changes []string `json:"changes,omitempty"`
	// Faults are why the files were refused. There may be none if what was refused is not in the
	// text of a file; Summary then says why.
	Faults setting.Faults `json:"faults,omitempty"`
	// LoadedAt is when the configuration that is in force now was loaded.
	LoadedAt time.Time `json:"loaded_at"`
}

// StatusReport tells how the gateway is doing: what [State] tells, and the process, the
// configuration and the load.
type StatusReport struct {
	State
	PID         int        `json:"pid"`
	Since       time.Time  `json:"since"` // when the process began to serve
	File        string     `json:"file"`  // the configuration
	Listeners   []Listener `json:"listeners,omitempty"`
	Routes      int        `json:"routes"`
	InFlight    int        `json:"in_flight"`   // requests under way
	Connections int        `json:"connections"` // connections of clients
}

// Listener tells of one address on which the gateway listens.
type Listener struct {
	For  string `json:"for"` // such as "https", "health", "control"
	Addr string `json:"addr"`
}
