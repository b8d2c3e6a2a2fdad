package clientcert

import (
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"sallyport/proxy/setting"
)

// clockSkew is how far the clock of a CA may be ahead.
const clockSkew = 5 * time.Minute

// revocation is what an entry knows of revoked certificates.
//
// A CA with a list needs a current one: otherwise its certificates are refused. A CA without a list
// is taken at its word, unless the missing list may be hidden: while a URL has not answered with a
// list of any CA, that list may be the CA's. Over http, anyone on the path may hide a list behind that of
// another CA. So with such a URL every CA needs a list.
type revocation struct {
	bundle *bundle
	known  map[keyID]bool // the CAs of bundle
	grace  time.Duration
	files  []*list
	urls   []string
	strict bool // one of urls is not https

	// feeds are the lists of urls; nil while the configuration is not active.
	feeds atomic.Pointer[[]*feed]
}

// newRevocation reads the list files of an entry. It returns nil if the entry has no lists.
func newRevocation(c *Config, b *bundle) (*revocation, error) {
	if len(c.CRL) == 0 {
		return nil, nil
	}
	r := &revocation{bundle: b, known: map[keyID]bool{}, grace: c.CRLGrace.D()}
	for _, ca := range b.all {
		r.known[keyIDOf(ca)] = true
	}
	for _, s := range c.CRL {
		if s.File == "" {
			r.urls = append(r.urls, s.URL.String())
			r.strict = r.strict || s.URL.Scheme != "https"
			continue
		}
		some, err := readListFile(string(s.File), b.all)
		if err != nil {
			return nil, fmt.Errorf("crl %s: %w", s.File, err)
		}
		r.files = append(r.files, some...)
	}
	return r, nil
}

// lists returns the lists that the entry has now, and the first URL that has not brought a list of
// one of its CAs; "" if there is none.
func (r *revocation) lists() (all []*list, missing string) {
	all = r.files[:len(r.files):len(r.files)]
	feeds := r.feeds.Load()
	for i, url := range r.urls {
		before := len(all)
		if feeds != nil {
			for _, l := range (*feeds)[i].fetched() {
				if r.known[l.issuer] {
					all = append(all, l)
				}
			}
		}
		if len(all) == before && missing == "" {
			missing = url
		}
	}
	return all, missing
}

// check refuses a chain with a certificate that its issuer has revoked, or of which it cannot tell.
// It returns when the answer ends with a list; zero if it depends on none.
func (r *revocation) check(chain []*x509.Certificate, now time.Time) (until time.Time, failed *Error) {
	if r == nil {
		return time.Time{}, nil
	}
	all, missing := r.lists()
	for i, c := range chain[:len(chain)-1] {
		end, err := r.checkOne(all, missing, c, chain[i+1], now)
		if err != nil {
			return time.Time{}, err
		}
		if !end.IsZero() && (until.IsZero() || end.Before(until)) {
			until = end
		}
	}
	return until, nil
}

func (r *revocation) checkOne(all []*list, missing string, c, issuer *x509.Certificate, now time.Time) (until time.Time, failed *Error) {
	id := keyIDOf(issuer)
	var stale *list
	has := false
	for _, l := range all {
		if l.issuer != id {
			continue
		}
		has = true
		if !l.covers(c) {
			continue
		}
		if l.has(c.SerialNumber) {
			return until, refuse(Revoked, "%s has revoked %s, serial number %x", showName(issuer), showName(c), c.SerialNumber)
		}
		if end := l.nextUpdate.Add(r.grace); now.After(end) || now.Add(clockSkew).Before(l.thisUpdate) {
			stale = l
		} else if end.After(until) {
			until = end
		}
	}
	switch {
	case !until.IsZero():
		return until, nil
	case stale != nil && now.Add(clockSkew).Before(stale.thisUpdate):
		return until, refuse(RevocationUnknown, "the revocation list of %s begins only at %s", showName(issuer), stamp(stale.thisUpdate))
	case stale != nil:
		return until, refuse(RevocationUnknown, "the revocation list of %s ended at %s; crl_grace is %s", showName(issuer), stamp(stale.nextUpdate), graceText(r.grace))
	case has:
		return until, refuse(RevocationUnknown, "no revocation list of %s is for certificates such as %s", showName(issuer), showName(c))
	case missing != "":
		return until, refuse(RevocationUnknown, "there is no revocation list of %s, and none has come from %s yet", showName(issuer), setting.Quoted(missing, 100))
	case r.strict:
		return until, refuse(RevocationUnknown, "there is no revocation list of %s, and with an http URL in crl every CA needs one", showName(issuer))
	}
	return time.Time{}, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func graceText(d time.Duration) string {
	if d == 0 {
		return "not set"
	}
	return setting.Duration(d).String()
}
