package edge

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"sallyport/proxy/setting"
)

// ACMEConfig configures certificates from ACME authorities (RFC 8555). The zero value obtains
// one certificate from Let's Encrypt for each host of the routes.
type ACMEConfig struct {
	// Email is the contact address for the authority; may be empty.
	Email string `yaml:"email"`

	// Directory belongs to the only issuer; not allowed beside issuers. See [ACMEIssuer].
	Directory string `yaml:"directory"`
	// CA belongs to the only issuer; not allowed beside issuers.
	CA setting.Path `yaml:"ca"`
	// EAB belongs to the only issuer; not allowed beside issuers.
	EAB *EABConfig `yaml:"eab"`
	// Profile belongs to the only issuer; not allowed beside issuers.
	Profile string `yaml:"profile"`
	// Issuers are tried in this order until one issues the certificate.
	Issuers setting.List[ACMEIssuer] `yaml:"issuers"`

	// Storage is the folder for certificates, keys and accounts. It must survive restarts.
	// Default: sallyport-acme in the folder for state, which is $STATE_DIRECTORY or
	// /var/lib/sallyport if one exists, else the folder of gateway.yaml. sallyport check
	// shows it.
	Storage setting.Place `yaml:"storage"`
	// Challenges are the accepted ways to prove control of a name: tls-alpn-01 (on listen.https),
	// http-01 (on listen.http) and dns-01. Default: dns-01 if dns is given, else the other two.
	Challenges setting.List[string] `yaml:"challenges"`
	// KeyType is the key type of certificates: p256 (default), p384, rsa2048 or rsa4096.
	KeyType string `yaml:"key_type"`
	// Domains are additional names to obtain certificates for. A wildcard such as
	// "*.example.com" also serves the hosts that it matches.
	Domains setting.List[string] `yaml:"domains"`
	// DNS configures how dns-01 records are created.
	DNS *DNSConfig `yaml:"dns"`
}

// ACMEIssuer is an ACME authority.
type ACMEIssuer struct {
	// Directory is its directory URL, or letsencrypt (default), letsencrypt-staging or zerossl.
	Directory string `yaml:"directory"`
	// CA is a PEM file with the trusted roots for its server. Default: the system's roots.
	CA setting.Path `yaml:"ca"`
	// EAB binds the ACME account to an existing account, if the authority requires that.
	EAB *EABConfig `yaml:"eab"`
	// Profile is the certificate profile, such as shortlived. Default: the authority's default.
	Profile string `yaml:"profile"`
}

// EABConfig is an external account binding.
type EABConfig struct {
	// KeyID identifies the account.
	KeyID string `yaml:"key_id"`
	// Key is the MAC key of the account, in base64url as the authority shows it.
	Key setting.Secret `yaml:"key"`
}

// Challenge types in ACME.
const (
	challengeHTTP = "http-01"
	challengeTLS  = "tls-alpn-01"
	challengeDNS  = "dns-01"
)

// directories returns the URL of a well-known authority, or name itself.
func directories(name string) string {
	switch name {
	case "", "letsencrypt":
		return certmagic.LetsEncryptProductionCA
	case "letsencrypt-staging":
		return certmagic.LetsEncryptStagingCA
	case "zerossl":
		return certmagic.ZeroSSLProductionCA
	}
	return name
}

// keyType returns the key type that KeyType names; "" if it is unknown.
func (c *ACMEConfig) keyType() certmagic.KeyType {
	switch c.KeyType {
	case "", "p256":
		return certmagic.P256
	case "p384":
		return certmagic.P384
	case "rsa2048":
		return certmagic.RSA2048
	case "rsa4096":
		return certmagic.RSA4096
	}
	return ""
}

func (c *ACMEConfig) storage() string {
	if c.Storage == "" {
		return "sallyport-acme"
	}
	return string(c.Storage)
}

// issuers returns the issuers to try, in order.
func (c *ACMEConfig) issuers() []ACMEIssuer {
	if len(c.Issuers) > 0 {
		return c.Issuers
	}
	return []ACMEIssuer{{Directory: c.Directory, CA: c.CA, EAB: c.EAB, Profile: c.Profile}}
}

// challenges returns the challenge types to use. plain says whether there is an HTTP listener.
func (c *ACMEConfig) challenges(plain bool) []string {
	if len(c.Challenges) > 0 {
		return c.Challenges
	}
	switch {
	case c.DNS != nil:
		return []string{challengeDNS}
	case plain:
		return []string{challengeTLS, challengeHTTP}
	}
	return []string{challengeTLS}
}

