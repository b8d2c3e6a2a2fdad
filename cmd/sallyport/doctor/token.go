package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"sallyport/proxy"
)

// maxTokenFile bounds the file with a token, in bytes.
const maxTokenFile = 64 << 10

// readToken reads the file with the token, "" if there is none to judge.
func (p *patient) readToken() (string, error) {
	if p.Token == "" {
		return "", nil
	}
	f, err := os.Open(p.Token)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the token: %w", err)
	case len(text) > maxTokenFile:
		return "", fmt.Errorf("reading the token: %s is larger than %d bytes", p.Token, maxTokenFile)
	case strings.TrimSpace(string(text)) == "":
		return "", fmt.Errorf("reading the token: %s is empty", p.Token)
	}
	return string(text), nil
}

// tokenIn returns the token in a text, and what is wrong around it: clients would send that too.
func tokenIn(text string) (token string, faults []proxy.TokenFinding) {
	add := func(problem, cure string) { faults = append(faults, proxy.TokenFinding{Problem: problem, Cure: cure}) }
	token = strings.TrimRight(text, "\r\n") // shells drop these
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal([]byte(token), &answer) == nil && answer.AccessToken != "" {
		add("the file has the whole answer of the token endpoint", "keep the token alone: jq -r .access_token, or sallyport token")
		token = answer.AccessToken
	}
	if trimmed := strings.TrimSpace(token); trimmed != token {
		add("blanks surround the token", "remove them: servers refuse the field or the token")
		token = trimmed
	}
	if unquoted := strings.Trim(token, `"'`); unquoted != token {
		add("quotes surround the token", "remove them; jq -r prints without")
		token = unquoted
	}
	for _, prefix := range []string{"Authorization:", "Bearer "} {
		if len(token) >= len(prefix) && strings.EqualFold(token[:len(prefix)], prefix) {
			add(fmt.Sprintf("the file begins with %q", strings.TrimSpace(prefix)), "keep the token alone: clients write that word before it, and would send it twice")
			token = strings.TrimSpace(token[len(prefix):])
		}
	}
	if strings.ContainsAny(token, "\r\n") {
		add("there is a line end in the token", "write it in one line: base64 -w0, and no copy from a terminal that wraps")
		token = strings.Join(strings.Fields(token), "")
	}
	return token, faults
}

// token judges a token for the routes.
func (p *patient) token(ctx context.Context, text string) []Finding {
	if text == "" {
		return nil
	}
	token, faults := tokenIn(text)
	var found []Finding
	for _, f := range faults {
		found = append(found, Finding{"token", p.Token, Fail, f.Problem, f.Cure})
	}
	facts := proxy.DescribeToken(token)
	found = append(found, Finding{"token", p.Token, OK, inWords(&facts, p.Now()), ""})
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	verdicts, err := p.exam.Judge(ctx, token, p.Route)
	switch {
	case err != nil:
		return append(found, Finding{"token", p.Route, Fail, err.Error(), "write the name of a route, or HOST/PATH of a request"})
	case len(verdicts) == 0:
		return append(found, Finding{"token", p.Token, Warn, "every route is open to everybody, so none looks at it", ""})
	}
	return append(found, verdictFindings(verdicts)...)
}

// verdictFindings returns the findings of all verdicts. Routes that say the same share one. A refusal
// is no failure if another route takes the token: it is meant for that.
func verdictFindings(verdicts []proxy.Verdict) []Finding {
	refused := Fail
	for _, v := range verdicts {
		if v.Caller != "" && v.Forbidden == "" {
			refused = Warn
		}
	}
	var found []Finding
	add := func(v *proxy.Verdict, state State, text, cure string) {
		for i := range found {
			if f := &found[i]; f.State == state && f.Text == text && f.Cure == cure {
				f.Subject += ", " + v.Route
				return
			}
		}
		found = append(found, Finding{"token", v.Route, state, text, cure})
	}
	for i := range verdicts {
		v := &verdicts[i]
		switch {
		case v.Forbidden != "":
			add(v, refused, "valid, of "+v.Caller+", but the rules of the route allow this caller nothing: "+v.Forbidden, "give the caller that scope, group or claim at the issuer, or change the rules of the route")
		case v.Caller != "":
			add(v, OK, "taken, as "+v.Caller, "")
		}
		for n, f := range v.Findings {
			switch {
			case v.Reason == "":
				add(v, Warn, f.Problem, f.Cure)
			case n == 0:
				add(v, refused, "refused ("+v.Reason+"): "+f.Problem, f.Cure)
			default:
				add(v, refused, "and apart from that: "+f.Problem, f.Cure)
			}
		}
	}
	return found
}

// inWords says what a token says about itself.
func inWords(f *proxy.TokenFacts, now time.Time) string {
	words := f.Kind
	add := func(format string, args ...any) { words += fmt.Sprintf(format, args...) }
	if f.Issuer != "" {
		add(" of %q", cut(f.Issuer))
	}
	if f.Subject != "" {
		add(" for %q", cut(f.Subject))
	}
	if f.Client != "" && f.Client != f.Subject {
		add(", client %q", cut(f.Client))
	}
	if len(f.Audience) > 0 {
		add(", audience %q", cut(strings.Join(f.Audience, " ")))
	}
	if len(f.Scopes) > 0 {
		add(", scopes %q", cut(strings.Join(f.Scopes, " ")))
	}
	if f.Algorithm != "" {
		add(", alg %q, kid %q", cut(f.Algorithm), cut(f.KeyID))
	}
	if !f.Expires.IsZero() {
		left := f.Expires.Sub(now).Round(time.Second)
		if left > 0 {
			add(", ends in %s", left)
		} else {
			add(", ended %s ago", -left)
		}
	}
	return words
}

// cut bounds a claim.
func cut(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
