// Package pages writes the gateway's own pages for people: for sign-in and sign-out, and refusals.
//
// A page is one answer: its style and its logo are inside, it has no script, and it asks for nothing
// else. [Pages.Policy] lets browsers take no more than that.
package pages

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the files of the page
	"encoding/base64"
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

//go:embed page.html
var layout string

//go:embed page.css
var style string

// Type is the media type of every page.
const Type = "text/html; charset=utf-8"

// Pages writes the pages of one configuration. It is immutable, and safe for concurrent use.
type Pages struct {
	title  string
	logo   template.URL
	layout *template.Template
	policy string // without frame-ancestors
}

// New returns the pages for a section that has passed Check. It reads the file of the logo.
func New(c *Config) (*Pages, error) {
	logo, err := c.ReadLogo()
	if err != nil {
		return nil, fmt.Errorf("pages.logo: %w", err)
	}
	p := &Pages{title: c.Title, logo: logo}
	if p.layout, err = template.New("page").Parse(layout); err != nil {
		return nil, fmt.Errorf("the layout of pages: %w", err)
	}
	hash := sha256.Sum256([]byte(style))
	p.policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) +
		"'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors "
	return p, nil
}

// Policy returns the Content-Security-Policy of every page. framed is for a refusal in a frame of
// another page of the host, which may show it.
func (p *Pages) Policy(framed bool) string {
	if framed {
		return p.policy + "'self'"
	}
	return p.policy + "'none'"
}

// Choice is a login that a person can choose.
type Choice struct {
	Title string // for people
	URL   string // begins the login
}

// SignIn returns the page on which people choose one of several logins.
func (p *Pages) SignIn(host string, choices []Choice) []byte {
	n := p.names(host)
	v := view{Heading: "Sign in", Text: []paragraph{n.fill("To open {host}, choose how to sign in.")}}
	for _, c := range choices {
		v.Actions = append(v.Actions, action{Text: paragraph{{Text: "Sign in with "}, nameRun(c.Title)}, URL: c.URL})
	}
	return p.write(n, v)
}

// SignOut returns the page that asks whether to sign out. url takes the form, and back leads to the
// service.
func (p *Pages) SignOut(host, caller, url, back string) []byte {
	n := p.names(host)
	n.caller = caller
	v := view{Heading: "Sign out"}
	if caller != "" {
		v.Text = []paragraph{n.fill("You are signed in to {host} as {caller}.")}
		v.Actions = []action{{Text: n.fill("Sign out"), URL: url, Post: true}, {Text: n.fill("Stay signed in"), URL: back}}
	} else {
		v.Text = []paragraph{n.fill("You are not signed in to {host}.")}
		v.Actions = []action{{Text: n.fill("Go to {host}"), URL: back}}
	}
	return p.write(n, v)
}

// Leaving returns the page that goes on to the issuer at once, to end the person's session there too.
func (p *Pages) Leaving(host, next string) []byte {
	n := p.names(host)
	return p.write(n, view{
		Heading: "Signing out", Next: next,
		Text:    []paragraph{n.fill("You are signed out of {host}. The sign-in service ends your session there too.")},
		Actions: []action{{Text: n.fill("Continue"), URL: next}},
	})
}

// SignedOut returns the page after sign-out. again begins a login.
func (p *Pages) SignedOut(host, again string) []byte {
	n := p.names(host)
	return p.write(n, view{
		Heading: "You are signed out",
		Text:    []paragraph{n.fill("You are signed out of {host}. The sign-in service may still know you in this browser, so on a shared computer sign out there too, and close all windows.")},
		Actions: []action{{Text: n.fill("Sign in again"), URL: again}},
	})
}

// Refusal is what a refusal tells a person.
type Refusal struct {
	Reason    string // decides the words
	RequestID string
	Caller    string        // who is signed in; "" for nobody
	Wait      time.Duration // after which it may succeed; 0 if nobody knows
	// NoCredential says that the person must prove who they are, with SignIn or not at all.
	NoCredential bool
	// ForeignCookie says that a cookie of somebody else is in the way.
	ForeignCookie bool
	// Framed says that the refusal stands in a frame. Most issuers refuse to be shown there.
	Framed bool
	// These lead on; "" where that does not help.
	SignIn  string // begins a login
	SignOut string // the page for sign-out
	Again   string // the page that was asked for
}

