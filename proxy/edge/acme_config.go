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

// ACMEConfig says how certificates are obtained by ACME (RFC 8555). The zero
// value asks Let's Encrypt for one certificate for each host of the routes.
type ACMEConfig struct {
	// Email is where the authority writes to when something is wrong; may be "".
	Email string `yaml:"email"`

	// Directory is that of the one issuer, where Issuers lists none. See [ACMEIssuer].
	Directory string `yaml:"directory"`
	// CA is that of the one issuer, where Issuers lists none.
	CA setting.Path `yaml:"ca"`
	// EAB is that of the one issuer, where Issuers lists none.
	EAB *EABConfig `yaml:"eab"`
	// Profile is that of the one issuer, where Issuers lists none.
	Profile string `yaml:"profile"`
	// Issuers are asked in this order, until one of them issues.
	Issuers setting.List[ACMEIssuer] `yaml:"issuers"`

	// Storage is the folder for certificates, keys and accounts, which must
	// outlive restarts. Default: sallyport-acme in the folder for state, which is
	// $STATE_DIRECTORY or /var/lib/sallyport where there is one, else that of
	// gateway.yaml; sallyport check says where.
	Storage setting.Place `yaml:"storage"`
	// Challenges are the ways in which names are proved: tls-alpn-01 (on
	// listen.https), http-01 (on listen.http) and dns-01. Default: dns-01 alone
	// where DNS is given, else both others.
	Challenges setting.List[string] `yaml:"challenges"`
	// KeyType is that of certificates: p256 (default), p384, rsa2048, rsa4096.
	KeyType string `yaml:"key_type"`
	// Domains are names to have certificates for besides the routes' hosts; one
	// such as "*.example.com" then serves the hosts that it covers.
	Domains setting.List[string] `yaml:"domains"`
	// DNS says how records for dns-01 are made.
	DNS *DNSConfig `yaml:"dns"`
}

// ACMEIssuer is one authority that speaks ACME.
type ACMEIssuer struct {
	// Directory is its URL, or letsencrypt (default), letsencrypt-staging, zerossl.
	Directory string `yaml:"directory"`
	// CA is a PEM file with the only roots for its server; default: the system's.
	CA setting.Path `yaml:"ca"`
	// EAB binds our account to one that was made by hand, where it wants that.
	EAB *EABConfig `yaml:"eab"`
	// Profile is the kind of certificate, such as shortlived; "" for the usual.
	Profile string `yaml:"profile"`
}

// EABConfig is an external account binding.
type EABConfig struct {
	// KeyID names the account.
	KeyID string `yaml:"key_id"`
	// Key is its MAC key, in base64url as the authority shows it.
	Key setting.Secret `yaml:"key"`
}

// Names of the challenges, as ACME has them.
const (
	challengeHTTP = "http-01"
	challengeTLS  = "tls-alpn-01"
	challengeDNS  = "dns-01"
)

// directories are those that have a name.
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

// keyType is the kind of key that KeyType names; "" if there is none.
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

// issuers are those to ask, in order.
func (c *ACMEConfig) issuers() []ACMEIssuer {
	if len(c.Issuers) > 0 {
		return c.Issuers
	}
	return []ACMEIssuer{{Directory: c.Directory, CA: c.CA, EAB: c.EAB, Profile: c.Profile}}
}

// challenges are those to use. plain says whether there is a listener for HTTP-01.
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
		f.Add(path+".email", c.Email, "not an email address", "write one alone, such as ops@example.com")
	}
	c.Storage.Check(path+".storage", "name a folder, or remove the line for the default", f)
	if len(c.Issuers) > 0 {
		for _, x := range []struct {
			name string
			set  bool
		}{{"directory", c.Directory != ""}, {"ca", c.CA != ""}, {"eab", c.EAB != nil}, {"profile", c.Profile != ""}} {
			if x.set {
				f.Add(path+"."+x.name, "", "stands beside issuers", "write it within one of the issuers")
			}
		}
		for i := range c.Issuers {
			c.Issuers[i].check(setting.Index(path+".issuers", i), f)
		}
	} else {
		c.issuers()[0].check(path, f)
	}
	if c.keyType() == "" {
		f.Add(path+".key_type", c.KeyType, "not a kind of key", "write p256, p384, rsa2048 or rsa4096")
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
		}
	}
}

const (
	noWildcard   = "a certificate with a star can be had by the challenge dns-01 only"
	cureWildcard = "say under tls.acme.dns how records are made, or list the names one by one"
)

