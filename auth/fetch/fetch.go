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
	"cmp"
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

	maxHead  = 64 << 10
	idleTime = 30 * time.Second // of a connection that is kept
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
	ProxyRefused   Kind = "refused by the proxy"
	NoToken        Kind = "token not read" // the file of the token to send
)

// Error reports a failed fetch.
type Error struct {
	Kind   Kind
	Status int    // of a BadStatus or ProxyRefused
	Code   string // of a BadStatus 400: the error code of OAuth in it (RFC 6749, section 5.2); "" for none
	Err    error  // for logs, never for clients; may be nil
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
	// MaxBytes is the maximum length of a document; the constant MaxBytes if zero.
	MaxBytes int64
	// Certificate proves the gateway to servers that ask for a certificate; nil for none.
	Certificate *tls.Certificate
	// Idle is how many connections are kept for later fetches. If it is not zero, the user
	// must call CloseIdle at the end.
	Idle int
	// Token returns a bearer token to send, and is called for each fetch; nil for none. The
	// token is sent over https to Origins only.
	Token func() ([]byte, error)
	// Origins are the URLs whose scheme, host and port get the token.
	Origins []*url.URL
	// Proxy is the http URL of the proxy through which https is fetched, by CONNECT; nil for
	// none. Plain http is refused then. The proxy resolves names, so the addresses behind it
	// are not checked.
	Proxy *url.URL
	// ProxyUser holds the user name and password for the proxy; nil for none.
	ProxyUser *url.Userinfo
}

// Client fetches documents. Without [Options.Idle] it does not reuse connections and starts
// no goroutine that outlives a fetch. It is safe for concurrent use.
type Client struct{ http *http.Client }

// New returns a client.
func New(o Options) *Client {
	t := &transport{insecure: o.InsecureHTTP, timeout: cmp.Or(o.Timeout, DefaultTimeout), any: o.AnyStatus, most: o.MaxBytes, token: o.Token, origins: o.Origins, proxied: o.Proxy != nil}
	if t.most == 0 {
		t.most = MaxBytes
	}
	t.secure = newTransport(&o, allowed)
	if o.Proxy != nil {
		throughProxy(t.secure, o.Proxy, o.ProxyUser)
	}
	t.plain = newTransport(&o, func(a netip.Addr) bool { return allowed(a) && (o.InsecureHTTP || a.IsLoopback()) })
	return &Client{&http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func newTransport(o *Options, allow func(netip.Addr) bool) *http.Transport {
	limit := cmp.Or(o.Timeout, DefaultTimeout)
	dialer := &net.Dialer{Timeout: limit, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !allow(a.Addr().Unmap()) {
			return &Error{Kind: AddressRefused}
		}
		return nil
	}}
	config := &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}
	if o.Certificate != nil {
		config.Certificates = []tls.Certificate{*o.Certificate}
	}
	return &http.Transport{
		Proxy:                  nil, // never from the environment
		DialContext:            dialer.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    limit, // net/http goes on with a handshake when its fetch has ended
		DisableCompression:     true,
		DisableKeepAlives:      o.Idle == 0,
		MaxIdleConnsPerHost:    o.Idle,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: maxHead,
	}
}

// CloseIdle closes the connections that are kept for later fetches.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// HTTP returns an http.Client with all bounds of this package, for libraries that make
// their own requests. Every failure, including a status other than 200 unless
// [Options] allow any, is an error of Do, in which errors.As finds an [*Error].
func (c *Client) HTTP() *http.Client { return c.http }

// JSON fetches a document and decodes it into v. It compares names exactly, ignores
// unknown ones, and refuses duplicate names, invalid UTF-8 and data after the value. The
// error is always an [*Error].
func (c *Client) JSON(ctx context.Context, address string, v any) error {
	text, err := c.Bytes(ctx, address, "application/json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return &Error{Kind: Garbage, Err: err}
	}
	return nil
}

// Bytes fetches a document of a media type. The error is always an [*Error].
func (c *Client) Bytes(ctx context.Context, address, accept string) ([]byte, error) {
	return c.get(ctx, address, accept, "")
}

// Authorized fetches a document of JSON with a bearer token, which it sends to no other address. The
// error is always an [*Error].
func (c *Client) Authorized(ctx context.Context, address, token string) ([]byte, error) {
	return c.get(ctx, address, "application/json", "Bearer "+token)
}

func (c *Client) get(ctx context.Context, address, accept, authorization string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, &Error{Kind: BadURL}
	}
	r.Header.Set("Accept", accept)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, wrap(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, wrap(err)
	}
	return text, nil
}

// transport makes one request and reads the whole response within the bounds. Its errors
// are of type [*Error]. It reads the body itself, since libraries such as go-oidc drop
// the cause of errors while reading.
type transport struct {
	insecure bool
	timeout  time.Duration
	any      bool            // [Options.AnyStatus]
	most     int64           // bytes of a document
	secure   *http.Transport // for https
	plain    *http.Transport // for http
	token    func() ([]byte, error)
	origins  []*url.URL
	proxied  bool
}

// CloseIdleConnections implements the interface that [http.Client] looks for.
func (t *transport) CloseIdleConnections() {
	t.secure.CloseIdleConnections()
	t.plain.CloseIdleConnections()
}

// RoundTrip implements [http.RoundTripper] for requests whose body needs no closing.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := CheckURL(r.URL, t.insecure); err != nil {
		return nil, &Error{Kind: BadURL, Err: err}
	}
	via := t.secure
	if r.URL.Scheme == "http" {
		if t.proxied {
			return nil, &Error{Kind: BadURL, Err: errors.New("http through a proxy, which could replace the keys")}
		}
		via = t.plain
	}
	ctx, cancel := context.WithTimeout(r.Context(), t.timeout)
	defer cancel()
	r = r.Clone(ctx)
	if r.Header.Get("Accept") == "" {
		r.Header.Set("Accept", "application/json")
	}
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("User-Agent", "sallyport")
	if err := t.authorize(r); err != nil {
		return nil, err
	}
	answer, err := via.RoundTrip(r)
	if err != nil {
		return nil, wrap(err)
	}
	defer answer.Body.Close()
	text, refused := read(answer, t.most, t.any)
	if refused != nil {
		return nil, t.explain(r, refused)
	}
	answer.Body = io.NopCloser(bytes.NewReader(text))
	return answer, nil
}

func read(answer *http.Response, most int64, anyStatus bool) ([]byte, *Error) {
	if answer.StatusCode != http.StatusOK && !anyStatus {
		return nil, &Error{Kind: BadStatus, Status: answer.StatusCode, Code: code(answer)}
	}
	if e := answer.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, &Error{Kind: Garbage, Err: errors.New("unexpected content coding")}
	}
	if answer.ContentLength > most {
		return nil, &Error{Kind: TooLarge}
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, most+1))
	if err != nil {
		return nil, wrap(err)
	}
	if int64(len(text)) > most {
		return nil, &Error{Kind: TooLarge}
	}
	return text, nil
}

// maxCode is the maximum length of an answer in which an error code is looked for.
const maxCode = 4 << 10

// code returns the error code of OAuth in an answer; "" if there is none, or no telling. The status
// should be 400, or 401 for an unknown client (RFC 6749, section 5.2). Auth0 refuses refresh tokens with
// 403.
func code(answer *http.Response) string {
	switch answer.StatusCode {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
	default:
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxCode))
	var said struct {
		Error string `json:"error"`
	}
	if err != nil || json.Unmarshal(text, &said) != nil {
		return ""
	}
	return said.Error
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
