package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// TestMain fails the tests if they leave a goroutine behind. Most parallel tests wait for a timeout, so
// more of them run at once than there are processors, unless -parallel says how many.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("4") // a number
	}
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines waits for goroutines that are about to end, and returns the rest.
func leftGoroutines() (left string) {
	buf := make([]byte, 4<<20)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		left = ""
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "sallyport/") && !strings.Contains(g, "leftGoroutines") && !strings.Contains(g, "benchGateway") && !strings.Contains(g, "answerAll") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		time.Sleep(50 * time.Millisecond)
	}
	return left
}

// judge is a model server that parses HTTP/1.1 strictly by RFC 9112. Every request must be framed
// strictly and have each of the gateway's fields once; anything else is a fault. So is any byte
// that arrives before the answer to a request and does not belong to that request.
type judge struct {
	URL    string
	answer func(*judged) string // nil: a short 200

	l      net.Listener
	conns  sync.WaitGroup
	mu     sync.Mutex // guards the fields below
	whole  []*judged  // complete requests
	cut    []string   // the received part of incomplete requests
	faults []string
}

// judged is a request as parsed by the judge.
type judged struct {
	Method, Target string
	Fields         [][2]string // names in lower case
	Body           string
	Chunked        bool
	Trailers       [][2]string
	raw            string // all bytes of the request
}

// get joins the values of a field by "|", so that a second line is visible.
func (r *judged) get(name string) string {
	var all []string
	for _, f := range r.Fields {
		if f[0] == name {
			all = append(all, f[1])
		}
	}
	return strings.Join(all, "|")
}

func newJudge(t testing.TB, answer func(*judged) string) *judge {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	j := &judge{URL: "http://" + l.Addr().String(), l: l, answer: answer}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			j.conns.Go(func() { j.serve(c) })
		}
	}()
	t.Cleanup(func() { l.Close() })
	return j
}

// errGrammar is a violation of the grammar; any other read error means a truncated request.
type errGrammar struct{ what string }

func (e errGrammar) Error() string { return e.what }

func breaks(format string, args ...any) error { return errGrammar{fmt.Sprintf(format, args...)} }

