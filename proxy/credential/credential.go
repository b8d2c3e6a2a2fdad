// Package credential answers by what the gateway itself proves to upstreams that it may call them.
//
// A credential is never that of a caller, but some name the caller. It is added to each attempt of a request after everything
// else, so that no field of the client stands beside it, and it is in no log, record or error.
package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"sallyport/auth"
	"sallyport/auth/identity"
	"sallyport/proxy/message"
	"sallyport/proxy/upstream"
)

// Credential is what the gateway shows to the servers of one upstream. It is immutable and safe for
// concurrent use. Nil is none.
type Credential struct {
	upstream string
	kind     string
	field    string  // in lower case
	value    string  // if it stands in a file
	ofCaller bool    // value is the password, and the user is the caller
	source   *source // if it is fetched; else nil
	memory   *Memory
	asserter *asserter // if it is signed for each attempt; else nil
	attempt  func(message.Fields) (message.Fields, error)
}

// Open returns the credential of the named upstream, and nil if it has none. It reads the files that
// a checked configuration names, and uses no network. keys returns the signing keys of the
// configuration by their ids. Each Open needs one [Credential.Close].
func Open(name string, config *upstream.CredentialsConfig, keys func(id string) *auth.SigningKey, m *Memory) (*Credential, error) {
	if config.Kind() == "" {
		return nil, nil
	}
	c := &Credential{upstream: name, kind: config.Kind(), field: config.Field(), ofCaller: config.OfCaller(), memory: m}
	c.attempt = c.add
	var err error
	switch {
	case config.OAuth2 != nil:
		c.source, err = m.acquire(name, config.OAuth2)
	case config.Assertion != nil:
		c.asserter, err = newAsserter(config.Assertion, keys, m.now)
	default:
		c.value, err = config.Value()
	}
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return c, nil
}

// Activate lets the credential use the network: its configuration is in use.
func (c *Credential) Activate() {
	if c.source != nil {
		c.memory.activate(c.source)
	}
}

// Close undoes one Open.
func (c *Credential) Close() {
	if c.source != nil {
		c.memory.release(c.source)
	}
}

// Error means that a request cannot use the gateway's own credential.
type Error struct {
	Upstream string
	Refused  bool  // the server has refused it; otherwise there is none now
	Err      error // for the audit log only; it holds no secret
}

func (e *Error) Error() string { return "credentials of upstream " + e.Upstream + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Ready returns nil once there is a credential for a request. It waits for a first token only. The
// error is an [*Error], or the cause of ctx's end.
func (c *Credential) Ready(ctx context.Context) error {
	if c == nil || c.source == nil {
		return nil
	}
	err := c.source.ready(ctx)
	if err != nil && ctx.Err() == nil {
		err = &Error{Upstream: c.upstream, Err: err}
	}
	return err
}

// Attempt returns the function that adds the credential to the fields of one attempt of a caller's
// request; nil if there is none to add.
func (c *Credential) Attempt(caller *identity.Principal) func(message.Fields) (message.Fields, error) {
	switch {
	case c == nil:
		return nil
	case c.ofCaller:
		return func(fields message.Fields) (message.Fields, error) {
			return append(fields, message.Field{Name: c.field, Value: basicOf(caller.Name, c.value)}), nil
		}
	case c.asserter == nil:
		return c.attempt
	}
	return func(fields message.Fields) (message.Fields, error) {
		value, err := c.asserter.value(caller)
		if err != nil {
			return nil, &Error{Upstream: c.upstream, Err: err}
		}
		return append(fields, message.Field{Name: c.field, Value: value}), nil
	}
}

// basicOf returns the credentials of a user (RFC 7617). The first colon ends the name there, and a server that looks
// at no password would take a name with one for another.
func basicOf(user, password string) string {
	var text []byte
	for i := range len(user) {
		if b := user[i]; b < ' ' || b == 0x7f || b == ':' || b == '%' {
			text = fmt.Appendf(text, "%%%02X", b)
		} else {
			text = append(text, b)
		}
	}
	return "Basic " + base64.StdEncoding.EncodeToString(append(append(text, ':'), password...))
}

func (c *Credential) add(fields message.Fields) (message.Fields, error) {
	value := c.value
	if c.source != nil {
		if value = c.source.value(); value == "" {
			return nil, &Error{Upstream: c.upstream, Err: errEnded}
		}
	}
	return append(fields, message.Field{Name: c.field, Value: value}), nil
}

var errEnded = errors.New("the token ended while the request waited")

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
	if c.source != nil {
		c.source.refuse()
	}
	return &Error{Upstream: c.upstream, Refused: true, Err: errors.New("the server answered " + answer + " to the gateway's own " + c.kind)}
}