// validDomain says whether a name has the form of one, in lower case.
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
			f.Add(at, name, "not a challenge that is known", "write tls-alpn-01, http-01 or dns-01")
		case slices.Contains(c.Challenges[:i], name):
			f.Add(at, name, "is listed twice", "remove one of the two")
		case name == challengeDNS && c.DNS == nil:
			f.Add(at, name, "it is not said how records are made", "say it under tls.acme.dns")
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
		f.Add(path+".directory", i.Directory, "not safe: whoever stands between could have certificates issued", "write an https URL without a user")
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

// public says whether the issuer serves names on the internet alone.
func (i *ACMEIssuer) public() bool {
	d := directories(i.Directory)
	return d == certmagic.LetsEncryptProductionCA || d == certmagic.LetsEncryptStagingCA || d == certmagic.ZeroSSLProductionCA
}

// CheckHosts records the faults of the section at path that the routes' hosts
// show: those that no challenge can prove or that no authority would issue for.
// plain says whether there is a listener for plain HTTP.
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
		return // which hosts the files have, CheckFiles finds out
	}
	for _, host := range hosts {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if hostAddress(host) == nil && !validDomain(strings.TrimPrefix(host, "*.")) {
			continue // a fault of its own
		}
		if problem, cure := c.cannotProve(host, plain); problem != "" {
			f.Add(path, host, problem, cure)
		}
	}
}

// cannotProve says why no certificate for a host can be had by ACME.
func (c *Config) cannotProve(host string, plain bool) (problem, cure string) {
	a := c.ACME
	public := !slices.ContainsFunc(a.issuers(), func(i ACMEIssuer) bool { return !i.public() })
	switch {
	case coveredBy(host, a.Domains) || c.Local != nil && c.Local.takes(host):
	case hostAddress(host) != nil:
		return "certificates for addresses are not asked for", "add tls: {local: {}} or tls.files for this host"
	case strings.HasPrefix(host, "*.") && !slices.Contains(a.challenges(plain), challengeDNS):
		return noWildcard, cureWildcard
	case public && !certmagic.SubjectQualifiesForPublicCert(host):
		return "no public authority issues for this name", "add tls: {local: {}} or tls.files for it, or name the directory of your own authority"
	}
	return "", ""
}

// coveredBy says whether one of the names of certificates is for the host.
func coveredBy(host string, names []string) bool {
	return slices.Contains(names, host) || slices.Contains(names, wildcard(host))
}

