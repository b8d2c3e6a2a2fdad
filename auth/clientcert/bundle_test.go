package clientcert

import (
	"strings"
	"testing"

	"sallyport/auth/authtest"
	"sallyport/proxy/setting"
)

// TestCAsThatSignedEachOtherNeedARoot: neither of two such CAs is a root, so that a gateway with these
// alone would refuse all clients. check says so, and the gateway does not start.
func TestCAsThatSignedEachOtherNeedARoot(t *testing.T) {
	now := authtest.NewClock().Now()
	one, two, other := authtest.NewCA("one", now, nil), authtest.NewCA("two", now, nil), authtest.NewCA("other", now, nil)
	oneByTwo, twoByOne := one.Cross(two), two.Cross(one)
	below := twoByOne.CA("below", nil)
	for name, c := range map[string]struct {
		cas  []authtest.Cert
		want string // in the fault; "" for none
	}{
		"each other alone":               {[]authtest.Cert{oneByTwo, twoByOne}, `"CN=one" is signed by "CN=two", and no chain of ca leads to a root`},
		"beside another root":            {[]authtest.Cert{other, twoByOne, oneByTwo}, `"CN=two" is signed by "CN=one"`},
		"with a CA below":                {[]authtest.Cert{below, oneByTwo, twoByOne}, "no chain of ca leads to a root"},
		"with the root of one":           {[]authtest.Cert{below, oneByTwo, twoByOne, one}, ""},
		"an intermediate without issuer": {[]authtest.Cert{oneByTwo}, ""}, // it is the root then
		"both in one chain":              {[]authtest.Cert{one, two, oneByTwo, twoByOne}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{CA: setting.List[setting.Path]{file(t, "ca.pem", authtest.PEM(c.cas...))}}
			var f setting.Faults
			config.CheckFiles("client_certificates[0]", &f)
			got := ""
			if err := f.Err(); err != nil {
				got = err.Error()
			}
			if (got != "") != (c.want != "") || !strings.Contains(got, c.want) || c.want != "" && !strings.Contains(got, cureRootless) {
				t.Errorf("check: got %q, want %q", got, c.want)
			}
			_, err := New([]Config{config}, NewMemory(MemoryOptions{}), authtest.NewClock().Now)
			if (err != nil) != (c.want != "") {
				t.Errorf("start: %v", err)
			}
			if c.want != "" {
				return
			}
			trust := trusting(t, authtest.NewClock(), nil, c.cas...)
			if got := outcome(t, trust, one.Client("bob", authtest.URIs("spiffe://lab/bob"))); got != "cert:spiffe://lab/bob" {
				t.Errorf("a client: %s", got)
			}
		})
	}
}