// check records the faults of the section at path.
func (c *ACMEConfig) check(path string, f *setting.Faults) {
	if c.Email != "" && (!strings.Contains(c.Email, "@") || strings.ContainsAny(c.Email, " ,<>:")) {
		f.Add(path+".email", c.Email, "not an email address", "write one address only, such as ops@example.com")
	}
	c.Storage.Check(path+".storage", "name a folder, or remove the line for the default", f)
	if len(c.Issuers) > 0 {
		for _, x := range []struct {
			name string
			set  bool
		}{{"directory", c.Directory != ""}, {"ca", c.CA != ""}, {"eab", c.EAB != nil}, {"profile", c.Profile != ""}} {
			if x.set {
				f.Add(path+"."+x.name, "", "is not allowed beside issuers", "write it within one of the issuers")
			}
		}
		for i := range c.Issuers {
			c.Issuers[i].check(setting.Index(path+".issuers", i), f)
		}
	} else {
		c.issuers()[0].check(path, f)
	}
	if c.keyType() == "" {
		f.Add(path+".key_type", c.KeyType, "not a key type", "write p256, p384, rsa2048 or rsa4096")
	}
	c.checkChallenges(path, f)
	if c.DNS != nil {
		c.DNS.check(path+".dns", f)
	}
	for i, name := range c.Domains {
		at := setting.Index(path+".domains", i)
		switch {
		case name == "" || hostAddress(name) != nil || !validDomain(strings.TrimPrefix(name, "*.")):
			f.Add(at, name, "not a name that a certificate can have", `write one such as a.example.com or "*.example.com"`)
		case strings.HasPrefix(name, "*.") && !slices.Contains(c.challenges(true), challengeDNS):
			f.Add(at, name, noWildcard, cureWildcard)
		case tooLong(name):
			f.Add(at, name, longDomain, cureLong)
		}
	}
}

const (
	noWildcard   = "a certificate with a star needs the challenge dns-01"
	cureWildcard = "configure tls.acme.dns, or list the names one by one"
	longDomain   = "the name is too long for the files beside its certificate, which have it in their names"
	cureLong     = "write a shorter name, or a certificate with a star for it in tls.acme.domains"
)

// tooLong reports whether the file of a lock, which has the longest name of all files for a
// certificate, could not be made.
func tooLong(domain string) bool {
	const maxName = 255 // bytes, on most file systems
	return len(lockName("issue_cert_"+domain)) > maxName
}

// validDomain reports whether name is a valid lower-case domain name.
func validDomain(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

func (c *ACMEConfig) checkChallenges(path string, f *setting.Faults) {
	for i, name := range c.Challenges {
		at := setting.Index(path+".challenges", i)
		switch {
		case name != challengeHTTP && name != challengeTLS && name != challengeDNS:
			f.Add(at, name, "not a known challenge", "write tls-alpn-01, http-01 or dns-01")
		case slices.Contains(c.Challenges[:i], name):
			f.Add(at, name, "is listed twice", "remove one of the two")
		case name == challengeDNS && c.DNS == nil:
			f.Add(at, name, "dns-01 needs a way to create records", "configure tls.acme.dns")
		}
	}
	if c.DNS != nil && len(c.Challenges) > 0 && !slices.Contains(c.Challenges, challengeDNS) {
		f.Add(path+".dns", "", "dns-01 is not among the challenges", "add it there, or remove dns")
	}
}

func (i *ACMEIssuer) check(path string, f *setting.Faults) {
	u, err := url.Parse(directories(i.Directory))
	switch {
	case err != nil || u.Host == "":
		f.Add(path+".directory", i.Directory, "neither a URL nor a known name", "write the URL of the directory, or letsencrypt, letsencrypt-staging or zerossl")
	case u.Scheme != "https" || u.User != nil:
		f.Add(path+".directory", i.Directory, "not safe: an attacker on the network could obtain certificates", "write an https URL without a user")
	case directories(i.Directory) == certmagic.ZeroSSLProductionCA && i.EAB == nil:
		f.Add(path+".eab", "", "ZeroSSL wants an external account binding", "write eab: {key_id: ..., key: {file: ...}} with what it shows under Developer")
	}
	if e := i.EAB; e != nil {
		if e.KeyID == "" {
			f.Add(path+".eab.key_id", "", "missing", "write what the authority calls the key ID")
		}
		if e.Key.IsZero() {
			f.Add(path+".eab.key", "", "missing", "write {file: ...} with the HMAC key that the authority shows")
		}
	}
}

// public reports whether the issuer is a public one, which issues only for internet names.
func (i *ACMEIssuer) public() bool {
	d := directories(i.Directory)
	return d == certmagic.LetsEncryptProductionCA || d == certmagic.LetsEncryptStagingCA || d == certmagic.ZeroSSLProductionCA
}

// CheckHosts records faults of the section at path that depend on the routes' hosts: hosts
// that no challenge can prove or no authority issues for. plain says whether there is a plain
// HTTP listener.
func (c *Config) CheckHosts(path string, hosts []string, plain bool, f *setting.Faults) {
	a := c.ACME
	if a == nil {
		return
	}
	path += ".acme"
	if !plain && slices.Contains(a.Challenges, challengeHTTP) {
		f.Add(path+".challenges", challengeHTTP, "it is answered on listen.http, which is off", "switch that on, or leave it out here")
	}
	if len(c.Files) > 0 {
		return // CheckFiles checks which hosts the files cover
	}
	for _, host := range hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if hostAddress(host) == nil && !validDomain(strings.TrimPrefix(host, "*.")) {
			continue // reported elsewhere
		}
		if problem, cure := c.cannotProve(host, plain); problem != "" {
			f.Add(path, host, problem, cure)
		}
	}
}

