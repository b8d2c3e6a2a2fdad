package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/proxy/ratelog"
	"sallyport/proxy/wire/socket"
)

// failure is why a handshake failed. It is a label of metrics and a kind of log lines.
type failure string

const (
	failedName        failure = "no_route"            // no route for the name
	failedCertificate failure = "no_certificate"      // not obtained yet
	failedOrder       failure = "no_order"            // a TLS-ALPN-01 validation without a pending order
	failedVersion     failure = "version"             // the client offers no accepted version
	failedCiphers     failure = "cipher_suites"       // the client offers no accepted cipher suite
	failedPlain       failure = "plain_http"          // the client does not speak TLS
	failedTrust       failure = "untrusted"           // the client does not accept the certificate
	failedTime        failure = "timeout"             // the client was too slow
	failedGone        failure = "client_gone"         // the client closed the connection, as port checks do
	failedExcess      failure = "too_many_handshakes" // ended at the limit, because its client had the most
	failedProtocol    failure = "protocol"            // anything else

	// The client's certificate. But for the last, package auth/clientcert has the same reasons.
	failedClientMissing failure = "client_certificate_missing"
	failedClientCA      failure = "client_certificate_unknown_ca"
	failedClientExpired failure = "client_certificate_expired"
	failedClientEarly   failure = "client_certificate_not_yet_valid"
	failedClientUsage   failure = "client_certificate_wrong_usage"
	failedClientRevoked failure = "client_certificate_revoked"
	failedClientUnknown failure = "client_certificate_revocation_unknown"
	failedClientName    failure = "client_certificate_name"
	failedClientChain   failure = "client_certificate_chain"
	failedClientKey     failure = "client_certificate_key" // the client does not hold its private key
)

// failureReasons returns every reason.
func failureReasons() []failure {
	return append(clientFailures(), failedName, failedCertificate, failedOrder, failedVersion, failedCiphers, failedPlain, failedTrust, failedTime, failedGone, failedExcess, failedProtocol)
}

// failures counts failed handshakes and logs those that an operator or a client can fix. It is
// safe for concurrent use.
type failures struct {
	lines *ratelog.Log
	count map[failure]*atomic.Uint64 // the map is immutable
	// rootOf returns the file with the root certificate that a client of the host must trust; "" if
	// the local authority did not sign the host's certificate.
	rootOf func(host string) string
}

func newFailures(o Options, rootOf func(host string) string) *failures {
	f := &failures{lines: ratelog.New(o.Log, o.Now), count: map[failure]*atomic.Uint64{}, rootOf: rootOf}
	for _, reason := range failureReasons() {
		f.count[reason] = new(atomic.Uint64)
	}
	return f
}

// FailedHandshakes returns how many handshakes failed so far, by reason. Every reason has an entry. It
// is safe for concurrent use.
func (e *Edge) FailedHandshakes() map[string]uint64 {
	all := map[string]uint64{}
	for reason, n := range e.failures.count {
		all[string(reason)] = n.Load()
	}
	return all
}

// findings are what the callbacks of crypto/tls find out about a handshake before it ends.
type findings struct {
	reason failure // why it is going to fail; "" if no reason was found
	name   string  // the host that the client asks for
	plain  uint8   // the alert that the client sent without encryption; 0 if it sent none
	policy string  // the ID of the policy by which the client was asked for a certificate; "" if it was not
	left   int     // how many bytes the client may still send; 0: no bound, negative: too many came
}

// findingsOf returns the findings about a handshake, which callbacks of crypto/tls may change.
func findingsOf(hello *tls.ClientHelloInfo) *findings {
	if c, ok := hello.Conn.(*countedConn); ok {
		return &c.findings
	}
	return new(findings) // not a connection of a listener
}

