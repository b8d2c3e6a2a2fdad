// Package fetch is the HTTP client for all documents that the gateway fetches from
// issuers.
//
// A fetch is bounded in time and memory and follows no redirect. To prevent server-side
// request forgery, the client never dials link-local addresses or cloud metadata
// services; it checks each address after resolving the name. Private and loopback
// addresses are allowed, since issuers often run inside the network.
package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"sallyport/proxy/setting"
)

const (
	// MaxBytes is the maximum length of a document.
	MaxBytes = 1 << 20
	// DefaultTimeout is the maximum duration of a fetch, from dial to last byte.
	DefaultTimeout = 5 * time.Second

	maxHead = 64 << 10
)

// Kind is the fixed text that says why a fetch failed.
type Kind string

const (
	BadURL         Kind = "bad url"          // neither https nor an allowed http
	AddressRefused Kind = "address refused"  // the name resolves to an address that is never dialed
	Unreachable    Kind = "unreachable"      // name not resolved, connection refused or lost
	Untrusted      Kind = "untrusted server" // TLS failed, or the certificate has another name or root
	TimedOut       Kind = "timed out"
	BadStatus      Kind = "bad status" // any status but 200, redirects included
	TooLarge       Kind = "too large"
	Garbage        Kind = "garbage" // not the expected JSON
)

// Error reports a failed fetch.
type Error struct {
	Kind   Kind
	Status int   // of a BadStatus
	Err    error // for logs, never for clients; may be nil
}

// Error returns the kind and its cause.
func (e *Error) Error() string {
	s := string(e.Kind)
	if e.Status != 0 {
		s = fmt.Sprintf("%s %d", s, e.Status)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Options configure a [Client].
type Options struct {
	// Roots are the trusted root certificates; the system's if nil.
	Roots *x509.CertPool
	// InsecureHTTP allows http to addresses other than loopback.
	InsecureHTTP bool
	// Timeout bounds a fetch; DefaultTimeout if zero.
	Timeout time.Duration
	// AnyStatus lets [Client.HTTP] return answers with any status, for protocols in which errors have
	// content.
	AnyStatus bool
}

// Client fetches documents. It does not reuse connections and starts no goroutine that
// outlives a fetch. It is safe for concurrent use.
type Client struct{ http *http.Client }

// New returns a client.
func New(o Options) *Client {
	t := &transport{insecure: o.InsecureHTTP, timeout: o.Timeout, anyStatus: o.AnyStatus}
	if t.timeout == 0 {
		t.timeout = DefaultTimeout
	}
	t.secure = newTransport(o.Roots, allowed)
	t.plain = newTransport(nil, func(a netip.Addr) bool { return allowed(a) && (o.InsecureHTTP || a.IsLoopback()) })
	return &Client{&http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func newTransport(roots *x509.CertPool, allow func(netip.Addr) bool) *http.Transport {
	dialer := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !allow(a.Addr().Unmap()) {
			return &Error{Kind: AddressRefused}
		}
		return nil
	}}
	return &http.Transport{
		Proxy:                  nil, // never from the environment
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHead,
	}
}

// HTTP returns an http.Client with all bounds of this package, for libraries that make
// their own requests. Every failure, including a status other than 200 unless
// [Options] allow any, is an error of Do, in which errors.As finds an [*Error].
func (c *Client) HTTP() *http.Client { return c.http }

// JSON fetches a document and decodes it into v. It compares names exactly, ignores
// unknown ones, and refuses duplicate names, invalid UTF-8 and data after the value. The
// error is always an [*Error].
func (c *Client) JSON(ctx context.Context, address string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return &Error{Kind: BadURL}
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return wrap(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return wrap(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return &Error{Kind: Garbage, Err: err}
	}
	return nil
}

// transport makes one request and reads the whole response within the bounds. Its errors
// are of type [*Error]. It reads the body itself, since libraries such as go-oidc drop
// the cause of errors while reading.
type transport struct {
	insecure bool
	timeout  time.Duration
	// anyStatus is as in [Options].
	anyStatus bool
	secure    *http.Transport // for https
	plain     *http.Transport // for http
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := CheckURL(r.URL, t.insecure); err != nil {
		return nil, &Error{Kind: BadURL, Err: err}
	}
	via := t.secure
	if r.URL.Scheme == "http" {
		via = t.plain
	}
	ctx, cancel := context.WithTimeout(r.Context(), t.timeout)
	defer cancel()
	r = r.Clone(ctx)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("User-Agent", "sallyport")
	answer, err := via.RoundTrip(r)
	if err != nil {
		return nil, wrap(err)
	}
	defer answer.Body.Close()
	text, err := read(answer, t.anyStatus)
	if err != nil {
		return nil, err
	}
	answer.Body = io.NopCloser(bytes.NewReader(text))
	return answer, nil
}

func read(answer *http.Response, anyStatus bool) ([]byte, error) {
	if answer.StatusCode != http.StatusOK && !anyStatus {
		return nil, &Error{Kind: BadStatus, Status: answer.StatusCode}
	}
	if e := answer.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, &Error{Kind: Garbage, Err: errors.New("unexpected content coding")}
	}
	if answer.ContentLength > MaxBytes {
		return nil, &Error{Kind: TooLarge}
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, MaxBytes+1))
	if err != nil {
		return nil, wrap(err)
	}
	if len(text) > MaxBytes {
		return nil, &Error{Kind: TooLarge}
	}
	return text, nil
}

// wrap returns an error of net/http as an [*Error].
func wrap(err error) *Error {
	var refused *Error
	var timeout net.Error
	var unverified *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return &Error{Kind: TimedOut}
	case errors.As(err, &unverified), errors.As(err, &alert), errors.As(err, &record), strings.Contains(err.Error(), "tls: "):
		return &Error{Kind: Untrusted, Err: plain(err)}
	}
	return &Error{Kind: Unreachable, Err: plain(err)}
}

// plain returns the error without the method, URL and addresses that net/http and net put before it.
func plain(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	return setting.PlainError(err)
}

// CheckURL returns an error if a URL may not be fetched. It must be https or, unless
// insecure is set, http to this machine.
func CheckURL(u *url.URL, insecure bool) error {
	switch {
	case u.Hostname() == "" || u.User != nil || u.Opaque != "":
		return errors.New("not a plain URL with a host")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("neither https nor http")
	}
	a, err := netip.ParseAddr(u.Hostname())
	literal := err == nil
	if literal && !allowed(a.Unmap()) {
		return errors.New("an address that is never dialed: link-local, or a cloud's metadata service")
	}
	if u.Scheme == "https" || insecure || literal && a.Unmap().IsLoopback() || local(u.Hostname()) {
		return nil
	}
	return errors.New("http to another machine: anyone on the path could replace the keys")
}

// local reports whether a name is reserved for this machine (RFC 6761, section 6.3). The
// dialer checks the address that it resolves to.
func local(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Roots reads a PEM file of root certificates.
func Roots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading roots: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading roots: %s: no certificate in PEM", file)
	}
	return pool, nil
}
