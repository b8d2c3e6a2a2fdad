package upstream

import (
	"errors"
	"io"
	"strconv"
	"syscall"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/h2"
)

// described is an error whose text is written for the audit record.
type described struct {
	text string
	err  error
}

func (e *described) Error() string { return e.text }

func (e *described) Unwrap() error { return e.err }

// noConnection is the error of a request that got no connection in time.
type noConnection struct {
	doing string // the step that took too long, such as "connecting"
	err   error
}

func (e *noConnection) Error() string { return "no connection in time, while " + e.doing }

func (e *noConnection) Unwrap() error { return e.err }

// waited adds to a [wire.Late] the value and the name of the setting that limits the wait. It returns
// other errors unchanged.
func (t *Timeouts) waited(err error) error {
	var late wire.Late
	if !errors.As(err, &late) {
		return err
	}
	bound, name := t.Idle, "timeouts.idle"
	if t.Pause > 0 {
		bound, name = t.Pause, PauseName
	}
	switch late {
	case wire.LateConnect:
		bound, name = t.Connect, "timeouts.connect"
	case wire.LateHead:
		bound, name = t.Head, "timeouts.head"
	case wire.LateEnd:
		bound, name = t.Total, "timeouts.total"
	}
	return &described{string(late) + within(bound, name), err}
}

// PauseName names the limit [Timeouts.Pause] in the causes of refusals.
const PauseName = "the call's deadline; timeouts.idle sets another"

// within describes the limit of a wait by its value and its setting.
func within(d time.Duration, name string) string {
	return " within " + setting.Duration(d).String() + " (" + name + ")"
}

// full returns the error of a request for which no connection became free in time.
func full(most int, wait time.Duration) error {
	return &described{text: "all of max_connections (" + strconv.Itoa(most) + ") are in use, and none was free" + within(wait, "timeouts.connect")}
}

// ended describes how a connection ended, and whether that was before or within the answer.
func (e *endpoint) ended(err error, answering bool) error {
	when := " before its answer"
	if answering {
		when = " within its answer"
	}
	var reset *wire.Reset
	if errors.As(err, &reset) {
		what := "the server reset the request"
		if reset.Connection {
			what = "the server ended the connection"
		}
		return &described{what + when + ": " + reset.Name, err}
	}
	if aboutCertificate(err) {
		return plainer(err)
	}
	if plain := setting.PlainError(err); plain != io.ErrUnexpectedEOF {
		err = &described{"the connection broke" + when + ": " + plain.Error(), err}
	} else {
		err = e.mayWantTLS(&described{"the server closed the connection" + when, err})
	}
	if e.answered.Load() {
		return err
	}
	return e.mayWantCertificate(err)
}

// mayWantCertificate adds to the error of a connection that the server closed before it answered that
// it may want another certificate. In TLS 1.3 servers refuse certificates after the handshake. OpenSSL
// and Go say so in an alert, and grpcio closes the connection without one.
func (e *endpoint) mayWantCertificate(err error) error {
	if !e.asked.Load() || !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return &described{err.Error() + "; the server asks for a certificate, and may want another: " + namesCertificate, err}
}

// mayWantTLS adds to the error of a connection that the server closed, without having ever answered,
// that it may speak TLS: such servers close a connection that begins with plain HTTP.
func (e *endpoint) mayWantTLS(err error) error {
	if e.tls != nil || e.network != "tcp" || e.answered.Load() || errors.Is(err, h2.ErrSpeaksHTTP1) {
		return err
	}
	secure := "https://"
	if e.shares {
		secure = "h2://"
	}
	return &described{err.Error() + "; if it speaks TLS, write " + secure, err}
}
