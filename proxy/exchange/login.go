package exchange

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/proxy/audit"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/pages"
	"sallyport/proxy/setting"
)

// Logins is what exchanges need to sign people in. It is immutable.
type Logins struct {
	// Login returns a login by its name; nil if there is none.
	Login func(name string) *login.Login
	// BackChannel ends the sessions that a logout token names (OpenID Connect Back-Channel Logout).
	BackChannel func(ctx context.Context, r *auth.Request, token string) (login.LoggedOut, error)
	Titles      map[string]string // of logins, by their names, for people
	Pages       *pages.Pages
}

const (
	// maxLogoutToken is the longest content of a back-channel logout, in bytes.
	maxLogoutToken = 32 << 10
	// logoutTokenTime is how long that content may pause.
	logoutTokenTime = 10 * time.Second
)

// boundSignIns refuses an address that begins and finishes too many logins: each may cost a request to
// the issuer. Pictures and frames in pages of other sites and hosts begin none, so that these cannot use up what
// the address of a person may. Nor does a browser that fetches pages ahead.
func (x *exchange) boundSignIns() error {
	f := x.head.Fields
	if ahead := x.fetchedAhead(); ahead != "" {
		return because(reasonAhead, ahead)
	}
	if site := f.Get("sec-fetch-site"); x.isFramed() && (site == "cross-site" || site == "same-site") {
		return because(reasonCrossSite, "Sec-Fetch-Site is "+site+", and Sec-Fetch-Dest is "+setting.Quoted(f.Get("sec-fetch-dest"), 24))
	}
	retry, ok := x.server.SignIns.AllowAddr(x.client)
	if ok {
		return nil
	}
	r := because(reasonRate, "too many logins were begun from "+x.client.WithZone("").String())
	r.retryAfter = retry
	return r
}

// beginLogin sends the browser to the issuer, or lets the person choose between several logins.
func (x *exchange) beginLogin() error {
	l, to, err := x.chooseLogin()
	if l == nil {
		return err
	}
	x.back = to
	if err := x.boundSignIns(); err != nil {
		return err
	}
	x.record.Login = l.Name()
	r, err := l.Begin(x.life, login.Attempt{
		Host: x.head.Host, Origin: x.ownOrigin(), To: to, Cookie: x.head.Fields.Get("cookie"), StepUp: x.demandAt(to),
	})
	if err != nil {
		return err
	}
	x.record.LoginEvent = audit.LoginBegun
	return x.goTo(r)
}

// showSignIn answers like [exchange.beginLogin], but begins no login: a probe that asks every few seconds
// must not keep people of its address from signing in.
func (x *exchange) showSignIn() error {
	if l, _, err := x.chooseLogin(); l == nil {
		return err
	}
	h := message.Response{Status: http.StatusOK}
	x.dressOwn(&h)
	return x.respondHere(&h, nil)
}

// chooseLogin returns the login that sign-in begins here, and the page to return to. The login is nil after an
// answer: the person chooses between several logins, or signs in at another host.
func (x *exchange) chooseLogin() (l *login.Login, to string, err error) {
	asked, _ := url.ParseQuery(x.head.Query) // what cannot be read asks for nothing
	names := slices.DeleteFunc(slices.Clone(x.door.Logins), func(name string) bool { return !slices.Contains(asked["login"], name) })
	if len(names) == 0 {
		names = x.door.Logins
	}
	if len(names) > 1 {
		var choices []pages.Choice
		for _, name := range names {
			to := x.returnPage(x.snapshot.Logins.Login(name), asked.Get("to"))
			choices = append(choices, pages.Choice{Title: x.snapshot.Logins.Titles[name], URL: signInURL(to, name)})
		}
		return nil, "", x.sendPage(x.snapshot.Logins.Pages.SignIn(x.head.Host, choices))
	}
	l = x.snapshot.Logins.Login(names[0])
	to = x.returnPage(l, asked.Get("to"))
	if at := x.signInElsewhere(l, to); at != "" {
		return nil, "", x.goTo(login.Redirect{Location: at})
	}
	return l, to, nil
}

