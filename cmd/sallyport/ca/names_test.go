package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNamesAreChecked(t *testing.T) {
	for _, tt := range []struct {
		names
		server bool
		want   string // in the error; "" for none
	}{
		{names: names{spiffe: "spiffe://lab/batch"}},
		{names: names{spiffe: "spiffe://lab.example.org/ns/ml/sa/batch_1.2"}},
		{names: names{spiffe: "https://lab/batch"}, want: "want such as spiffe://lab/batch"},
		{names: names{spiffe: "spiffe://lab"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/a/"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/a//b"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/../a"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/a?b"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/a%2fb"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://LAB/a"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab:80/a"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://u@lab/a"}, want: "--spiffe"},
		{names: names{spiffe: "SPIFFE://lab/a"}, want: "--spiffe"},
		{names: names{spiffe: "spiffe://lab/" + strings.Repeat("a", 256)}, want: "--spiffe"},
		{names: names{dns: []string{"batch.example.com"}}},
		{names: names{dns: []string{"batch.example.com", "a"}}, want: "a certificate for each name"},
		{names: names{dns: []string{"batch.example.com", "a"}}, server: true},
		{names: names{email: []string{"CN=ops@example.com"}}, want: "--email"},
		{names: names{dns: []string{"*.example.com"}}, want: "name each"},
		{names: names{dns: []string{"Batch.example.com"}}, want: "in lower case"},
		{names: names{dns: []string{"a..b"}}, want: "--dns"},
		{names: names{dns: []string{""}}, want: "--dns"},
		{names: names{dns: []string{"10.0.0.1"}}, want: "--ip"},
		{names: names{email: []string{"ops@example.com"}}},
		{names: names{email: []string{"Ops <ops@example.com>"}}, want: "--email"},
		{names: names{email: []string{"ops"}}, want: "--email"},
		{names: names{email: []string{"a\nb@example.com"}}, want: "--email"},
		{names: names{email: []string{"öps@example.com"}}, want: "--email"},
		{names: names{subject: "batch"}},
		{names: names{subject: "CN=batch,OU=ml,OU=lab,O=example"}},
		{names: names{subject: "CN=a,CN=b"}, want: "two common names"},
		{names: names{subject: "C=DE,CN=a"}, want: "CN, OU and O"},
		{names: names{subject: "CN="}, want: "empty"},
		{names: names{subject: " a"}, want: "begins or ends with a space"},
		{names: names{subject: "a\x1b[31m"}, want: "cannot be printed"},
		{names: names{subject: "a\xff"}, want: "cannot be printed"},
		{names: names{subject: strings.Repeat("a", 65)}, want: "more than 64"},
		{names: names{subject: "OU=ml"}, want: "a client needs a name"},
		{want: "a client needs a name"},
		{names: names{ip: []string{"10.0.0.7"}}, want: "add --server"},
		{names: names{ip: []string{"10.0.0.7", "::1"}}, server: true},
		{names: names{ip: []string{"10.0.0"}}, server: true, want: "--ip"},
		{names: names{ip: []string{"fe80::1%eth0"}}, server: true, want: "--ip"},
		{names: names{subject: "tf"}, server: true, want: "a server needs a name"},
		{names: names{dns: []string{"tf"}, email: []string{"ops@example.com"}}, server: true, want: "--email"},
	} {
		err := tt.fill(&x509.Certificate{}, tt.server)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v, want %q", tt.names, err, tt.want)
		}
	}
}

func TestSubjectEscapes(t *testing.T) {
	got, err := parseSubject(`CN=a\,b\\c,OU=x\=y`)
	if err != nil || got.CommonName != `a,b\c` || !slices.Equal(got.OrganizationalUnit, []string{"x=y"}) {
		t.Errorf("%+v, %v", got, err)
	}
	e := &entry{Subject: got.String()}
	if !e.is(`CN=a\,b\\c,OU=x\=y`) || e.is("a") {
		t.Errorf("%q is not found by the subject that was given", e.Subject)
	}
}

