package interop_test

import (
	"crypto/ed25519"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yaronf/httpsign"
)

// yaronf is github.com/yaronf/httpsign.
func yaronf() peer {
	return peer{name: "yaronf", cannot: yaronfCannot, sign: yaronfSign, verify: yaronfVerify}
}

// yaronfCannot names the differences of v0.5.1, each shown by TestDifferences.
func yaronfCannot(s *sample, c covered) string {
	_, err := url.ParseQuery(strings.TrimPrefix(s.query, "?"))
	lines := s.lines(c)
	switch {
	case err != nil:
		return "a query that is no form is refused, covered or not"
	case c.name == "@target-uri" && unnormalized(s), c.name == "@authority" && (strings.ToLower(s.host) != s.host || defaultPort(s)):
		return "@authority and @target-uri are not normalized"
	case c.name == "@path" && s.path == "":
		return "an empty @path stays empty"
	case c.name == "@request-target" && (strings.Contains(s.path, "%") || s.query == "?"):
		return "@request-target is decoded, and loses an empty query"
	case c.name == "@query-param" && !yaronfParam(s, c.param):
		return "@query-param escapes other bytes, and has several lines if given twice"
	case c.bs && slices.ContainsFunc(lines, padded):
		return "bs does not trim lines"
	case c.sf && c.name != "x-dict":
		return "sf reads dictionaries alone"
	case signedZero(c, lines):
		return "-0.0 keeps its sign"
	}
	return ""
}

func yaronfParam(s *sample, name string) bool {
	values, _ := url.ParseQuery(strings.TrimPrefix(s.query, "?"))
	for _, value := range append(values[name], name) {
		if httpsign.QueryEscapeForSignature(value) != encoded(value) {
			return false
		}
	}
	return len(values[name]) <= 1
}

func yaronfFields(s *sample) httpsign.Fields {
	all := httpsign.NewFields()
	for _, c := range s.cover {
		switch {
		case c.param != "":
			all.AddQueryParamExt(c.param, false, c.req, c.tr)
		case c.key != "":
			all.AddDictHeaderExt(c.name, c.key, false, c.req, c.tr)
		case c.sf:
			all.AddStructuredFieldExt(c.name, false, c.req, c.tr)
		default:
			all.AddHeaderExt(c.name, false, c.bs, c.req, c.tr)
		}
	}
	return *all
}

func yaronfSign(t testing.TB, s *sample) (*sample, error) {
	config := httpsign.NewSignConfig().SignAlg(s.alg).SetExpiresAfter(int64(lifetime / time.Second)).SetNonce("00ff").SetTag(tag).
		SetKeyID("k").SetSchemeFromRequest(func(*http.Request) string { return s.scheme })
	signer, err := httpsign.NewHMACSHA256Signer(secret, config, yaronfFields(s))
	if s.ed25519 {
		signer, err = httpsign.NewEd25519Signer(private, config, yaronfFields(s))
	}
	if err != nil {
		t.Fatal(err)
	}
	var input, signature string
	if s.status != 0 {
		r := s.answer(t)
		input, signature, err = httpsign.SignResponse("sig", *signer, r, r.Request)
	} else {
		input, signature, err = httpsign.SignRequest("sig", *signer, s.request(t))
	}
	if err != nil {
		return nil, err
	}
	return s.attach(input, signature), nil
}

func yaronfVerify(t testing.TB, s *sample) error {
	config := httpsign.NewVerifyConfig().SetNotOlderThan(lifetime).SetNotNewerThan(time.Minute).SetAllowedTags([]string{tag}).
		SetKeyID("k").SetSchemeFromRequest(func(*http.Request) string { return s.scheme })
	verifier, err := httpsign.NewHMACSHA256Verifier(secret, config, yaronfFields(s))
	if s.ed25519 {
		verifier, err = httpsign.NewEd25519Verifier(private.Public().(ed25519.PublicKey), config, yaronfFields(s))
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.status != 0 {
		r := s.answer(t)
		return httpsign.VerifyResponse("sig", *verifier, r, r.Request)
	}
	return httpsign.VerifyRequest("sig", *verifier, s.request(t))
}
