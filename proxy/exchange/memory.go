package exchange

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/auth/login"
	"sallyport/proxy/audit"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
	"sallyport/proxy/shared"
	"sallyport/proxy/wire"
)

// Memory is the process state that exchanges use. It outlives every [Snapshot]. All fields but Now
// are required, and none may change after [New]. Its parts are safe for concurrent use.
type Memory struct {
	Log   *slog.Logger
	Now   func() time.Time // the system's clock if nil
	Clock *wire.Clock      // for deadlines

	Audit    *audit.Log
	Metrics  *audit.Metrics
	Replay   shared.Replay   // records which signatures were used
	Held     *limit.Bytes    // the budget for content that is held
	Pressure *limit.Pressure // reports whether the process has memory left

	Compressors *route.Compressors
	SignIns     *limit.Rate // how often a client address may begin and finish logins
	// Challenge returns the answer to an ACME challenge for a host and path, if there is one.
	Challenge func(host, path string) (answer string, ok bool)
}

// RecordEnd records a session that the issuer ended while no request asked about it.
func (m *Memory) RecordEnd(e login.Ended) {
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	r := audit.Record{
		Time: now(), RequestID: newRequestID(), LoginEvent: audit.LoginEnded, Login: e.Login, Principal: e.Principal,
		Credential: "login", CredentialID: e.Session, SID: e.SID, Reason: login.SessionEnded, Cause: e.Cause.Error(),
	}
	m.Audit.Write(&r)
	m.Metrics.ObserveLogin(&r)
}

// Server serves the gateway's listeners. It holds the current [Snapshot] and registers exchanges in
// progress. It is safe for concurrent use.
type Server struct {
	*Memory
	now       func() time.Time
	current   atomic.Pointer[Snapshot]
	retired   atomic.Pointer[Snapshot] // the last one, after Retire
	httpsPort atomic.Int32

	inFlight atomic.Int64

	revocations atomic.Uint64 // how often the revocations of a current snapshot have changed

	cut     atomic.Pointer[ending] // why the process has ended all exchanges; nil before
	stopped atomic.Int64           // exchanges that ended with reasonShutdown
	live    registry
	ended   sync.Pool // finished exchanges, for reuse
}

// New returns a server whose current snapshot is first.
func New(m *Memory, first *Snapshot) *Server {
	s := &Server{Memory: m, now: m.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.Swap(first)
	return s
}

// SetHTTPSPort sets the port of the first HTTPS listener; 0 if there is none. Redirects use it
// unless the configuration names another.
func (s *Server) SetHTTPSPort(port int) { s.httpsPort.Store(int32(port)) }

// InFlight returns the number of exchanges in progress.
func (s *Server) InFlight() int { return int(s.inFlight.Load()) }

// Stopped returns how many exchanges the end of the process has cut or refused so far.
func (s *Server) Stopped() int { return int(s.stopped.Load()) }

// Swap makes next the current snapshot, for exchanges that begin from now on. It returns the
// previous one, which drains (see [Snapshot.Drained]), or nil. Exchanges in progress keep theirs;
// [Server.Recheck] decides on them again.
func (s *Server) Swap(next *Snapshot) (old *Snapshot) {
	next.drained = make(chan struct{})
	next.users.Store(1)
	if old = s.current.Swap(next); old != nil {
		old.leave()
	}
	return old
}

// Retire removes the current snapshot at the end of the process. Exchanges that begin later are
// aborted at once. It returns the snapshot, which drains.
func (s *Server) Retire() *Snapshot {
	s.retired.Store(s.current.Load()) // no reload may be under way
	old := s.current.Swap(nil)
	if old != nil {
		old.leave()
	}
	return old
}

// takeToCheck is take for checks of exchanges under way, which may outlast [Server.Retire] as tunnels do.
func (s *Server) takeToCheck() *Snapshot {
	if now := s.take(); now != nil {
		return now
	}
	if last := s.retired.Load(); last != nil && last.enter() {
		return last
	}
	return nil
}

// take returns the current snapshot, counted as in use by one exchange; nil once the process has
// ended.
func (s *Server) take() *Snapshot {
	for {
		now := s.current.Load()
		if now == nil || now.enter() {
			return now
		}
	}
}
