package auth

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/publicsuffix"

	"sallyport/auth/login"
	"sallyport/auth/login/endfile"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// LoginConfig is one entry of `logins`: how people sign in to pages in a browser, by the OpenID code
// flow.
type LoginConfig struct {
	// Issuer is the name under issuers of who proves people's identity. A person who signs in has the
	// same principal as with a bearer token of that issuer.
	Issuer string `yaml:"issuer"`
	// Title is what people read where they choose between several logins. Default: the name of the
	// login.
	Title string `yaml:"title"`
	// ClientID is the gateway's name as a client of the issuer. The client must have the redirect URI
	// https://HOST/.sallyport/callback/NAME for each host of its routes, where NAME is that of the
	// login.
	ClientID string `yaml:"client_id"`
	// ClientSecret is the client's secret. Default: none, for public clients.
	ClientSecret setting.Secret `yaml:"client_secret"`
	// ClientAuth is how the secret is sent: basic, in Authorization, or post, in the form. Default:
	// basic.
	ClientAuth string `yaml:"client_auth"`
	// Scopes are asked of the issuer besides openid, such as profile or offline_access. Default: none.
	Scopes setting.List[string] `yaml:"scopes"`
	// Claims says where the person's groups and other claims are: id_token, access_token, or userinfo,
	// which adds to those of the ID token. Default: id_token.
	Claims string `yaml:"claims"`
	// ACRValues are the kinds of authentication that are asked of the issuer, of which a session must
	// have one. Default: any.
	ACRValues setting.List[string] `yaml:"acr_values"`
	// MaxAge is how long ago people may have proved themselves to the issuer when they sign in.
	// Default: no bound.
	MaxAge setting.Duration `yaml:"max_age"`
	// Prompt is what the issuer is to ask people: login, consent or select_account. Default: what it
	// needs.
	Prompt string `yaml:"prompt"`
	// Params are more parameters of the authorization request, such as domain_hint for Entra or hd for
	// Google. Default: none.
	Params map[string]string `yaml:"params"`
	// Revoke lets a sign-out revoke the person's refresh token, if the issuer has a revocation_endpoint
	// (RFC 7009): a minute later, when the issuer's own sign-out is over. Okta keeps the token otherwise. Some
	// issuers end the person's sessions in other browsers by that; false leaves them. Default: true.
	Revoke *bool `yaml:"revoke"`
	// Session says how a session is kept, and for how long.
	Session SessionConfig `yaml:"session"`
}

// SessionConfig is the section `session` of a login.
type SessionConfig struct {
	// Keys is the file of the keys that seal sessions: a line each, of sallyport keygen --session. The
	// first seals, and all open; so add the next one below, and later move it to the top. Default: a
	// key of the process, with which all sessions end at a restart.
	Keys setting.Secret `yaml:"keys"`
	// State is the file with the ends of sessions, by which a restart brings back no session that somebody
	// signed out of or that the issuer ended; or off. It names nobody. Logins and gateways on one machine
	// may share it. Where the file is missing, a new one is made, and all sessions that began before end. A
	// reload cannot change it. Default, with keys: sallyport-sessions in the folder for state. That is
	// $STATE_DIRECTORY or /var/lib/sallyport if one exists, and otherwise the folder of gateway.yaml;
	// sallyport check shows it.
	State setting.Place `yaml:"state"`
	// Kind is where sessions are: cookie, sealed in the person's browser, or memory, in the gateway,
	// with only an id in the cookie. Sessions in memory end at a restart. Default: cookie.
	Kind string `yaml:"kind"`
	// Sessions is how many there may be at once in memory. Default: 10000.
	Sessions int `yaml:"sessions"`
	// Absolute is how long a session lasts at most; then people sign in again. Default: 8h.
	Absolute setting.Duration `yaml:"absolute"`
	// Idle is how long a session lasts without a request. Default: 1h.
	Idle setting.Duration `yaml:"idle"`
	// CookieDomain makes one sign-in count at all hosts below a domain, such as example.com, whose
	// routes list the login. Browsers then send the session to every server of the domain, also to
	// those that are not behind the gateway, and whoever runs one can use it here; each can also put
	// its own session in the place of a person's. Default: sessions are for one host.
	CookieDomain string `yaml:"cookie_domain"`
	// SignInHost is the host of cookie_domain at which people sign in for all of its hosts, such as
	// auth.example.com, so that the issuer needs the redirect URI and the page after sign-out of this
	// host alone. A route of it must list the login. Default: people sign in at each host.
	SignInHost string `yaml:"sign_in_host"`
}

// These are the kinds of sessions.
const (
	SessionInCookie = "cookie"
	SessionInMemory = "memory"
)