func (j *judge) serve(c net.Conn) {
	defer c.Close()
	var seen bytes.Buffer
	br := bufio.NewReaderSize(io.TeeReader(c, &seen), 64<<10)
	for {
		seen.Reset()
		r, err := readStrictly(br)
		if err == nil && br.Buffered() > 0 {
			err = breaks("%d bytes follow a request before its answer", br.Buffered())
		}
		j.mu.Lock()
		var broken errGrammar
		switch {
		case err == nil:
			r.raw = seen.String()
			j.whole = append(j.whole, r)
		case errors.As(err, &broken):
			j.faults = append(j.faults, fmt.Sprintf("%v in %.500q", err, seen.Bytes()))
		case seen.Len() > 0:
			j.cut = append(j.cut, seen.String())
		}
		j.mu.Unlock()
		if err != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
		if j.answer != nil {
			answer = j.answer(r)
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

var (
	strictLine   = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/|/[!\"$-.0-~][!\"$-~]*|/[?][!\"$-~]*) HTTP/1\\.1$")
	strictName   = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	strictLength = regexp.MustCompile("^(0|[1-9][0-9]{0,17})$")
	strictChunk  = regexp.MustCompile("^[0-9a-f]{1,8}$")
)

// strictText reads a line that ends in CRLF and holds no other CR, LF or NUL.
func strictText(br *bufio.Reader) (string, error) {
	line, err := br.ReadString('\n')
	if err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		return "", breaks("the line %q does not end in CRLF, or holds CR or NUL", line)
	}
	return text, nil
}

func strictFields(br *bufio.Reader) (fields [][2]string, err error) {
	for {
		line, err := strictText(br)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(line, ": ")
		control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
		if !ok || !strictName.MatchString(name) || strings.Trim(value, " \t") != value || strings.ContainsFunc(value, control) {
			return nil, breaks("the field line %q", line)
		}
		fields = append(fields, [2]string{strings.ToLower(name), value})
	}
}

// ownOnce lists the fields that every request must have exactly once.
var ownOnce = []string{"host", "x-sallyport-principal", "x-sallyport-request-id", "x-sallyport-scopes", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"}

func readStrictly(br *bufio.Reader) (*judged, error) {
	line, err := strictText(br)
	if err != nil {
		return nil, err
	}
	m := strictLine.FindStringSubmatch(line)
	if m == nil {
		return nil, breaks("the request line %q", line)
	}
	r := &judged{Method: m[1], Target: m[2]}
	if r.Fields, err = strictFields(br); err != nil {
		return nil, err
	}
	count := map[string]int{}
	for _, f := range r.Fields {
		count[f[0]]++
	}
	for _, name := range ownOnce {
		if count[name] != 1 {
			return nil, breaks("%d lines of %s", count[name], name)
		}
	}
	for _, name := range []string{"authorization", "te", "trailer", "expect", "keep-alive", "proxy-connection", "http2-settings"} {
		if count[name] != 0 {
			return nil, breaks("the field %s", name)
		}
	}
	if (count["connection"] > 0 || count["upgrade"] > 0) && (r.get("connection") != "Upgrade" || r.get("upgrade") != "websocket") {
		return nil, breaks("connection %q, upgrade %q", r.get("connection"), r.get("upgrade"))
	}
	return r, r.readBody(br, count)
}

func (r *judged) readBody(br *bufio.Reader, count map[string]int) (err error) {
	length := r.get("content-length")
	switch {
	case count["transfer-encoding"] > 0 && count["content-length"] > 0:
		return breaks("two framings")
	case count["transfer-encoding"] > 0:
		if r.get("transfer-encoding") != "chunked" {
			return breaks("transfer-encoding %q", r.get("transfer-encoding"))
		}
		r.Chunked = true
		return r.readChunks(br)
	case count["content-length"] == 0:
		return nil
	case !strictLength.MatchString(length):
		return breaks("content-length %q", length)
	}
	n, _ := strconv.Atoi(length)
	var b bytes.Buffer
	_, err = io.CopyN(&b, br, int64(n))
	r.Body = b.String()
	return err
}

func (r *judged) readChunks(br *bufio.Reader) error {
	var b strings.Builder
	for {
		line, err := strictText(br)
		if err != nil {
			return err
		}
		if !strictChunk.MatchString(line) {
			return breaks("the chunk size %q", line)
		}
		n, _ := strconv.ParseInt(line, 16, 64)
		if n == 0 {
			r.Body = b.String()
			r.Trailers, err = strictFields(br)
			return err
		}
		if _, err := io.CopyN(&b, br, n); err != nil {
			return err
		}
		if end, err := strictText(br); err != nil || end != "" {
			return cmpErr(err, breaks("%q after a chunk", end))
		}
	}
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// taken returns the complete requests so far and forgets them.
func (j *judge) taken() []*judged {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := j.whole
	j.whole = nil
	return all
}

// sound fails the test if the judge has seen a fault.
func (j *judge) sound(t testing.TB) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.faults {
		t.Errorf("the upstream saw %s", f)
	}
	j.faults = nil
}

// before is a route to the judge like oneRoute, with more lines.
func (j *judge) before(more string) string {
	return strings.ReplaceAll(strings.TrimRight(oneRoute, "\n"), "%s", j.URL) + more + "\n"
}

// end stops the gateway, waits until the judge has read everything, and checks that each upstream
// request has exactly one record.
func (h *house) end(j *judge, upstream []*judged) {
	h.t.Helper()
	if err := h.stop(); err != nil {
		h.t.Errorf("Run: %v", err)
	}
	j.l.Close()
	j.conns.Wait()
	j.sound(h.t)
	sent := map[string]int{}
	for _, rec := range h.audit.records(h.t) {
		if rec["upstream"] != nil {
			sent[rec["id"].(string)]++
		}
	}
	for _, r := range append(upstream, j.taken()...) {
		id := r.get("x-sallyport-request-id")
		if sent[id]--; sent[id] < 0 {
			h.t.Errorf("%s %s reached the upstream under the id %s, which no record of a forwarded request has", r.Method, r.Target, id)
		}
	}
}

// statusLine finds the answers in raw bytes.
var statusLine = regexp.MustCompile(`HTTP/1\.[01] (\d\d\d) `)

// statuses returns the statuses in raw bytes, such as "200 400"; "-" for none.
func statuses(raw string) string {
	var all []string
	for _, m := range statusLine.FindAllStringSubmatch(raw, -1) {
		all = append(all, m[1])
	}
	if all == nil {
		return "-"
	}
	return strings.Join(all, " ")
}

// lodge runs a gateway from a whole configuration, in which a new folder replaces "%s".
func lodge(t *testing.T, text string, o proxy.Options) *house {
	t.Helper()
	h := &house{t: t, audit: &lines{}}
	dir := t.TempDir()
	name := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "%s", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(name)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	if o.Stdout == nil {
		o.Stdout = h.audit
	}
	g, err := proxy.New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	h.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	<-g.Ready()
	h.addrs = g.Addrs()
	pem, err := os.ReadFile(g.RootPath())
	if err != nil {
		t.Fatal(err)
	}
	h.roots = x509.NewCertPool()
	h.roots.AppendCertsFromPEM(pem)
	return h
}

// eventually waits until f holds, with a generous limit.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// settled waits until no more goroutines run than at the start, apart from a few of the test's
// clients, and prints the remaining ones.
func settled(t testing.TB, start int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > start+5; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines; %d at the start\n%s", runtime.NumGoroutine(), start, buf[:runtime.Stack(buf, true)])
		}
	}
}

// tell sends raw bytes to models.test and returns everything received until the gateway closes. The
// gateway may close before it has read all bytes.
func (h *house) tell(request string) string {
	h.t.Helper()
	c := h.dial("models.test")
	defer c.Close()
	_, _ = io.WriteString(c, request)
	all, _ := io.ReadAll(c)
	return string(all)
}

// get sends a request to the health listener.
func (h *house) get(path string) string {
	h.t.Helper()
	res, err := http.Get("http://" + h.addrs.Health.String() + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(all)
}

// targets formats methods, targets and bodies for comparison.
func targets(all []*judged) string {
	var s []string
	for _, r := range all {
		s = append(s, strings.TrimSpace(r.Method+" "+r.Target+" "+r.Body))
	}
	slices.Sort(s)
	return strings.Join(s, ", ")
}

// newIssuer starts a separate issuer and returns its URL.
func newIssuer(t *testing.T) (*authtest.Issuer, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := "http://" + l.Addr().String()
	iss, err := authtest.NewIssuer(authtest.IssuerConfig{URL: at, Audience: "models"})
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: iss}}
	s.Start()
	t.Cleanup(s.Close)
	return iss, at
}
