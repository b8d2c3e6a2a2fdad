package clientcert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/proxy/setting"
)

// maxName is the maximum length, in bytes, of a caller's name, as with tokens.
const maxName = 256

// altNames are the subject alternative names of a certificate, as they are encoded. They are read
// again because crypto/x509 keeps URIs only as it has parsed them.
type altNames struct{ emails, dns, uris []string }

// Extensions of certificates (RFC 5280, section 4.2.1).
const (
	oidAltNames    = "2.5.29.17"
	oidConstraints = "2.5.29.30"
)

func extension(c *x509.Certificate, id string) ([]byte, bool) {
	for i := range c.Extensions {
		if c.Extensions[i].Id.String() == id {
			return c.Extensions[i].Value, true
		}
	}
	return nil, false
}

func altNamesOf(c *x509.Certificate) (n altNames, ok bool) {
	value, present := extension(c, oidAltNames)
	if !present {
		return n, true
	}
	_, value, _, ok = der(value)
	for ok && len(value) > 0 {
		var tag byte
		var name []byte
		if tag, name, value, ok = der(value); !ok {
			break
		}
		const email, dns, uri = 0x81, 0x82, 0x86 // RFC 5280, section 4.2.1.6
		switch tag {
		case email:
			n.emails = append(n.emails, string(name))
		case dns:
			n.dns = append(n.dns, string(name))
		case uri:
			n.uris = append(n.uris, string(name))
		}
	}
	return n, ok
}

// nameOf returns the caller that a verified chain names: its only name of the first kind that it
// has. The forms of the kinds have no text in common, so that a name of one never reads as one of
// another.
func (t *Trust) nameOf(chain []*x509.Certificate) (string, *Error) {
	leaf := chain[0]
	names, ok := altNamesOf(leaf)
	if !ok {
		return "", refuse(Chain, "the subject alternative names of %s are malformed", showName(leaf))
	}
	for _, kind := range t.kinds {
		var found []string
		switch kind {
		case kindSPIFFE:
			if !slices.ContainsFunc(names.uris, isSPIFFE) {
				continue
			}
			found = names.uris // others beside it are not allowed: X509-SVID, section 2
		case kindDNS:
			found = names.dns
		case kindEmail:
			found = names.emails
		case kindSubject:
			found = subjectOf(leaf)
		}
		switch {
		case len(found) == 0:
			continue
		case len(found) > 1:
			return "", refuse(Name, "%s has %d names of the kind %s; it may have one", showName(leaf), len(found), kind)
		}
		if err := bindsKind(chain[1:], kind); err != nil {
			return "", err
		}
		return t.checkName(chain, kind, found[0])
	}
	return "", refuse(Name, "%s has no name of the kinds %s", showName(leaf), strings.Join(t.kinds, ", "))
}

// checkName returns a name in its canonical form.
func (t *Trust) checkName(chain []*x509.Certificate, kind, name string) (string, *Error) {
	leaf, ok := chain[0], false
	switch kind {
	case kindSPIFFE:
		var domain string
		if domain, ok = trustDomainOf(name); !ok {
			break
		}
		if leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 { // X509-SVID, section 5.2
			return "", refuse(WrongUsage, "%s may sign certificates or revocation lists, which a caller with a SPIFFE ID must not", showName(leaf))
		}
		if len(t.trustDomains) > 0 && !slices.Contains(t.trustDomains, domain) {
			return "", refuse(Name, "the trust domain of %s is none of trust_domains", quotedName(name))
		}
		if err := permitsDomain(chain[1:], domain); err != nil {
			return "", err
		}
	case kindDNS:
		name = strings.ToLower(name)
		ok = validDNS(name)
	case kindEmail:
		name, ok = canonicalEmail(name)
	case kindSubject:
		ok = validSubject(name)
	}
	if !ok || len(name) > maxName {
		return "", refuse(Name, "the %s name %s cannot be a caller: it is malformed or too long", kind, quotedName(name))
	}
	return name, nil
}

// bindsKind checks that the name constraints of the CAs, if they have any, say something about a
// kind of names.
//
// RFC 5280 lets a CA that may only issue for DNS names below lab.example issue for every URI. Such
// a CA was not meant to choose callers of its own, so names of kinds for which it has no permitted
// subtree are refused. crypto/x509 checks no constraints on subjects, so none may be the caller.
func bindsKind(cas []*x509.Certificate, kind string) *Error {
	for _, ca := range cas {
		value, present := extension(ca, oidConstraints)
		if !present {
			continue
		}
		binds := false
		switch kind {
		case kindSPIFFE:
			binds = len(ca.PermittedURIDomains) > 0
		case kindDNS:
			binds = len(ca.PermittedDNSDomains) > 0
		case kindEmail:
			binds = len(ca.PermittedEmailAddresses) > 0
		case kindSubject:
			return refuse(Name, "%s has name constraints, which do not bind the subjects of its certificates", showName(ca))
		}
		const permitted = 0xa0
		_, trees, _, _ := der(value)
		if tag, _, _, ok := der(trees); (ok && tag == permitted || !ok) && !binds {
			return refuse(Name, "the name constraints of %s permit other kinds of names than %s", showName(ca), kind)
		}
	}
	return nil
}