const (
	// MaxSession is the longest lifetime of a session.
	MaxSession    = login.MaxAbsolute
	maxLoginTitle = 60 // bytes

	stateOff = "off"
)

// Check records every fault of the login, whose place in the configuration is path. issuer is that of
// its name, nil if there is none.
func (c *LoginConfig) Check(path string, issuer *IssuerConfig, f *setting.Faults) {
	at := func(field string) string { return setting.Join(path, field) }
	switch {
	case issuer == nil:
	case !issuer.discovers():
		f.Add(at("issuer"), c.Issuer, "the gateway does not read its discovery document, which says where people sign in", "write discovery: URL at issuers."+c.Issuer)
	case len(issuer.Tenants) > 0:
		f.Add(at("issuer"), c.Issuer, "it has several tenants, and people sign in at one", "add an issuer whose url names the tenant")
	case issuer.TokenFrom != nil:
		f.Add(at("issuer"), c.Issuer, "its tokens come from a proxy (token_from), which has signed people in already", "list issuer/"+c.Issuer+" under callers")
	}
	if c.ClientID == "" {
		f.Add(at("client_id"), "", "the issuer signs people in only for clients that it knows", "write the name of a client that you registered there for the gateway")
	}
	if len(c.Title) > maxLoginTitle || strings.ContainsFunc(c.Title, func(r rune) bool { return !unicode.IsPrint(r) }) {
		f.Add(at("title"), c.Title, "not a title", fmt.Sprintf("write up to %d bytes of printable characters in one line", maxLoginTitle))
	}
	word := func(field, value string, known ...string) {
		if value != "" && !slices.Contains(known, value) {
			f.Add(at(field), value, "unknown value", "write "+strings.Join(known[:len(known)-1], ", ")+" or "+known[len(known)-1])
		}
	}
	word("client_auth", c.ClientAuth, clientAuthBasic, clientAuthPost)
	word("claims", c.Claims, "id_token", "access_token", "userinfo")
	word("prompt", c.Prompt, Prompts()...)
	word("session.kind", c.Session.Kind, SessionInCookie, SessionInMemory)
	c.checkAsked(at, f)
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		if issuer != nil && issuer.asksByClaims() && strings.EqualFold(name, AskByClaims) {
			f.Add(setting.Join(at("params"), name), "", "is a parameter that the gateway writes, by issuers."+c.Issuer+".acr.ask_by", "remove it")
		}
	}
	c.Session.check(at, f)
}

// Prompts returns what an issuer may be asked to ask people.
func Prompts() []string { return []string{"login", "consent", "select_account"} }

// IsWord reports whether a value can stand in a list that spaces divide, and in quotes.
func IsWord(v string) bool {
	return v != "" && !strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

// checkAsked records the faults of what is asked of the issuer.
func (c *LoginConfig) checkAsked(at func(string) string, f *setting.Faults) {
	for _, list := range []struct {
		name   string
		values []string
	}{{"scopes", c.Scopes}, {"acr_values", c.ACRValues}} {
		for i, v := range list.values {
			if !IsWord(v) {
				f.Add(setting.Index(at(list.name), i), v, "not one word", "write each as an item of a list")
			}
		}
	}
	if d := c.MaxAge; d != 0 && (d.D() < time.Second || d.D() > MaxSession) {
		f.Add(at("max_age"), d.String(), "out of bounds", "choose between 1s and "+setting.Duration(MaxSession).String())
	}
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		switch {
		case login.IsReserved(name):
			f.Add(setting.Join(at("params"), name), "", "is a parameter that the gateway writes", "remove it")
		case name == "" || url.QueryEscape(name) != name:
			f.Add(setting.Join(at("params"), name), "", "not the name of a parameter", "use letters, digits and _ - .")
		}
	}
}

