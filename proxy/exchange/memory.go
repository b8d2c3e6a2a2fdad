package exchange

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/audit"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
	"sallyport/proxy/shared"
	"sallyport/proxy/wire"
)

// Memory is what exchanges use of the process, whatever the configuration says: it
// outlives every [Snapshot]. All fields but Now must be given, and none may change
// once the [Server] is made. Its parts are safe for concurrent use.
type Memory struct {
	Log   *slog.Logger
	Now   func() time.Time // nil: the system's clock
	Clock *wire.Clock      // of deadlines

	Audit    *audit.Log
	Metrics  *audit.Metrics
	Replay   shared.Replay   // which signatures were used
	Held     *limit.Bytes    // the budget for content that is held
	Pressure *limit.Pressure // whether the process has memory left

	Compressors *route.Compressors
	// Challenge is the answer to an ACME challenge of a host at a path, if there is one.
	Challenge func(host, path string) (answer string, ok bool)
}

// Server has the handlers of the gateway's listeners. It holds the current [Snapshot] and knows the exchanges that are under way. It is safe
// for concurrent use.
type Server struct {
	*Memory
	now       func() time.Time
	current   atomic.Pointer[Snapshot]
	httpsPort atomic.Int32

	inFlight atomic.Int64
	live     registry
	ended    sync.Pool // exchanges that have finished, whose memory serves again
}

// New makes a server that begins with a snapshot.
func New(m *Memory, first *Snapshot) *Server {
	s := &Server{Memory: m, now: m.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.Swap(first)
	return s
}

// SetHTTPSPort says at which port the first listener for HTTPS is; 0: there is none.
// Redirects name it where the configuration names no other.
func (s *Server) SetHTTPSPort(port int) { s.httpsPort.Store(int32(port)) }

// InFlight is how many exchanges are under way.
func (s *Server) InFlight() int { return int(s.inFlight.Load()) }

// Swap makes a snapshot the current one: exchanges that begin from now on take it. It
// returns the one before, nil for the first, which drains: see [Snapshot.Drained].
// Exchanges under way keep theirs; [Server.Recheck] decides on them again.
func (s *Server) Swap(next *Snapshot) (old *Snapshot) {
	next.drained = make(chan struct{})
	next.users.Store(1)
	if old = s.current.Swap(next); old != nil {
		old.leave()
	}
	return old
}

// Retire takes the current snapshot away at the end of the process: exchanges that
// begin later are cut at once. It returns the snapshot, which drains.
func (s *Server) Retire() *Snapshot {
	old := s.current.Swap(nil)
	if old != nil {
		old.leave()
	}
	return old
}

// take takes the current snapshot for one exchange; nil when the process has ended.
func (s *Server) take() *Snapshot {
	for {
		now := s.current.Load()
		if now == nil || now.enter() {
			return now
		}
	}
}