// failed counts a handshake that ended with err. It answers a client that does not speak TLS.
func (f *failures) failed(ctx context.Context, c *countedConn, err error) {
	reason := c.findings.reason
	var record tls.RecordHeaderError
	alert := alertOf(c, err)
	var client failure // why the client's certificate is refused
	cause := ""
	if c.findings.policy != "" {
		client, cause = aboutClient(err)
	}
	switch {
	case errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader):
		reason = failedPlain
		f.lines.Warn(string(reason), "a client speaks HTTP without TLS to a port with TLS: write https:// in its URL", "client", addressOf(c.RemoteAddr()), "listener", c.LocalAddr().String())
		answerPlain(ctx, c, string(record.RecordHeader[:3]) == "PRI")
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		reason = failedTime
	case ctx.Err() != nil:
		reason = failedExcess
	case reason != "":
	case client != "":
		reason = client
		f.badClient(ctx, c, reason, cause)
	case alert != nil:
		reason = failedProtocol
		if aboutCertificate(alert) {
			reason = failedTrust
			f.untrusted(c, alert)
		}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		reason = failedGone
	default:
		reason = failedProtocol
	}
	f.count[reason].Add(1)
}

// looksLikeHTTP reports whether the first five bytes of a connection begin a request of HTTP/1, or
// the preface of HTTP/2.
func looksLikeHTTP(header [5]byte) bool {
	return slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET", "CONNE", "TRACE", "PRI *"}, string(header[:]))
}

const plainWords = "This port speaks TLS: write https:// in the URL.\n"

// plainAnswer is sent to a client of HTTP/1.
func plainAnswer() string {
	return fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(plainWords), plainWords)
}

// plainGoAway is sent to a client of HTTP/2: empty SETTINGS, and GOAWAY with INADEQUATE_SECURITY
// (RFC 9113, section 7) and the words as debug data, which clients of gRPC show.
func plainGoAway() string {
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	return settings + "\x00\x00" + string(rune(8+len(plainWords))) + "\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x0c" + plainWords
}

// answerPlain answers a client that does not speak TLS.
func answerPlain(ctx context.Context, c net.Conn, preface bool) {
	answer := plainAnswer()
	if preface {
		answer = plainGoAway()
	}
	sayLast(ctx, c, answer)
}

// refusedTime is how long a client may take to read why it is refused.
const refusedTime = 2 * time.Second

// sayLast sends a client its last bytes, if any. Then it discards what the client still sends
// until the client closes, because a reset could reach the client before what was sent. It
// returns after refusedTime, or when ctx ends.
func sayLast(ctx context.Context, c net.Conn, last string) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if c.SetDeadline(time.Now().Add(refusedTime)) != nil {
		return
	}
	if _, err := io.WriteString(c, last); last != "" && err != nil {
		return
	}
	if half, ok := socket.Beneath(c).(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // without it the client waits for the close
	}
	_, _ = io.Copy(io.Discard, c) // all has been sent either way
}

// alertOf returns the alert by which the client ended a handshake that ended with err; nil if the
// client sent none. OpenSSL, and so curl and Python, does not encrypt its alert where TLS 1.3 wants
// that. crypto/tls then reports a bad record MAC of its own.
func alertOf(c *countedConn, err error) error {
	var op *net.OpError
	switch {
	case !errors.As(err, &op):
		return nil
	case op.Op == "remote error":
		return op.Err
	case op.Op == "local error" && c.findings.plain != 0:
		return tls.AlertError(c.findings.plain)
	}
	return nil
}

// plainAlert returns the fatal alert in an unencrypted TLS record at the end of b; 0 if there is
// none.
func plainAlert(b []byte) uint8 {
	const alert, fatal = 21, 2 // RFC 8446, sections 5.1 and 6
	if len(b) < 7 {
		return 0
	}
	if r := b[len(b)-7:]; r[0] == alert && r[1] == 3 && r[3] == 0 && r[4] == 2 && r[5] == fatal {
		return r[6]
	}
	return 0
}

// alertExpired says that the certificate has ended, or does not count yet (RFC 8446, section 6.2).
const alertExpired tls.AlertError = 45