// check records the faults of the section; at returns the place of a field of the login.
func (c *SessionConfig) check(at func(string) string, f *setting.Faults) {
	bound := func(field string, d setting.Duration, low, high time.Duration) {
		if d != 0 && (d.D() < low || d.D() > high) {
			f.Add(at("session."+field), d.String(), "out of bounds", "choose between "+setting.Duration(low).String()+" and "+setting.Duration(high).String())
		}
	}
	bound("absolute", c.Absolute, time.Minute, MaxSession)
	bound("idle", c.Idle, time.Minute, MaxSession)
	absolute, idle := c.Absolute.Or(login.DefaultAbsolute), c.Idle.Or(login.DefaultIdle)
	if idle > absolute && c.Idle != 0 {
		f.Add(at("session.idle"), c.Idle.String(), "longer than the session itself, "+setting.Duration(absolute).String(), "choose at most "+setting.Duration(absolute).String())
	}
	if c.Sessions != 0 && (c.Sessions < 1 || c.Sessions > 10_000_000) {
		f.Add(at("session.sessions"), strconv.Itoa(c.Sessions), "out of bounds", "write a number from 1 to 10000000")
	}
	if c.Sessions != 0 && c.Kind != SessionInMemory {
		f.Add(at("session.sessions"), strconv.Itoa(c.Sessions), "sessions in cookies take no memory", "write kind: memory, or remove the line")
	}
	if problem, cure := badCookieDomain(c.CookieDomain); problem != "" {
		f.Add(at("session.cookie_domain"), c.CookieDomain, problem, cure)
	}
	if c.SignInHost != "" && c.CookieDomain == "" {
		f.Add(at("session.sign_in_host"), c.SignInHost, "sessions are for one host, so people must sign in there", "write cookie_domain too, or remove the line")
	}
	c.State.Check(at("session.state"), "name a file, or write off", f, stateOff)
	switch {
	case c.State == "" || c.Outlives():
	case c.Kind == SessionInMemory:
		f.Add(at("session.state"), string(c.State), "sessions in memory end at a restart, so nothing is kept of them", "remove the line, or kind: memory")
	default:
		f.Add(at("session.state"), string(c.State), "without keys all sessions end at a restart, so nothing is kept of them", "add keys: {file: PATH}, or remove the line")
	}
	if !c.Keys.IsZero() && c.Kind == SessionInMemory {
		f.Add(at("session.keys"), "", "sessions in memory are not sealed", "remove the line, or kind: memory")
	}
}

// badCookieDomain says why browsers would take no cookie for a domain, or not the one that is meant.
func badCookieDomain(d string) (problem, cure string) {
	canonical, err := message.CanonicalHost(d)
	address, _ := netip.ParseAddr(strings.Trim(d, "[]"))
	switch {
	case d == "":
		return "", ""
	case strings.HasPrefix(d, "."):
		return "a domain begins with no dot; its hosts are meant anyway", "write " + cmp.Or(strings.TrimLeft(d, "."), "one such as example.com")
	case strings.HasPrefix(d, "*."):
		return "a domain has no star; its hosts are meant anyway", "write " + cmp.Or(d[2:], "one such as example.com")
	case address.IsValid():
		return "an address has no hosts below it", "write a DNS name, or remove the line"
	case err != nil && strings.ContainsFunc(d, func(r rune) bool { return r > '~' }):
		return "a domain that is not ASCII", "write it as xn--, as DNS does"
	case err != nil || strings.HasSuffix(d, "."):
		return "not a DNS name", "write one such as example.com"
	}
	if suffix, _ := publicsuffix.PublicSuffix(canonical); suffix == canonical {
		return "names below it may belong to others, so browsers take no cookie for it (publicsuffix.org)", "write a name of your own below it, such as example." + canonical
	}
	return "", ""
}

// Domain returns the cookie domain in lower case; "" for none. good is false if Check finds a fault in it.
func (c *SessionConfig) Domain() (domain string, good bool) {
	problem, _ := badCookieDomain(c.CookieDomain)
	return strings.ToLower(c.CookieDomain), problem == ""
}

// SignInAt returns the host where people sign in for all of the domain, in canonical form; "" for none.
func (c *SessionConfig) SignInAt() string {
	return strings.ToLower(strings.TrimSuffix(c.SignInHost, "."))
}

// Outlives reports whether sessions outlive the process.
func (c *SessionConfig) Outlives() bool { return !c.Keys.IsZero() && c.Kind != SessionInMemory }

// StateFile returns the file with the ends of sessions; "" for none.
func (c *SessionConfig) StateFile() string {
	if !c.Outlives() || c.State.Word() != "" {
		return ""
	}
	return string(c.State)
}

// Warn records what is no fault but probably a mistake.
func (c *LoginConfig) Warn(path string, f *setting.Faults) {
	if c.Session.Outlives() && c.Session.State.Word() != "" {
		f.Add(setting.Join(path, "session.state"), string(c.Session.State), "a cookie that somebody signed out of opens again after a restart", "name a file")
	}
	if c.Session.Keys.IsZero() && c.Session.Kind != SessionInMemory {
		f.Add(setting.Join(path, "session.keys"), "", "missing, so all sessions end when the gateway restarts", "write keys: {file: session-keys}; "+cureKeys("session-keys"))
	}
}

// CheckFiles records why the files of the login cannot be used.
func (c *LoginConfig) CheckFiles(path string, f *setting.Faults) {
	if !c.ClientSecret.IsZero() {
		if _, err := c.ClientSecret.Read(); err != nil {
			f.Add(setting.Join(path, "client_secret"), "", err.Error(), setting.CureUnreadable(err, cureSecret(c.ClientID, missingFile(err))))
		}
	}
	if _, err := c.Session.readKeys(); err != nil {
		f.Add(setting.Join(path, "session.keys"), "", err.Error(), setting.CureUnreadable(err, cureKeys(missingFile(err))))
	}
	c.Session.checkState(setting.Join(path, "session.state"), f)
}

