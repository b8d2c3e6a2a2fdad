package interop_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	dadrussig "github.com/dadrus/httpsig"

	"sallyport/auth/httpsig"
)

// plain is a request that all read the same.
func plain() *sample {
	return &sample{method: "POST", scheme: "https", host: "example.com", path: "/p", query: "?q=1",
		fields: http.Header{"X-Plain": {"v"}, "X-Dict": {"a=1, b=2"}, "X-List": {"1, 2"}}}
}

// agree reports whether each takes what the other signs, or neither signs it.
func agree(t *testing.T, p peer, s *sample) bool {
	ours := signed(t, s)
	theirs, err := p.sign(t, s)
	if ours == nil || err != nil {
		return ours == nil && err != nil
	}
	return p.verify(t, ours) == nil && verified(t, theirs) == nil
}

// The differences that the other tests leave out are there: where one has gone,
// its name goes too.
func TestDifferences(t *testing.T) {
	cases := []struct {
		peer   peer
		why    string
		cover  covered
		change func(s *sample)
	}{
		{dadrus(), "@target-uri is not normalized", covered{name: "@target-uri"}, func(s *sample) { s.host = "EXAMPLE.com" }},
		{dadrus(), "@target-uri is not normalized", covered{name: "@target-uri"}, func(s *sample) { s.host = "example.com:443" }},
		{dadrus(), "@target-uri is not normalized", covered{name: "@target-uri"}, func(s *sample) { s.path = "" }},
		{dadrus(), "@authority of IPv6 loses its brackets with its default port", covered{name: "@authority"}, func(s *sample) { s.host = "[2001:db8::1]:443" }},
		{dadrus(), "@query-param is looked up decoded, escaped as a path, and joined if given twice", covered{name: "@query-param", param: "q"}, func(s *sample) { s.query = "?q=a&q=b" }},
		{dadrus(), "@query-param is looked up decoded, escaped as a path, and joined if given twice", covered{name: "@query-param", param: "q"}, func(s *sample) { s.query = "?q=a:b" }},
		{dadrus(), "@query-param is looked up decoded, escaped as a path, and joined if given twice", covered{name: "@query-param", param: "a b"}, func(s *sample) { s.query = "?a+b=1" }},
		{dadrus(), "lines are not trimmed", covered{name: "x-plain"}, func(s *sample) { s.fields["X-Plain"] = []string{"v ", "w"} }},
		{dadrus(), "bs rewrites lists and white space within lines", covered{name: "x-plain", bs: true}, func(s *sample) { s.fields.Set("X-Plain", "a,b") }},
		{dadrus(), "bs rewrites lists and white space within lines", covered{name: "x-plain", bs: true}, func(s *sample) { s.fields.Set("X-Plain", "a  b") }},
		{dadrus(), "key finds no member where the dictionary could be a list", covered{name: "x-dict", key: "a"}, func(s *sample) { s.fields.Set("X-Dict", "a, b") }},
		{dadrus(), "-0.0 keeps its sign", covered{name: "x-dict", key: "a"}, func(s *sample) { s.fields.Set("X-Dict", "a=-0.0") }},
		{dadrus(), "trailers are not supported", covered{name: "x-plain", tr: true}, func(s *sample) {
			s.status, s.response, s.trailers = 200, http.Header{"X-Plain": {"v"}}, http.Header{"X-Plain": {"v"}}
		}},

		{yaronf(), "@authority and @target-uri are not normalized", covered{name: "@authority"}, func(s *sample) { s.host = "EXAMPLE.com" }},
		{yaronf(), "@authority and @target-uri are not normalized", covered{name: "@authority"}, func(s *sample) { s.host = "example.com:443" }},
		{yaronf(), "@authority and @target-uri are not normalized", covered{name: "@target-uri"}, func(s *sample) { s.path = "" }},
		{yaronf(), "an empty @path stays empty", covered{name: "@path"}, func(s *sample) { s.path = "" }},
		{yaronf(), "@request-target is decoded, and loses an empty query", covered{name: "@request-target"}, func(s *sample) { s.path = "/a%2Fb" }},
		{yaronf(), "@request-target is decoded, and loses an empty query", covered{name: "@request-target"}, func(s *sample) { s.query = "?" }},
		{yaronf(), "@query-param escapes other bytes, and has several lines if given twice", covered{name: "@query-param", param: "q"}, func(s *sample) { s.query = "?q=a&q=b" }},
		{yaronf(), "@query-param escapes other bytes, and has several lines if given twice", covered{name: "@query-param", param: "q"}, func(s *sample) { s.query = "?q=~" }},
		{yaronf(), "@query-param escapes other bytes, and has several lines if given twice", covered{name: "@query-param", param: "q"}, func(s *sample) { s.query = "?q=*" }},
		{yaronf(), "a query that is no form is refused, covered or not", covered{name: "@method"}, func(s *sample) { s.query = "?a;b" }},
		{yaronf(), "bs does not trim lines", covered{name: "x-plain", bs: true}, func(s *sample) { s.fields["X-Plain"] = []string{" v"} }},
		{yaronf(), "sf reads dictionaries alone", covered{name: "x-list", sf: true}, func(*sample) {}},
		{yaronf(), "-0.0 keeps its sign", covered{name: "x-dict", sf: true}, func(s *sample) { s.fields.Set("X-Dict", "a=-0.0") }},
	}
	for _, c := range cases {
		t.Run(c.peer.name+"/"+c.why, func(t *testing.T) {
			s := plain()
			s.cover = []covered{c.cover}
			if c.peer.cannot(s, c.cover) == "" && !agree(t, c.peer, s) {
				t.Fatal("no agreement even before the difference")
			}
			c.change(s)
			if why := c.peer.cannot(s, c.cover); why != c.why {
				t.Errorf("named %q, want %q", why, c.why)
			}
			if agree(t, c.peer, s) {
				t.Error("they agree: the difference has gone")
			}
		})
	}
}