// permitsDomain checks that the permitted URI domains of each CA contain a trust domain. As RFC 5280,
// section 4.2.1.10, has it, lab is one host, and .lab those below it. crypto/x509 takes lab for both,
// but the trust domain x.lab is another one than lab.
func permitsDomain(cas []*x509.Certificate, domain string) *Error {
	for _, ca := range cas {
		permitted := ca.PermittedURIDomains
		if len(permitted) > 0 && !slices.ContainsFunc(permitted, func(p string) bool {
			p = strings.ToLower(p)
			return p == domain || strings.HasPrefix(p, ".") && strings.HasSuffix(domain, p)
		}) {
			return refuse(Name, "the name constraints of %s do not permit the trust domain %s", showName(ca), quotedName(domain))
		}
	}
	return nil
}

func isSPIFFE(uri string) bool {
	const scheme = "spiffe:"
	return len(uri) >= len(scheme) && strings.EqualFold(uri[:len(scheme)], scheme)
}

// trustDomainOf returns the trust domain of the SPIFFE ID of a workload, which has a path. The form
// is that of the SPIFFE ID specification, section 2.
func trustDomainOf(id string) (domain string, ok bool) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return "", false
	}
	domain, path, ok := strings.Cut(rest, "/")
	if !ok || !validTrustDomain(domain) {
		return "", false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || !consistsOf(segment, func(c byte) bool { return alphanumeric(c) || c == '-' || c == '_' || c == '.' }) {
			return "", false
		}
	}
	return domain, true
}

func validTrustDomain(s string) bool {
	return s != "" && len(s) <= 255 && consistsOf(s, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	})
}

// validDNS reports whether a name in lower case is a host name. A wildcard is none.
func validDNS(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !consistsOf(label, func(c byte) bool { return alphanumeric(c) || c == '-' || c == '_' }) {
			return false
		}
	}
	return true
}

// canonicalEmail returns an address with its domain in lower case. The local part may not have an
// equals sign: the address could read as a subject.
func canonicalEmail(s string) (string, bool) {
	local, domain, ok := strings.Cut(s, "@")
	domain = strings.ToLower(domain)
	ok = ok && local != "" && validDNS(domain) && consistsOf(local, func(c byte) bool {
		return alphanumeric(c) || strings.IndexByte("!#$%&'*+-/?^_`{|}~.", c) >= 0
	})
	return local + "@" + domain, ok
}

// ValidName reports whether a certificate could name this caller, in its canonical form.
func ValidName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	_, spiffe := trustDomainOf(s)
	email, isEmail := canonicalEmail(s)
	return spiffe || isEmail && email == s || validDNS(s) && s == strings.ToLower(s) || validSubject(s)
}

// subjectOf returns the subject in the form of RFC 4514, such as CN=batch,O=lab; none if it is empty.
func subjectOf(c *x509.Certificate) []string {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &rdns); err != nil || len(rest) > 0 {
		return []string{""} // refused as malformed
	}
	if len(rdns) == 0 {
		return nil
	}
	return []string{rdns.String()}
}

// validSubject reports whether a subject looks in logs and fields like no other.
func validSubject(s string) bool {
	return strings.Contains(s, "=") && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return r == utf8.RuneError || !unicode.IsPrint(r)
	}) < 0
}

// groupsOf returns the caller's groups, from the part of the subject that the entry names.
func (t *Trust) groupsOf(chain []*x509.Certificate) ([]string, *Error) {
	var groups []string
	switch t.groups {
	case groupsOU:
		groups = chain[0].Subject.OrganizationalUnit
	case groupsO:
		groups = chain[0].Subject.Organization
	}
	if len(groups) == 0 {
		return nil, nil
	}
	if err := bindsKind(chain[1:], kindSubject); err != nil {
		return nil, err
	}
	for _, g := range groups {
		if g == "" || len(g) > maxName || !validSubject(g+"=") {
			return nil, refuse(Name, "the group %s of %s is malformed or too long", quotedName(g), showName(chain[0]))
		}
	}
	return slices.Clone(groups), nil
}

func consistsOf(s string, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func quotedName(s string) string { return setting.Quoted(s, 64) }
