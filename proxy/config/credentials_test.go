package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/expiry"
)

// A certificate for upstreams is among the things whose end is announced, and among the files whose
// change is a change of the configuration, like the secrets of credentials.
func TestCertificatesAndSecretsForUpstreamsAreWatched(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour).Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-48 * time.Hour), NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("gw.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write("gw.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	write("secret", []byte("secret"))
	soon := time.Now().Add(time.Minute).Truncate(time.Second)
	write("token", fmt.Appendf(nil, "e30.%s.c2ln\n", base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iat":%d,"exp":%d}`, soon.Add(-time.Hour).Unix(), soon.Unix()))))
	write("gateway.yaml", []byte(`tls: {local: {}}
upstreams:
  a: {rest: "https://a:1", client_certificate: {cert: gw.pem, key: gw.key}}
  b: {rest: "http://b:1", credentials: {insecure_http: true, oauth2: {token_url: "http://login:1", client_id: a, client_secret: {file: secret}, insecure_http: true}}}
  c: {rest: "https://c:1", credentials: {bearer: {file: token}}}
routes:
  - {host: c.example, upstream: c, callers: anonymous, rules: [{allow: "*"}]}
  - {host: a.example, upstream: a, callers: anonymous, rules: [{allow: "*"}]}
  - {host: b.example, upstream: b, callers: anonymous, rules: [{allow: "*"}]}
`))
	c, err := Load(filepath.Join(dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckFiles(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"gw.pem", "gw.key", "secret", "token"} {
		if !slices.Contains(c.Files(), filepath.Join(dir, name)) {
			t.Errorf("%s is not watched: %q", name, c.Files())
		}
	}
	ends := c.Ends(true, time.Now())
	if len(ends) != 2 || ends[1].Kind != expiry.Token || !ends[1].NotAfter.Equal(soon) || ends[1].Left(time.Now()) != expiry.Tenth || ends[0].Kind != expiry.Certificate || ends[0].Name != "upstreams.a.client_certificate" || !ends[0].NotAfter.Equal(end) || ends[0].Left(time.Now()) != expiry.Tenth {
		t.Errorf("ends: %+v", ends)
	}
	if got := fmt.Sprint(c.Table()[2].Insecure); got != "[credentials.insecure_http of upstream b credentials.oauth2.insecure_http of upstream b]" {
		t.Errorf("insecure: %s", got)
	}
	before := OutlineOf(c).Hash()
	write("secret", []byte("another"))
	if OutlineOf(c).Hash() == before {
		t.Error("another secret is no change of the configuration")
	}
	write("secret", nil)
	if err := c.CheckFiles(); err == nil || !strings.Contains(err.Error(), "upstreams.b.credentials.oauth2.client_secret") {
		t.Errorf("an empty secret: %v", err)
	}
}
