package route

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// These are the names of sets of security headers.
const (
	SecurityDefault  = "default"
	SecurityTalisman = "talisman"
	SecurityOff      = off
)

// SecurityConfig is `security_headers` of a route: the name of a set, or changes to the default set.
type SecurityConfig struct {
	Set    string            // "" for the default set
	Fields map[string]string // a name, and its value or off; nil if Set names the set
}

// Form implements [setting.Forms].
func (c *SecurityConfig) Form(s setting.Shape) any {
	switch s {
	case setting.Scalar:
		return &c.Set
	case setting.Mapping:
		return &c.Fields
	}
	return nil
}

// Want implements [setting.Forms].
func (c *SecurityConfig) Want() string { return "default, talisman or off, or {NAME: VALUE}" }

// check records the faults of the section.
func (c *SecurityConfig) check(at string, f *setting.Faults) {
	switch c.Set {
	case "", SecurityDefault, SecurityTalisman, SecurityOff:
	default:
		f.Add(at, c.Set, "not a set of security headers", "write default, talisman or off, or {NAME: VALUE}")
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		value, folded := c.Fields[name], message.Fold(name)
		path := at + "." + name
		switch {
		case !message.ValidName(name):
			f.Add(path, "", "not a field name", "write one such as Content-Security-Policy")
		case seen[folded]:
			f.Add(path, "", "is written twice, in different letters", "keep one of the two")
		case reservedField(folded) && folded != "content-security-policy" && folded != "content-security-policy-report-only":
			f.Add(path, "", "is not a security header", "let the upstream set it")
		case value == "":
			f.Add(path, "", "no value", "write the value, or off")
		case !message.ValidValue(value):
			f.Add(path, value, "not a field value", "write printable characters in one line")
		}
		seen[folded] = true
	}
}

const hstsField = "strict-transport-security"

// Security holds the fields that answers get unless the upstream sets its own. The zero Security
// adds no field and removes every Strict-Transport-Security. It is immutable.
type Security struct {
	fields []securityField
	// hsts means that answers of the host may have Strict-Transport-Security.
	hsts bool
}

// securityField is a field, and the kinds of answers that do not get it.
type securityField struct {
	message.Field
	not answerKind
}

// answerKind is a set of properties of an answer.
type answerKind uint8

const (
	ofPage answerKind = 1 << iota // a page or script, or the 304 for one
	ofCall                        // it answers a gRPC call
)

// NewSecurity compiles a checked section for a host. local means that the host's certificate is from
// the local development authority. The default set differs from Flask-Talisman's in two fields:
// pages get no Content-Security-Policy, and HSTS does not include subdomains. Neither set has the
// obsolete X-XSS-Protection.
//
// A host with a certificate of the local authority gets no Strict-Transport-Security: browsers that
// do not trust the next certificate could no longer reach it. IP addresses get none either, because
// browsers ignore it there (RFC 6797, section 8.1.1).
func NewSecurity(c *SecurityConfig, host string, local bool) Security {
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		local = true
	}
	s := Security{hsts: !local}
	if c.Set == SecurityOff {
		return s
	}
	all := message.Fields{
		{Name: "x-frame-options", Value: "SAMEORIGIN"},
		{Name: "x-content-type-options", Value: "nosniff"},
		{Name: "content-security-policy", Value: "default-src 'self'; object-src 'none'"},
		{Name: hstsField, Value: "max-age=15552000"},
		{Name: "referrer-policy", Value: "strict-origin-when-cross-origin"},
	}
	everywhere := c.Set == SecurityTalisman
	if everywhere {
		all.Set(hstsField, "max-age=31556926; includeSubDomains")
	}
	for name, value := range c.Fields {
		name = strings.ToLower(name)
		everywhere = everywhere || name == "content-security-policy"
		if value == off {
			all.Del(name)
		} else {
			all.Set(name, value)
		}
	}
	slices.SortFunc(all, func(a, b message.Field) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range all {
		one := securityField{Field: f}
		if concernsDocuments(f.Name) {
			one.not |= ofCall
		}
		if f.Name == "content-security-policy" && !everywhere {
			one.not |= ofPage
		}
		s.fields = append(s.fields, one)
	}
	return s
}

// concernsDocuments reports whether a field has a meaning only for documents in a browser.
func concernsDocuments(name string) bool {
	switch name {
	case "content-security-policy", "content-security-policy-report-only", "x-frame-options", "referrer-policy",
		"permissions-policy", "cross-origin-opener-policy", "cross-origin-embedder-policy":
		return true
	}
	return false
}

// Screen removes the upstream's Strict-Transport-Security from answers over plain HTTP (RFC 6797,
// section 7.2) and for hosts that must not have it: see [NewSecurity]. https means that the client
// called over TLS.
func (s *Security) Screen(h *message.Response, https bool) {
	if !(s.hsts && https) {
		h.Fields.Del(hstsField)
	}
}

// Dress adds the fields that the answer lacks. https means that the client called over TLS.
func (s *Security) Dress(h *message.Response, https bool) {
	kind := kindOf(h)
	for i := range s.fields {
		f := &s.fields[i]
		if f.not&kind != 0 || f.Name == hstsField && !(s.hsts && https) || h.Fields.Has(f.Name) {
			continue
		}
		h.Fields = append(h.Fields, f.Field)
	}
}

// kindOf returns the kind of an answer by its Content-Type. An answer with several is no page, so it
// gets all fields, which is safe in every browser.
func kindOf(h *message.Response) answerKind {
	if h.Status == 304 {
		return ofPage // browsers copy the fields to the page in their cache
	}
	contentType := h.Fields.Get("content-type")
	switch {
	case message.IsGRPC(contentType):
		return ofCall
	case isPage(contentType) && h.Fields.Count("content-type") == 1:
		return ofPage
	}
	return 0
}

// isPage reports whether content of a media type can break under a Content-Security-Policy that was
// not written for it. That is so for HTML; for scripts, because workers run under the policy of their
// own answer; and for PDF, which browsers display in a page of their own. SVG and XML can run scripts
// too, but servers have no pages in these formats: such a script is most likely an attacker's.
func isPage(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.Trim(media, " \t")
	if len(media) < len("text/html") || len(media) > len("application/x-javascript") {
		return false
	}
	switch media[0] | 0x20 {
	case 'a', 't':
	default:
		return false
	}
	for _, page := range [...]string{
		"text/html", "application/xhtml+xml", "application/pdf",
		"text/javascript", "application/javascript", "application/x-javascript", "text/ecmascript", "application/ecmascript",
	} {
		if message.EqualFold(media, page) {
			return true
		}
	}
	return false
}