// cannotProve returns the reason why ACME cannot issue a certificate for host.
func (c *Config) cannotProve(host string, plain bool) (problem, cure string) {
	a := c.ACME
	public := !slices.ContainsFunc(a.issuers(), func(i ACMEIssuer) bool { return !i.public() })
	switch {
	case coveredBy(host, a.Domains) || c.Local != nil && c.Local.takes(host):
	case hostAddress(host) != nil:
		return "no certificates for addresses are requested", "add tls: {local: {}} or tls.files for this host"
	case strings.HasPrefix(host, "*.") && !slices.Contains(a.challenges(plain), challengeDNS):
		return noWildcard, cureWildcard
	case tooLong(host):
		return longDomain, cureLong
	case public && !certmagic.SubjectQualifiesForPublicCert(host):
		return "no public authority issues for this name", "add tls: {local: {}} or tls.files for it, or name the directory of your own authority"
	}
	return "", ""
}

// coveredBy reports whether a certificate for one of the names is valid for host.
func coveredBy(host string, names []string) bool {
	return slices.Contains(names, host) || slices.Contains(names, wildcard(host))
}

// checkACMEFiles records faults of the files and secrets that the section refers to.
func (c *Config) checkACMEFiles(path string, f *setting.Faults) {
	a := c.ACME
	if problem, cure := setting.NameFault(a.storage()); problem != "" {
		f.Add(path+".storage", a.storage(), problem, cure)
	} else if _, err := newCertStorage(a.storage()); err != nil {
		f.Add(path+".storage", a.storage(), err.Error(), "")
	} else if problem, cure := setting.FolderFault(a.storage(), true); problem != "" {
		f.Add(path+".storage", a.storage(), problem, cure)
	}
	for n, i := range a.issuers() {
		at := path
		if len(a.Issuers) > 0 {
			at = setting.Index(path+".issuers", n)
		}
		if i.CA != "" {
			if _, err := readRoots(i.CA); err != nil {
				f.Add(at+".ca", string(i.CA), err.Error(), setting.CureUnreadable(err, ""))
			}
		}
		if i.EAB != nil {
			if _, err := i.EAB.Key.Read(); err != nil {
				f.Add(at+".eab.key", setting.Redacted, err.Error(), setting.CureUnreadable(err, ""))
			}
		}
	}
	if a.DNS != nil {
		if _, err := newDNSSolver(a.DNS, time.Now); err != nil {
			f.Add(path+".dns", "", err.Error(), setting.CureUnreadable(err, ""))
		}
	}
}

// DNSConfig configures how dns-01 records are created. Exactly one of the five ways is given.
type DNSConfig struct {
	// RFC2136 uses dynamic updates, as supported by BIND, Knot and PowerDNS.
	RFC2136 *RFC2136Config `yaml:"rfc2136"`
	// Cloudflare uses the Cloudflare API.
	Cloudflare *CloudflareConfig `yaml:"cloudflare"`
	// Route53 uses Amazon Route 53.
	Route53 *Route53Config `yaml:"route53"`
	// Exec runs a program.
	Exec *ExecConfig `yaml:"exec"`
	// Webhook calls an HTTP server.
	Webhook *WebhookConfig `yaml:"webhook"`

	// Resolvers look up the zone and the record. Default: the system's resolvers.
	Resolvers setting.List[string] `yaml:"resolvers"`
	// Wait is the delay before the first lookup of the record. Default: none.
	Wait setting.Duration `yaml:"wait"`
	// Timeout is the maximum time until the record is visible. Default: 2m.
	Timeout setting.Duration `yaml:"timeout"`
}

// RFC2136Config creates records by dynamic updates (RFC 2136).
type RFC2136Config struct {
	// Server is the HOST:PORT of the zone's primary server.
	Server string `yaml:"server"`
	// KeyName is the name of the TSIG key.
	KeyName string `yaml:"key_name"`
	// Key is the TSIG key, in base64.
	Key setting.Secret `yaml:"key"`
	// Algorithm is the TSIG algorithm. Default: hmac-sha256.
	Algorithm string `yaml:"algorithm"`
}

