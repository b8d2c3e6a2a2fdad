package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy"
)

// introspected is a house with a second issuer, asked, for opaque tokens, and a clock that tests
// put forward.
type introspected struct {
	*house
	asked   *authtest.Issuer
	forward atomic.Int64
}

func newIntrospected(t *testing.T, p plan) *introspected {
	t.Helper()
	i := &introspected{asked: authtest.Start(t)}
	p.issuers = fmt.Sprintf("  asked: {url: '%s', audience: models, introspection: {client_id: gateway, client_secret: {file: secret}, max_age: 10s}}\n", i.asked.URL)
	if p.files == nil {
		p.files = map[string]string{}
	}
	p.files["secret"] = "s3cret\n"
	p.routes = `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, issuer/asked], rules: [{allow: "*", who: {scope: models.predict}}]}
`
	p.options.Now = func() time.Time { return time.Now().Add(time.Duration(i.forward.Load())) }
	i.house = build(t, p)
	return i
}

// know makes the issuer know a token of a caller. exp is in how many seconds it expires; 0 is never.
func (i *introspected) know(token, caller string, exp int64) string {
	claims := i.asked.Claims(caller, "models.predict")
	if claims["exp"] = i.options.Now().Unix() + exp; exp == 0 {
		delete(claims, "exp")
	}
	i.asked.Know(token, claims)
	return token
}

// goesOn checks that a stream is not cut.
func goesOn(t *testing.T, name string, stream *bufio.Reader) {
	t.Helper()
	for range 5 {
		if _, err := stream.ReadString('\n'); err != nil {
			t.Fatalf("the stream of %s: %v", name, err)
		}
	}
}

func isCut(t *testing.T, name string, stream *bufio.Reader) {
	t.Helper()
	if _, err := io.Copy(io.Discard, stream); err == nil {
		t.Errorf("the stream of %s ended cleanly; want it cut", name)
	}
}

// TestStreamEndsOnceItsTokenIsRevoked: not before the last answer is too old, and others go on.
func TestStreamEndsOnceItsTokenIsRevoked(t *testing.T) {
	h := newIntrospected(t, plan{handler: ticking})
	c := h.client(true)
	jwt := h.stream(c, "/", h.token())
	revoked, kept := h.stream(c, "/", h.know("t0ken-of-bob", "bob", 3600)), h.stream(c, "/", h.know("t0ken-of-carol", "carol", 3600))
	h.asked.Know("t0ken-of-bob", nil)
	if n := h.gateway.Revisit(t.Context()); n != 0 || h.asked.LookUps() != 2 {
		t.Errorf("%d streams are cut and %d tokens looked up; want 0 and 2", n, h.asked.LookUps())
	}
	goesOn(t, "bob", revoked)
	h.forward.Add(int64(11 * time.Second))
	if n := h.gateway.Revisit(t.Context()); n != 1 || h.asked.LookUps() != 4 {
		t.Errorf("%d streams are cut and %d tokens looked up; want 1 and 4", n, h.asked.LookUps())
	}
	isCut(t, "bob", revoked)
	goesOn(t, "carol", kept)
	goesOn(t, "alice", jwt)
	if record := h.recordOf("issuer/asked:bob"); record["reason"] != "withdrawn_in_stream" || !strings.Contains(fmt.Sprint(record["cause"]), "the credential was checked again: issuer asked: the issuer says that the token is not active") {
		t.Errorf("record %v", record)
	}
	if strings.Contains(h.audit.text(), "t0ken") {
		t.Error("a record holds a token")
	}
}

