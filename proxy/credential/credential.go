// Package credential answers by what the gateway itself proves to upstreams that it may call them.
//
// A credential is never that of a caller. It is added to each attempt of a request after everything
// else, so that no field of the client stands beside it, and it is in no log, record or error.
package credential

import (
	"errors"
	"fmt"
	"net/http"

	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// Credential is what the gateway shows to the servers of one upstream. It is immutable and safe for
// concurrent use. Nil is none.
type Credential struct {
	upstream string
	kind     string
	field    string // in lower case
	value    string
	attempt  func(message.Fields) (message.Fields, error)
}

// New returns the credential of the named upstream, and nil if it has none. It reads the files that
// a checked configuration names.
func New(name string, config *upstream.CredentialsConfig) (*Credential, error) {
	if config.Kind() == "" {
		return nil, nil
	}
	c := &Credential{upstream: name, kind: config.Kind(), field: config.Field()}
	c.attempt = c.add
	var err error
	if c.value, err = config.Value(); err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return c, nil
}

// Error means that the server refused the gateway's own credential.
type Error struct {
	Upstream string
	Err      error // for the audit log only; it holds no secret
}

func (e *Error) Error() string { return "credentials of upstream " + e.Upstream + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Attempt returns the function that adds the credential to the fields of one attempt; nil if there
// is none to add.
func (c *Credential) Attempt() func(message.Fields) (message.Fields, error) {
	if c == nil {
		return nil
	}
	return c.attempt
}

func (c *Credential) add(fields message.Fields) (message.Fields, error) {
	return append(fields, message.Field{Name: c.field, Value: c.value}), nil
}

// Accepted returns an [*Error] if an answer refuses the credential: with 401, or the gRPC status
// UNAUTHENTICATED. 403 does not: the server knows the gateway then.
func (c *Credential) Accepted(h *message.Response) error {
	if c == nil {
		return nil
	}
	var answer string
	switch {
	case h.Status == http.StatusUnauthorized:
		answer = "401"
	case h.Status == http.StatusOK && h.Fields.Get("grpc-status") == "16":
		answer = "UNAUTHENTICATED"
	default:
		return nil
	}
	return &Error{Upstream: c.upstream, Err: errors.New("the server answered " + answer + " to the gateway's own " + c.kind)}
}
