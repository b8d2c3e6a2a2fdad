package clientcert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// lists returns sources of list files with these contents.
func listFiles(t testing.TB, contents ...[]byte) setting.List[setting.Source] {
	var all setting.List[setting.Source]
	for _, text := range contents {
		all = append(all, setting.Source{File: file(t, "a.crl", text)})
	}
	return all
}

func pemList(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}) }

func TestRevokedIsRefused(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub, bad := root.CA("sub", nil), root.CA("bad", nil)
	alice, bob := sub.Client("alice", nil), sub.Client("bob", nil)
	ofBad, ofRoot := bad.Client("carol", nil), root.Client("dave", nil)
	rootList, subList := root.Revoke(clock.Now(), nil, bad), sub.Revoke(clock.Now(), nil, alice)
	for name, files := range map[string][][]byte{
		"in DER":         {rootList, subList},
		"in PEM":         {pemList(rootList), pemList(subList)},
		"in one file":    {append(pemList(rootList), pemList(subList)...)},
		"and an old one": {rootList, subList, root.Revoke(clock.Now().Add(-2*time.Hour), nil)},
	} {
		t.Run(name, func(t *testing.T) {
			trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, files...) }, root, sub)
			want(t, "revoked", outcome(t, trust, alice, sub), Revoked)
			want(t, "not revoked", outcome(t, trust, bob, sub), "cert:CN=bob")
			want(t, "of a revoked CA", outcome(t, trust, ofBad, bad), Revoked)
			want(t, "of the root", outcome(t, trust, ofRoot), "cert:CN=dave")
		})
	}
	t.Run("a list of the root alone", func(t *testing.T) {
		trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, rootList) }, root)
		want(t, "of a CA without a list", outcome(t, trust, alice, sub), "cert:CN=alice")
		want(t, "of a revoked CA", outcome(t, trust, ofBad, bad), Revoked)
	})
}

func TestEndedListDistrustsItsCA(t *testing.T) {
	clock := authtest.NewClock()
	one, two := authtest.NewCA("one", clock.Now(), nil), authtest.NewCA("two", clock.Now(), nil)
	alice, bob := one.Client("alice", nil), two.Client("bob", nil)
	files := func(c *Config) {
		c.CRL = listFiles(t, one.Revoke(clock.Now(), nil), two.Revoke(clock.Now(), func(l *x509.RevocationList) { l.NextUpdate = clock.Now().Add(10 * time.Hour) }))
	}
	plain := trusting(t, clock, files, one, two)
	graced := trusting(t, clock, func(c *Config) { files(c); c.CRLGrace = setting.Duration(time.Hour) }, one, two)
	expect := func(when, plainWant, gracedWant string) {
		t.Helper()
		want(t, when, outcome(t, plain, alice), plainWant)
		want(t, when+", grace", outcome(t, graced, alice), gracedWant)
		want(t, when+", another CA", outcome(t, plain, bob), "cert:CN=bob")
	}
	expect("at first", "cert:CN=alice", "cert:CN=alice")
	clock.Add(time.Hour + time.Second)
	expect("after its end", RevocationUnknown, "cert:CN=alice")
	clock.Add(time.Hour)
	expect("after the grace", RevocationUnknown, RevocationUnknown)
}

func TestListOfTheFutureDoesNotCount(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, root.Revoke(clock.Now().Add(time.Hour), nil)) }, root)
	want(t, "before", outcome(t, trust, root.Client("alice", nil)), RevocationUnknown)
}

func TestRenewedCAHasTheListsOfItsKey(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	impostor := authtest.NewCA("root", clock.Now(), nil) // another key under the same name
	alice := impostor.Client("alice", nil)
	trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, root.Revoke(clock.Now(), nil, alice)) }, root, impostor)
	want(t, "of the other key", outcome(t, trust, alice), "cert:CN=alice")
}

// issuingPoint returns the extension issuingDistributionPoint with this content.
func issuingPoint(content ...byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: append([]byte{0x30, byte(len(content))}, content...)}
}

func withExtension(e pkix.Extension) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) { l.ExtraExtensions = append(l.ExtraExtensions, e) }
}

