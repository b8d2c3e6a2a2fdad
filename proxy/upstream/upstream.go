// Package upstream answers which server gets a request, and brings back its
// answer: endpoints, their pools of connections, and what is done when one fails.
package upstream

import (
	"context"
	"errors"
	"net"
	"time"

	"sallyport/proxy/message"
)

// Options are what the process gives to its upstreams.
type Options struct {
	Now  func() time.Time                                                  // time.Now if nil
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // a net.Dialer's if nil
}

// Upstream is a set of equal servers. It is safe for concurrent use.
type Upstream struct{}

// New makes an upstream. It reads the CA file and does nothing on the network.
func New(name string, c Config, o Options) (*Upstream, error) { return nil, errors.ErrUnsupported }

// Close closes the idle connections; those in use close when their response does.
func (u *Upstream) Close() {}

// Response is the answer of an upstream. It must be closed. It is not safe for
// concurrent use.
type Response struct {
	Head     message.Response
	Body     message.Body // never nil; at its end where there is no content
	Endpoint string       // who answered
}

// Send sends one request and returns when the head of the final response is in.
func (u *Upstream) Send(ctx context.Context, r *Request) (*Response, error) {
	return nil, errors.ErrUnsupported
}

// Close ends the exchange.
func (r *Response) Close() {}

// Upgraded hands over the connection after status 101.
func (r *Response) Upgraded() net.Conn { return nil }

// EndpointStatus is the state of one endpoint, for metrics and the status page.
type EndpointStatus struct {
	URL       string
	InFlight  int       // requests that have a connection, or wait for one
	Idle      int       // connections kept for the next request
	Dials     uint64    // connections made
	Reuses    uint64    // requests sent on a connection that had served before
	Failures  uint64    // connects that failed
	Ejected   bool      // not tried now, because it could not be reached
	EjectedTo time.Time // until when; zero where it is not ejected
}

// Status is the state of each endpoint in the order of the configuration.
func (u *Upstream) Status() []EndpointStatus { return nil }
