package clientcert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// rawNames returns a change of a template that sets subject alternative names byte for byte. Each
// has its tag first.
func rawNames(all ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		var names []asn1.RawValue
		for _, n := range all {
			names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: int(n[0] - '0'), Bytes: []byte(n[1:])})
		}
		value, err := asn1.Marshal(names)
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value})
	}
}

func TestNamesBecomeCallers(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	const email, dns, uri = "1", "2", "6"
	subject := func(n pkix.Name) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject = n }
	}
	long := strings.Repeat("a", 60)
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		kinds  string // "" for the default
		want   string
	}{
		"SPIFFE":                      {rawNames(uri + "spiffe://lab/batch"), "", "cert:spiffe://lab/batch"},
		"SPIFFE before DNS":           {rawNames(dns+"a.example", uri+"spiffe://lab/ns/ml/sa/Batch-1_x.y"), "", "cert:spiffe://lab/ns/ml/sa/Batch-1_x.y"},
		"DNS before SPIFFE":           {rawNames(uri+"spiffe://lab/batch", dns+"A.example"), "dns spiffe", "cert:a.example"},
		"two SPIFFE IDs":              {rawNames(uri+"spiffe://lab/a", uri+"spiffe://lab/b"), "", Name},
		"SPIFFE and another URI":      {rawNames(uri+"spiffe://lab/a", uri+"https://lab/a"), "", Name},
		"another URI only":            {rawNames(uri + "https://lab/a"), "", "cert:CN=caller"},
		"SPIFFE, upper scheme":        {rawNames(uri + "SPIFFE://lab/a"), "", Name},
		"SPIFFE, upper domain":        {rawNames(uri + "spiffe://Lab/a"), "", Name},
		"SPIFFE, no path":             {rawNames(uri + "spiffe://lab"), "", Name},
		"SPIFFE, slash only":          {rawNames(uri + "spiffe://lab/"), "", Name},
		"SPIFFE, slash at end":        {rawNames(uri + "spiffe://lab/a/"), "", Name},
		"SPIFFE, dots":                {rawNames(uri + "spiffe://lab/a/../b"), "", Name},
		"SPIFFE, empty segment":       {rawNames(uri + "spiffe://lab//a"), "", Name},
		"SPIFFE, query":               {rawNames(uri + "spiffe://lab/a?b"), "", Name},
		"SPIFFE, fragment":            {rawNames(uri + "spiffe://lab/a#"), "", Name},
		"SPIFFE, port":                {rawNames(uri + "spiffe://lab:1/a"), "", Name},
		"SPIFFE, user":                {rawNames(uri + "spiffe://u@lab/a"), "", Name},
		"SPIFFE, escape":              {rawNames(uri + "spiffe://lab/%61"), "", Name},
		"SPIFFE, no domain":           {rawNames(uri + "spiffe:///a"), "", Name},
		"SPIFFE, too long":            {rawNames(uri + "spiffe://lab/" + strings.Repeat(long+"/", 4) + "a"), "", Name},
		"DNS":                         {rawNames(dns + "Batch.Lab"), "", "cert:batch.lab"},
		"two DNS names":               {rawNames(dns+"a.lab", dns+"b.lab"), "", Name},
		"two DNS names, subject":      {rawNames(dns+"a.lab", dns+"b.lab"), "subject", "cert:CN=caller"},
		"wildcard":                    {rawNames(dns + "*.lab"), "", Name},
		"NUL in a DNS name":           {rawNames(dns + "admin.lab\x00.evil"), "", Name},
		"line in a DNS name":          {rawNames(dns + "a.lab\r\nx"), "", Name},
		"email":                       {rawNames(email + "Ann+ml@Lab.Example"), "", "cert:Ann+ml@lab.example"},
		"email like a subject":        {rawNames(email + "CN=admin@lab.example"), "", Name},
		"email without domain":        {rawNames(email + "ann"), "", Name},
		"email with two signs":        {rawNames(email + "ann@lab@evil"), "", Name},
		"subject":                     {subject(pkix.Name{CommonName: "batch", Organization: []string{"Lab, Inc"}}), "", `cert:CN=batch,O=Lab\, Inc`},
		"subject with email":          {subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@b.example"}}}), "email", Name},
		"no name at all":              {subject(pkix.Name{}), "", Name},
		"only the subject, and dns":   {nil, "dns", Name},
		"control characters":          {subject(pkix.Name{CommonName: "a\x01b"}), "", Name},
		"right to left":               {subject(pkix.Name{CommonName: "a\u202eb"}), "", Name},
		"IP address is no name":       {func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, []byte{127, 0, 0, 1}) }, "dns", Name},
		"SPIFFE ID that may sign":     {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign; rawNames(uri + "spiffe://lab/a")(c) }, "", WrongUsage},
		"malformed SPIFFE before DNS": {rawNames(uri+"spiffe://lab/", dns+"a.lab"), "", Name},
	} {
		t.Run(name, func(t *testing.T) {
			trust := trusting(t, clock, func(config *Config) {
				if c.kinds != "" {
					config.Principal = strings.Fields(c.kinds)
				}
			}, root)
			want(t, "caller", outcome(t, trust, root.Client("caller", c.change)), c.want)
		})
	}
}

