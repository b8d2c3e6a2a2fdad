package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// names are flags: the names that a certificate has.
type names struct {
	spiffe         string
	dns, email, ip []string
	subject        string
}

// The parts of a SPIFFE ID (SPIFFE-ID, sections 2.1 to 2.3), and names of hosts (RFC 1123).
var (
	trustDomain  = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	spiffeStep   = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	hostLabel    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	emailAddress = regexp.MustCompile("^[A-Za-z0-9.!#$%&'*+/?^_`{|}~-]+$") // before the @
)

const (
	// maxName is the upper bound of a common name and its kin (RFC 5280, appendix A.1).
	maxName = 64
	// maxCaller is the length of the longest name that the gateway takes for a caller.
	maxCaller = 256
)

// fill checks the names and sets them in a certificate that is to be signed.
func (n *names) fill(c *x509.Certificate, server bool) error {
	if n.spiffe != "" {
		id, err := parseSPIFFE(n.spiffe)
		if err != nil {
			return fmt.Errorf("--spiffe %q: %w", n.spiffe, err)
		}
		c.URIs = []*url.URL{id}
	}
	for _, host := range n.dns {
		if err := checkHost(host); err != nil {
			return fmt.Errorf("--dns %q: %w", host, err)
		}
	}
	for _, address := range n.email {
		if err := checkEmail(address); err != nil {
			return fmt.Errorf("--email %q: %w", address, err)
		}
	}
	for _, text := range n.ip {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || a.Zone() != "":
			return fmt.Errorf("--ip %q: want an address such as 10.0.0.7", text)
		case !server:
			return fmt.Errorf("--ip %q: the gateway knows no client by its address; for a server add --server", text)
		}
		c.IPAddresses = append(c.IPAddresses, net.IP(a.Unmap().AsSlice()))
	}
	switch {
	case server && len(n.email) > 0:
		return fmt.Errorf("--email %q: a server is not known by an address of mail", n.email[0])
	case !server && max(len(n.dns), len(n.email)) > 1:
		return errors.New("the gateway knows a client by one --dns and one --email at most; issue a certificate for each name")
	}
	c.DNSNames, c.EmailAddresses = n.dns, n.email
	if n.subject != "" {
		var err error
		if c.Subject, err = parseSubject(n.subject); err != nil {
			return fmt.Errorf("--subject %q: %w", n.subject, err)
		}
	}
	all := sans(c)
	switch {
	case server && len(all) == 0:
		return errors.New("a server needs a name by which it is called: --dns, --ip or --spiffe")
	case len(all) == 0 && c.Subject.CommonName == "":
		return errors.New("a client needs a name: --spiffe, --dns, --email or --subject")
	case c.Subject.CommonName == "" && len(all[0]) <= maxName:
		c.Subject.CommonName = all[0] // shown where people choose among certificates
	}
	return nil
}

// sans returns all alternative names of a certificate, as the gateway and people write them.
func sans(c *x509.Certificate) []string {
	all := []string{}
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	all = append(append(all, c.DNSNames...), c.EmailAddresses...)
	for _, a := range c.IPAddresses {
		all = append(all, a.String())
	}
	return all
}

func parseSPIFFE(text string) (*url.URL, error) {
	wrong := errors.New("want such as spiffe://lab/batch: a trust domain in lower case, then steps of letters, digits and . _ -")
	domain, path, slash := strings.Cut(strings.TrimPrefix(text, "spiffe://"), "/")
	if !strings.HasPrefix(text, "spiffe://") || len(text) > maxCaller || !slash || !trustDomain.MatchString(domain) {
		return nil, wrong
	}
	for step := range strings.SplitSeq(path, "/") {
		if !spiffeStep.MatchString(step) || step == "." || step == ".." {
			return nil, wrong
		}
	}
	return &url.URL{Scheme: "spiffe", Host: domain, Path: "/" + path}, nil
}

func checkHost(host string) error {
	if strings.HasPrefix(host, "*") {
		return errors.New("a certificate for all names of a domain lets its owner be any of them; name each")
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return errors.New("an address is no DNS name; for a server give it by --ip")
	}
	ok := len(host) <= 253
	for label := range strings.SplitSeq(host, ".") {
		ok = ok && hostLabel.MatchString(label)
	}
	if !ok {
		return errors.New("want a host name in lower case, such as batch.example.com")
	}
	return nil
}

func checkEmail(address string) error {
	wrong := errors.New("want an address such as ops@example.com")
	local, host, _ := strings.Cut(address, "@")
	if a, err := mail.ParseAddress(address); err != nil || a.Address != address || len(address) > maxCaller || !emailAddress.MatchString(local) {
		return wrong
	}
	if checkHost(host) != nil {
		return wrong
	}
	return nil
}

// parseSubject reads a common name, or a list such as CN=batch,OU=ml,O=lab. A backslash takes the
// meaning from the character behind it.
func parseSubject(text string) (pkix.Name, error) {
	var name pkix.Name
	if !strings.Contains(text, "=") {
		name.CommonName = text
		return name, checkText(text)
	}
	for _, part := range splitUnescaped(text) {
		key, value, _ := strings.Cut(part, "=")
		value = unescape(value)
		if err := checkText(value); err != nil {
			return name, err
		}
		switch strings.ToUpper(strings.TrimSpace(key)) {
		case "CN":
			if name.CommonName != "" {
				return name, errors.New("it has two common names (CN)")
			}
			name.CommonName = value
		case "OU":
			name.OrganizationalUnit = append(name.OrganizationalUnit, value)
		case "O":
			name.Organization = append(name.Organization, value)
		default:
			return name, errors.New("want a common name, or a list of CN, OU and O such as CN=batch,OU=ml,O=lab")
		}
	}
	return name, nil
}

func checkText(s string) error {
	switch {
	case s == "" || strings.TrimSpace(s) != s:
		return errors.New("a value is empty, or begins or ends with a space")
	case utf8.RuneCountInString(s) > maxName:
		return fmt.Errorf("a value has more than %d characters", maxName)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("a value has characters that cannot be printed")
	}
	return nil
}

// splitUnescaped splits at commas that no backslash precedes.
func splitUnescaped(s string) []string {
	var parts []string
	from, escaped := 0, false
	for i := range len(s) {
		switch {
		case escaped:
			escaped = false
		case s[i] == '\\':
			escaped = true
		case s[i] == ',':
			parts, from = append(parts, s[from:i]), i+1
		}
	}
	return append(parts, s[from:])
}

func unescape(s string) string {
	var b strings.Builder
	escaped := false
	for i := range len(s) {
		if escaped = s[i] == '\\' && !escaped; !escaped {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