// aboutCertificate reports whether the client's alert rejects the certificate (RFC 8446, section
// 6.2). It compares texts: crypto/tls does not export the type of alerts over TCP.
func aboutCertificate(alert error) bool {
	const badCertificate, unsupported, revoked, unknown, unknownCA = 42, 43, 44, 46, 48
	return slices.ContainsFunc([]tls.AlertError{badCertificate, unsupported, revoked, alertExpired, unknown, unknownCA}, func(a tls.AlertError) bool {
		return a.Error() == alert.Error()
	})
}

// untrusted logs a client that does not accept the certificate.
func (f *failures) untrusted(c *countedConn, alert error) {
	cure := "check which authorities the client trusts"
	if alert.Error() == alertExpired.Error() {
		cure = "renew it if sallyport status shows that it has ended; else the clock of the client is wrong"
	} else if root := f.rootOf(c.findings.name); root != "" {
		cure = "give the client the root certificate in " + root + ", as with curl --cacert"
	}
	f.lines.Warn(string(failedTrust), fmt.Sprintf("a client does not accept the certificate of %q: %s; %s", short(c.findings.name, 253), strings.TrimPrefix(alert.Error(), "tls: "), cure), "client", addressOf(c.RemoteAddr()))
}

// noRoute notes a handshake for a name without a route, or without a name.
func (f *failures) noRoute(hello *tls.ClientHelloInfo, name string, hosts []string) {
	wanted, hint := name, "add a route for it, or use one of these hosts; try curl --resolve"
	if name == "" {
		// A client that dials an address sends no name; report the address instead.
		wanted, hint = addressOf(hello.Conn.LocalAddr()), "the client sent no name (SNI), as when the URL has an address; try curl --resolve"
		if hello.ServerName != "" {
			wanted = hello.ServerName
		}
	}
	f.refuse(hello, failedName, fmt.Sprintf("no route for %q; hosts: %s; %s", short(wanted, 253), short(strings.Join(hosts, ", "), 400), hint))
}

// missing notes a handshake for a host whose certificate has not been obtained yet. why is "" if
// another handshake may use the certificate.
func (f *failures) missing(hello *tls.ClientHelloInfo, name, why string) {
	if why != "" {
		f.refuse(hello, failedCertificate, fmt.Sprintf("no certificate for %q yet: %s", name, why))
	}
}

// noOrder notes a TLS-ALPN-01 validation for which no order is pending.
func (f *failures) noOrder(hello *tls.ClientHelloInfo, name string) {
	f.refuse(hello, failedOrder, fmt.Sprintf("TLS refused for %q: it asks for acme-tls/1, and no order is pending", short(name, 253)))
}

// unserved notes a client that supports no accepted version or cipher suite.
func (f *failures) unserved(hello *tls.ClientHelloInfo, name string, c *tls.Config) {
	newest := uint16(0)
	for _, v := range hello.SupportedVersions {
		// Clients offer invalid versions on purpose (GREASE, RFC 8701).
		if v <= tls.VersionTLS13 {
			newest = max(newest, v)
		}
	}
	switch {
	case newest == tls.VersionTLS12 && newest < c.MinVersion:
		f.refuse(hello, failedVersion, fmt.Sprintf("TLS refused for %q: the client offers at most TLS 1.2; update it, or set tls.min_version: \"1.2\"", name))
	case newest < c.MinVersion:
		f.refuse(hello, failedVersion, fmt.Sprintf("TLS refused for %q: the client offers at most %s, which is not safe; update it", name, tls.VersionName(newest)))
	case newest == tls.VersionTLS12 && !slices.ContainsFunc(hello.CipherSuites, func(id uint16) bool { return slices.Contains(c.CipherSuites, id) }):
		f.refuse(hello, failedCiphers, fmt.Sprintf("TLS refused for %q: the client offers TLS 1.2 without any ECDHE suite with AES-GCM or ChaCha20; update it", name))
	}
}

// refuse notes and logs why a handshake is going to fail.
func (f *failures) refuse(hello *tls.ClientHelloInfo, reason failure, words string) {
	findingsOf(hello).reason = reason
	f.lines.Warn(string(reason), words, "client", addressOf(hello.Conn.RemoteAddr()))
}
