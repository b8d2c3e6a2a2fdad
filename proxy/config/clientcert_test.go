package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/expiry"
	"sallyport/proxy/setting"
)

// TestHostsAskForCertificatesThatTheirRoutesUse: other hosts' visitors see no picker. A wildcard of an
// entry that requires certificates holds for each of its hosts, also for those with routes of their own.
func TestHostsAskForCertificatesThatTheirRoutesUse(t *testing.T) {
	c, err := Load("testdata/good-client-certificates.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"a.example": true, "A.example.": true, "*.d.example": true, "y.d.example": true, "x.d.example": true, "b.example": true, "c.example": false, "e.example": false, "d.example": false, "": false,
	} {
		if c.AsksForCertificates(host) != want {
			t.Errorf("%s: asks %v, want %v", host, !want, want)
		}
	}
}

// TestCertificateFilesAreWatchedAndEnd: a change of any of them is a change of the configuration,
// and the end of each is known.
func TestCertificateFilesAreWatchedAndEnd(t *testing.T) {
	now := time.Now()
	ca := authtest.NewCA("lab", now, nil)
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.pem", authtest.PEM(ca))
	write("a.crl", ca.Revoke(now, nil))
	write("gateway.yaml", []byte(`
tls: {local: {}}
client_certificates: {ca: ca.pem, crl: [a.crl, "http://ca.example/x"], crl_grace: 1h}
routes: [{host: a.example, upstream: "http://a:1", callers: cert, rules: [{allow: "*"}]}]
`))
	load := func() *Config {
		t.Helper()
		c, err := Load(filepath.Join(dir, "gateway.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := load()
	files := setting.Files(c)
	for _, name := range []string{"ca.pem", "a.crl"} {
		if !slices.Contains(files, filepath.Join(dir, name)) {
			t.Errorf("%s is not watched: %q", name, files)
		}
	}
	ends := c.Ends(true, now)
	if len(ends) != 2 || ends[0].Kind != expiry.CA || !ends[0].NotAfter.Equal(ca.NotAfter) || ends[0].At != "client_certificates[0].ca" ||
		ends[1].Kind != expiry.CRL || ends[1].NotAfter.Sub(now) < time.Hour+59*time.Minute || ends[1].At != "client_certificates[0].crl" || !strings.Contains(ends[1].Name, "CN=lab") {
		t.Errorf("got the ends %+v", ends)
	}
	before := OutlineOf(c).Hash()
	write("a.crl", ca.Revoke(now.Add(time.Minute), nil, ca))
	if OutlineOf(load()).Hash() == before {
		t.Error("another list leaves the configuration as it was")
	}
	if err := load().CheckFiles(); err != nil && strings.Contains(err.Error(), "client_certificates") {
		t.Error(err)
	}
	write("a.crl", []byte("x"))
	if err := load().CheckFiles(); err == nil || !strings.Contains(err.Error(), "client_certificates[0].crl[0]: ") || !strings.Contains(err.Error(), `"a.crl"`) {
		t.Errorf("a broken list: %v", err)
	}
}

func TestUnusedCertificatesAreWarnedOf(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(name, []byte(`
tls: {local: {}}
issuers: {corp: {url: https://login.example.com, audience: models}}
client_certificates: [{ca: ca.pem, hosts: [a.example, b.example], header: {name: Client-Cert, from: 10.0.0.7}}, {ca: ca.pem}]
routes:
  - {host: a.example, upstream: "http://a:1", callers: [cert, cert/b.lab], rules: [{allow: "*", who: {scope: x}}]}
  - {host: b.example, upstream: "http://a:1", callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: b.example, path: /x, upstream: "http://a:1", callers: issuer/corp, rules: [{allow: "*"}]}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	c.ClientCertificates[1].Groups, c.Routes[1].Callers = "ou", c.Routes[0].Callers
	c.Routes[1].Rules.Rules[0].Who.Group = []string{"ml"}
	text := c.Warnings().Error()
	if strings.Contains(text, "routes[1]") {
		t.Errorf("certificates may have groups:\n%s", text)
	}
	c.ClientCertificates[1].Groups, c.Routes[1].Callers = "", c.Routes[2].Callers
	text = c.Warnings().Error()
	for _, want := range []string{
		`client_certificates[0].hosts[1]: "b.example": no route of this host uses certificates`,
		`client_certificates[0].header.from[0]: "10.0.0.7/32": is not among trusted_proxies, so its clients would all have its address`,
		`routes[0].callers[0]: "cert": no rule can ever allow this caller: certificates bring groups where groups says so`, `principal: "cert:b.lab"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the warnings lack %q:\n%s", want, text)
		}
	}
}
