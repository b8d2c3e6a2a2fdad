package clientcert

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// FuzzHeader sees that no field makes the parsers fail otherwise than by an error, that what they
// take holds the certificates that they return, and that a second reading gives the same.
func FuzzHeader(f *testing.F) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	item := ":" + base64.StdEncoding.EncodeToString(root.Raw) + ":"
	encoded := strings.ReplaceAll(url.QueryEscape(string(authtest.PEM(root))), "+", "%20")
	f.Add(item, item+", "+item)
	f.Add(`By=x;Hash=00;Subject="a\"b;c,d";Cert="`+encoded+`";URI=spiffe://lab/a;DNS=a;DNS=b`, "")
	f.Add("Cert="+encoded+",Cert="+encoded, "")
	f.Add("::", ":")
	trusts := map[string]*Trust{}
	for _, name := range []string{FieldClientCert, FieldXFCC} {
		trusts[name] = trusting(f, clock, func(c *Config) {
			var from setting.CIDR
			if err := from.UnmarshalText([]byte("10.0.0.7")); err != nil {
				f.Fatal(err)
			}
			c.Header = &HeaderConfig{Name: name, From: setting.List[setting.CIDR]{from}}
		}, root)
	}
	f.Fuzz(func(t *testing.T, line, along string) {
		for name, trust := range trusts {
			first, err := trust.FromHeader([]string{line}, []string{along})
			second, again := trust.FromHeader([]string{line}, []string{along})
			if (err == nil) != (again == nil) || len(first) != len(second) || err == nil && len(first) == 0 {
				t.Fatalf("%s: got %d certificates, %v, and then %d, %v", name, len(first), err, len(second), again)
			}
			if err == nil && name == FieldClientCert && !bytes.Contains([]byte(line), []byte(base64.StdEncoding.EncodeToString(first[0].Raw))) {
				t.Fatal("the certificate is not in the field")
			}
		}
	})
}

// TestHeadersAreRememberedWithinBounds: a balancer's clients cannot fill the memory.
func TestHeadersAreRememberedWithinBounds(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	trust := trusting(t, clock, nil, root)
	trust.header = FieldClientCert
	item := ":" + base64.StdEncoding.EncodeToString(root.Raw) + ":"
	var first []*x509.Certificate
	for i := range 3 * maxHeaders {
		certs, err := trust.FromHeader([]string{item + strings.Repeat(" ", i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = certs
		}
	}
	if n := len(trust.headers.known.young) + len(trust.headers.known.old); n > 2*maxHeaders {
		t.Errorf("%d values are remembered, want at most %d", n, 2*maxHeaders)
	}
	last := item + strings.Repeat(" ", 3*maxHeaders-1)
	one, _ := trust.FromHeader([]string{last}, nil)
	two, _ := trust.FromHeader([]string{last}, nil)
	if one[0] != two[0] || one[0] == first[0] {
		t.Error("a value that was read lately is parsed again")
	}
}
