package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"sallyport/proxy"
)

// refusedByLimits are requests that exceed a limit of the route or of the process.
func refusedByLimits(t *testing.T) *refusals {
	entered, leave := make(chan struct{}), make(chan struct{})
	var used atomic.Int64
	r := &refusals{house: build(t, plan{memory: used.Load, handler: func(_ http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/flight" {
			entered <- struct{}{}
			<-leave
		}
	}, more: unwatched + "limits: {memory: 1GiB}\n", routes: `
  - {host: models.test, path: /rate, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], limits: {rate: [{per: route, limit: 100/s}, {per: principal, limit: 1/h}]}}
  - {host: models.test, path: /flight, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], limits: {in_flight: 1}}
  - {host: models.test, path: /here, respond: {status: 200, body: here}, callers: issuer/corp}
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`})}
	ask := func(path string) string { return r.ask("GET "+path+" HTTP/1.1", "Authorization: Bearer TOKEN") }
	ask("/rate")
	r.expect("rate_limited", 429, "over 1/h per principal (limits.rate)", ask("/rate"))
	first := make(chan string, 1)
	go func() { first <- ask("/flight") }()
	<-entered
	r.expect("too_many_in_flight", 429, "1 in flight already (limits.in_flight)", ask("/flight"))
	close(leave)
	<-first

	// The log takes no more lines while its sink hangs.
	r.audit.mu.Lock()
	written := func() bool { return strings.Contains(r.get("/metrics"), "\nsallyport_audit_pending_bytes 0\n") }
	statuses := r.pipeline("GET /here/"+strings.Repeat("a", 1020)+" HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+r.bearer(nil)+"\r\n\r\n", 100_000, 503)
	r.audit.mu.Unlock()
	for _, status := range statuses {
		if status == 503 {
			r.expect("audit_unavailable", 503, "no room for an audit record: the log's sink is slow or failing", "")
		}
	}
	r.until("the log takes lines again", written)
	other := r.dial("models.test") // before: a gateway without memory takes no connections
	used.Store(2 << 30)
	r.edit("memory: 1GiB", "memory: 1025MiB") // a reload measures the memory at once
	r.reload("changed")
	_, _ = io.WriteString(other, "GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer "+r.bearer(nil)+"\r\n\r\n")
	all, _ := io.ReadAll(other)
	r.expect("overloaded", 503, "the process uses 2GiB, over 1025MiB (limits.memory)", string(all))
	used.Store(0)
	return r
}

