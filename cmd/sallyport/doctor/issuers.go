package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/proxy"
)

func issuerNames(c *proxy.Config) []string { return slices.Sorted(maps.Keys(c.Issuers)) }

// issuers checks the documents of issuers, and by those over TLS the clock of this machine.
func (p *patient) issuers() []check {
	if len(p.config.Issuers) == 0 {
		return nil
	}
	all := []check{func(ctx context.Context) (found []Finding) {
		for _, r := range p.exam.Issuers(ctx) {
			found = append(found, issuerFindings(&r)...)
		}
		return found
	}}
	for _, name := range issuerNames(p.config) {
		all = append(all, func(ctx context.Context) []Finding { return p.clock(ctx, name) })
	}
	return all
}

func issuerFindings(r *proxy.IssuerReport) []Finding {
	at := "issuers." + r.Name
	var found []Finding
	if r.Introspection != nil {
		found = append(found, introspectionFinding(at, r.Introspection))
	}
	if r.Problem != "" {
		text, cure := parted(r.Problem, r.Cure)
		found = append(found, Finding{"issuer", at, Fail, text, cure})
	} else {
		found = append(found, Finding{"issuer", at, OK, fmt.Sprintf("%s from %s", counted(len(r.Keys), "key"), cmp.Or(r.JWKS, "jwks_file")) + ": " + strings.Join(r.Keys, ", "), ""})
		for _, s := range r.Skipped {
			if strings.HasSuffix(s, "its use is not sig") { // one for encryption, as every Keycloak has
				found = append(found, Finding{"issuer", at, OK, s, ""})
				continue
			}
			found = append(found, Finding{"issuer", at, Warn, s, "no token needs it unless the issuer signs access tokens with it"})
		}
	}
	return found
}

func introspectionFinding(at string, r *proxy.IntrospectionReport) Finding {
	if r.Problem != "" {
		text, cure := parted(r.Problem, r.Cure)
		return Finding{"introspection", at, Fail, text, cure}
	}
	return Finding{"introspection", at, OK, r.URL + " takes the gateway as a client, and calls a random token inactive", ""}
}

// counted returns a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// clockBound is how far the clocks of this machine and an issuer may be apart without a word. It is
// half of the default skew of issuers.
const clockBound = 30 * time.Second

// clock compares the clock with that of an issuer reached over TLS. Others could be anybody.
func (p *patient) clock(ctx context.Context, name string) []Finding {
	c := p.config.Issuers[name]
	asked := c.URL
	switch {
	case c.JWKSFile != "" || !c.Proxy.URL.IsZero():
		return nil // nobody is asked, or not from here
	case !c.Discovery.IsZero():
		asked = c.Discovery.String()
	case !c.JWKS.IsZero():
		asked = c.JWKS.String()
	}
	u, err := url.Parse(asked)
	if err != nil || u.Scheme != "https" {
		return nil
	}
	roots, err := p.rootsOf(string(c.CA))
	if err != nil {
		return nil // the files say so
	}
	date, offset, err := p.date(ctx, asked, roots)
	at := "issuers." + name
	switch {
	case errors.Is(err, errNoDate):
		return []Finding{{"clock", at, Skipped, "the issuer sends no Date to compare with", ""}}
	case err != nil:
		return nil // the check of the issuer says so
	case offset.Abs() <= clockBound:
		return []Finding{{"clock", at, OK, fmt.Sprintf("agrees with %s", u.Host), ""}}
	}
	side := "ahead of"
	if offset < 0 {
		side = "behind"
	}
	state := Warn
	if offset.Abs() > c.Skew.Or(time.Minute) {
		state = Fail
	}
	return []Finding{{"clock", at, state, fmt.Sprintf("this machine is %s %s %s, which says %s", offset.Abs().Round(time.Second), side, u.Host, date.UTC().Format(time.RFC3339)),
		"set the clock by NTP (timedatectl set-ntp true): tokens, signatures and certificates are checked by it"}}
}

func (p *patient) rootsOf(file string) (*x509.CertPool, error) {
	if file == "" {
		return p.Roots, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate in " + file)
	}
	return pool, nil
}

var errNoDate = errors.New("no Date")

// date returns the time that a server sends, and how far the clock of this machine is ahead of it.
func (p *patient) date(ctx context.Context, address string, roots *x509.CertPool) (date time.Time, ahead time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return date, 0, err
	}
	t := &http.Transport{
		DialContext: p.Dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Time: p.Now},
		DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
	}
	before := p.Now()
	answer, err := t.RoundTrip(r)
	if err != nil {
		return date, 0, err
	}
	_ = answer.Body.Close() // HEAD has none
	if date, err = http.ParseTime(answer.Header.Get("Date")); err != nil {
		return date, 0, errNoDate
	}
	return date, before.Sub(date), nil
}