func TestTrustDomainsNarrow(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	trust := trusting(t, clock, func(c *Config) { c.TrustDomains = setting.List[string]{"lab"} }, root)
	want(t, "listed", outcome(t, trust, root.Client("a", authtest.URIs("spiffe://lab/a"))), "cert:spiffe://lab/a")
	want(t, "not listed", outcome(t, trust, root.Client("a", authtest.URIs("spiffe://lab.evil/a"))), Name)
}

// TestConstraintsBindTheCaller: no name of a constrained CA becomes a caller unless the
// constraints say something about it.
func TestConstraintsBindTheCaller(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	uris := root.CA("uris", func(c *x509.Certificate) {
		c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"lab"}, true
	})
	subs := root.CA("subs", func(c *x509.Certificate) { c.PermittedURIDomains = []string{".lab"} })
	dns := root.CA("dns", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"lab.example"} })
	mail := root.CA("mail", func(c *x509.Certificate) { c.PermittedEmailAddresses = []string{"lab.example"} })
	not := root.CA("not", func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"prod"} })
	below := uris.CA("below", nil)
	for name, c := range map[string]struct {
		ca     authtest.Cert
		change func(*x509.Certificate)
		want   string
	}{
		"URI within":               {uris, rawNames("6spiffe://lab/a"), "cert:spiffe://lab/a"},
		"URI outside":              {uris, rawNames("6spiffe://prod/a"), Name},
		"URI in a subdomain":       {uris, rawNames("6spiffe://x.lab/a"), Name},
		"URI in one that is meant": {subs, rawNames("6spiffe://x.lab/a"), "cert:spiffe://x.lab/a"},
		"below":                    {below, rawNames("6spiffe://prod/a"), Name},
		"URIs, but DNS":            {uris, rawNames("2admin.prod"), Name},
		"URIs, but subject":        {uris, nil, Name},
		"URIs, but email":          {uris, rawNames("1admin@prod.example"), Name},
		"DNS within":               {dns, rawNames("2a.lab.example"), "cert:a.lab.example"},
		"DNS outside":              {dns, rawNames("2a.prod.example"), Name},
		"DNS, but SPIFFE":          {dns, rawNames("6spiffe://prod/a"), Name},
		"DNS, but SPIFFE as well":  {dns, rawNames("2a.lab.example", "6spiffe://prod/a"), Name},
		"email within":             {mail, rawNames("1a@lab.example"), "cert:a@lab.example"},
		"email outside":            {mail, rawNames("1a@prod.example"), Name},
		"email in the subject": {mail, func(c *x509.Certificate) {
			c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@prod.example"}}}
		}, Name},
		"URI not excluded":     {not, rawNames("6spiffe://lab/a"), "cert:spiffe://lab/a"},
		"URI excluded":         {not, rawNames("6spiffe://prod/a"), Name},
		"subject not excluded": {not, nil, Name},
	} {
		t.Run(name, func(t *testing.T) {
			trust := trusting(t, clock, nil, root)
			want(t, "caller", outcome(t, trust, c.ca.Client("caller", c.change), c.ca, uris), c.want)
		})
	}
}

func TestGroupsComeFromTheSubject(t *testing.T) {
	clock := authtest.NewClock()
	root := authtest.NewCA("root", clock.Now(), nil)
	bound := root.CA("bound", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"lab"} })
	change := func(c *x509.Certificate) {
		c.Subject.OrganizationalUnit, c.Subject.Organization = []string{"admins", "ml"}, []string{"Lab"}
		authtest.URIs("spiffe://lab/a")(c)
	}
	for groups, want := range map[string]string{"": "", "none": "", "ou": "ml admins", "o": "Lab"} {
		trust := trusting(t, clock, func(c *Config) { c.Groups = groups }, root)
		p, err := trust.Verify(authtest.ChainOf(root.Client("a", change)))
		if err != nil || strings.Join(p.Groups, " ") != want {
			t.Errorf("groups %q: got %v, %v, want %q", groups, p, err, want)
		}
	}
	trust := trusting(t, clock, func(c *Config) { c.Groups = "ou" }, root)
	want(t, "of a CA with constraints", outcome(t, trust, bound.Client("a", change), bound), Name)
}