// CloudflareConfig creates records at Cloudflare.
type CloudflareConfig struct {
	Token setting.Secret `yaml:"token"` // needs Zone.DNS:Edit for the zone
}

// Route53Config creates records at Amazon Route 53. Without keys, it uses the machine's role
// or the environment.
type Route53Config struct {
	// AccessKeyID is the ID of the access key.
	AccessKeyID string `yaml:"access_key_id"`
	// SecretAccessKey is the secret of the access key.
	SecretAccessKey setting.Secret `yaml:"secret_access_key"`
	// Region is the AWS region, such as eu-central-1.
	Region string `yaml:"region"`
	// ZoneID is the ID of the hosted zone. Default: found by name.
	ZoneID string `yaml:"zone_id"`
}

// ExecConfig creates records with a program. Its arguments are present or cleanup, the
// record's name with a trailing dot, and the record's text. Its environment holds only PATH and
// the variables in Env.
type ExecConfig struct {
	Command setting.List[string] `yaml:"command"` // absolute path, then arguments that precede ours
	Env     setting.List[string] `yaml:"env"`     // names of environment variables to pass on
	Timeout setting.Duration     `yaml:"timeout"` // for one run; default: 1m
}

// WebhookConfig creates records through an HTTP server: POST with {"action": "present" or
// "cleanup", "fqdn": ..., "value": ...}; 2xx means success.
type WebhookConfig struct {
	URL   setting.URL    `yaml:"url"`   // https; http for loopback addresses only
	Token setting.Secret `yaml:"token"` // bearer token; may be absent
	CA    setting.Path   `yaml:"ca"`    // PEM file with the trusted roots; default: the system's roots
}

func (c *DNSConfig) check(path string, f *setting.Faults) {
	n := 0
	for _, given := range []bool{c.RFC2136 != nil, c.Cloudflare != nil, c.Route53 != nil, c.Exec != nil, c.Webhook != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		f.Add(path, "", fmt.Sprintf("%d ways to create records; want exactly one", n), "write one of rfc2136, cloudflare, route53, exec and webhook")
	}
	for i, r := range c.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			if _, err := netip.ParseAddr(r); err != nil {
				f.Add(setting.Index(path+".resolvers", i), r, "not an address", "write one such as 1.1.1.1 or 127.0.0.1:53")
			}
		}
	}
	if c.Wait.D() > time.Hour || c.Timeout.D() > time.Hour {
		f.Add(path, "", "longer than an ACME order is valid", "write an hour or less")
	}
	c.checkProvider(path, f)
}

func (c *DNSConfig) checkProvider(path string, f *setting.Faults) {
	if r := c.RFC2136; r != nil {
		if host, port, ok := strings.Cut(r.Server, ":"); r.Server == "" || ok && (host == "" || port == "") {
			f.Add(path+".rfc2136.server", r.Server, "not a server", "write HOST:PORT of the zone's primary server")
		}
		if r.KeyName == "" || r.Key.IsZero() {
			f.Add(path+".rfc2136", "", "updates without a key would be open to everybody", "write key_name and key: {file: ...}, as tsig-keygen makes them")
		}
		if !slices.Contains([]string{"", "hmac-sha256", "hmac-sha384", "hmac-sha512"}, r.Algorithm) {
			f.Add(path+".rfc2136.algorithm", r.Algorithm, "not a supported algorithm", "write hmac-sha256, hmac-sha384 or hmac-sha512")
		}
	}
	if c.Cloudflare != nil && c.Cloudflare.Token.IsZero() {
		f.Add(path+".cloudflare.token", "", "missing", "write {file: ...} with an API token for Zone.DNS:Edit")
	}
	if r := c.Route53; r != nil && (r.AccessKeyID == "") != r.SecretAccessKey.IsZero() {
		f.Add(path+".route53", "", "one half of the access key is missing", "write access_key_id and secret_access_key, or neither for the machine's role")
	}
	if e := c.Exec; e != nil {
		if len(e.Command) == 0 || !strings.HasPrefix(e.Command[0], "/") {
			f.Add(path+".exec.command", "", "not the absolute path of a program", "write [/path/to/program, argument, ...]")
		}
		if e.Timeout.D() > 10*time.Minute {
			f.Add(path+".exec.timeout", e.Timeout.String(), "longer than an ACME order may wait", "write 10m or less")
		}
	}
	if w := c.Webhook; w != nil {
		switch {
		case w.URL.IsZero():
			f.Add(path+".webhook.url", "", "missing", "write the URL to post to")
		case w.URL.Scheme != "https" && !(w.URL.Scheme == "http" && loopbackHost(w.URL.Hostname())):
			f.Add(path+".webhook.url", w.URL.String(), "not safe: an attacker on the network could obtain certificates", "write an https URL")
		}
	}
}

func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
