// Package login has what signs a person at a terminal in at an OAuth 2.0 issuer: the listener that
// gets the answer from the browser (RFC 8252), the device flow (RFC 8628), and the cache of tokens.
package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// DefaultRedirect is the redirect URI of a client. Its port is chosen at each login, and issuers
// accept any (RFC 8252, section 7.3).
const DefaultRedirect = "http://127.0.0.1/callback"

// Limits of the listener, which every user of the machine can reach.
const (
	maxConnections = 256
	maxHead        = 32 << 10 // bytes
	requestTime    = 5 * time.Second
	goodbyeTime    = time.Second // for the last page
)

// Answer is what an issuer said through the browser: a code, or an error.
type Answer struct {
	Code               string
	Error, Description string // RFC 6749, section 4.1.2.1
}

// Listener receives the answer of one login on loopback. Close it.
type Listener struct {
	// Issuer is what a parameter iss of the answer must be. With IssuerRequired there must be
	// one (RFC 9207). Set both before Serve.
	Issuer         string
	IssuerRequired bool

	redirect *url.URL // with its port
	state    string
	begin    string // path that leads to the issuer, once

	listener net.Listener
	server   *http.Server
	target   string // the issuer's page
	begun    atomic.Bool
	answered atomic.Bool
	answer   chan result
}

type result struct {
	answer Answer
	err    error
}

// ParseRedirect reads a redirect URI, which must be on loopback.
func ParseRedirect(uri string) (*url.URL, error) {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
	case !slices.Contains([]string{"127.0.0.1", "::1", "localhost"}, u.Hostname()):
	default:
		if port, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || port == 0) {
			break
		}
		return u, nil
	}
	return nil, fmt.Errorf("%q: want http, 127.0.0.1, [::1] or localhost, and a path, such as %s; a port only where the issuer wants always the same", uri, DefaultRedirect)
}

// Listen listens at a redirect URI of [ParseRedirect], without a port at any that is free.
func Listen(redirect *url.URL) (*Listener, error) {
	host, port := redirect.Hostname(), redirect.Port()
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "0"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("waiting for the browser: %w; if another program has the port, end it, or give --redirect without a port", err)
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	at := *redirect
	at.Host = net.JoinHostPort(redirect.Hostname(), port)
	if at.Path == "" {
		at.Path = "/"
	}
	return &Listener{redirect: &at, state: rand.Text(), begin: "/begin/" + rand.Text(), listener: l, answer: make(chan result, 1)}, nil
}

// RedirectURI is where the issuer is to send the browser.
func (l *Listener) RedirectURI() string { return l.redirect.String() }

// State is the parameter that only an answer to this login has.
func (l *Listener) State() string { return l.state }

// Serve begins to answer. It returns a URL for the command that opens the browser, which leads once
// to the issuer's page: other users can read the arguments of commands, and must not learn the state.
func (l *Listener) Serve(page string) (begin string) {
	l.target = page
	l.server = &http.Server{
		Handler:           l,
		ReadHeaderTimeout: requestTime, ReadTimeout: requestTime, WriteTimeout: requestTime,
		MaxHeaderBytes: maxHead,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	l.server.SetKeepAlivesEnabled(false)
	go func() { _ = l.server.Serve(netutil.LimitListener(l.listener, maxConnections)) }() // ends with Close
	return "http://" + l.redirect.Host + l.begin
}

// Wait returns the one answer to this login.
func (l *Listener) Wait(ctx context.Context) (Answer, error) {
	select {
	case r := <-l.answer:
		return r.answer, r.err
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// Close ends the listener, after the page that a browser is being sent.
func (l *Listener) Close() {
	if l.server == nil {
		_ = l.listener.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		_ = l.server.Close()
	}
}

// ServeHTTP implements http.Handler.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Host != l.redirect.Host: // another name for this address is DNS rebinding
		show(w, http.StatusMisdirectedRequest, wrongPlace)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		show(w, http.StatusMethodNotAllowed, wrongPlace)
	case subtle.ConstantTimeCompare([]byte(r.URL.Path), []byte(l.begin)) == 1:
		if !l.begun.CompareAndSwap(false, true) {
			// One of the two is not the person, and could sign in as somebody else.
			if l.answered.CompareAndSwap(false, true) {
				l.answer <- result{err: errors.New("the link for the browser was opened twice: another user of this machine may have seen it; nobody was signed in")}
			}
			show(w, http.StatusGone, alreadyBegun)
			return
		}
		secure(w)
		w.Header().Set("Location", l.target)
		w.WriteHeader(http.StatusSeeOther)
	case r.URL.Path != l.redirect.Path:
		show(w, http.StatusNotFound, wrongPlace)
	default:
		l.receive(w, r)
	}
}

// receive takes the answer. Without the state of this login it changes nothing, so that nobody else
// can end the login.
func (l *Listener) receive(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	for _, values := range q {
		if len(values) > 1 { // RFC 6749, section 3.1
			err = errors.New("a parameter is repeated")
		}
	}
	switch {
	case err != nil || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(l.state)) != 1:
		show(w, http.StatusBadRequest, foreign)
		return
	case !l.answered.CompareAndSwap(false, true):
		show(w, http.StatusGone, alreadyAnswered)
		return
	}
	got := result{answer: Answer{Code: q.Get("code"), Error: q.Get("error"), Description: q.Get("error_description")}}
	switch {
	case q.Has("iss") && q.Get("iss") != l.Issuer:
		got = result{err: fmt.Errorf("the answer came from another issuer, %s: this may be an attack (RFC 9207); the code was not used", shown(q.Get("iss")))}
	case l.IssuerRequired && !q.Has("iss"):
		got = result{err: errors.New("the answer does not say which issuer it is from (iss, RFC 9207), although this issuer always does: this may be an attack; the code was not used")}
	case got.answer.Error == "" && got.answer.Code == "":
		got = result{err: errors.New("the answer has neither a code nor an error: is this an OAuth 2.0 issuer?")}
	}
	if got.err != nil || got.answer.Error != "" {
		show(w, http.StatusOK, notSignedIn)
	} else {
		show(w, http.StatusOK, received)
	}
	l.answer <- got
}

// shown returns foreign text in quotes, cut and without control characters.
func shown(s string) string {
	const most = 200
	return strconv.QuoteToASCII(s[:min(len(s), most)])
}