// signInURL returns the path that begins a login by one of these names, and returns to a page.
func signInURL(to string, names ...string) string {
	return login.SignInPath + "?" + url.Values{"to": {to}, "login": names}.Encode()
}

// finishLogin takes the answer of the issuer, and sends the browser to the page that it first asked
// for.
func (x *exchange) finishLogin() error {
	if err := x.boundSignIns(); err != nil {
		return err
	}
	x.record.Login = strings.TrimPrefix(x.head.Path, login.CallbackPath(""))
	l := x.snapshot.Logins.Login(x.record.Login)
	before, _ := x.openSession()
	done, err := l.Finish(x.life, x.doorAnswer())
	done.Location = x.returnPage(l, done.Location) // the routes may have changed
	if err != nil {
		x.cookies, x.back, x.signedIn = done.Cookies, done.Location, before != nil
		return err
	}
	x.replaceSession(before, done.Session, done.Location)
	x.recordSession(done.Session, audit.LoginDone)
	return x.goTo(done.Redirect)
}

// doorAnswer returns what the browser sent to the door.
func (x *exchange) doorAnswer() login.Answer {
	return login.Answer{Host: x.head.Host, Origin: x.ownOrigin(), Query: x.head.Query, Cookie: x.head.Fields.Get("cookie"), Client: limit.Key(x.client)}
}

// recordSession records whose session begins or ends.
func (x *exchange) recordSession(s *login.Session, event string) {
	x.record.LoginEvent = event
	x.record.Login, x.record.SID = s.Login(), s.SID()
	x.recordAuthentication(s.Authentication())
	x.record.Principal, x.record.Credential = s.Principal().String(), "login"
}

// recordAuthentication records how and when the caller was authenticated.
func (x *exchange) recordAuthentication(by login.Authentication) {
	x.record.ACR, x.record.AuthTime = by.Values, by.Time
	if by.Claim != login.ClaimACR && (by.Values != "" || by.Time != 0) {
		x.record.ACRClaim = by.Claim
	}
}

// openSession returns the session of the browser, which it does not use; nil with the reason why there
// is none. The session of somebody who is revoked comes with that reason.
func (x *exchange) openSession() (*login.Session, error) {
	x.asked = x.authRequest()
	x.asked.Look = true
	proof, err := x.door.Chain.Authenticate(x.life, &x.asked)
	return proof.Session, err
}

// offerSignOut shows a page with a form, because a link must not sign anybody out.
func (x *exchange) offerSignOut() error {
	name := ""
	if s, _ := x.openSession(); s != nil {
		name = s.Principal().Name
	}
	return x.sendPage(x.snapshot.Logins.Pages.SignOut(x.head.Host, name, login.SignOutPath, "/"))
}

// signOut ends the session here and, where the issuer offers that, at the issuer.
func (x *exchange) signOut() error {
	if err := x.checkSite(); err != nil {
		return err
	}
	s, refused := x.openSession()
	name, earlier := x.door.Logins[0], error(nil)
	if s != nil {
		x.recordSession(s, audit.LoginSignedOut)
		name = s.Login()
	} else {
		x.record.LoginEvent, x.record.Cause = audit.LoginNoSession, refused.Error()
		earlier = x.endEarlier()
	}
	r, unsaved := x.snapshot.Logins.Login(name).End(x.life, s, x.doorAnswer())
	unsaved = cmp.Or(unsaved, earlier)
	x.cookies, x.leaves = r.Cookies, true
	answer := map[string]any{"signed_out": true, "next": r.Location}
	if unsaved != nil { // the session has ended here, so the person has signed out
		x.record.Cause = unsaved.Error()
		answer["stored"] = false
	}
	switch {
	case !x.wantsPage():
		return x.sendJSON(answer)
	case r.Location == login.SignedOutPath:
		return x.goTo(r)
	}
	// A redirect after a form must not leave the site, by the policy of the page with the form.
	return x.sendPage(x.snapshot.Logins.Pages.Leaving(x.head.Host, r.Location))
}

