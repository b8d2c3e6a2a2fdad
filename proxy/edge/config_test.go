package edge

import (
	"net/url"
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

func TestConfigCheck(t *testing.T) {
	pair := setting.List[FileConfig]{{Cert: "a.pem", Key: "a.key"}}
	acme := func(c ACMEConfig) Config { return Config{ACME: &c} }
	dns := &DNSConfig{Exec: &ExecConfig{Command: setting.List[string]{"/usr/bin/dns"}}}
	for _, tt := range []struct {
		name   string
		config Config
		want   string // prefix of the only fault
	}{
		{"files", Config{Files: pair}, ""},
		{"local", Config{Local: &LocalConfig{}, MinVersion: "1.2"}, ""},
		{"both", Config{Files: pair, Local: &LocalConfig{Dir: "ca"}, MinVersion: "1.3"}, ""},
		{"none", Config{}, "tls: no source of certificates"},
		{"acme", acme(ACMEConfig{Email: "ops@example.com"}), ""},
		{"acme, files and local", Config{Files: pair, Local: &LocalConfig{}, ACME: &ACMEConfig{}}, ""},
		{"acme: email", acme(ACMEConfig{Email: "ops"}), `tls.acme.email: "ops": not an email address`},
		{"acme: directory", acme(ACMEConfig{Directory: "letsencrpt"}), `tls.acme.directory: "letsencrpt": neither a URL nor a known name`},
		{"acme: plain http", acme(ACMEConfig{Directory: "http://ca.internal/dir"}), `tls.acme.directory: "http://ca.internal/dir": not safe`},
		{"acme: zerossl without account", acme(ACMEConfig{Directory: "zerossl"}), "tls.acme.eab: ZeroSSL wants"},
		{"acme: half an account", acme(ACMEConfig{EAB: &EABConfig{KeyID: "k"}}), "tls.acme.eab.key: missing"},
		{"acme: issuers in order", acme(ACMEConfig{Issuers: setting.List[ACMEIssuer]{{}, {Directory: "zerossl", EAB: &EABConfig{KeyID: "k", Key: setting.Literal([]byte("s"))}}}}), ""},
		{"acme: issuers and directory", acme(ACMEConfig{Directory: "letsencrypt", Issuers: setting.List[ACMEIssuer]{{}}}), "tls.acme.directory: is not allowed beside issuers"},
		{"acme: issuer", acme(ACMEConfig{Issuers: setting.List[ACMEIssuer]{{}, {Directory: "x"}}}), "tls.acme.issuers[1].directory: "},
		{"acme: key type", acme(ACMEConfig{KeyType: "dsa"}), `tls.acme.key_type: "dsa": not a key type`},
		{"acme: challenge", acme(ACMEConfig{Challenges: setting.List[string]{"http"}}), `tls.acme.challenges[0]: "http": not a known challenge`},
		{"acme: challenge twice", acme(ACMEConfig{Challenges: setting.List[string]{"http-01", "http-01"}}), "tls.acme.challenges[1]: \"http-01\": is listed twice"},
		{"acme: dns-01 without dns", acme(ACMEConfig{Challenges: setting.List[string]{"dns-01"}}), "tls.acme.challenges[0]: \"dns-01\": dns-01 needs a way"},
		{"acme: dns without dns-01", acme(ACMEConfig{Challenges: setting.List[string]{"http-01"}, DNS: dns}), "tls.acme.dns: dns-01 is not among"},
		{"acme: wildcard", acme(ACMEConfig{Domains: setting.List[string]{"*.example.com"}}), `tls.acme.domains[0]: "*.example.com": a certificate with a star`},
		{"acme: wildcard by dns", acme(ACMEConfig{Domains: setting.List[string]{"*.example.com"}, DNS: dns}), ""},
		{"acme: domain", acme(ACMEConfig{Domains: setting.List[string]{"Example"}}), `tls.acme.domains[0]: "Example": not a name`},
		{"acme: no way", acme(ACMEConfig{DNS: &DNSConfig{}}), "tls.acme.dns: 0 ways to create records"},
		{"acme: two ways", acme(ACMEConfig{DNS: &DNSConfig{Exec: dns.Exec, Cloudflare: &CloudflareConfig{Token: setting.Literal([]byte("t"))}}}), "tls.acme.dns: 2 ways"},
		{"acme: relative program", acme(ACMEConfig{DNS: &DNSConfig{Exec: &ExecConfig{Command: setting.List[string]{"dns.sh"}}}}), "tls.acme.dns.exec.command: not the absolute path"},
		{"acme: updates without key", acme(ACMEConfig{DNS: &DNSConfig{RFC2136: &RFC2136Config{Server: "ns.example.com"}}}), "tls.acme.dns.rfc2136: updates without a key"},
		{"acme: no token", acme(ACMEConfig{DNS: &DNSConfig{Cloudflare: &CloudflareConfig{}}}), "tls.acme.dns.cloudflare.token: missing"},
		{"acme: half a key", acme(ACMEConfig{DNS: &DNSConfig{Route53: &Route53Config{AccessKeyID: "AKIA"}}}), "tls.acme.dns.route53: one half of the access key is missing"},
		{"acme: webhook", acme(ACMEConfig{DNS: &DNSConfig{Webhook: &WebhookConfig{URL: setting.URL{URL: &url.URL{Scheme: "http", Host: "dns.internal"}}}}}), "tls.acme.dns.webhook.url: "},
		{"acme: resolver", acme(ACMEConfig{DNS: &DNSConfig{Exec: dns.Exec, Resolvers: setting.List[string]{"ns.example.com"}}}), "tls.acme.dns.resolvers[0]: "},
		{"no key", Config{Files: setting.List[FileConfig]{pair[0], {Cert: "b.pem"}}}, "tls.files[1].key: missing"},
		{"no certificate", Config{Files: setting.List[FileConfig]{{Key: "b.key"}}}, "tls.files[0].cert: missing"},
		{"TLS 1.1", Config{Files: pair, MinVersion: "1.1"}, `tls.min_version: "1.1": is not a version`},
		{"SSL", Config{Files: pair, MinVersion: "any"}, `tls.min_version: "any": is not a version`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f setting.Faults
			tt.config.Check("tls", &f)
			if tt.want == "" && len(f) > 0 || tt.want != "" && (len(f) != 1 || !strings.HasPrefix(f.Error(), tt.want)) {
				t.Errorf("got %q, want %q", f.Error(), tt.want)
			}
		})
	}
}
