package interop_test

import (
	"context"
	"crypto/ed25519"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	dadrussig "github.com/dadrus/httpsig"
)

// dadrus is github.com/dadrus/httpsig.
func dadrus() peer {
	return peer{name: "dadrus", cannot: dadrusCannot, sign: dadrusSign, verify: dadrusVerify}
}

// dadrusCannot names the differences of v0.9.0, each shown by TestDifferences.
func dadrusCannot(s *sample, c covered) string {
	lines := s.lines(c)
	switch {
	case c.tr:
		return "trailers are not supported"
	case c.name == "@target-uri" && unnormalized(s):
		return "@target-uri is not normalized"
	case c.name == "@authority" && strings.HasPrefix(s.host, "[") && defaultPort(s):
		return "@authority of IPv6 loses its brackets with its default port"
	case c.name == "@query-param" && !dadrusParam(s, c.param):
		return "@query-param is looked up decoded, escaped as a path, and joined if given twice"
	case !c.bs && !c.sf && c.key == "" && slices.ContainsFunc(lines, padded):
		return "lines are not trimmed"
	case c.bs && slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, ",") || strings.Contains(line, "  ") }):
		return "bs rewrites lists and white space within lines"
	case c.key != "" && !strings.Contains(strings.Join(lines, ","), "="):
		return "key finds no member where the dictionary could be a list"
	case signedZero(c, lines):
		return "-0.0 keeps its sign"
	}
	return ""
}

// signedZero: both libraries write structured fields with httpsfv.
func signedZero(c covered, lines []string) bool {
	return (c.sf || c.key != "") && slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "-0.0") })
}

func padded(line string) bool { return strings.Trim(line, " \t") != line }

func defaultPort(s *sample) bool {
	return s.scheme == "https" && strings.HasSuffix(s.host, ":443") || s.scheme == "http" && strings.HasSuffix(s.host, ":80")
}

// unnormalized reports whether the host, or an empty path, must change to be signed.
func unnormalized(s *sample) bool {
	return strings.ToLower(s.host) != s.host || defaultPort(s) || s.path == ""
}

func dadrusParam(s *sample, name string) bool {
	values, err := url.ParseQuery(strings.TrimPrefix(s.query, "?"))
	if err != nil || encoded(name) != name || len(values[name]) > 1 {
		return false
	}
	return len(values[name]) == 0 || url.PathEscape(values[name][0]) == encoded(values[name][0])
}

func dadrusKey(s *sample, verify bool) dadrussig.Key {
	k := dadrussig.Key{KeyID: "k", Algorithm: dadrussig.HmacSha256, Key: secret}
	if s.ed25519 {
		k.Algorithm, k.Key = dadrussig.Ed25519, private
		if verify {
			k.Key = private.Public().(ed25519.PublicKey)
		}
	}
	return k
}

func dadrusMessage(t testing.TB, s *sample) *dadrussig.Message {
	if s.status != 0 {
		return dadrussig.MessageFromResponse(s.answer(t))
	}
	return dadrussig.MessageFromRequest(s.request(t))
}

// dadrusSign signs with a nonce of hexadecimal; see TestStricter for its own.
func dadrusSign(t testing.TB, s *sample) (*sample, error) {
	nonce := dadrussig.NonceGetterFunc(func(context.Context) (string, error) { return "00ff", nil })
	signer, err := dadrussig.NewSigner(dadrusKey(s, false), dadrussig.WithLabel("sig"), dadrussig.WithTag(tag), dadrussig.WithTTL(lifetime),
		dadrussig.WithNonce(nonce), dadrussig.WithComponents(names(s.cover)...))
	if err != nil {
		return nil, err
	}
	h, err := signer.Sign(dadrusMessage(t, s))
	if err != nil {
		return nil, err
	}
	return s.attach(h.Get("Signature-Input"), h.Get("Signature")), nil
}

func dadrusVerify(t testing.TB, s *sample) error {
	v, err := dadrussig.NewVerifier(dadrusKey(s, true), dadrussig.WithRequiredTag(tag, dadrussig.WithRequiredComponents(names(s.cover)...),
		dadrussig.WithMaxAge(lifetime), dadrussig.WithValidityTolerance(time.Minute)))
	if err != nil {
		return err
	}
	return v.Verify(dadrusMessage(t, s))
}
