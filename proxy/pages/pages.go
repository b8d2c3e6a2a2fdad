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
	policy string
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
		"'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	return p, nil
}

// Policy returns the Content-Security-Policy of every page.
func (p *Pages) Policy() string { return p.policy }

// Choice is a login that a person can choose.
type Choice struct {
	Title string // for people
	URL   string // begins the login
}

// SignIn returns the page on which people choose one of several logins.
func (p *Pages) SignIn(host string, choices []Choice) []byte {
	v := view{Heading: "Sign in", Text: []string{"To open " + host + ", choose how to sign in."}}
	for _, c := range choices {
		v.Actions = append(v.Actions, action{Text: "Sign in with " + c.Title, URL: c.URL})
	}
	return p.write(host, v)
}

// SignOut returns the page that asks whether to sign out. url takes the form, and back leads to the
// service.
func (p *Pages) SignOut(host, caller, url, back string) []byte {
	text := "You are not signed in to " + host + "."
	v := view{Heading: "Sign out"}
	if caller != "" {
		text = "You are signed in to " + host + " as " + caller + "."
		v.Actions = []action{{Text: "Sign out", URL: url, Post: true}, {Text: "Stay signed in", URL: back}}
	} else {
		v.Actions = []action{{Text: "Go to " + host, URL: back}}
	}
	v.Text = []string{text}
	return p.write(host, v)
}

// Leaving returns the page that goes on to the issuer at once, to end the person's session there too.
func (p *Pages) Leaving(host, next string) []byte {
	return p.write(host, view{
		Heading: "Signing out", Next: next,
		Text:    []string{"You are signed out of " + host + ". The sign-in service ends your session there too."},
		Actions: []action{{Text: "Continue", URL: next}},
	})
}

// SignedOut returns the page after sign-out. again begins a login.
func (p *Pages) SignedOut(host, again string) []byte {
	return p.write(host, view{
		Heading: "You are signed out",
		Text:    []string{"Nobody can open " + host + " as you from this browser now. On a shared computer, close all windows of the browser too."},
		Actions: []action{{Text: "Sign in again", URL: again}},
	})
}

// Refusal is what a refusal tells a person.
type Refusal struct {
	Status    int
	Text      string // what is wrong, as programs are told it
	Reason    string
	RequestID string
	Caller    string // who is signed in; "" for nobody
	SignIn    string // begins a login; "" where that does not help
	SignOut   string // leads to the page for sign-out; "" where that does not help
}

// Refuse returns the page of a refusal.
func (p *Pages) Refuse(host string, r *Refusal) []byte {
	heading, advice := wordsOf(r.Status)
	v := view{Heading: heading, Text: []string{r.Text}, Facts: []fact{{"Request", r.RequestID}, {"Reason", r.Reason}}}
	if r.Caller != "" {
		v.Text = append(v.Text, "You are signed in as "+r.Caller+".")
	}
	if advice != "" && r.SignIn == "" {
		v.Text = append(v.Text, advice)
	}
	v.Text = append(v.Text, "If you need help, send the two lines below to the people who run this service.")
	if r.SignIn != "" {
		v.Actions = append(v.Actions, action{Text: "Sign in", URL: r.SignIn})
	}
	if r.SignOut != "" {
		v.Actions = append(v.Actions, action{Text: "Use another account", URL: r.SignOut})
	}
	return p.write(host, v)
}

// wordsOf returns the heading for a status, and what a person can do; "" for nothing in particular.
func wordsOf(status int) (heading, advice string) {
	switch {
	case status == 401:
		return "Please sign in", ""
	case status == 403:
		return "You may not open this", "If you should have access, ask for it, or use another account."
	case status == 404:
		return "There is no such page", "Check the address."
	case status == 405:
		return "This cannot be done here", "Go back, and begin again at the first page."
	case status == 429:
		return "Too many requests", "Wait a minute, and then try again."
	case status >= 500:
		return "The service cannot answer now", "Wait a minute, and then try again."
	}
	return "This request cannot be answered", "Go back, and begin again at the first page."
}

// view is the content of a page.
type view struct {
	Title   string
	Logo    template.URL
	Style   template.CSS
	Heading string
	Text    []string // paragraphs
	Actions []action // the first is the one that most people want
	Facts   []fact   // for those who help
	Next    string   // where the browser goes at once; "" for nowhere
}

type action struct {
	Text, URL string
	Post      bool // it changes something, so it is a form
}

type fact struct{ Name, Value string }

// write returns the page with this content.
func (p *Pages) write(host string, v view) []byte {
	v.Title, v.Logo, v.Style = cmp.Or(p.title, host), p.logo, template.CSS(style)
	var page bytes.Buffer
	if err := p.layout.Execute(&page, v); err != nil {
		// Only a fault of the layout itself gets here, since a buffer takes everything.
		return []byte(template.HTMLEscapeString(v.Heading))
	}
	return page.Bytes()
}
