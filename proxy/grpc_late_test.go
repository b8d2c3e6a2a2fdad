package proxy_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// lateRoute has streams of which the gateway refuses later messages.
const lateRoute = `
  - host: models.test
    upstream: kserve
    callers: issuer/corp
    limits: {body: 64KiB, rate: [{per: [principal, model], models: gold, limit: 1/h}]}
    timeouts: {idle: 3s}
    rules: [{allow: inference, models: ["open-*", gold], who: {scope: models.predict}}]
`

// openStream is a stream of which the answer has begun.
type openStream struct {
	res    *http.Response
	w      *io.PipeWriter
	shared bool // the connection carried another stream before
}

// openLate opens a stream and sends a first message, which the server echoes. header is that of the call.
func (h *house) openLate(c *http.Client, header http.Header, first []byte) *openStream {
	h.t.Helper()
	r, w := io.Pipe()
	shared := false
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { shared = i.Reused },
	})
	req, err := http.NewRequestWithContext(ctx, "POST", "https://models.test"+inferService+"ModelStreamInfer", r)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header = header
	req.Header.Set("Content-Type", callContentType)
	req.Header.Set("Te", "trailers")
	res, err := c.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	s := &openStream{res, w, shared}
	h.t.Cleanup(func() { w.Close(); res.Body.Close() })
	s.echoes(h.t, first)
	return s
}

// echoes sends a message and waits until the server has echoed it.
func (s *openStream) echoes(t *testing.T, message []byte) {
	t.Helper()
	if _, err := s.w.Write(message); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadFull(s.res.Body, make([]byte, len(message))); err != nil {
		t.Fatalf("%d bytes of %d: %v", got, len(message), err)
	}
}

// statusOf decodes the details of a status as gRPC clients do.
func statusOf(t *testing.T, fields http.Header) (*status.Status, *errdetails.ErrorInfo, *errdetails.RequestInfo, *errdetails.RetryInfo) {
	t.Helper()
	text, err := base64.RawStdEncoding.DecodeString(fields.Get("grpc-status-details-bin"))
	if err != nil {
		t.Fatal(err)
	}
	got := new(status.Status)
	if err := proto.Unmarshal(text, got); err != nil {
		t.Fatal(err)
	}
	var (
		info    *errdetails.ErrorInfo
		request *errdetails.RequestInfo
		retry   *errdetails.RetryInfo
	)
	for _, d := range got.Details {
		m, err := d.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			info = m
		case *errdetails.RequestInfo:
			request = m
		case *errdetails.RetryInfo:
			retry = m
		}
	}
	return got, info, request, retry
}

