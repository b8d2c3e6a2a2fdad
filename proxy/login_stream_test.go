package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/proxy"
)

// personStream is a stream of one person in progress, from the client's side.
type personStream struct {
	path string
	conn net.Conn
	in   *bufio.Reader
}

// goesOn returns why the stream does not go on; nil if it does.
func (s *personStream) goesOn() error {
	want := "more\n"
	if s.path == "/socket" {
		want = "hello\n"
		if _, err := io.WriteString(s.conn, want); err != nil {
			return err
		}
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil || line == want {
			return err
		}
	}
}

// streams answers each request by its path: /events with events, /download with a part of a large
// file, and /socket with a WebSocket. It says on closed when the stream is over, by its query.
func streams(closed func(who string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer closed(r.URL.RawQuery)
		if r.URL.Path == "/socket" {
			c, rw := openSocket(w, r, "")
			defer c.Close()
			_, _ = io.WriteString(c, "begun\n")
			for {
				line, err := rw.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, line)
			}
		}
		w.Header().Set("Content-Type", "text/event-stream")
		if r.URL.Path == "/download" {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", "1000000000")
		}
		_, _ = io.WriteString(w, "begun\n")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "more\n"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// stream opens a stream over HTTP/1.1 with the session of a person.
func (l *lobby) stream(path, person, cookie string) *personStream {
	l.t.Helper()
	upgrade := ""
	if path == "/socket" {
		upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + wsKey + "\r\n"
	}
	c := l.dial("models.test")
	if _, err := io.WriteString(c, "GET "+path+"?"+person+" HTTP/1.1\r\nHost: models.test\r\nSec-Fetch-Site: same-origin\r\nCookie: "+cookie+"\r\n"+upgrade+"\r\n"); err != nil {
		l.t.Fatal(err)
	}
	s := &personStream{path: path, conn: c, in: bufio.NewReader(c)}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "HTTP/1.1 ") && line[9] > '2' {
			l.t.Fatalf("%s of %s does not begin: %q, %v", path, person, line, err)
		}
		if line == "begun\n" {
			return s
		}
	}
}

// sessionEnding is a way in which a session ends while a stream goes on, with a part of the cause.
type sessionEnding struct {
	name, cause string
	end         func(l *lobby, alice *browser, clock *shiftedClock)
}

func sessionEndings() []sessionEnding {
	return []sessionEnding{
		{"the person signs out", "the person signed out", func(_ *lobby, alice *browser, _ *shiftedClock) {
			alice.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
		}},
		{"the issuer ends the session", "the person signed out, or the issuer ended it", func(l *lobby, _ *browser, _ *shiftedClock) {
			token := l.provider.LogoutToken("sid-of-alice", "", func(claims map[string]any) { claims["exp"] = time.Now().Add(time.Hour).Unix() })
			r := l.do("POST", login.BackChannelPath, url.Values{"logout_token": {token}}.Encode(), map[string]string{"Authorization": "", "Content-Type": "application/x-www-form-urlencoded"})
			if r.StatusCode != 200 {
				l.t.Errorf("back-channel logout: %d %s", r.StatusCode, r.body)
			}
		}},
		{"the session is too old", "its absolute lifetime is over", func(_ *lobby, _ *browser, clock *shiftedClock) {
			clock.ahead.Store(int64(8*time.Hour + time.Second))
		}},
	}
}