func TestListsThatCannotBeUsedRefuseTheStart(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	other, same := authtest.NewCA("other", clock.Now(), nil), authtest.NewCA("root", clock.Now(), nil)
	mute := authtest.NewCA("mute", clock.Now(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	signing := mute // crypto/x509 signs no list for a CA that may not
	signing.Certificate = new(x509.Certificate)
	*signing.Certificate = *mute.Certificate
	signing.KeyUsage |= x509.KeyUsageCRLSign
	entry := func(e pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: clock.Now(), ExtraExtensions: []pkix.Extension{e}}}
		}
	}
	good := root.Revoke(clock.Now(), nil, root)
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"empty":                  {nil, errMalformedList.Error()},
		"text":                   {[]byte("<html>"), errMalformedList.Error()},
		"cut off":                {good[:len(good)-1], errMalformedList.Error()},
		"more":                   {append(bytes.Clone(good), 0), errMalformedList.Error()},
		"a certificate":          {authtest.PEM(root), `holds a "CERTIFICATE" and not a revocation list`},
		"of another CA":          {other.Revoke(clock.Now(), nil), `is of "CN=other", which ca does not have…`},
		"of another key":         {same.Revoke(clock.Now(), nil), `is not signed by the key of "CN=root" that ca has`},
		"a changed byte":         {bytes.Replace(good, root.SerialNumber.Bytes(), []byte{0x11, 0x11}, 1), `is not signed by the key of "CN=root" that ca has`},
		"without cRLSign":        {signing.Revoke(clock.Now(), nil), `is signed by "CN=mute", whose key usage lacks cRLSign`},
		"delta":                  {root.Revoke(clock.Now(), withExtension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}})), "is a delta list…"},
		"indirect":               {root.Revoke(clock.Now(), withExtension(issuingPoint(0x84, 1, 0xff))), "is an indirect list…"},
		"some reasons":           {root.Revoke(clock.Now(), withExtension(issuingPoint(0x83, 2, 1, 0x40))), "is only for some reasons…"},
		"attribute certificates": {root.Revoke(clock.Now(), withExtension(issuingPoint(0x85, 1, 0xff))), "is only for some reasons…"},
		"unknown critical":       {root.Revoke(clock.Now(), withExtension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})), "has the critical extension 1.2.3…"},
		"critical in an entry":   {root.Revoke(clock.Now(), entry(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}})), "has an entry with a critical extension…"},
		"unknown not critical":   {root.Revoke(clock.Now(), withExtension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})), ""},
		"a date in an entry":     {root.Revoke(clock.Now(), entry(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: []byte{5, 0}})), ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{CA: setting.List[setting.Path]{file(t, "ca.pem", authtest.PEM(root, mute))}, CRL: listFiles(t, c.text)}
			_, err := New([]Config{config}, NewMemory(MemoryOptions{}), clock.Now)
			var f setting.Faults
			config.CheckFiles("client_certificates[0]", &f)
			if c.want == "" {
				if err != nil || len(f) > 0 {
					t.Fatal(err, f)
				}
				return
			}
			if err == nil || len(f) != 1 || f[0].Path != "client_certificates[0].crl" {
				t.Fatalf("got %v, and %v", err, f)
			}
			want(t, "fault", f[0].Problem, c.want)
			if !strings.Contains(err.Error(), f[0].Problem) {
				t.Errorf("got %v, want %s", err, f[0].Problem)
			}
		})
	}
}

func TestUnreadableFilesRefuseTheStart(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	ca := file(t, "ca.pem", authtest.PEM(root))
	leaf := file(t, "leaf.pem", authtest.PEM(root, root.Client("a", nil)))
	folder := setting.Path(t.TempDir())
	for name, c := range map[string]struct {
		config Config
		path   string
		want   string
	}{
		"no CA file":      {Config{CA: setting.List[setting.Path]{folder + "/none"}}, "e.ca", "…"},
		"a folder":        {Config{CA: setting.List[setting.Path]{ca, folder}}, "e.ca[1]", "is not a regular file"},
		"an empty file":   {Config{CA: setting.List[setting.Path]{file(t, "x", nil)}}, "e.ca", "holds no certificate in PEM"},
		"a client's":      {Config{CA: setting.List[setting.Path]{leaf}}, "e.ca", `certificate 2, "CN=a", is not the certificate of a CA`},
		"a broken block":  {Config{CA: setting.List[setting.Path]{file(t, "x", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}))}}, "e.ca", "certificate 1 is malformed…"},
		"a private key":   {Config{CA: setting.List[setting.Path]{file(t, "x", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}}))}}, "e.ca", `block 1 is a "EC PRIVATE KEY" and not a certificate`},
		"no list file":    {Config{CA: setting.List[setting.Path]{ca}, CRL: setting.List[setting.Source]{{File: folder + "/none"}}}, "e.crl", "…"},
		"a list's folder": {Config{CA: setting.List[setting.Path]{ca}, CRL: setting.List[setting.Source]{{File: folder}}}, "e.crl", "is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New([]Config{c.config}, NewMemory(MemoryOptions{}), clock.Now); err == nil {
				t.Error("New accepts it")
			}
			var f setting.Faults
			if c.config.CheckFiles("e", &f); len(f) != 1 || f[0].Path != c.path || f[0].Cure == "" {
				t.Fatalf("got the faults %v", f)
			}
			want(t, "fault", f[0].Problem, c.want)
		})
	}
}