// checkACMEFiles records what is wrong with the files of the section at path.
func (c *Config) checkACMEFiles(path string, f *setting.Faults) {
	a := c.ACME
	if _, err := newCertStorage(a.storage()); err != nil {
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

// DNSConfig says how records are made for the challenge dns-01. Exactly one of
// the five ways is given.
type DNSConfig struct {
	// RFC2136 makes them by dynamic updates, as BIND, Knot and PowerDNS take.
	RFC2136 *RFC2136Config `yaml:"rfc2136"`
	// Cloudflare makes them at Cloudflare.
	Cloudflare *CloudflareConfig `yaml:"cloudflare"`
	// Route53 makes them at Amazon Route 53.
	Route53 *Route53Config `yaml:"route53"`
	// Exec has a program make them.
	Exec *ExecConfig `yaml:"exec"`
	// Webhook has an HTTP server make them.
	Webhook *WebhookConfig `yaml:"webhook"`

	// Resolvers are asked for the zone and for the record; default: the system's.
	Resolvers setting.List[string] `yaml:"resolvers"`
	// Wait is how long to wait before the record is looked for; default: not at all.
	Wait setting.Duration `yaml:"wait"`
	// Timeout is how long the record may take to be seen; default: 2 m.
	Timeout setting.Duration `yaml:"timeout"`
}

// RFC2136Config makes records by dynamic updates, as BIND, Knot and PowerDNS take.
type RFC2136Config struct {
	// Server is the address HOST:PORT of the server.
	Server string `yaml:"server"`
	// KeyName is the name of the key for TSIG.
	KeyName string `yaml:"key_name"`
	// Key is the key for TSIG, in base64.
	Key setting.Secret `yaml:"key"`
	// Algorithm is that of TSIG. Default: hmac-sha256.
	Algorithm string `yaml:"algorithm"`
}

// CloudflareConfig makes records at Cloudflare.
type CloudflareConfig struct {
	Token setting.Secret `yaml:"token"` // with Zone.DNS:Edit for the zone
}

// Route53Config makes records at Amazon Route 53. Without keys, those of the
// machine's role or of the environment are taken.
type Route53Config struct {
	// AccessKeyID names the access key.
	AccessKeyID string `yaml:"access_key_id"`
	// SecretAccessKey is its secret.
	SecretAccessKey setting.Secret `yaml:"secret_access_key"`
	// Region is that of the API, such as eu-central-1.
	Region string `yaml:"region"`
	// ZoneID names the hosted zone; "" has it found by name.
	ZoneID string `yaml:"zone_id"`
}

// ExecConfig makes records by a program, which is called with the arguments
// present or cleanup, the record's name with a dot at its end, and its text. It
// sees nothing of our environment but PATH and what Env names.
type ExecConfig struct {
	Command setting.List[string] `yaml:"command"` // an absolute path, then arguments that go before ours
	Env     setting.List[string] `yaml:"env"`     // names of variables to hand on
	Timeout setting.Duration     `yaml:"timeout"` // of one call; default: 1 m
}

// WebhookConfig makes records by an HTTP server: POST with
// {"action": "present" or "cleanup", "fqdn": ..., "value": ...}; 2xx is success.
type WebhookConfig struct {
	URL   setting.URL    `yaml:"url"`   // https, or http to this machine
	Token setting.Secret `yaml:"token"` // sent as a bearer token; may be absent
	CA    setting.Path   `yaml:"ca"`    // PEM file with the only roots; default: the system's
}

func (c *DNSConfig) check(path string, f *setting.Faults) {
	n := 0
	for _, given := range []bool{c.RFC2136 != nil, c.Cloudflare != nil, c.Route53 != nil, c.Exec != nil, c.Webhook != nil} {
		if given {
			n++
		}
	}
	if n != 1 {
		f.Add(path, "", fmt.Sprintf("%d ways to make records where one is meant", n), "write one of rfc2136, cloudflare, route53, exec and webhook")
	}
	for i, r := range c.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			if _, err := netip.ParseAddr(r); err != nil {
				f.Add(setting.Index(path+".resolvers", i), r, "not an address", "write one such as 1.1.1.1 or 127.0.0.1:53")
			}
		}
	}
	if c.Wait.D() > time.Hour || c.Timeout.D() > time.Hour {
		f.Add(path, "", "waits longer than an order lives", "write an hour or less")
	}
	c.checkProvider(path, f)
}

func (c *DNSConfig) checkProvider(path string, f *setting.Faults) {
	if r := c.RFC2136; r != nil {
		if host, port, ok := strings.Cut(r.Server, ":"); r.Server == "" || ok && (host == "" || port == "") {
			f.Add(path+".rfc2136.server", r.Server, "not a server", "write HOST:PORT of the zone's primary server")
		}
		if r.KeyName == "" || r.Key.IsZero() {
			f.Add(path+".rfc2136", "", "updates without a key are for everybody", "write key_name and key: {file: ...}, as tsig-keygen makes them")
		}
		if !slices.Contains([]string{"", "hmac-sha256", "hmac-sha384", "hmac-sha512"}, r.Algorithm) {
			f.Add(path+".rfc2136.algorithm", r.Algorithm, "not an algorithm that is taken", "write hmac-sha256, hmac-sha384 or hmac-sha512")
		}
	}
	if c.Cloudflare != nil && c.Cloudflare.Token.IsZero() {
		f.Add(path+".cloudflare.token", "", "missing", "write {file: ...} with an API token for Zone.DNS:Edit")
	}
	if r := c.Route53; r != nil && (r.AccessKeyID == "") != r.SecretAccessKey.IsZero() {
		f.Add(path+".route53", "", "half of a key", "write access_key_id and secret_access_key, or neither for the machine's role")
	}
	if e := c.Exec; e != nil {
		if len(e.Command) == 0 || !strings.HasPrefix(e.Command[0], "/") {
			f.Add(path+".exec.command", "", "not a program by its whole path", "write [/path/to/program, argument, ...]")
		}
		if e.Timeout.D() > 10*time.Minute {
			f.Add(path+".exec.timeout", e.Timeout.String(), "longer than an order waits", "write 10m or less")
		}
	}
	if w := c.Webhook; w != nil {
		switch {
		case w.URL.IsZero():
			f.Add(path+".webhook.url", "", "missing", "write the URL to post to")
		case w.URL.Scheme != "https" && !(w.URL.Scheme == "http" && loopbackHost(w.URL.Hostname())):
			f.Add(path+".webhook.url", w.URL.String(), "not safe: whoever stands between could have certificates issued", "write an https URL")
		}
	}
}

func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
