package clientcert

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// Config is one entry of `client_certificates`: the certificates that clients of some hosts may
// prove themselves with.
type Config struct {
	// Hosts are the hosts of routes that the entry serves. Default: every host that no other
	// entry names. A host asks for certificates only if one of its routes lists cert, or an
	// issuer with bound_tokens.
	Hosts setting.List[string] `yaml:"hosts"`
	// CA are PEM files with the certificates of the CAs whose clients are taken. A certificate
	// that another one in them has issued only helps to build chains.
	CA setting.List[setting.Path] `yaml:"ca"`
	// Mode is optional, where requests without a certificate are refused by the routes that
	// need one, or required, where the handshake fails without one. Where a balancer ends TLS,
	// required refuses every request without a good one in its field. Default: optional.
	Mode string `yaml:"mode"`
	// CRL are the revocation lists of the CAs: files, or URLs from which they are fetched in the
	// background. A CA whose list has ended, or has never come, is distrusted. With an http URL
	// each CA needs a list. Default: none.
	CRL setting.List[setting.Source] `yaml:"crl"`
	// CRLGrace is how long a list still counts after the time at which it names its successor
	// (nextUpdate), for CAs that are late. Default: not at all.
	CRLGrace setting.Duration `yaml:"crl_grace"`
	// Principal lists the kinds of names that may be the caller: spiffe, dns, email and
	// subject. The first kind that the certificate has counts, and it may have one name of that
	// kind. Default: spiffe, dns, email, subject.
	Principal setting.List[string] `yaml:"principal"`
	// TrustDomains are the SPIFFE trust domains that are taken. Default: all that the CAs sign.
	TrustDomains setting.List[string] `yaml:"trust_domains"`
	// Groups is the part of the subject that has the caller's groups: ou, o or none.
	// Default: none.
	Groups string `yaml:"groups"`
	// MaxDepth is how many CA certificates may stand between the client's and that of a root.
	// Default: 3.
	MaxDepth *int `yaml:"max_depth"`
	// AllowFingerprints are the SHA-256 fingerprints of the only certificates that are taken,
	// such as sha256:9f86... Default: all.
	AllowFingerprints setting.List[string] `yaml:"allow_fingerprints"`
	// DenyFingerprints are the SHA-256 fingerprints of certificates that are refused, those of
	// CAs included. Default: none.
	DenyFingerprints setting.List[string] `yaml:"deny_fingerprints"`
	// Header takes certificates from balancers that end the clients' TLS.
	Header *HeaderConfig `yaml:"header"`
}

// HeaderConfig is the section `header` of an entry.
type HeaderConfig struct {
	// Name is Client-Cert, with Client-Cert-Chain (RFC 9440), or X-Forwarded-Client-Cert, as
	// Envoy writes it. From other addresses both are dropped.
	Name string `yaml:"name"`
	// From are the addresses of the balancers, which must drop or replace the field where
	// clients send it.
	From setting.List[setting.CIDR] `yaml:"from"`
}

// Values of Mode.
const (
	Optional = "optional"
	Required = "required"
)

// Values of Principal.
const (
	kindSPIFFE  = "spiffe"
	kindDNS     = "dns"
	kindEmail   = "email"
	kindSubject = "subject"
)

// Values of Groups.
const (
	noGroups = "none"
	groupsOU = "ou"
	groupsO  = "o"
)

// Values of Header.Name, in lower case.
const (
	FieldClientCert      = "client-cert"
	FieldClientCertChain = "client-cert-chain" // accompanies client-cert
	FieldXFCC            = "x-forwarded-client-cert"
)

const (
	defaultDepth = 3
	mostDepth    = 10
	mostGrace    = 30 * 24 * time.Hour
)

// Kinds returns all kinds of names.
func Kinds() []string { return []string{kindSPIFFE, kindDNS, kindEmail, kindSubject} }

// Modes returns all values of mode.
func Modes() []string { return []string{Optional, Required} }

// GroupFields returns all values of groups.
func GroupFields() []string { return []string{groupsOU, groupsO, noGroups} }

// TakesGroups reports whether callers may have groups.
func (c *Config) TakesGroups() bool { return c.Groups != "" && c.Groups != noGroups }

func (c *Config) kinds() []string {
	if len(c.Principal) == 0 {
		return Kinds()
	}
	return slices.Clone(c.Principal)
}