// TestPartsOfListsCoverTheirCertificatesOnly: a part of a list says nothing about other parts.
func TestPartsOfListsCoverTheirCertificatesOnly(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	sub := root.CA("sub", nil)
	const at = "http://ca/1"
	point := func(all ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.CRLDistributionPoints = all }
	}
	name := append([]byte{0x86, byte(len(at))}, at...)
	full := append([]byte{0xa0, byte(len(name))}, name...)
	part := root.Revoke(clock.Now(), withExtension(issuingPoint(append([]byte{0xa0, byte(len(full))}, full...)...)))
	trust := trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, part) }, root)
	want(t, "named", outcome(t, trust, root.Client("a", point("http://ca/0", at))), "cert:CN=a")
	want(t, "another part", outcome(t, trust, root.Client("a", point("http://ca/2"))), RevocationUnknown)
	want(t, "no part", outcome(t, trust, root.Client("a", nil)), RevocationUnknown)
	onlyCAs := root.Revoke(clock.Now(), withExtension(issuingPoint(0x82, 1, 0xff)))
	onlyUsers := root.Revoke(clock.Now(), withExtension(issuingPoint(0x81, 1, 0xff)))
	trust = trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, onlyCAs) }, root)
	want(t, "CAs only, a user", outcome(t, trust, root.Client("a", nil)), RevocationUnknown)
	want(t, "CAs only, a CA", outcome(t, trust, sub.Client("a", nil), sub), "cert:CN=a")
	trust = trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, onlyUsers) }, root)
	want(t, "users only, a CA", outcome(t, trust, sub.Client("a", nil), sub), RevocationUnknown)
	trust = trusting(t, clock, func(c *Config) { c.CRL = listFiles(t, onlyUsers, onlyCAs) }, root)
	want(t, "both", outcome(t, trust, sub.Client("a", nil), sub), "cert:CN=a")
}

func TestSerialNumbersAreFoundInAllForms(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	var serials []authtest.Cert
	for _, text := range []string{"1", "127", "128", "255", "256", "65535", "340282366920938463463374607431768211455"} {
		n, _ := new(big.Int).SetString(text, 10)
		serials = append(serials, authtest.Cert{Certificate: &x509.Certificate{SerialNumber: n}})
	}
	l, err := readList(root.Revoke(clock.Now(), nil, serials...), []*x509.Certificate{root.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range serials {
		if !l.has(s.SerialNumber) {
			t.Errorf("%v is not found", s.SerialNumber)
		}
	}
	for _, n := range []int64{2, 126, 129, 254, 257, -1, 0} {
		if l.has(big.NewInt(n)) {
			t.Errorf("%d is found", n)
		}
	}
	if got, want := canonicalContent([]byte{0xff, 0x7f}), canonicalSerial(big.NewInt(-129)); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// FuzzList sees that no list makes the parser fail otherwise than by an error, and that a list that
// is read was signed.
func FuzzList(f *testing.F) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	good := root.Revoke(clock.Now(), nil, root)
	f.Add(good)
	f.Add(good[:20])
	f.Add(root.Revoke(clock.Now(), withExtension(issuingPoint(0xa0, 4, 0xa0, 2, 0x86, 0))))
	cas := []*x509.Certificate{root.Certificate}
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := readList(text, cas)
		official, parsed := x509.ParseRevocationList(text)
		if err == nil && (parsed != nil || official.CheckSignatureFrom(root.Certificate) != nil) {
			t.Fatal("crypto/x509 refuses the list")
		}
	})
}

func TestURLsAreChecked(t *testing.T) {
	parse := func(text string) setting.Source {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return setting.Source{URL: setting.URL{URL: u}}
	}
	config := Config{CA: setting.List[setting.Path]{"ca.pem"}, CRL: setting.List[setting.Source]{
		parse("http://ca.internal/a.crl"), parse("https://ca.internal/a.crl"), parse("ldap://ca.internal/a"), parse("http://169.254.169.254/a"),
	}}
	var f setting.Faults
	if config.Check("e", &f); len(f) != 2 || f[0].Path != "e.crl[2]" || f[1].Path != "e.crl[3]" {
		t.Errorf("got the faults %v", f)
	}
}
