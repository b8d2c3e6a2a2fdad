package login_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
)

// TestVictimIsNotLoggedInAsAttacker brings the attacker's answer into the browser of a victim, alone
// and beside an attempt of the victim's own.
func TestVictimIsNotLoggedInAsAttacker(t *testing.T) {
	d := newDesk(t)
	attacker, victim, busy := d.browser(), d.browser(), d.browser()
	d.provider.Person("mallory", nil)
	answer := attacker.visit(attacker.begin("/"))
	d.provider.Person("alice", nil)
	own := busy.begin("/page")
	for name, b := range map[string]*browser{"no attempt": victim, "another attempt": busy} {
		_, err := b.finish(answer)
		wantReason(t, name, err, login.StateMismatch)
		b.refused("no_credential")
	}
	// The cookie under the name that the attacker's state demands does not open it either.
	state, _ := url.ParseQuery(answer)
	for name, value := range busy.cookies {
		victim.cookies["__Host-sallyport-login."+state.Get("state")[len("corp."):][:8]] = value
		_ = name
	}
	_, err := victim.finish(answer)
	wantReason(t, "renamed cookie", err, login.StateMismatch)
	victim.refused("no_credential")
	if _, err := busy.finish(busy.visit(own)); err != nil {
		t.Error(err)
	}
	busy.serves("issuer/corp:alice")
	if n := d.provider.Exchanges(); n != 1 {
		t.Errorf("%d codes were redeemed", n)
	}
}

// TestStolenCodeIsUseless puts the code of a victim into the attacker's answer: PKCE and, where the
// issuer ignores that, the nonce refuse it.
func TestStolenCodeIsUseless(t *testing.T) {
	d := newDesk(t)
	attacker, victim := d.browser(), d.browser()
	stolen, _ := url.ParseQuery(victim.visit(victim.begin("/")))
	d.provider.Person("mallory", nil)
	own, _ := url.ParseQuery(attacker.visit(attacker.begin("/")))
	own.Set("code", stolen.Get("code"))
	_, err := attacker.finish(own.Encode())
	wantReason(t, "PKCE", err, login.StateMismatch)
	attacker.refused("no_credential")

	d.provider.Change(func(claims map[string]any) { claims["nonce"] = "of another login" }, nil)
	_, err = attacker.finish(attacker.visit(attacker.begin("/")))
	wantReason(t, "nonce", err, login.BadTokens)
	attacker.refused("no_credential")
}

// TestAnswerIsUsedOnce replays an answer with all cookies of its attempt.
func TestAnswerIsUsedOnce(t *testing.T) {
	d := newDesk(t)
	b, thief := d.browser(), d.browser()
	answer := b.visit(b.begin("/"))
	for name, value := range b.cookies {
		thief.cookies[name] = value
	}
	if _, err := b.finish(answer); err != nil {
		t.Fatal(err)
	}
	_, err := thief.finish(answer)
	wantReason(t, "thief", err, login.StateMismatch)
	_, err = b.finish(answer)
	wantReason(t, "again", err, login.StateMismatch)
	b.serves("issuer/corp:alice")
	d.reload()
	thief.cookies = map[string]string{}
	_, err = thief.finish(answer)
	wantReason(t, "after a reload", err, login.StateMismatch)
	if n := d.provider.Exchanges(); n != 1 {
		t.Errorf("%d codes were redeemed", n)
	}
}