// A constrained authority counts for no other name, and for no kind of name without a permit.
func TestConstraints(t *testing.T) {
	now := time.Now()
	lab := founding{permitURI: []string{"spiffe://lab"}}
	mail := founding{permitEmail: []string{"example.com"}, permitDNS: []string{"example.com"}}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		founding
		names
		server bool
		want   string
	}{
		{founding: lab, names: names{spiffe: "spiffe://lab/a"}},
		{founding: lab, names: names{spiffe: "spiffe://other/a"}, want: "trust domain lab only"},
		{founding: lab, names: names{spiffe: "spiffe://a.lab/a"}, want: "trust domain lab only"},
		{founding: lab, names: names{dns: []string{"lab"}}, want: "other kinds of names only"},
		{founding: lab, names: names{email: []string{"a@lab"}}, want: "other kinds of names only"},
		{founding: lab, names: names{subject: "a"}, want: "--subject alone"},
		{founding: mail, names: names{email: []string{"a@example.com"}, dns: []string{"x.example.com"}}},
		{founding: mail, names: names{email: []string{"a@example.org"}}, want: "not permitted"},
		{founding: mail, names: names{dns: []string{"notexample.com"}}, want: "not permitted"},
		{founding: mail, names: names{spiffe: "spiffe://example.com/a"}, want: "other kinds of names only"},
		{founding: mail, names: names{dns: []string{"example.com"}, ip: []string{"10.0.0.7"}}, server: true, want: "excluded"},
		{founding: mail, names: names{dns: []string{"example.com"}, ip: []string{"::1"}}, server: true, want: "excluded"},
	} {
		a := testAuthority(t, now, tt.founding)
		i := &issuing{names: tt.names, server: tt.server, life: span{leafLife}, out: "x"}
		template, err := i.check(now)
		if err == nil {
			err = a.limits(template, i.life)
		}
		if err == nil {
			_, err = a.sign(template, key.Public(), now)
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v by %+v: got %v, want %q", tt.names, tt.founding, err, tt.want)
		}
	}
}

// The certificate itself says so, to verifiers that know nothing of this command.
func TestConstraintsBindOthersToo(t *testing.T) {
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []names{{dns: []string{"lab"}}, {email: []string{"a@lab"}}, {spiffe: "spiffe://other/a"}} {
		a := testAuthority(t, now, founding{permitURI: []string{"lab"}})
		template, err := (&issuing{names: n, life: span{leafLife}, out: "x"}).check(now)
		if err == nil {
			_, err = a.sign(template, key.Public(), now)
		}
		if err == nil || !strings.Contains(err.Error(), "not permitted") {
			t.Errorf("%+v: %v", n, err)
		}
	}
}

// What is signed is for the end of a chain, and for one side of a connection.
func TestIssuedCertificateIsNarrow(t *testing.T) {
	now := time.Now()
	a := testAuthority(t, now, founding{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []bool{false, true} {
		i := &issuing{names: names{dns: []string{"a"}}, server: server, life: span{leafLife}, out: "x"}
		template, err := i.check(now)
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.sign(template, key.Public(), now)
		if err != nil {
			t.Fatal(err)
		}
		want := x509.ExtKeyUsageClientAuth
		if server {
			want = x509.ExtKeyUsageServerAuth
		}
		if c.IsCA || !c.BasicConstraintsValid || c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{want}) {
			t.Errorf("server %v: authority %v, usage %v, %v", server, c.IsCA, c.KeyUsage, c.ExtKeyUsage)
		}
		if bits := c.SerialNumber.BitLen(); bits < 64 || bits > 128 {
			t.Errorf("the serial number has %d bits", bits)
		}
	}
	if !a.cert.MaxPathLenZero || a.cert.MaxPathLen != 0 {
		t.Error("the authority may certify others")
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n := p384.X // 384 bits
	if checkPublic(weak.Public()) == nil || checkPublic(&rsa.PublicKey{N: n, E: 3}) == nil || checkPublic(nil) == nil {
		t.Error("a weak key is taken")
	}
	if err := checkPublic(p384.Public()); err != nil {
		t.Error(err)
	}
}

func TestSpans(t *testing.T) {
	for text, want := range map[string]string{"24h": "24h", "7d": "7d", "48h": "2d", "90m": "1h30m0s", "1s": "1s", "0d": "0s"} {
		var s span
		if err := s.Set(text); err != nil || s.String() != want {
			t.Errorf("%q: %q, %v; want %q", text, &s, err, want)
		}
	}
	for _, text := range []string{"", "7", "d", "-1d", "1.5d", "1w", "999999999d", "tomorrow"} {
		var s span
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken for %v", text, s.Duration)
		}
	}
}

func TestSealedKeyNeedsItsPassphrase(t *testing.T) {
	secret := []byte("the key")
	b, err := seal(secret, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unseal(b, "correct horse"); err != nil || string(got) != string(secret) {
		t.Errorf("%q, %v", got, err)
	}
	if strings.Contains(string(b.Bytes), "the key") {
		t.Error("the key is in the clear")
	}
	if _, err := unseal(b, "wrong horse"); err != errPassphrase {
		t.Errorf("another passphrase: %v", err)
	}
	b.Bytes[len(b.Bytes)-1] ^= 1
	if _, err := unseal(b, "correct horse"); err != errPassphrase {
		t.Errorf("a changed byte: %v", err)
	}
	b.Headers[sealedHeader] = "scrypt-2-8-1 aes-256-gcm"
	if _, err := unseal(b, "correct horse"); err == nil || !strings.Contains(err.Error(), "it is not sealed by scrypt-131072") {
		t.Errorf("weaker parameters: %v", err)
	}
}
