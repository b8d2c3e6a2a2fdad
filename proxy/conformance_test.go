package proxy_test

import (
	"bufio"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// probe is a test case: bytes that a client sends, the gateway's answer, and what the upstream sees.
// Public test suites send such bytes to find servers that violate RFC 9112.
//
// In raw, {h} are Host and a valid token. In sees, {h} is Host.
type probe struct {
	id      string // what it is about
	section string // of RFC 9112, or of another RFC with its number before it
	raw     string
	want    string // statuses, then the refusal's reason
	end     ending
	sees    string // the bytes that the upstream gets, without the gateway's own fields; "" for none
	answer  string // the head has a line that begins with this, or none with "!" before it; "" for any
}

// ending says what happens to a connection after a probe.
type ending uint8

const (
	ends  ending = iota // the next request is not read
	stays               // the next request is served
	cut                 // the client's bytes are incomplete, and it closes its side
)

// probeHost is what {h} is in bytes that the upstream sees.
const probeHost = "Host: models.test\r\n"

// probeVictim is the request sent after every probe. Its caller is allowed, so only the end of the
// connection can keep it from the upstream.
const probeVictim = "GET /victim HTTP/1.1\r\n" + probeHost + "Authorization: Bearer TOKEN\r\nConnection: close\r\n\r\n"

// probeRoutes are the routes that probes are for.
const probeRoutes = `
  - host: models.test
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", who: {scope: models.predict}}]
  - host: models.test
    path: /ws
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", who: {scope: models.predict}}]
    websocket: true
  - host: models.test
    path: /read
    methods: [GET]
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", who: {scope: models.predict}}]
  - host: models.test
    path: /kept
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", who: {scope: models.predict}}]
    paths: {encoded_slash: keep, encoded_percent: keep, encoded_question: keep, encoded_hash: keep, semicolon: keep, double_slash: keep}
  - host: models.test
    path: /merged
    upstream: %s
    callers: issuer/corp
    rules: [{allow: "*", who: {scope: models.predict}}]
    paths: {double_slash: merge}
`

// probeOwn are the lines that the gateway adds to every request.
var probeOwn = regexp.MustCompile(`(?m)^(x-sallyport-[a-z-]+|x-forwarded-[a-z]+|forwarded): [^\r\n]*\r\n`)

// Every probe gets its expected answer. No refused probe reaches the upstream, and neither does a later
// request on its connection.
func TestConformance(t *testing.T) {
	j := newJudge(t, probeAnswer)
	h := build(t, plan{routes: strings.ReplaceAll(probeRoutes, "%s", j.URL)})
	token := h.token()
	rows := probes()
	var all []*judged
	for i := range rows {
		p := &rows[i]
		t.Run(p.section+": "+p.id, func(t *testing.T) {
			h := h.in(t)
			all = append(all, p.check(t, h.probe(p, token), j)...)
		})
	}
	t.Logf("%d requests", len(rows))
	h.end(j, all)
}

// probe sends the bytes of a row, then the victim's, and returns what came back.
func (h *house) probe(p *probe, token string) string {
	h.t.Helper()
	raw := strings.ReplaceAll(p.raw, "{h}", probeHost+"Authorization: Bearer TOKEN\r\n")
	if p.end != cut {
		raw += probeVictim
	}
	c := h.dial("models.test")
	defer c.Close()
	if _, err := io.WriteString(c, strings.ReplaceAll(raw, "TOKEN", token)); err != nil {
		h.t.Fatal(err)
	}
	if p.end == cut {
		_ = c.CloseWrite()
	}
	all, err := io.ReadAll(c)
	if err != nil {
		h.t.Error(err)
	}
	return string(all)
}

// check compares the result of a probe with its row. It returns the requests that the upstream
// received.
func (p *probe) check(t *testing.T, received string, j *judge) []*judged {
	t.Helper()
	got := readAnswers(t, p.raw, received)
	victim, sees, upstream := false, "", j.taken()
	for _, r := range upstream {
		if victim = r.Target == "/victim"; !victim {
			sees += probeOwn.ReplaceAllString(r.raw, "")
		}
	}
	j.sound(t)
	if victim != (p.end == stays) {
		t.Errorf("the next request was served: %t; want %t", victim, p.end == stays)
	}
	if victim && len(got.statuses) > 0 {
		got.statuses = got.statuses[:len(got.statuses)-1]
	}
	if s := got.String(); s != p.want {
		t.Errorf("answer %s; want %s", s, p.want)
	}
	host := "Host: " + strings.TrimPrefix(j.URL, "http://") + "\r\n"
	if want := strings.ReplaceAll(p.sees, "{h}", host); sees != want {
		t.Errorf("the upstream saw %.500q; want %.500q", sees, want)
	}
	line, wanted := strings.CutPrefix(p.answer, "!")
	if has := strings.Contains(got.head, "\r\n"+line); p.answer != "" && has == wanted {
		t.Errorf("the answer's head is %q; want the line %q in it: %t", got.head, line, !wanted)
	}
	return upstream
}

// answersRead are the answers to a probe and to the victim.
type answersRead struct {
	statuses []string
	reason   string // of the last refusal
	head     string // of the first answer
}

func (a *answersRead) String() string {
	if len(a.statuses) == 0 {
		return "-"
	}
	return strings.TrimSpace(strings.Join(a.statuses, " ") + " " + a.reason)
}

// readAnswers parses everything that a client received, which must be whole answers.
func readAnswers(t *testing.T, raw, received string) answersRead {
	t.Helper()
	var all answersRead
	all.head, _, _ = strings.Cut(received, "\r\n\r\n")
	br := bufio.NewReader(strings.NewReader(received))
	method, _, _ := strings.Cut(raw, " ")
	for {
		if _, err := br.Peek(1); err != nil {
			return all
		}
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Errorf("%v in %q", err, received)
			return all
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Errorf("%v in %q", err, received)
		}
		all.statuses = append(all.statuses, strconv.Itoa(res.StatusCode))
		if r := (&reply{res, string(body)}).reason(); r != "" {
			all.reason = r
		}
		if res.StatusCode >= 200 {
			method = "GET"
		}
	}
}

// probeAnswer is what the upstream answers.
func probeAnswer(r *judged) string {
	const tag, date = `"v1"`, "Sun, 01 Nov 2026 10:00:00 GMT"
	switch {
	case r.Method == "HEAD":
		return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n"
	case r.Target == "/none": // a 204 has no length (RFC 9110, section 8.6)
		return "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
	case r.get("upgrade") != "": // only the upstream knows the version
		return "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
	case r.get("if-none-match") == tag, r.get("if-none-match") == "" && r.get("if-modified-since") == date:
		return "HTTP/1.1 304 Not Modified\r\nETag: " + tag + "\r\nLast-Modified: " + date + "\r\n\r\n"
	}
	return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: " + tag + "\r\nContent-Length: 2\r\n\r\nok"
}

// probes are all rows.
func probes() []probe {
	return slices.Concat(probesOfLines(), probesOfPaths(), probesOfHosts, probesOfFields(), probesOfTrust(), probesOfLengths, probesOfCodings, probesOfChunks(), probesOfTrailers, probesOfSequences(), probesOfConnections, probesOfMethods, probesOfContent())
}