// Who signs out loses the streams, as does a person whose session the issuer ends, or whose session is as
// old as it may be. The upstream sees the end, and the stream of another person goes on.
func TestStreamsEndWithTheSession(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/events", "/download", "/socket"} {
		for _, c := range sessionEndings() {
			t.Run(path[1:]+", "+c.name, func(t *testing.T) {
				clock := &shiftedClock{}
				closed := map[string]chan struct{}{"alice": make(chan struct{}), "bob": make(chan struct{})}
				l := openLobby(t, plan{
					options: proxy.Options{Now: clock.now},
					routes:  strings.Replace(loginRoutes, ", who: {principal: issuer/corp:alice}", "", 1),
					handler: streams(func(who string) {
						if c := closed[who]; c != nil {
							close(c)
						}
					}),
				})
				alice, bob := l.browser(false), l.browser(false)
				l.provider.Person("alice", map[string]any{"sid": "sid-of-alice"})
				l.provider.Change(nil, func(answer map[string]any) { delete(answer, "refresh_token") })
				mine := l.stream(path, "alice", alice.signInWith("corp"))
				clock.ahead.Store(int64(30 * time.Minute)) // bob's session ends later, and the issuer's clock stands
				l.provider.Person("bob", nil)
				l.provider.Change(func(claims map[string]any) { claims["exp"] = time.Now().Add(time.Hour).Unix() }, func(answer map[string]any) { delete(answer, "refresh_token") })
				other := l.stream(path, "bob", bob.signInWith("corp"))
				l.gateway.RevisitSessions(t.Context())
				for _, s := range []*personStream{mine, other} {
					if err := s.goesOn(); err != nil {
						t.Fatalf("a stream ended too early: %v", err)
					}
				}
				c.end(l, alice, clock)
				l.gateway.RevisitSessions(t.Context())
				select {
				case <-closed["alice"]:
				case <-time.After(time.Minute):
					t.Fatal("the upstream does not see the end of alice's stream")
				}
				if _, err := io.Copy(io.Discard, mine.in); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection of alice's stream stays open")
				}
				for range 3 {
					if err := other.goesOn(); err != nil {
						t.Fatalf("bob's stream ended: %v", err)
					}
				}
				select {
				case <-closed["bob"]:
					t.Error("the upstream saw the end of bob's stream")
				default:
				}
				other.conn.Close()
				if err := l.stop(); err != nil {
					t.Fatal(err)
				}
				for _, rec := range l.audit.records(t) {
					if rec["path"] != path {
						continue
					}
					cause, _ := rec["cause"].(string)
					if of := rec["principal"] == "issuer/corp:alice"; of != (rec["reason"] == "withdrawn_in_stream" && strings.Contains(cause, c.cause)) {
						t.Errorf("a record of %s has reason %v: %s", rec["principal"], rec["reason"], cause)
					}
				}
			})
		}
	}
}

// An issuer hangs about the token of a program's stream, and the check of streams with it. Who signs out
// meanwhile loses the streams all the same.
func TestEndOfSessionWaitsForNoIssuer(t *testing.T) {
	clock := &shiftedClock{}
	asked := authtest.Start(t)
	l := openLobby(t, plan{
		options: proxy.Options{Now: clock.now},
		handler: ticking,
		issuers: "  asked: {url: '" + asked.URL + "', audience: models, introspection: {client_id: gateway, client_secret: {file: secret}, max_age: 10s}}\n",
		routes:  strings.Replace(strings.Replace(loginRoutes, "[login/corp, issuer/corp]", "[login/corp, issuer/asked]", 1), ", who: {principal: issuer/corp:alice}", "", 1),
	})
	claims := asked.Claims("batch", "models.predict")
	claims["exp"] = time.Now().Add(time.Hour).Unix()
	asked.Know("t0ken-of-batch", claims)
	program := l.house.stream(l.client(true), "/", "t0ken-of-batch")
	alice := l.browser(true)
	req, err := http.NewRequest("GET", "https://models.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", alice.signInWith("corp"))
	person := l.streamOf(l.client(true), req)

	hangs, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	asked.AnswerLookUps(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(hangs) })
		<-release
	}))
	clock.ahead.Store(int64(11 * time.Second)) // the last answer about the token is too old
	done := make(chan struct{})
	go func() { l.gateway.Revisit(t.Context()); close(done) }()
	<-hangs
	alice.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	l.gateway.RevisitSessions(t.Context())
	isCut(t, "alice", person)
	select {
	case <-done:
		t.Error("the issuer does not hang")
	default:
	}
	goesOn(t, "batch", program)
	close(release)
	<-done
}

