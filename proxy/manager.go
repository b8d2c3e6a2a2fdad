package proxy

import (
	"strings"
	"time"
)

// Manager receives the state of a gateway, for a service manager such as systemd. Its methods are
// called one at a time and must return soon. Each status is one line for people.
type Manager interface {
	// Ready means that the gateway serves: after the start, and after each reload, successful or
	// not.
	Ready(status string)
	// Reloading means that a reload has begun. Ready follows.
	Reloading()
	// Stopping means that the gateway will soon take no new connections, and ends within that time.
	Stopping(status string, within time.Duration)
}

// noManager is the Manager of a gateway without one.
type noManager struct{}

func (noManager) Ready(string)                   {}
func (noManager) Reloading()                     {}
func (noManager) Stopping(string, time.Duration) {}

// describe returns the status of a serving gateway; reloading is held.
func (g *Gateway) describe() string {
	var at []string
	for _, l := range g.open {
		if l.use != useControl {
			at = append(at, string(l.use)+" "+l.address())
		}
	}
	return "serving on " + strings.Join(at, ", ")
}
