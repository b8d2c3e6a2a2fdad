package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"sallyport/proxy/ratelog"
)

// Control is the server of the control socket (listen.control) for `sallyport reload` and
// `sallyport status`. It serves two requests in HTTP/1.1 over a unix socket: POST /reload returns
// a [ReloadReport], GET /status a [StatusReport], both as JSON.
//
// The socket has mode 0600. On Linux the server also checks the peer's user (SO_PEERCRED) and
// accepts only its own user and root, in case the mode was changed.
type Control struct {
	o    ControlOptions
	http *http.Server
	peer func(net.Conn) (uid int, known bool)
}

// ControlOptions configure a [Control]. Both functions must be safe for concurrent use.
type ControlOptions struct {
	// Path is the path of the socket. Its folder must exist.
	Path string
	// Reload loads the configuration again. ctx ends when the client gives up, but a reload
	// that has started to swap is completed.
	Reload func(ctx context.Context) ReloadReport
	// Status returns the state of the gateway.
	Status func() StatusReport
	// Log receives failures. Nil: discarded.
	Log *slog.Logger
}

// Limits of the control socket. Its clients are operators.
const (
	controlConnections = 8
	controlHead        = 5 * time.Second
	controlHeadBytes   = 4 << 10
	// controlAnswer limits a reload, which reads and checks all files.
	controlAnswer = 2 * time.Minute
)

// NewControl returns the server. It opens nothing before [Control.Run].
func NewControl(o ControlOptions) *Control {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Control{o: o, peer: peerUID}
	c.http = &http.Server{
		Handler:           http.HandlerFunc(c.serve),
		ReadHeaderTimeout: controlHead,
		// No ReadTimeout: it would end the context of a longer reload.
		WriteTimeout:   controlAnswer,
		IdleTimeout:    controlHead,
		MaxHeaderBytes: controlHeadBytes,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return c
}

// Listen creates the socket. It replaces a socket that a dead process left. It returns an error
// if a process answers there, if the path is a file of another kind, or if it is too long.
// Closing the listener removes the socket.
func (c *Control) Listen() (net.Listener, error) { return listenSocket(c.o.Path) }

// Run serves on l, from [Control.Listen], until ctx ends. It then gives pending answers at most
// five seconds and closes l. Call it once.
func (c *Control) Run(ctx context.Context, l net.Listener) error {
	own := &ownListener{Listener: l, peer: c.peer, log: ratelog.New(c.o.Log, nil)}
	return run(ctx, c.http, &boundedListener{Listener: own, slots: make(chan struct{}, controlConnections), done: make(chan struct{})})
}

// serve answers the two requests, for exactly these paths.
func (c *Control) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	method := ""
	switch r.URL.EscapedPath() {
	case "/reload":
		method = http.MethodPost
	case "/status":
		method = http.MethodGet
	default:
		http.Error(w, "not found: the control socket serves POST /reload and GET /status", http.StatusNotFound)
		return
	}
	switch {
	case r.Method != method:
		w.Header().Set("Allow", method)
		http.Error(w, "method not allowed: want "+method, http.StatusMethodNotAllowed)
	case r.ContentLength != 0:
		// net/http reads refused content to keep the connection; limit that.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(controlHead))
		http.Error(w, "this request must have no content", http.StatusRequestEntityTooLarge)
	case method == http.MethodPost:
		c.answer(w, c.o.Reload(r.Context()))
	default:
		c.answer(w, c.o.Status())
	}
}

func (c *Control) answer(w http.ResponseWriter, report any) {
	body, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		c.o.Log.Error("writing the answer to a control request", "error", err)
		http.Error(w, "internal error: see the gateway's log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

// ownListener accepts connections of its own user and of root only.
type ownListener struct {
	net.Listener
	peer func(net.Conn) (uid int, known bool)
	log  *ratelog.Log
}

func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, known := l.peer(c)
		if !known || uid == 0 || uid == os.Geteuid() {
			return c, nil
		}
		l.log.Warn("refused", "refused a connection to the control socket", "uid", uid, "allowed", "root and the gateway's own user")
		_ = c.Close()
	}
}

// run serves until ctx ends, then gives pending answers at most [farewell]. After the end of ctx
// others may close l too.
func run(ctx context.Context, s *http.Server, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		if ctx.Err() == nil {
			return err
		}
		failed <- err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		s.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