// Refuse returns the page of a refusal.
func (p *Pages) Refuse(host string, r *Refusal) []byte {
	n := p.names(host)
	n.caller, n.wait = r.Caller, waitOf(r.Wait)
	w, _ := wordsOf(r.Reason)
	if w.next == signInNext && r.NoCredential && r.SignIn == "" {
		w = forPrograms()
	}
	switch {
	case r.ForeignCookie:
		w.next = "First delete the cookies of {host} in your browser. Then sign in."
	case r.Framed && r.SignIn != "":
		w.next = "Sign in, for which a new window opens. Then load this page again."
	}
	v := view{Heading: w.heading, Framed: r.Framed, Facts: []fact{{"Number", r.RequestID}, {"Reason", r.Reason}}}
	switch {
	case r.Caller == "":
		v.Text = []paragraph{n.fill(w.text)}
	case w.who != "":
		v.Text = []paragraph{n.fill(w.who)}
	default:
		v.Text = []paragraph{n.fill(w.text), n.fill("You are signed in as {caller}.")}
	}
	v.Text = append(v.Text, n.fill(w.next))
	for _, a := range [...]struct{ text, url string }{{"Sign in", r.SignIn}, {"Try again", r.Again}, {"Use another account", r.SignOut}} {
		if a.url != "" {
			v.Actions = append(v.Actions, action{Text: n.fill(a.text), URL: a.url})
		}
	}
	return p.write(n, v)
}

// Again reports whether it may help a person with this refusal to ask for the page once more.
func Again(reason string) bool {
	w, known := wordsOf(reason)
	return known && w.next == waitNext
}

// waitOf returns a time to wait in words.
func waitOf(d time.Duration) string {
	switch seconds := int64((d + time.Second - 1) / time.Second); {
	case seconds <= 0 || seconds > 45 && seconds <= 60:
		return "a minute"
	case seconds == 1:
		return "a second"
	case seconds <= 45:
		return strconv.FormatInt(seconds, 10) + " seconds"
	case seconds <= 90*60:
		return strconv.FormatInt((seconds+59)/60, 10) + " minutes"
	default:
		return strconv.FormatInt((seconds+3599)/3600, 10) + " hours"
	}
}

// maxShown is how many characters of a name are shown.
const maxShown = maxTitle

// Shown returns a name as people may safely see it: characters that nobody sees, or that turn the
// direction of the text around, are written as escapes, and a long name is cut.
func Shown(name string) string {
	var b strings.Builder
	count := 0
	for _, r := range name {
		if count++; count > maxShown {
			b.WriteString("…")
			break
		}
		if unicode.IsPrint(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// names are what the texts of a page name.
type names struct{ service, host, caller, wait string }

func (p *Pages) names(host string) names { return names{service: cmp.Or(p.title, host), host: host} }

// fill replaces the names in braces.
func (n *names) fill(text string) (out paragraph) {
	for text != "" {
		before, rest, found := strings.Cut(text, "{")
		if before != "" {
			out = append(out, run{Text: before})
		}
		if !found {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		switch text = after; name {
		case "service":
			out = append(out, nameRun(n.service))
		case "host":
			out = append(out, nameRun(n.host))
		case "caller":
			out = append(out, nameRun(n.caller))
		case "wait":
			out = append(out, run{Text: n.wait})
		}
	}
	return out
}

// view is the content of a page.
type view struct {
	Title   run
	Logo    template.URL
	Style   template.CSS
	Heading string
	Text    []paragraph
	Actions []action // the first is the one that most people want
	Facts   []fact   // for those who help
	Next    string   // where the browser goes at once; "" for nowhere
	Framed  bool     // links open a new window
}

// paragraph is a text in parts.
type paragraph []run

// run is a part of a text.
type run struct {
	Text string
	// Apart says that the text may be written from right to left, and must not turn what is around it.
	Apart bool
}

// nameRun returns a run for a name from outside.
func nameRun(name string) run {
	name = Shown(name)
	return run{name, strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf })}
}

type action struct {
	Text paragraph
	URL  string
	Post bool // it changes something, so it is a form
}

type fact struct{ Name, Value string }

// write returns the page with this content.
func (p *Pages) write(n names, v view) []byte {
	v.Title, v.Logo, v.Style = nameRun(n.service), p.logo, template.CSS(style)
	var page bytes.Buffer
	if err := p.layout.Execute(&page, v); err != nil {
		// Only a fault of the layout itself gets here, since a buffer takes everything.
		return []byte(template.HTMLEscapeString(v.Heading))
	}
	return page.Bytes()
}