// A stream whose answer has begun ends with the status of its refusal, not with a reset that says nothing.
// The message that was refused does not reach the server, and a victim's stream on the same connection
// goes on.
func TestLateRefusalOfAStreamIsAStatus(t *testing.T) {
	t.Parallel()
	message := func(model string) []byte { return framedText(string(inferRequest(model, 1))) }
	for name, c := range map[string]struct {
		act            func(h *house, s *openStream)
		soon           bool // the attacker's token expires soon
		status, reason string
		victimEnds     bool // what happens ends the victim too
	}{
		"forbidden model": {act: func(_ *house, s *openStream) { _, _ = s.w.Write(message("secret")) }, status: "7", reason: "forbidden"},
		"rate": {act: func(h *house, s *openStream) {
			s.echoes(h.t, message("gold"))
			s.echoes(h.t, message("open-a"))
			_, _ = s.w.Write(message("gold"))
		}, status: "8", reason: "rate_limited"},
		"no model": {act: func(_ *house, s *openStream) { _, _ = s.w.Write(framedText("")) }, status: "3", reason: "bad_model"},
		"too large": {act: func(_ *house, s *openStream) {
			_, _ = s.w.Write(framedText(string(inferRequest("open-a", 128<<10))))
		}, status: "8", reason: "body_too_large"},
		"silence":       {act: func(*house, *openStream) {}, status: "4", reason: "body_timeout"},
		"expired token": {act: func(*house, *openStream) {}, soon: true, status: "16", reason: "credential_expired_in_stream"},
		"withdrawn": {act: func(h *house, _ *openStream) {
			h.edit(`"open-*", gold`, `"open-b"`)
			h.reload("changed")
		}, status: "7", reason: "withdrawn_in_stream"},
		"revoked": {act: func(h *house, _ *openStream) {
			h.write("revoked.txt", []byte("principal issuer/corp:alice before 2099-01-01\n"))
			h.reload("changed")
		}, status: "16", reason: "withdrawn_in_stream"},
		"stopped": {act: func(h *house, _ *openStream) {
			go func() { _ = h.stop() }()
			h.gateway.Kill()
		}, status: "14", reason: "shutdown", victimEnds: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newGRPCServer(t)
			routes, options := lateRoute, proxy.Options{}
			now, exp := stopped()
			if c.soon {
				options.Now = now
				routes = strings.Replace(routes, "idle: 3s", "idle: 20s", 1)
			}
			h := build(t, plan{routes: routes, options: options, files: map[string]string{"revoked.txt": "# none yet\n"},
				more: unwatched + "revoked: revoked.txt\nupstreams: {kserve: {serves: v2, grpc: 'h2c://" + s.addr + "'}}\n"})
			client := h.client(true)
			victim := h.openLate(client, http.Header{"Authorization": {h.as("victoria", predict)["Authorization"]}}, message("open-b"))
			token := "Bearer " + h.token()
			if c.soon {
				token = "Bearer " + h.ending(exp)
			}
			attacker := h.openLate(client, http.Header{"Authorization": {token}}, message("open-a"))
			if !attacker.shared {
				t.Error("the victim has another connection")
			}
			stop := make(chan struct{})
			alive := make(chan struct{})
			go func() { // the victim is not silent
				defer close(alive)
				for tick := time.NewTicker(200 * time.Millisecond); ; {
					select {
					case <-stop:
						return
					case <-tick.C:
						if !c.victimEnds {
							victim.echoes(t, message("open-b"))
						}
					}
				}
			}()
			c.act(h, attacker)
			_, err := io.ReadAll(attacker.res.Body)
			close(stop)
			<-alive
			if err != nil {
				t.Fatalf("the client got %v", err)
			}
			fields := attacker.res.Trailer
			if fields.Get("grpc-status") != c.status || fields.Get("grpc-message") == "" {
				t.Errorf("got %v; want status %s", fields, c.status)
			}
			got, info, request, _ := statusOf(t, fields)
			if got.GetMessage() == "" || info.GetReason() != c.reason || info.GetDomain() != "sallyport" || request.GetRequestId() != attacker.res.Header.Get("x-request-id") {
				t.Errorf("details %v", got)
			}
			if !c.victimEnds {
				victim.echoes(t, message("open-b"))
				victim.w.Close()
				if _, status := finish(t, victim.res); status != "0" {
					t.Errorf("the victim: %s", status)
				}
			}
			if err := h.stop(); err != nil {
				t.Error(err)
			}
			if r := h.recordOf("issuer/corp:alice"); r["reason"] != c.reason || r["grpc_status"] != c.status || r["status"] != float64(200) {
				t.Errorf("record %v", r)
			}
		})
	}
}