func TestBadAnswersAreRefused(t *testing.T) {
	d := newDesk(t)
	for name, x := range map[string]struct {
		change func(url.Values)
		reason string
	}{
		"iss of another issuer":    {func(q url.Values) { q.Set("iss", "https://evil.example") }, login.WrongIssuer},
		"no iss though promised":   {func(q url.Values) { q.Del("iss") }, login.WrongIssuer},
		"error of another issuer":  {func(q url.Values) { q.Set("iss", "https://evil.example"); q.Set("error", "access_denied") }, login.WrongIssuer},
		"two states":               {func(q url.Values) { q.Add("state", q.Get("state")) }, login.StateMismatch},
		"two codes":                {func(q url.Values) { q.Add("code", "x") }, login.StateMismatch},
		"no state":                 {func(q url.Values) { q.Del("state") }, login.StateMismatch},
		"state of another login":   {func(q url.Values) { q.Set("state", "evil"+q.Get("state")) }, login.StateMismatch},
		"a state in two lines":     {func(q url.Values) { q.Set("state", q.Get("state")[:12]+"\r\n"+q.Get("state")[12:]) }, login.StateMismatch},
		"cut state":                {func(q url.Values) { q.Set("state", q.Get("state")[:12]) }, login.StateMismatch},
		"denied":                   {func(q url.Values) { q.Del("code"); q.Set("error", "access_denied\r\nX: y") }, login.Refused},
		"issuer in trouble":        {func(q url.Values) { q.Del("code"); q.Set("error", "server_error") }, login.Unavailable},
		"neither code nor error":   {func(q url.Values) { q.Del("code") }, login.Refused},
		"code of nobody":           {func(q url.Values) { q.Set("code", "guess") }, login.StateMismatch},
		"an answer without an end": {func(q url.Values) { q.Set("x", strings.Repeat("x", 20<<10)) }, login.StateMismatch},
	} {
		b := d.browser()
		q, _ := url.ParseQuery(b.visit(b.begin("/")))
		x.change(q)
		_, err := b.finish(q.Encode())
		wantReason(t, name, err, x.reason)
		if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%s: the cause has a line break", name)
		}
		b.refused("no_credential")
	}
	b := d.browser()
	answer := b.visit(b.begin("/"))
	for name, x := range map[string]struct {
		from  login.Answer
		cause string // the issuer's refusal of the code has the same reason
	}{
		"another host":   {login.Answer{Host: "other.example", Origin: origin, Query: answer, Cookie: b.field()}, "the cookie of the attempt: "},
		"another origin": {login.Answer{Host: host, Origin: origin + ":8443", Query: answer, Cookie: b.field()}, "the login began at another origin"},
		"cookie twice":   {login.Answer{Host: host, Origin: origin, Query: answer, Cookie: b.field() + "; " + b.field()}, "two cookies have the name"},
	} {
		_, err := d.login.Finish(t.Context(), x.from)
		wantReason(t, name, err, login.StateMismatch)
		if err != nil && !strings.Contains(err.Error(), x.cause) {
			t.Errorf("%s: the cause is %v, want %s", name, err, x.cause)
		}
	}
	d.clock.Add(11 * time.Minute)
	_, err := b.finish(answer)
	wantReason(t, "too late", err, login.AttemptExpired)
}

// TestCookiesThatAreNotOursAreRefused changes the cookie of a session in every way that an attacker can.
func TestCookiesThatAreNotOursAreRefused(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	b.signIn()
	b.serves("issuer/corp:alice")
	const name = "__Host-sallyport"
	good := b.cookies[name]
	flipped := []byte(good)
	flipped[len(good)/2] ^= 1
	for what, value := range map[string]string{
		"cut": good[:len(good)-7], "enlarged": good + "AAAA", "flipped": string(flipped), "empty": "", "number alone": "1.", "more parts": "2" + good[1:], "parts beyond": "9" + good[1:],
		"no base64": "1.!!!!", "line break": good[:20] + "\n" + good[20:], "old form": good[2:], "huge": "1." + strings.Repeat("A", 9000), "only a key id": "1." + good[2:8],
	} {
		b.cookies[name] = value
		_, err := b.ask()
		wantReason(t, what, err, login.BadSession)
		if err != nil && len(value) > 30 && strings.Contains(err.Error(), value[2:30]) {
			t.Errorf("%s: the error repeats the cookie", what)
		}
	}
	b.cookies[name] = good
	if _, err := b.at("other.example"); reasonOf(err) != login.BadSession {
		t.Errorf("another host: %v", err)
	}
	b.serves("issuer/corp:alice")
}

// TestTossedCookieIsRefused adds a second cookie of the name, before and behind the person's own.
func TestTossedCookieIsRefused(t *testing.T) {
	d := newDesk(t)
	victim, attacker := d.browser(), d.browser()
	victim.signIn()
	d.provider.Person("mallory", nil)
	attacker.signIn()
	for _, field := range []string{victim.field() + "; " + attacker.field(), attacker.field() + ";" + victim.field(), victim.field() + "; " + victim.field(), "__Host-sallyport.1=x; " + victim.field() + ";__Host-sallyport.1=y"} {
		_, err := d.chain.Authenticate(t.Context(), request(host, field))
		wantReason(t, "two cookies", err, login.BadSession)
		if e := loginError(t, err); e.Again() {
			t.Error("a browser would sign in for ever")
		}
	}
	// Names that only look alike do not count.
	if p, err := d.chain.Authenticate(t.Context(), request(host, "__host-sallyport=x; sallyport=y; "+victim.field()+"; __Host-sallyport.9=z")); err != nil || p.Caller.Name != "alice" {
		t.Errorf("got %q, %v", p.Caller.String(), err)
	}
}