// refusedByUpstreams are requests that an upstream did not answer correctly.
func refusedByUpstreams(t *testing.T) *refusals {
	talks := func(text string) string {
		return rawUpstream(t, func(c net.Conn) { _, _ = io.WriteString(c, text) })
	}
	held := make(chan struct{})
	entered := make(chan struct{})
	busy := rawUpstream(t, func(c net.Conn) { close(entered); <-held })
	r := &refusals{}
	r.house = signed(t, plan{options: proxy.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "fails.test:80" {
			panic("what no input may cause")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}, more: fmt.Sprintf(`upstreams:
  full: {rest: '%s', max_connections: 1}
  signs: {rest: '%s', integrity: {sign: out-1, verify: back-1}}
`, busy, newModelServer(t, nil).URL), routes: strings.NewReplacer("RESET", talks(""), "HALF", talks("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), "GARBAGE", talks("hello\r\n\r\n")).Replace(`
  - {host: models.test, path: /refused, upstream: 'http://127.0.0.1:1', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /unknown, upstream: 'http://nowhere.invalid', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /reset, upstream: 'RESET', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /half, upstream: 'HALF', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /garbage, upstream: 'GARBAGE', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /full, upstream: full, callers: issuer/corp, rules: [{allow: "*"}], timeouts: {connect: 500ms}}
  - {host: models.test, path: /signs, upstream: 'signs', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /fails, upstream: 'http://fails.test', callers: issuer/corp, rules: [{allow: "*"}]}
`)})
	ask := func(path string) string { return r.ask("GET "+path+" HTTP/1.1", "Authorization: Bearer TOKEN") }
	r.expect("upstream_refused", 502, "connecting: connection refused", ask("/refused"))
	r.expect("upstream_refused", 502, "connecting: …no such host…", ask("/unknown"))
	r.expect("upstream_reset", 502, "the server closed the connection before its answer; if it speaks TLS, write https://", ask("/reset"))
	r.expect("upstream_reset", 200, "the server closed the connection within its answer", ask("/half"))
	r.expect("upstream_garbage", 502, "malformed: bad status line", ask("/garbage"))
	r.expect("upstream_signature", 502, "no signature for this service was found", ask("/signs"))
	first := r.dial("models.test")
	_, _ = io.WriteString(first, "GET /full HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer "+r.bearer(nil)+"\r\n\r\n")
	<-entered
	r.expect("no_healthy_upstream", 503, "all of max_connections (1) are in use, and none was free within 500ms (timeouts.connect)", ask("/full"))
	r.expect("internal", 500, "panic: what no input may cause", ask("/fails"))
	close(held)
	discard(first)
	r.expect("upstream_reset", 502, "the server closed the connection before its answer; if it speaks TLS, write https://", "")
	return r
}

// hanging is a model server that never ends its answers, and begins only those to /half and /much: the
// latter with more than a connection holds.
func hanging(held <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		switch {
		case strings.HasSuffix(q.URL.Path, "half"):
			_ = http.NewResponseController(w).Flush()
		case strings.HasSuffix(q.URL.Path, "much"):
			_, _ = io.CopyN(w, zeroBytes{}, 64<<20)
			return
		}
		<-held
	}
}

// refusedForTimeouts are requests whose server, or whose client, takes longer than the route allows.
func refusedForTimeouts(t *testing.T) *refusals {
	held := make(chan struct{})
	slow, slow2 := newModelServer(t, hanging(held)), newH2CServer(t, hanging(held))
	r := &refusals{}
	r.house = build(t, plan{options: proxy.Options{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "far.test:80" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}, routes: strings.ReplaceAll(strings.ReplaceAll(`
  - {host: models.test, path: /connect, upstream: 'http://far.test', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {connect: 50ms}}
  - {host: models.test, path: /head, upstream: 'SLOW', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {head: 100ms}}
  - {host: models.test, path: /idle, upstream: 'SLOW', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {idle: 100ms}}
  - {host: models.test, path: /total, upstream: 'SLOW', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {total: 100ms}}
  - {host: models.test, path: /h2/head, upstream: 'H2C', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {head: 100ms}}
  - {host: models.test, path: /h2/idle, upstream: 'H2C', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {idle: 100ms}}
  - {host: models.test, path: /h2/total, upstream: 'H2C', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {total: 100ms}}
  - {host: models.test, path: /dead, upstream: 'http://far.test', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {total: 500ms}}
`, "SLOW", slow.URL), "H2C", slow2)})
	ask := func(path string) string { return r.ask("GET "+path+" HTTP/1.1", "Authorization: Bearer TOKEN") }
	r.expect("upstream_timeout", 504, "no connection within 50ms (timeouts.connect), while connecting", ask("/connect"))
	r.expect("upstream_timeout", 504, "no answer within 100ms (timeouts.head)", ask("/head"))
	r.expect("upstream_timeout", 200, "no content within 100ms (timeouts.idle)", ask("/idle/half"))
	// The total time may end before there is a connection or a head, on a slow machine.
	r.expect("upstream_timeout", 504, "not done within 100ms (timeouts.total)…", ask("/total"))
	r.expect("upstream_timeout", 0, "not done within 100ms (timeouts.total)…", ask("/total/half"))
	r.expect("upstream_timeout", 504, "not done within 500ms (timeouts.total), while connecting", ask("/dead"))
	r.expect("upstream_timeout", 504, "no answer within 100ms (timeouts.head)", ask("/h2/head"))
	r.expect("upstream_timeout", 200, "no content within 100ms (timeouts.idle)", ask("/h2/idle/half"))
	r.expect("upstream_timeout", 504, "not done within 100ms (timeouts.total)…", ask("/h2/total"))
	r.expect("upstream_timeout", 0, "not done within 100ms (timeouts.total)…", ask("/h2/total/half"))
	f := r.frames()
	f.headers(1, false, r.usual("POST", "/h2/idle")...)
	r.expect("body_timeout", 408, "no content within 100ms (timeouts.idle)", f.wait(1))
	close(held)
	return r
}

// refusedForStalls are exchanges of which one side sends, and the other stops reading. Idle times of a
// second tell that from a busy machine on which both sides stop for a moment.
func refusedForStalls(t *testing.T) *refusals {
	held := make(chan struct{})
	slow, slow2 := newModelServer(t, hanging(held)), newH2CServer(t, hanging(held))
	r := &refusals{house: build(t, plan{routes: strings.ReplaceAll(strings.ReplaceAll(`
  - {host: models.test, path: /idle, upstream: 'SLOW', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {idle: 1s}}
  - {host: models.test, path: /h2/idle, upstream: 'H2C', callers: issuer/corp, rules: [{allow: "*"}], timeouts: {idle: 1s}}
  - {host: models.test, path: /left, upstream: 'SLOW', callers: issuer/corp, rules: [{allow: "*"}]}
`, "SLOW", slow.URL), "H2C", slow2)})}
	upload := func(path string) string {
		return r.tell("POST " + path + " HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + r.bearer(nil) + "\r\nContent-Length: 33554432\r\n\r\n" + strings.Repeat("x", 32<<20))
	}
	r.expect("upstream_timeout", 504, "content not taken within 1s (timeouts.idle)", upload("/idle"))
	r.expect("upstream_timeout", 504, "content not taken within 1s (timeouts.idle)", upload("/h2/idle"))

	gone := func() int { return strings.Count(r.audit.text(), `"client_gone"`) }
	unread := r.dial("models.test")
	_, _ = io.WriteString(unread, "GET /idle/much HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+r.bearer(nil)+"\r\n\r\n")
	r.until("it is given up", func() bool { return gone() == 1 })
	r.expect("client_gone", 200, "the client took no content for 1s (timeouts.idle)", "")
	f := r.frames()
	f.headers(1, true, r.usual("GET", "/h2/idle/much")...)
	r.until("it is given up", func() bool { return gone() == 2 })
	r.expect("client_gone", 200, "the client took no content for 1s (timeouts.idle)", "")
	f.headers(3, true, r.usual("GET", "/left")...)
	_ = f.fr.WriteRSTStream(3, http2.ErrCodeCancel)
	r.until("it is given up", func() bool { return gone() == 3 })
	r.expect("client_gone", 499, "the client left before the answer: CANCEL: reset by the client", "")
	close(held)
	return r
}

// zeroBytes is content without an end.
type zeroBytes struct{}

func (zeroBytes) Read(p []byte) (int, error) { return len(p), nil }

// newH2CServer serves HTTP/2 without TLS, and returns its URL for an upstream.
func newH2CServer(t *testing.T, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: h, Protocols: protocols}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return "h2c://" + l.Addr().String()
}

// cutStreams are answers that end because of the caller.
func cutStreams(t *testing.T) *refusals {
	now, exp := stopped()
	r := &refusals{house: build(t, plan{handler: ticking, options: proxy.Options{Now: now}})}
	discard(r.stream(r.client(false), "/", r.bearer(map[string]any{"exp": exp})))
	r.expect("credential_expired_in_stream", 200, "the credential expired while the stream went on", "")
	return r
}

// cutByReloads are exchanges that a new configuration ends.
func cutByReloads(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{more: unwatched + "drain: 50ms\n", handler: ticking})}
	c := r.client(true)
	kept := r.stream(c, "/", r.bearer(nil))
	r.edit(`rules: [{allow`, `rules: [{deny: "*", who: {principal: issuer/corp:alice}}, {allow`)
	r.reload("changed")
	discard(kept)
	r.expect("withdrawn_in_stream", 200, "the new configuration refuses the stream: rules[0] denies it", "")
	kept = r.stream(c, "/", r.bearer(map[string]any{"sub": "bob"}))
	r.edit("drain: 50ms", "drain: 60ms")
	r.reload("changed")
	discard(kept)
	r.expect("configuration_replaced", 200, "the configuration was replaced, and it was not done within 50ms (drain)", "")
	return r
}

// cutAtTheEnd are exchanges that the end of the grace period cuts: streams, uploads that are held or
// forwarded, and requests that no server has answered. One warning counts them.
func cutAtTheEnd(t *testing.T) *refusals {
	logged := &lines{}
	entered := make(chan struct{}, 9)
	r := &refusals{house: signed(t, plan{more: "drain: 50ms\n", options: proxy.Options{Log: slog.New(slog.NewTextHandler(logged, nil))}, handler: func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/stream" {
			ticking(w, q)
			return
		}
		entered <- struct{}{}
		_, _ = io.Copy(io.Discard, q.Body)
		<-q.Context().Done()
	}, routes: `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, key], rules: [{allow: "*"}]}
`})}
	begin := func(text string) { _, _ = io.WriteString(r.dial("models.test"), text) }
	token := "Host: models.test\r\nAuthorization: Bearer " + r.bearer(nil) + "\r\n"
	r.stream(r.client(true), "/stream", r.bearer(nil))
	begin("GET /silent HTTP/1.1\r\n" + token + "\r\n")
	<-entered
	begin("POST /upload HTTP/1.1\r\n" + token + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 70_000))
	<-entered
	e := errand{body: strings.Repeat("x", 1000)}.signed(t)
	begin(strings.TrimSuffix(e.raw(), strings.Repeat("x", 500)))
	r.until("four are in flight", func() bool { return strings.Contains(r.get("/metrics"), "sallyport_requests_in_flight 4") })
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for range 4 {
		r.expect("shutdown", 0, "the gateway stops, and it was not done within 50ms (drain)", "") // in any order
	}
	if text := logged.text(); strings.Count(text, "requests were aborted at the end of the grace period") != 1 || !strings.Contains(text, "requests=4") {
		t.Errorf("want one warning that counts 4: %s", text)
	}
	return r
}