// endEarlier ends the sessions of the browser that the logins of the host gave while they had other clients.
func (x *exchange) endEarlier() (unsaved error) {
	for _, name := range x.door.Logins {
		s, err := x.snapshot.Logins.Login(name).EndEarlier(x.doorAnswer())
		if s != nil {
			x.recordSession(s, audit.LoginSignedOut)
		}
		unsaved = cmp.Or(unsaved, err)
	}
	return unsaved
}

// leave sends the browser to the issuer's sign-out.
func (x *exchange) leave() error {
	asked, _ := url.ParseQuery(x.head.Query)
	if name := asked.Get("login"); slices.Contains(x.door.Logins, name) {
		return x.goTo(x.snapshot.Logins.Login(name).Leave(x.doorAnswer()))
	}
	return x.goTo(login.Redirect{Location: login.SignedOutPath})
}

// sayGoodbye shows the page after sign-out. People who are still signed in, such as those who followed a
// link to it, are asked whether to sign out, so that nobody believes it is done.
func (x *exchange) sayGoodbye() error {
	if _, err := x.openSession(); err == nil {
		return x.goTo(login.Redirect{Location: login.SignOutPath})
	}
	return x.sendPage(x.snapshot.Logins.Pages.SignedOut(x.head.Host, signInURL("/")))
}

// tellSession tells the page's scripts who is signed in, and when the session ends unless it is used.
// Asking does not count as use, so a page may ask again and again. A page that uses only a WebSocket gets the
// cookies here that no answer brings it.
func (x *exchange) tellSession() error {
	s, err := x.openSession()
	if err != nil {
		return err
	}
	x.cookies = s.Kept(x.server.now())
	p := s.Principal()
	x.record.Principal, x.record.Credential, x.record.Login = p.String(), "login", s.Login()
	groups := p.Groups
	if groups == nil {
		groups = []string{}
	}
	by := s.Authentication()
	acr, authenticated := by.List(), any(nil)
	if acr == nil {
		acr = []string{}
	}
	if by.Time != 0 {
		authenticated = time.Unix(by.Time, 0).UTC().Format(time.RFC3339)
	}
	return x.sendJSON(map[string]any{
		"principal": p.String(), "name": p.Name, "login": s.Login(), "groups": groups, "acr": acr, "authenticated": authenticated,
		"expires": s.Expires().UTC().Format(time.RFC3339), "idle_expires": s.IdleExpires().UTC().Format(time.RFC3339),
	})
}

// endSessions takes a logout token, by which the issuer itself ends sessions. Browsers have none: a page could
// only let failed checks count against the address of whoever visits it.
func (x *exchange) endSessions() error {
	for _, name := range [...]string{"sec-fetch-site", "origin"} {
		if x.head.Fields.Has(name) {
			return because(reasonCrossSite, "a browser sent it: "+name+" is "+setting.Quoted(x.head.Fields.Get(name), 100))
		}
	}
	if media, _, _ := strings.Cut(x.head.Fields.Get("content-type"), ";"); !message.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return because(reasonBadBody, "a logout token comes in a form, and Content-Type is "+setting.Quoted(media, 64))
	}
	body := &countedBody{
		src: x.stream.Body(), now: x.server.now, rate: x.snapshot.BodyRate,
		wait: idleDeadline{idle: logoutTokenTime, name: "fixed", stream: x.stream, clock: x.server.Clock},
	}
	text, err := io.ReadAll(io.LimitReader(body, maxLogoutToken+1))
	x.record.BytesIn = body.n.Load()
	if err != nil {
		return err
	}
	if len(text) > maxLogoutToken {
		return because(reasonBodyTooLarge, over(maxLogoutToken, "fixed"))
	}
	form, err := url.ParseQuery(string(text))
	if err != nil || len(form["logout_token"]) != 1 {
		return because(reasonBadBody, "the form has not one logout_token")
	}
	x.asked = x.authRequest()
	out, err := x.snapshot.Logins.BackChannel(x.life, &x.asked, form.Get("logout_token"))
	if err != nil {
		return err
	}
	x.record.LoginEvent, x.record.Login, x.record.SID, x.record.CredentialID = audit.LoginEnded, out.Login, out.SID, out.ID
	if x.record.Cause = "the session with this sid"; out.SID == "" {
		x.record.Cause = "all sessions of sub " + setting.Quoted(out.Subject, 128)
	}
	return x.respondHere(&message.Response{Status: http.StatusOK, Fields: message.Fields{{Name: "cache-control", Value: "no-store"}}}, nil)
}