// TestStreamOutlastsAnIssuerThatIsDown until its token expires; one whose token never expires does
// not.
func TestStreamOutlastsAnIssuerThatIsDown(t *testing.T) {
	h := newIntrospected(t, plan{handler: ticking})
	c := h.client(true)
	bounded, endless := h.stream(c, "/", h.know("t0ken-of-bob", "bob", 3600)), h.stream(c, "/", h.know("t0ken-of-carol", "carol", 0))
	h.asked.AnswerLookUps(authtest.Status(500))
	h.forward.Add(int64(11 * time.Second))
	if n := h.gateway.Revisit(t.Context()); n != 1 {
		t.Errorf("%d streams are cut, want 1", n)
	}
	isCut(t, "carol", endless)
	goesOn(t, "bob", bounded)
	if got := h.tell("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer t0ken-of-bob\r\n\r\n"); statuses(got) != "503" || !strings.Contains(got, "\r\nRetry-After: ") {
		t.Errorf("a new request: %s", got)
	}
	h.asked.AnswerLookUps(nil)
	h.asked.Know("t0ken-of-bob", nil)
	h.forward.Add(int64(11 * time.Second))
	if n := h.gateway.Revisit(context.Background()); n != 1 {
		t.Errorf("%d streams are cut, want 1", n)
	}
	isCut(t, "bob", bounded)
}

// TestReloadDoesNotWaitForAnIssuer: many streams have tokens about which an issuer hangs. A reload
// that revokes one caller cuts that stream at once, and leaves the others to their issuer.
func TestReloadDoesNotWaitForAnIssuer(t *testing.T) {
	log := &lines{}
	h := newIntrospected(t, plan{handler: ticking, more: unwatched + "revoked: revoked.txt\n", files: map[string]string{"revoked.txt": ""},
		options: proxy.Options{Log: slog.New(slog.NewTextHandler(log, nil))}})
	c := h.client(true)
	streams := map[string]*bufio.Reader{}
	for i := range 12 {
		who := fmt.Sprint("user-", i)
		streams[who] = h.stream(c, "/", h.know("t0ken-of-"+who, who, 3600))
	}
	revoked := h.stream(c, "/", h.know("t0ken-of-bob", "bob", 3600))
	release := make(chan struct{})
	h.asked.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		w.WriteHeader(500)
	}))
	h.forward.Add(int64(11 * time.Second))
	if err := os.WriteFile(filepath.Join(filepath.Dir(h.file), "revoked.txt"), []byte("principal issuer/asked:bob\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.reload("changed")
	isCut(t, "bob", revoked)
	if record := h.recordOf("issuer/asked:bob"); !strings.Contains(fmt.Sprint(record["cause"]), "issuer/asked:bob is revoked (line 1 of revoked)") {
		t.Errorf("record %v", record)
	}
	close(release)
	for !strings.Contains(log.text(), "exchanges=") { // until the reload has checked all streams
		time.Sleep(time.Millisecond)
	}
	if !strings.Contains(log.text(), "exchanges=1") {
		t.Errorf("more than one stream is cut: %s", log.text())
	}
	for who, stream := range streams {
		goesOn(t, who, stream)
	}
}

// TestReloadKeepsAnswersAboutTokens unless it changes their issuer.
func TestReloadKeepsAnswersAboutTokens(t *testing.T) {
	h := newIntrospected(t, plan{more: unwatched, options: proxy.Options{}})
	get := func(token string) string {
		return statuses(h.tell("GET / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + token + "\r\n\r\n"))
	}
	token := h.know("t0ken-of-bob", "bob", 3600)
	for _, step := range []struct {
		old, changed string
		lookUps      int64
	}{{"", "", 2}, {"reload: {watch: false}", "reload: {watch: false}\npublic_https: 8443", 2}, {"max_age: 10s", "max_age: 20s", 4}} {
		if step.old != "" {
			h.edit(step.old, step.changed)
			h.reload("changed")
		}
		if a, b := get(token), get("unknown"); a != "200" || b != "401" || h.asked.LookUps() != step.lookUps {
			t.Errorf("%s: got %s and %s after %d look-ups, want %d", step.changed, a, b, h.asked.LookUps(), step.lookUps)
		}
	}
}
