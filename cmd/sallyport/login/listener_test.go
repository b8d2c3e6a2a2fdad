package login

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

const testIssuer = "https://login.example.com"

// listening starts a listener for one login.
func listening(t *testing.T) *Listener {
	t.Helper()
	redirect, err := ParseRedirect(DefaultRedirect)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(redirect)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	l.Issuer = testIssuer
	l.Serve(testIssuer + "/authorize?state=" + l.State())
	return l
}

// send makes a request that follows no redirect.
func send(t *testing.T, method, address, host string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func (l *Listener) with(query string) string {
	return l.RedirectURI() + "?" + strings.ReplaceAll(query, "STATE", l.State())
}

// Another user of the machine finds the port, and not the state. The person beside still signs in.
func TestAnswersOfOthersDoNotEndTheLogin(t *testing.T) {
	l := listening(t)
	at := l.redirect.Host
	for _, c := range []struct {
		name, method, url, host string
		status                  int
	}{
		{"no state", "GET", l.with("code=evil"), "", 400},
		{"guessed state", "GET", l.with("code=evil&state=AAAAAAAAAAAAAAAAAAAAAAAAAA"), "", 400},
		{"longer state", "GET", l.with("code=evil&state=STATEA"), "", 400},
		{"error without state", "GET", l.with("error=access_denied"), "", 400},
		{"state twice", "GET", l.with("code=evil&state=STATE&state=STATE"), "", 400},
		{"code twice", "GET", l.with("code=evil&code=good&state=STATE"), "", 400},
		{"broken query", "GET", l.with("code=%zz&state=STATE"), "", 400},
		{"form", "POST", l.with("code=evil&state=STATE"), "", 405},
		{"another host, by DNS rebinding", "GET", l.with("code=evil&state=STATE"), "evil.example", 421},
		{"another port in Host", "GET", l.with("code=evil&state=STATE"), "127.0.0.1:1", 421},
		{"localhost in Host", "GET", l.with("code=evil&state=STATE"), strings.Replace(at, "127.0.0.1", "localhost", 1), 421},
		{"another path", "GET", "http://" + at + "/?code=evil&state=" + l.State(), "", 404},
		{"guessed begin", "GET", "http://" + at + "/begin/AAAAAAAAAAAAAAAAAAAAAAAAAA", "", 404},
	} {
		res, text := send(t, c.method, c.url, c.host)
		if res.StatusCode != c.status || strings.Contains(text, "evil") || strings.Contains(text, l.State()) {
			t.Errorf("%s: %d %s, want %d", c.name, res.StatusCode, text, c.status)
		}
	}
	if res, _ := send(t, "GET", l.with("code=good&state=STATE&iss="+url.QueryEscape(testIssuer)), ""); res.StatusCode != 200 {
		t.Errorf("the person: %d", res.StatusCode)
	}
	if a, err := l.Wait(t.Context()); a.Code != "good" || err != nil {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestOnlyFirstAnswerCounts(t *testing.T) {
	l := listening(t)
	statuses := make(chan int, 20)
	var all sync.WaitGroup
	for i := range cap(statuses) {
		all.Go(func() {
			res, _ := send(t, "GET", l.with(fmt.Sprintf("code=c%d&state=STATE", i)), "")
			statuses <- res.StatusCode
		})
	}
	all.Wait()
	close(statuses)
	counts := map[int]int{}
	for s := range statuses {
		counts[s]++
	}
	if counts[200] != 1 || counts[410] != 19 {
		t.Errorf("statuses %v, want one 200", counts)
	}
	if a, err := l.Wait(t.Context()); err != nil || !strings.HasPrefix(a.Code, "c") {
		t.Errorf("got %+v, %v", a, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if a, err := l.Wait(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a second answer: %+v, %v", a, err)
	}
}

func TestAnswerOfAnotherIssuerIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, query string
		required    bool
		want        string // of the error; "": none
	}{
		{"its issuer", "code=c&state=STATE&iss=https://login.example.com", true, ""},
		{"no iss, and none is due", "code=c&state=STATE", false, ""},
		{"no iss, and one is due", "code=c&state=STATE", true, "does not say which issuer"},
		{"another", "code=c&state=STATE&iss=https://evil.example%1b[31m", false, `another issuer, "https://evil.example\x1b[31m"`},
		{"another, with an error", "error=access_denied&state=STATE&iss=https://evil.example", false, "another issuer"},
		{"empty", "code=c&state=STATE&iss=", false, "another issuer"},
		{"neither code nor error", "state=STATE", false, "neither a code nor an error"},
	} {
		l := listening(t)
		l.IssuerRequired = c.required
		_, text := send(t, "GET", l.with(c.query), "")
		a, err := l.Wait(t.Context())
		switch {
		case c.want == "" && (err != nil || a.Code != "c" || !strings.Contains(text, "Back to the terminal")):
			t.Errorf("%s: %+v, %v", c.name, a, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || a.Code != "" || !strings.Contains(text, "Not signed in")):
			t.Errorf("%s: got %+v, %v, want %q", c.name, a, err, c.want)
		}
	}
}

func TestErrorOfTheIssuerIsTheAnswer(t *testing.T) {
	l := listening(t)
	_, text := send(t, "GET", l.with("error=access_denied&error_description=%3Cscript%3E&state=STATE"), "")
	a, err := l.Wait(t.Context())
	if err != nil || a.Error != "access_denied" || a.Description != "<script>" || strings.Contains(text, "script") {
		t.Errorf("%+v, %v, page %s", a, err, text)
	}
}

func TestAnswerThatNeverComesEndsTheWait(t *testing.T) {
	l := listening(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	at := l.redirect.Host
	l.Close()
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// A connection that says nothing must neither keep others from answering nor the command from ending.
func TestSilentConnectionsHoldNobody(t *testing.T) {
	l := listening(t)
	for range 20 {
		c, err := net.Dial("tcp", l.redirect.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /callb")
	}
	if res, _ := send(t, "GET", l.with("code=good&state=STATE"), ""); res.StatusCode != 200 {
		t.Errorf("the person: %d", res.StatusCode)
	}
	if a, err := l.Wait(t.Context()); a.Code != "good" || err != nil {
		t.Errorf("got %+v, %v", a, err)
	}
	l.Close()
}

func TestLargeHeadIsRefused(t *testing.T) {
	l := listening(t)
	c, err := net.Dial("tcp", l.redirect.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() { _, _ = fmt.Fprintf(c, "GET /callback?code=%s HTTP/1.1\r\n\r\n", strings.Repeat("a", 1<<20)) }()
	if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && !strings.Contains(line, " 431 ") {
		t.Errorf("got %q", line)
	}
}

// The first who opens the begin link gets to the issuer. If there is a second, one of them may want to
// sign the person in as somebody else, so nobody is signed in.
func TestBeginLeadsToTheIssuerOnce(t *testing.T) {
	redirect, _ := ParseRedirect(DefaultRedirect)
	l, err := Listen(redirect)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	page := testIssuer + "/authorize?state=" + l.State()
	begin := l.Serve(page)
	if strings.Contains(begin, l.State()) {
		t.Errorf("%s shows the state", begin)
	}
	if res, _ := send(t, "GET", begin, ""); res.StatusCode != 303 || res.Header.Get("Location") != page || res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if res, text := send(t, "GET", begin, ""); res.StatusCode != 410 || res.Header.Get("Location") != "" || strings.Contains(text, l.State()) {
		t.Errorf("again: %d %v %s", res.StatusCode, res.Header, text)
	}
	if res, _ := send(t, "GET", l.with("code=evil&state=STATE"), ""); res.StatusCode != 410 {
		t.Errorf("an answer afterwards: %d", res.StatusCode)
	}
	if a, err := l.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "opened twice") {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestPagesRunNothingAndStayNowhere(t *testing.T) {
	l := listening(t)
	res, text := send(t, "GET", l.with("code=c&state=x"), "")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Content-Type": "text/html; charset=utf-8", "Connection": "close",
	} {
		if got := res.Header.Get(name); !strings.HasPrefix(got, want) && !(name == "Connection" && res.Close) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if strings.Contains(text, "<script") || res.Header.Get("Set-Cookie") != "" || res.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v %s", res.Header, text)
	}
}

func TestRedirectMustBeOnLoopback(t *testing.T) {
	for uri, ok := range map[string]bool{
		"http://127.0.0.1/callback": true, "http://127.0.0.1": true, "http://[::1]:8400/cb": true, "http://localhost:8400/": true,
		"https://127.0.0.1/": false, "http://192.0.2.1/": false, "http://localhost.evil.example/": false, "http://127.0.0.1:0/": false,
		"http://127.0.0.1:99999/": false, "http://a@127.0.0.1/": false, "http://127.0.0.1/?x=y": false, "http://127.0.0.1/#x": false, "": false, "http:127.0.0.1": false,
	} {
		if _, err := ParseRedirect(uri); (err == nil) != ok {
			t.Errorf("%q: %v", uri, err)
		}
	}
}

func TestPortOfAnotherProgramIsRefused(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	redirect, err := ParseRedirect("http://" + other.Addr().String() + "/callback")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(redirect); err == nil || !strings.Contains(err.Error(), "give --redirect without a port") {
		t.Errorf("%v", err)
	}
}
