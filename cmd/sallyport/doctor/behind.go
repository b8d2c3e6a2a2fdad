package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sallyport/auth/login"
)

// behind checks that the pages of sign-in are reached behind a proxy that asks: it forwards them to the
// gateway, and asks about everything else.
func (p *patient) behind() (all []check) {
	if f := p.config.Listen.ForwardAuth; f == nil || !f.ReplacesCookie {
		return nil
	}
	var hosts []string
	for _, r := range p.config.Table() {
		if slices.ContainsFunc(r.Callers, func(c string) bool { return strings.HasPrefix(c, "login/") }) {
			hosts = append(hosts, r.Host...)
		}
	}
	slices.Sort(hosts)
	for _, host := range slices.Compact(hosts) {
		if !strings.HasPrefix(host, "*.") {
			all = append(all, func(ctx context.Context) []Finding { return []Finding{p.reaches(ctx, host)} })
		}
	}
	return all
}

// reaches checks one host as clients reach it.
func (p *patient) reaches(ctx context.Context, host string) Finding {
	at := net.JoinHostPort(strings.Trim(host, "[]"), p.clientPort())
	url := "https://" + strings.TrimSuffix(at, ":443") + login.SessionPath
	said, err := p.askSession(ctx, url)
	const cure = "let the proxy in front forward " + login.Prefix + " of the host to listen.insecure_plain, without asking about it"
	switch {
	case err != nil:
		return Finding{"sign-in", host, Skipped, "the proxy in front cannot be asked from here: " + err.Error(), "open " + url + " in a browser: it must answer 401 with the reason no_credential"}
	case said == "401 no_credential":
		return Finding{"sign-in", host, OK, "the proxy in front forwards " + login.Prefix + " to the gateway", ""}
	case said == "403 not_for_another_proxy":
		return Finding{"sign-in", host, Fail, "the proxy in front asks about " + login.SessionPath + ", so nobody can sign in", cure}
	}
	return Finding{"sign-in", host, Fail, url + " answers " + said + "; the gateway would answer 401 no_credential, so nobody can sign in", cure}
}

// askSession returns status and reason of the answer to somebody who has no session.
func (p *patient) askSession(ctx context.Context, url string) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	r.Header.Set("Accept", "application/json")
	asking := http.Client{
		Transport: &http.Transport{
			DialContext: p.Dial, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // nothing secret is sent
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := asking.Do(r)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer answer.Body.Close()
	said = strconv.Itoa(answer.StatusCode)
	var refusal struct{ Reason string }
	if err := json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&refusal); err != nil {
		refusal.Reason = answer.Header.Get("X-Sallyport-Reason") // nginx has pages of its own
	}
	if r := refusal.Reason; r != "" && len(r) < 40 && strings.Trim(r, "abcdefghijklmnopqrstuvwxyz_") == "" {
		said += " " + r
	}
	return said, nil
}