// ownOrigin returns the origin of the request's URL, as the browser has it.
func (x *exchange) ownOrigin() string { return "https://" + x.head.Authority }

// isOwn reports whether an origin is that of the request's URL. Without TLS, which sessions always have, the
// page may have been loaded without it too. Some programs (Starscream, in apps for iOS) send the scheme of
// their WebSocket's URL, which no page has.
func (x *exchange) isOwn(origin string) bool {
	return origin == x.ownOrigin() || x.mayTunnel() && origin == "wss://"+x.head.Authority || x.proof.Ambient && x.proof.Session == nil && x.scheme() == "http" && origin == "http://"+x.head.Authority
}

// changes reports whether a page of another site must not send the request in a person's name. Safe methods
// change nothing, but a WebSocket has answers that a page could read.
func (x *exchange) changes() bool {
	switch x.head.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return x.mayTunnel()
	}
	return true
}

// mayTunnel reports whether the request may open a WebSocket. A proxy that asks need not tell of one in Upgrade, nor
// by a version of HTTP where that counts.
func (x *exchange) mayTunnel() bool {
	return x.head.Upgrade != "" || x.asker != "" && asksForUpgrade(x.stream.Head().Fields) != ""
}

// checkSite refuses what a page of another site may have sent in a person's name: browsers send their
// cookies along.
func (x *exchange) checkSite() error {
	if !x.changes() {
		return nil
	}
	f := x.head.Fields
	if n := f.Count("sec-fetch-site"); n > 0 {
		site := f.Get("sec-fetch-site")
		if n > 1 || site != "same-origin" && site != "none" {
			return because(reasonCrossSite, "Sec-Fetch-Site is "+setting.Quoted(site, 24))
		}
		// None means that no page sent it, so there is no Origin, but for a form that is sent once more.
		if origin := f.Get("origin"); site == "none" && f.Has("origin") && !x.isOwn(origin) {
			return because(reasonCrossSite, "Sec-Fetch-Site is none, and Origin is "+setting.Quoted(origin, 100))
		}
		return nil
	}
	switch origin := f.Get("origin"); {
	case !f.Has("origin"): // of a program, or of a browser of before 2020
		r := because(reasonCrossSite, "there is neither Sec-Fetch-Site nor Origin: a script that uses a person's session must send Origin")
		r.text = "There is no Origin, so a page of another site may have sent this request in the name of the person who is signed in. A program that uses a session must send the origin of the URL as Origin."
		return r
	case f.Count("origin") != 1 || !x.isOwn(origin):
		return because(reasonCrossSite, "there is no Sec-Fetch-Site, and Origin is "+setting.Quoted(origin, 100))
	}
	return nil
}

// checkPage makes the checks of a caller whom a browser may have proved without the person's doing.
func (x *exchange) checkPage() error {
	switch s := x.proof.Session; {
	case s == nil && x.proof.Ambient:
		return x.checkOwner()
	case s == nil:
		return nil
	default:
		x.record.Login, x.record.SID = s.Login(), s.SID()
	}
	return x.checkSite()
}