// Check records every fault of the entry that its own text shows. path is its place in the
// configuration.
func (c *Config) Check(path string, f *setting.Faults) {
	at := func(field string) string { return setting.Join(path, field) }
	if len(c.CA) == 0 {
		f.Add(path, "", "no ca, so no certificate could be verified", "name a PEM file with the certificates of the clients' CA")
	}
	for i, source := range c.CRL {
		at := setting.Index(at("crl"), i)
		if source.File != "" || source.URL.IsZero() {
			continue
		}
		// Lists are signed, so http serves as well.
		if err := fetch.CheckURL(source.URL.URL, true); err != nil {
			f.Add(at, source.String(), err.Error(), "write an http or https URL, or the path of a file")
		}
	}
	if c.CRLGrace.D() > mostGrace {
		f.Add(at("crl_grace"), c.CRLGrace.String(), "longer than anyone should trust a CA that is silent", "write "+setting.Duration(mostGrace).String()+" or less")
	}
	if c.CRLGrace != 0 && len(c.CRL) == 0 {
		f.Add(at("crl_grace"), c.CRLGrace.String(), "there is no crl", "add it, or remove the line")
	}
	oneOf(at("mode"), c.Mode, Modes(), f)
	oneOf(at("groups"), c.Groups, GroupFields(), f)
	for i, kind := range c.Principal {
		at := setting.Index(at("principal"), i)
		oneOf(at, kind, Kinds(), f)
		if slices.Index(c.Principal, kind) < i {
			f.Add(at, kind, "is listed twice", "remove one of the two")
		}
	}
	for i, domain := range c.TrustDomains {
		if !validTrustDomain(domain) {
			f.Add(setting.Index(at("trust_domains"), i), domain, "not a SPIFFE trust domain", "write one such as lab.example, without spiffe://")
		}
	}
	if len(c.TrustDomains) > 0 && !slices.Contains(c.kinds(), kindSPIFFE) {
		f.Add(at("trust_domains"), "", "principal does not list spiffe", "add it there, or remove the line")
	}
	if d := c.MaxDepth; d != nil && (*d < 0 || *d > mostDepth) {
		f.Add(at("max_depth"), strconv.Itoa(*d), "out of bounds", fmt.Sprintf("write a number from 0 to %d", mostDepth))
	}
	for field, list := range map[string]setting.List[string]{"allow_fingerprints": c.AllowFingerprints, "deny_fingerprints": c.DenyFingerprints} {
		for i, text := range list {
			if _, err := parseFingerprint(text); err != nil {
				f.Add(setting.Index(at(field), i), text, err.Error(), "write what openssl x509 -noout -fingerprint -sha256 prints after the equals sign, with sha256: before it")
			}
		}
	}
	if c.Header != nil {
		c.Header.check(at("header"), f)
	}
}

// oneOf records a value that is none of the known ones; "" is the default.
func oneOf(at, value string, known []string, f *setting.Faults) {
	if value == "" || slices.Contains(known, value) {
		return
	}
	cure := "write one of " + strings.Join(known, ", ")
	if near := setting.Nearest(value, known); near != "" {
		cure = "did you mean " + near + "?"
	}
	f.Add(at, value, "unknown value", cure)
}

func (h *HeaderConfig) check(path string, f *setting.Faults) {
	switch strings.ToLower(h.Name) {
	case FieldClientCert, FieldXFCC:
	default:
		f.Add(setting.Join(path, "name"), h.Name, "not a field with certificates", "write Client-Cert or X-Forwarded-Client-Cert")
	}
	if len(h.From) == 0 {
		f.Add(path, "", "no from, so nobody may send the field", "list the addresses of the balancers")
	}
	for i, p := range h.From {
		if p.IsValid() && p.Bits() == 0 {
			f.Add(setting.Index(setting.Join(path, "from"), i), p.String(), "lets every client write its own certificate", "list the addresses of the balancers")
		}
	}
}

// CheckFiles records every fault of the files that the entry names. path is its place in the
// configuration.
func (c *Config) CheckFiles(path string, f *setting.Faults) {
	item := func(list string, i, count int) string {
		if count > 1 {
			return setting.Index(setting.Join(path, list), i)
		}
		return setting.Join(path, list)
	}
	sound := true
	for i, name := range c.CA {
		if _, err := readCAs(string(name)); err != nil {
			sound = false
			f.Add(item("ca", i, len(c.CA)), string(name), err.Error(), setting.CureUnreadable(err, "name a PEM file with the certificates of the clients' CA"))
		}
	}
	if !sound {
		return // the signatures of lists cannot be verified
	}
	b, err := readBundle(c.CA)
	if errors.As(err, new(*rootless)) {
		f.Add(setting.Join(path, "ca"), "", err.Error(), cureRootless)
	}
	if err != nil {
		return // else the file has just changed; serve reports it
	}
	for i, source := range c.CRL {
		if source.File == "" {
			continue
		}
		if _, err := readListFile(string(source.File), b.all); err != nil {
			f.Add(item("crl", i, len(c.CRL)), string(source.File), err.Error(), setting.CureUnreadable(err, "name the complete revocation list of a CA in ca"))
		}
	}
}

const fingerprintPrefix = "sha256:"

// parseFingerprint reads a SHA-256 fingerprint: sha256: and 64 hexadecimal digits, in any case and
// with or without colons between them.
func parseFingerprint(text string) (sum [32]byte, err error) {
	digits, ok := strings.CutPrefix(strings.ToLower(text), fingerprintPrefix)
	raw, fault := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if !ok || fault != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("not %s and 64 hexadecimal digits", fingerprintPrefix)
	}
	return [32]byte(raw), nil
}

// fingerprints returns a set of fingerprints; nil for an empty list.
func fingerprints(list []string) (map[[32]byte]bool, error) {
	if len(list) == 0 {
		return nil, nil
	}
	set := make(map[[32]byte]bool, len(list))
	for _, text := range list {
		sum, err := parseFingerprint(text)
		if err != nil {
			return nil, err
		}
		set[sum] = true
	}
	return set, nil
}