// Where ours refuses what others take. None of it is among what the RFC's own
// vectors show.
func TestStricter(t *testing.T) {
	twice := func(s *sample) *sample { // the first signature is of nothing, the second counts for readers of the last
		o := signed(t, s)
		return o.attach(`sig=(), `+o.fields.Get("Signature-Input"), `sig=::, `+o.fields.Get("Signature"))
	}
	s := plain()
	s.cover = []covered{{name: "@method"}}
	for _, p := range []peer{dadrus(), yaronf()} {
		if err := p.verify(t, twice(s)); err != nil {
			t.Errorf("%s refuses a label given twice: %v", p.name, err)
		}
		o := signed(t, s)
		o.fields.Add("Signature-Input", `other=()`)
		o.fields.Add("Signature", `other=::`)
		if err := p.verify(t, o); err != nil && p.name == "yaronf" {
			t.Errorf("%s refuses a second line of Signature-Input: %v", p.name, err)
		}
		if err := verified(t, o); code(err) != httpsig.Malformed {
			t.Errorf("ours takes a second line of Signature-Input: %v", err)
		}
	}
	if err := verified(t, twice(s)); code(err) != httpsig.Malformed {
		t.Errorf("ours takes a label given twice: %v", err)
	}

	s.cover = []covered{{name: "x-dict", key: "b"}}
	o := signed(t, s)
	o.cover = []covered{{name: "x-dict", key: "a"}}
	if err := dadrus().verify(t, o); err != nil {
		t.Errorf("dadrus tells a member that is demanded from another: %v", err)
	}
	if err := verified(t, o); code(err) != httpsig.Coverage {
		t.Errorf("ours takes a member for another: %v", err)
	}
}

// What dadrus does before it has verified the signature, and what it signs when
// nothing is said about nonces.
func TestDadrusNonces(t *testing.T) {
	s := plain()
	s.cover = []covered{{name: "@method"}}
	claimed := 0
	checker := dadrussig.NonceCheckerFunc(func(context.Context, dadrussig.NonceValue) error { claimed++; return nil })
	v, err := dadrussig.NewVerifier(dadrusKey(s, true), dadrussig.WithRequiredTag(tag), dadrussig.WithNonceChecker(checker),
		dadrussig.WithMaxAge(lifetime), dadrussig.WithValidityTolerance(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if v.Verify(dadrusMessage(t, signed(t, s).changed(s.cover[0]))) == nil || claimed != 1 {
		t.Errorf("%d nonces claimed by a request whose signature does not hold", claimed)
	}

	signer, err := dadrussig.NewSigner(dadrusKey(s, false), dadrussig.WithTag(tag), dadrussig.WithComponents("@method"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := signer.Sign(dadrusMessage(t, s))
	if err != nil {
		t.Fatal(err)
	}
	// Its nonces end in "==", and ours are of letters that need no quoting anywhere.
	if err := verified(t, s.attach(h.Get("Signature-Input"), h.Get("Signature"))); code(err) != httpsig.Malformed {
		t.Errorf("a nonce with padding: %v", err)
	}
}