// TestSignedOutSessionIsNotReplayed keeps the cookie of a session that ended, also over a reload.
func TestSignedOutSessionIsNotReplayed(t *testing.T) {
	for _, memory := range []bool{false, true} {
		d := newDesk(t, func(d *desk) { d.config.Memory = memory })
		b, thief, other := d.browser(), d.browser(), d.browser()
		s := b.signIn()
		other.signIn()
		thief.take([]string{"__Host-sallyport=" + b.cookies["__Host-sallyport"] + "; Path=/; HttpOnly; Secure; SameSite=Lax"})
		thief.serves("issuer/corp:alice")
		r, err := d.login.End(t.Context(), s, login.Answer{Host: host, Origin: origin, Cookie: b.field()})
		if err != nil {
			t.Fatal(err)
		}
		b.take(r.Cookies)
		_, query, _ := strings.Cut(r.Location, "?")
		r = d.login.Leave(login.Answer{Host: host, Origin: origin, Query: query, Cookie: b.field()})
		b.take(r.Cookies)
		to, err := url.Parse(r.Location)
		if err != nil || !strings.HasPrefix(r.Location, d.issuer.URL+"/logout?") || to.Query().Get("post_logout_redirect_uri") != origin+login.SignedOutPath || to.Query().Get("client_id") != "gateway" || to.Query().Get("id_token_hint") == "" {
			t.Errorf("the browser goes to %s", r.Location)
		}
		if len(b.cookies) > 0 {
			t.Errorf("cookies are left: %v", b.cookies)
		}
		b.refused("no_credential")
		thief.refused(login.SessionEnded)
		d.reload()
		thief.refused(login.SessionEnded)
		other.serves("issuer/corp:alice")
	}
}

// TestWayToTheIssuersSignOutEndsSoon keeps the location and the cookie of a sign-out. For a minute they lead to
// the issuer, with the person's ID token, and after that nowhere, whatever the browser keeps.
func TestWayToTheIssuersSignOutEndsSoon(t *testing.T) {
	d := newDesk(t)
	b := d.browser()
	r, err := d.login.End(t.Context(), b.signIn(), login.Answer{Host: host, Origin: origin, Cookie: b.field()})
	if err != nil {
		t.Fatal(err)
	}
	b.take(r.Cookies)
	_, query, _ := strings.Cut(r.Location, "?")
	leave := func(cookie string) string {
		to, _, _ := strings.Cut(d.login.Leave(login.Answer{Host: host, Origin: origin, Query: query, Cookie: cookie}).Location, "?")
		return to
	}
	kept := b.field()
	d.clock.Add(59 * time.Second)
	if to := leave(kept); to != d.issuer.URL+"/logout" {
		t.Errorf("within a minute the browser goes to %s", to)
	}
	if to := leave(""); to != login.SignedOutPath {
		t.Errorf("a browser without the cookie goes to %s", to)
	}
	d.clock.Add(time.Second)
	if to := leave(kept); to != login.SignedOutPath {
		t.Errorf("after a minute the browser goes to %s", to)
	}
}