// No issuer is asked about a token before the streams of people who signed out are cut. Streams that have a
// token beside the session, as pages of APIs send it, are checked with other tokens.
func TestEndOfSessionsWaitsForNoIssuer(t *testing.T) {
	v := openVault(t, plan{routes: `
  - {host: models.test, upstream: '%s', callers: login/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /both, strip: /both, upstream: '%s', callers: [login/corp, issuer/opaque], rules: [{allow: "*"}]}
`, handler: streams(func(string) {})})
	claims := v.opaque.Claims("device", "models.predict")
	claims["exp"] = v.clock.now().Add(time.Hour).Unix()
	v.opaque.Know("0paque", claims)
	alice, bob, carol := v.browser(false), v.browser(false), v.browser(false)
	with := func(cookie string) string { return cookie + "\r\nAuthorization: Bearer 0paque" }
	v.provider.Person("alice", nil)
	slow := v.stream("/both/events", "alice", with(alice.signInWith("corp")))
	v.provider.Person("bob", nil)
	mine := v.stream("/events", "bob", bob.signInWith("corp"))
	v.provider.Person("carol", nil)
	ended := v.stream("/both/events", "carol", with(carol.signInWith("corp")))
	v.clock.ahead.Add(int64(5 * time.Minute))
	var asked atomic.Int64
	v.opaque.AnswerLookUps(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	for _, b := range []*browser{bob, carol} {
		b.request("POST", login.SignOutPath, "", map[string]string{"Sec-Fetch-Site": "same-origin"})
	}
	if n := v.gateway.RevisitSessions(t.Context()); n != 1 || asked.Load() != 0 {
		t.Errorf("%d streams are cut, and the issuer was asked %d times; want 1 and 0", n, asked.Load())
	}
	if _, err := io.Copy(io.Discard, mine.in); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("bob's stream stays open")
	}
	if n := v.gateway.Revisit(t.Context()); n != 1 || asked.Load() == 0 {
		t.Errorf("%d streams are cut, and the issuer was asked %d times; want 1, and some", n, asked.Load())
	}
	if _, err := io.Copy(io.Discard, ended.in); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("carol's stream stays open")
	}
	if err := slow.goesOn(); err != nil {
		t.Errorf("alice's stream: %v", err)
	}
}

// A page that uses only a WebSocket gets no answer that could bring a new cookie. It gets that when its scripts
// ask for the session.
func TestSessionOfSocketIsRenewedByAsking(t *testing.T) {
	clock := &shiftedClock{}
	l := openLobby(t, plan{options: proxy.Options{Now: clock.now}, handler: streams(func(string) {})})
	l.provider.Change(func(claims map[string]any) { claims["exp"] = clock.now().Add(time.Hour).Unix() }, func(answer map[string]any) { delete(answer, "refresh_token") })
	b := l.browser(false)
	s := l.stream("/socket", "alice", b.signIn())
	ask := func(method string) []*http.Cookie {
		t.Helper()
		r := b.request(method, login.SessionPath, "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
		if r.StatusCode != 200 {
			t.Fatalf("%s: %d %s", method, r.StatusCode, r.body)
		}
		return r.Cookies()
	}
	for range 3 {
		if got := ask("GET"); len(got) > 0 {
			t.Errorf("%d cookies are set that bring nothing new", len(got))
		}
		clock.ahead.Add(int64(40 * time.Minute)) // two are longer than the session lasts without use
		l.gateway.RevisitSessions(t.Context())
		if err := s.goesOn(); err != nil {
			t.Fatal(err)
		}
		if got := ask("HEAD"); len(got) == 0 || got[0].Name != "__Host-sallyport" || got[0].MaxAge <= 0 {
			t.Errorf("the socket is used, and asking sets %d cookies", len(got))
		}
	}
	s.conn.Close()
}
