package upstream

import (
	"errors"
	"io"
	"strconv"
	"time"

	"sallyport/proxy/setting"
	"sallyport/proxy/wire"
)

// said is an error in words for the audit record.
type said struct {
	words string
	err   error
}

func (e *said) Error() string { return e.words }

func (e *said) Unwrap() error { return e.err }

// noConnection means that there was no connection in time.
type noConnection struct {
	doing string // what took too long
	err   error
}

func (e *noConnection) Error() string { return "no connection in time, while " + e.doing }

func (e *noConnection) Unwrap() error { return e.err }

// waited names the wait that took too long, and the setting that bounds it.
func (t *Timeouts) waited(err error) error {
	var late wire.Late
	if !errors.As(err, &late) {
		return err
	}
	bound, name := t.Idle, "timeouts.idle"
	switch late {
	case wire.LateConnect:
		bound, name = t.Connect, "timeouts.connect"
	case wire.LateHead:
		bound, name = t.Head, "timeouts.head"
	case wire.LateEnd:
		bound, name = t.Total, "timeouts.total"
	}
	return &said{string(late) + within(bound, name), err}
}

// within says which setting bounds a wait, and its value.
func within(d time.Duration, name string) string {
	return " within " + setting.Duration(d).String() + " (" + name + ")"
}

// full says that no connection became free in time.
func full(most int, wait time.Duration) error {
	return &said{words: "all of max_connections (" + strconv.Itoa(most) + ") are in use, and none was free" + within(wait, "timeouts.connect")}
}

// ended says when a connection ended, or what else broke it.
func ended(err error, answering bool) error {
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
		return &said{what + when + ": " + reset.Name, err}
	}
	if plain := setting.PlainError(err); plain != io.ErrUnexpectedEOF {
		return &said{"the connection broke" + when + ": " + plain.Error(), err}
	}
	return &said{"the server closed the connection" + when, err}
}