// A caller who does not read gets no status, and its stream ends all the same. A victim on the same
// connection goes on.
func TestLateRefusalOfACallerWhoDoesNotRead(t *testing.T) {
	t.Parallel()
	s := newGRPCServer(t)
	h := build(t, plan{routes: lateRoute, more: "upstreams: {kserve: {serves: v2, grpc: 'h2c://" + s.addr + "'}}\n"})
	message := func(model string, size int) string { return string(framedText(string(inferRequest(model, size)))) }
	head := func(caller string) []string {
		return []string{":method: POST", ":scheme: https", ":authority: models.test", ":path: " + inferService + "ModelStreamInfer",
			"authorization: " + h.as(caller, predict)["Authorization"], "content-type: " + callContentType, "te: trailers"}
	}
	f := h.frames(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	const attacker = 1
	wait := func(stream uint32) *framed {
		t.Helper()
		for f.got[stream] == nil || !f.got[stream].done {
			if !f.next() {
				t.Fatal(f.end)
			}
		}
		return f.got[stream]
	}
	victim := func(stream uint32) {
		t.Helper()
		f.headers(stream, false, head("victoria")...)
		_ = f.fr.WriteWindowUpdate(stream, 1<<20)
		f.data(stream, true, message("open-b", 1))
		if got := wait(stream); got.body != message("open-b", 1) || got.reset != "" {
			t.Errorf("the victim got %+v", got)
		}
	}
	f.headers(attacker, false, head("alice")...)
	f.data(attacker, false, message("open-a", 10<<10)) // its echo waits for the window
	victim(3)
	f.data(attacker, false, message("secret", 1))
	victim(5)
	if got := wait(attacker); got.body != "" || got.reset == "" {
		t.Errorf("the attacker got %+v", got)
	}
	victim(7)
	if r := h.recordOf("issuer/corp:alice"); r["status"] != float64(200) || r["reason"] == nil {
		t.Errorf("record %v", r)
	}
}

// A server that is lost within a stream is UNAVAILABLE to the caller.
func TestStreamOfALostServerEndsWithUnavailable(t *testing.T) {
	s := newGRPCServer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lost := make(chan struct{})
	go func() { // passes one connection on until it is lost
		c, err := l.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", s.addr)
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(to, c) }()
		go func() { _, _ = io.Copy(c, to) }()
		<-lost
		c.Close()
		to.Close()
	}()
	h := build(t, plan{routes: lateRoute, more: "upstreams: {kserve: {serves: v2, grpc: 'h2c://" + l.Addr().String() + "'}}\n"})
	stream := h.openLate(h.client(true), http.Header{"Authorization": {"Bearer " + h.token()}}, framedText(string(inferRequest("open-a", 1))))
	close(lost)
	if _, status := finish(t, stream.res); status != "14" {
		t.Errorf("status %s", status)
	}
	if r := h.ended(); r["reason"] != "upstream_reset" || r["grpc_status"] != "14" {
		t.Errorf("record %v", r)
	}
}

// An answer that is no gRPC is cut, since its client would take it for whole.
func TestLateRefusalCutsAnswersWithoutStatus(t *testing.T) {
	url := overHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("content-type", "text/html")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	h := build(t, plan{routes: lateRoute, more: "upstreams: {kserve: {serves: v2, grpc: '" + url + "'}}\n"})
	stream := h.openLate(h.client(true), http.Header{"Authorization": {"Bearer " + h.token()}}, nil)
	_, _ = stream.w.Write(framedText(string(inferRequest("secret", 1))))
	if _, err := io.ReadAll(stream.res.Body); err == nil || !strings.Contains(err.Error(), "stream error") {
		t.Errorf("the client got %v, trailers %v", err, stream.res.Trailer)
	}
}

// The end of a stream that the gateway refuses is signed as every other: a caller who signs can tell it from
// one that was made on the way.
func TestLateRefusalOfASignedStreamIsSigned(t *testing.T) {
	s := newGRPCServer(t)
	h := signed(t, plan{
		routes: `
  - {host: models.test, upstream: kserve, callers: key, integrity: {body: headers_only}, rules: [{allow: "*", models: open-a}]}
`,
		more: `upstreams: {kserve: {serves: v2, grpc: "h2c://` + s.addr + `"}}`,
	})
	call, metadata, err := callsOf(keyOf("acme-1")).SignHead(inferService+"ModelStreamInfer", callContentType, nil)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	for _, l := range metadata {
		header.Add(l.Name, l.Value)
	}
	first := string(inferRequest("open-a", 1))
	stream := h.openLate(h.client(true), header, framedText(first))
	_, _ = stream.w.Write(framedText(string(inferRequest("secret", 1))))
	if _, err := io.ReadAll(stream.res.Body); err != nil {
		t.Fatal(err)
	}
	sent := &signedCall{call: call}
	a := &callAnswer{status: 7, header: visible(stream.res.Header), trailer: visible(stream.res.Trailer), messages: []string{first}}
	if err := sent.verify(a); err != nil {
		t.Errorf("%v, %+v", err, a)
	}
	a.trailer = nil
	again := &signedCall{call: call}
	var e *httpsig.Error
	if err := again.verify(a); !errors.As(err, &e) || e.Code != httpsig.Missing {
		t.Errorf("without its signature it passes: %v", err)
	}
}