// TestRetiredKeyOpensNothing replaces the key, with overlap and without.
func TestRetiredKeyOpensNothing(t *testing.T) {
	older, newer := login.NewKey(), login.NewKey()
	keys := func(text string) *login.Keys {
		k, err := login.ParseKeys([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	d := newDesk(t, func(d *desk) { d.config.Keys = keys(older) })
	b := d.browser()
	b.signIn()
	d.config.Keys = keys(newer + "\n" + older)
	d.reload()
	b.serves("issuer/corp:alice")
	d.config.Keys = keys(newer)
	d.reload()
	b.refused(login.BadSession)
	b.signIn()
	b.serves("issuer/corp:alice")
}

// TestBegunLoginsCostNothing begins ten thousand logins that nobody ends.
func TestBegunLoginsCostNothing(t *testing.T) {
	d := newDesk(t)
	honest := d.browser()
	page := honest.begin("/mine")
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for range 10_000 {
		if _, err := d.login.Begin(t.Context(), login.Attempt{Host: host, Origin: origin, To: "/"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := heap() - before; n > 1<<20 {
		t.Errorf("they take %d bytes", n)
	}
	f, err := honest.finish(honest.visit(page))
	if err != nil || f.Location != "/mine" {
		t.Errorf("got %q, %v", f.Location, err)
	}
	if n := d.issuer.Discoveries(); n > 2 {
		t.Errorf("%d discovery documents were fetched", n)
	}
}

// TestBrowserKeepsFewAttempts begins logins in many tabs, for short pages and for the longest. The last ones can
// be finished; the others say to which page the person wanted.
func TestBrowserKeepsFewAttempts(t *testing.T) {
	for name, c := range map[string]struct {
		page       string
		kept, size int
		leadsBack  bool
	}{
		"short pages":  {"/a", 24, 7 << 10, true},
		"medium pages": {"/" + strings.Repeat("m", 300), 10, 7 << 10, false},
		"long pages":   {"/" + strings.Repeat("l", 2000), 4, 13 << 10, false},
	} {
		d := newDesk(t)
		b := d.browser()
		var pages []string
		const tabs = 30
		for i := range tabs {
			pages = append(pages, b.begin(fmt.Sprint(c.page, i)))
			d.clock.Add(time.Second)
			size := 0
			for name, value := range b.cookies {
				size += len(name) + len(value)
			}
			if size > c.size {
				t.Errorf("%s: the cookies have %d bytes after %d tabs", name, size, i)
			}
		}
		if len(b.cookies) != c.kept {
			t.Errorf("%s: the browser has %d cookies", name, len(b.cookies))
		}
		for i, page := range pages {
			done, err := b.finish(b.visit(page))
			wanted := fmt.Sprint(c.page, i)
			if err != nil && !c.leadsBack {
				wanted = "/"
			}
			if (err == nil) != (i >= tabs-c.kept) || done.Location != wanted {
				t.Errorf("%s, attempt %d: to %s, %v", name, i, done.Location, err)
			}
		}
	}
}

// TestTokenEndpointRepeatsSecrets lets the token endpoint repeat what it was sent as its error code. Neither a
// record nor the log may have that.
func TestTokenEndpointRepeatsSecrets(t *testing.T) {
	var log bytes.Buffer
	var ended []error
	d := newDesk(t, func(d *desk) {
		d.memory = auth.NewMemory(auth.MemoryOptions{Now: d.clock.Now, Log: slog.New(slog.NewTextHandler(&log, nil)), SessionEnded: func(e login.Ended) { ended = append(ended, e.Cause) }})
	})
	b, victim := d.browser(), d.browser()
	b.signIn()
	var sent []string
	repeat := func(parameter string) {
		d.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent = append(sent, r.FormValue(parameter))
			says(http.StatusBadRequest, r.FormValue(parameter)).ServeHTTP(w, r)
		}))
	}
	repeat("refresh_token")
	d.clock.Add(4 * time.Minute)
	b.afterRefresh("repeated", func(_ []string, err error) bool { return reasonOf(err) == login.SessionEnded })
	answer := victim.visit(victim.begin("/"))
	for _, parameter := range []string{"code", "code_verifier"} {
		repeat(parameter)
		_, err := victim.finish(answer)
		ended = append(ended, err)
		answer = victim.visit(victim.begin("/"))
	}
	if len(sent) != 3 || len(ended) != 3 {
		t.Fatalf("%d secrets were repeated, and %d refused", len(sent), len(ended))
	}
	for i, secret := range sent {
		if text := log.String() + fmt.Sprint(ended); len(secret) < 8 || strings.Contains(text, secret) {
			t.Errorf("secret %d of %d bytes is in %s", i, len(secret), text)
		}
	}
	d.provider.AnswerTokens(nil)
	victim.signIn()
	victim.serves("issuer/corp:alice")
}

// TestFloodOfCodesReachesIssuerInTurns brings made-up codes while the issuer is slow. It gets 64 at once,
// and a person whose turn comes later gets in.
func TestFloodOfCodesReachesIssuerInTurns(t *testing.T) {
	d := newDesk(t)
	var running, most atomic.Int64
	release, full := make(chan struct{}), make(chan struct{})
	noteFull := sync.OnceFunc(func() { close(full) }) // those whose turn comes later may be 64 again
	d.provider.AnswerTokens(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := running.Add(1); n == 64 {
			noteFull()
		} else if n > 64 {
			most.Store(n)
		}
		<-release
		running.Add(-1)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
	}))
	var answers []login.Answer
	for range 100 {
		b := d.browser()
		q, _ := url.ParseQuery(b.visit(b.begin("/")))
		q.Set("code", "made up")
		answers = append(answers, login.Answer{Host: host, Origin: origin, Query: q.Encode(), Cookie: b.field()})
	}
	honest := d.browser()
	answer := honest.visit(honest.begin("/"))
	var flood sync.WaitGroup
	for _, a := range answers {
		flood.Go(func() {
			_, err := d.login.Finish(context.Background(), a)
			if reasonOf(err) != login.StateMismatch {
				t.Error(err)
			}
		})
	}
	<-full
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.login.Finish(gone, login.Answer{Host: host, Origin: origin, Query: answer, Cookie: honest.field()})
	wantReason(t, "client has gone", err, login.Unavailable)
	close(release)
	flood.Wait()
	d.provider.AnswerTokens(nil)
	if _, err := honest.finish(answer); err != nil {
		t.Error(err)
	}
	if most.Load() > 0 {
		t.Errorf("%d codes reached the issuer at once", most.Load())
	}
}