// checkOwner is checkSite for certificates and passwords, which programs send too, without the fields by
// which browsers tell of pages. Pages that cors admits with credentials may use them.
func (x *exchange) checkOwner() error {
	f := x.head.Fields
	switch {
	case !f.Has("sec-fetch-site") && !f.Has("origin"), f.Count("origin") == 1 && x.route.CORS.AdmitsCredentials(f.Get("origin")):
		return nil
	}
	if err := x.checkSite(); err != nil {
		r := because(reasonCrossSite, errors.Unwrap(err).Error()+"; cors of the route does not admit it with credentials: true; a program must send no Origin, or "+x.ownOrigin())
		r.text = "A page of another site may have sent this request with a certificate or password of the browser. A program must leave Origin out, or send that of the URL."
		return r
	}
	return nil
}

// renewSession adds the cookies of a session that was refreshed or goes on. No cache may keep them, nor
// give the answer to a person who is not signed in: the application knows nothing of sign-in.
func (x *exchange) renewSession(h *message.Response) {
	if x.proof.Session == nil {
		return
	}
	h.Fields.AddVary("Cookie")
	cookies := x.proof.Session.Renewed(x.server.now())
	if cookies == nil {
		return
	}
	for _, c := range cookies {
		h.Fields.Add("set-cookie", c)
	}
	h.Fields.DelFunc(func(f message.Field) bool { // caches of one kind heed these alone (RFC 9213)
		return strings.HasSuffix(f.Name, "-cache-control") || f.Name == "surrogate-control"
	})
	h.Fields.Set("cache-control", "no-store")
}

// setsOwnCookie reports whether a Set-Cookie of an upstream would set a cookie of the gateway. Some
// browsers read the name of a cookie without name in its value.
func setsOwnCookie(value string) bool {
	pair, _, _ := strings.Cut(value, ";")
	name, rest, _ := strings.Cut(pair, "=")
	if name = strings.TrimSpace(name); name == "" {
		name, _, _ = strings.Cut(rest, "=")
		name = strings.TrimSpace(name)
	}
	return login.IsCookie(name)
}

// leadsToSignIn reports whether a refusal means that the person has to sign in, and nothing else is
// wrong. Most issuers refuse to be shown in a frame, so that it gets a page with a link.
func (x *exchange) leadsToSignIn(err error) bool {
	if x.route == nil || len(x.route.Logins) == 0 || !x.wantsPage() || x.isFramed() || x.head.Method != http.MethodGet && x.head.Method != http.MethodHead {
		return false
	}
	var session *login.Error
	if errors.As(err, &session) {
		return session.Again()
	}
	var e *auth.Error
	return errors.As(err, &e) && (e.Reason == auth.NoCredential || e.OfWeakSession())
}

// isLate reports whether a person who is signed in comes with an answer of the issuer that is late: another tab
// was faster, or they went back in the history of the browser. They go on to their page in the session that they
// have.
func (x *exchange) isLate(err error) bool {
	var answer *login.Error
	return x.signedIn && x.wantsPage() && errors.As(err, &answer) && answer.Late()
}

// sendToSignIn sends the browser to sign in and back to where it is.
func (x *exchange) sendToSignIn() {
	to := signInURL(x.head.PathAndQuery(), x.route.Logins...)
	if x.asker != "" {
		to = x.ownOrigin() + to // Traefik makes a URL of the gateway's address out of a path
	}
	_ = x.goTo(login.Redirect{Location: to}) // an error means that the client has left
}

// goTo sends the browser to another page.
func (x *exchange) goTo(r login.Redirect) error {
	x.cookies = r.Cookies
	h := message.Response{Status: http.StatusSeeOther, Fields: message.Fields{{Name: "location", Value: r.Location}}}
	x.dressOwn(&h)
	return x.respondHere(&h, nil)
}