// CureMisplaced implements [setting.Misplaced].
func (c LoginConfig) CureMisplaced(name string) string {
	switch {
	case name == "redirect_uri" || name == "redirect_url":
		return "remove the line: it is https://HOST/.sallyport/callback/NAME for each host of the login's routes; sallyport check lists them"
	case slices.Contains(setting.Fields[IssuerConfig](), name):
		return "write it under the issuer of the login, in issuers"
	}
	return ""
}

// CureMisplaced implements [setting.Misplaced].
func (c IssuerConfig) CureMisplaced(name string) string {
	if slices.Contains(setting.Fields[LoginConfig](), name) {
		return "write it under a login of the issuer, in logins"
	}
	return ""
}

// missingFile returns the path of a file that does not exist; "" if the error is another one.
func missingFile(err error) string {
	var failed *fs.PathError
	if errors.Is(err, fs.ErrNotExist) && errors.As(err, &failed) {
		return failed.Path
	}
	return ""
}

// cureSecret says how the secret of a client comes into a file; file is "" if there is one, or none is
// named.
func cureSecret(client, file string) string {
	cure := "put the secret of " + client + " there"
	if file != "" {
		cure += ": install -m 600 /dev/stdin " + file + ", paste it, and press Enter and Ctrl-D"
	}
	return cure
}

// cureKeys says how a key for sessions is made; file is "" if there is one, or none is named.
func cureKeys(file string) string {
	if file == "" {
		return "sallyport keygen --session makes a key"
	}
	return "(umask 077; sallyport keygen --session > " + file + ") makes a key"
}

// checkState records why the file with the ends of sessions cannot be read or written.
func (c *SessionConfig) checkState(path string, f *setting.Faults) {
	file := c.StateFile()
	if file == "" {
		return
	}
	var fault *endfile.Fault
	if problem, cure := setting.FolderFault(filepath.Dir(file), false); problem != "" {
		f.Add(path, file, problem, cure) // a new file is written beside it
	} else if errors.As(endfile.Check(file), &fault) {
		cure := fault.Cure()
		if errors.Is(fault.Err, fs.ErrPermission) {
			cure = "let user " + setting.Myself() + " read and write it, or name another file"
		}
		f.Add(path, fault.Place(), fault.Err.Error(), cure)
	}
}

// readKeys returns the keys of the file; nil if there is none.
func (c *SessionConfig) readKeys() (*login.Keys, error) {
	if c.Keys.IsZero() {
		return nil, nil
	}
	text, err := c.Keys.Read()
	if err != nil {
		return nil, err
	}
	keys, err := login.ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Keys.Where(), err)
	}
	return keys, nil
}

// read returns the login with the content of its files. The configuration must have passed Check.
func (c *LoginConfig) read() (login.Config, error) {
	l := login.Config{
		Issuer: c.Issuer, ClientID: c.ClientID, ClientAuth: c.ClientAuth, Scopes: c.Scopes, Claims: c.Claims,
		State: c.Session.StateFile(), KeepTokens: c.Revoke != nil && !*c.Revoke,
		Memory: c.Session.Kind == SessionInMemory, Sessions: c.Session.Sessions,
		Absolute: c.Session.Absolute.Or(login.DefaultAbsolute), Idle: c.Session.Idle.Or(login.DefaultIdle),
		SignInHost: c.Session.SignInAt(), ACR: c.ACRValues, MaxAge: c.MaxAge.D(), Prompt: c.Prompt, Params: c.Params,
	}
	l.CookieDomain, _ = c.Session.Domain()
	l.Idle = min(l.Idle, l.Absolute)
	var err error
	if l.Keys, err = c.Session.readKeys(); err != nil {
		return l, fmt.Errorf("session.keys: %w", err)
	}
	if !c.ClientSecret.IsZero() {
		secret, err := c.ClientSecret.Read()
		if err != nil {
			return l, fmt.Errorf("client_secret: %w", err)
		}
		l.ClientSecret = string(secret)
	}
	return l, nil
}

// ReadLogins reads the files of all entries. The error is that of the first faulty one.
func ReadLogins(all map[string]LoginConfig) (map[string]login.Config, error) {
	read := make(map[string]login.Config, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		l, err := c.read()
		if err != nil {
			return nil, fmt.Errorf("logins.%s: %w", name, err)
		}
		read[name] = l
	}
	return read, nil
}
