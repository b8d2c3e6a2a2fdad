package httpsig_test

import (
	"reflect"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

func TestAcceptSignature(t *testing.T) {
	// The example of RFC 9421, section 5.1.
	const value = `sig1=("@method" "@target-uri" "@authority" "content-digest" "cache-control");keyid="test-key-rsa-pss";created;tag="app-123"`
	want := []httpsig.Wanted{{Label: "sig1", Created: true, KeyID: "test-key-rsa-pss", Tag: "app-123",
		Components: []string{"@method", "@target-uri", "@authority", "content-digest", "cache-control"}}}
	got, err := httpsig.ParseAcceptSignature(httpsig.Lines{{Name: "Accept-Signature", Value: value}})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	// The value in a gateway's 401 response.
	text, err := httpsig.FormatAcceptSignature(httpsig.Wanted{Label: "sp", Created: true, Tag: httpsig.TagRequest,
		Components: []string{"@method", "@authority", "@path", "@query", "content-digest"}})
	if err != nil || text != `sp=("@method" "@authority" "@path" "@query" "content-digest");created;tag="sallyport-req"` {
		t.Errorf("%s, %v", text, err)
	}
	if got, err := httpsig.ParseAcceptSignature(httpsig.Lines{}); got != nil || err != nil {
		t.Errorf("no field: %v, %v", got, err)
	}
	for name, value := range map[string]string{
		"a label twice":            `a=(),a=()`,
		"created with a value":     `a=();created=1`,
		"a parameter twice":        `a=();tag="x";tag="x"`,
		"an unknown component":     `a=("@nonsense")`,
		"no list":                  `a="x"`,
		"a nonce that is none":     `a=();nonce="\""`,
		"too many":                 `a=(),b=(),c=(),d=(),e=()`,
		"too long":                 `a=();x="` + strings.Repeat("x", 4096) + `"`,
		"a comma at the end":       `a=(),`,
		"a tag too long to be one": `a=();tag="` + strings.Repeat("0", 129) + `"`,
		"components side by side":  `a=("x""y")`,
	} {
		if got, err := httpsig.ParseAcceptSignature(httpsig.Lines{{Name: "accept-signature", Value: value}}); code(err) != httpsig.Malformed {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, w := range map[string]httpsig.Wanted{
		"a tag that ends its string": {Label: "a", Tag: `x";nonce="y`},
		"no label":                   {},
		"a component that is none":   {Label: "a", Components: []string{"@nonsense"}},
	} {
		if text, err := httpsig.FormatAcceptSignature(w); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestWantsContentDigest(t *testing.T) {
	for value, want := range map[string]bool{
		"sha-256=10, sha-512=3": true, "sha-512=3, sha-256=1": true, "sha-256=0": false, "sha-512=3": false,
		"": false, "sha-256": false, "sha-256=1, sha-256=1": false, "sha-256=(1)": false,
	} {
		if got := httpsig.WantsContentDigest(httpsig.Lines{{Name: "want-content-digest", Value: value}}); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestNewSignerRefusesInvalidProfiles(t *testing.T) {
	for name, p := range map[string]httpsig.Profile{
		"no tag":                 {},
		"a tag with a quote":     {Tag: `"`},
		"a label with a capital": {Tag: "t", Label: "Sp"},
		"a negative lifetime":    {Tag: "t", Lifetime: -1},
		"a component twice":      {Tag: "t", Cover: []string{"date", "date"}},
		"covered twice":          {Tag: "t", Cover: []string{"date"}, IfPresent: []string{"date"}},
		"bs with sf":             {Tag: "t", Cover: []string{"date;bs;sf"}},
		"@signature-params":      {Tag: "t", Cover: []string{"@signature-params"}},
	} {
		if _, err := httpsig.NewSigner(p, nil); err == nil {
			t.Errorf("%s: a signer was made", name)
		}
	}
	key := secretKey(t, "k1")
	s := signer(t, httpsig.RequestProfile())
	without := request()
	without.Fields = httpsig.Lines{}
	response := request()
	response.Status = 200
	for name, m := range map[string]*httpsig.Message{"no digest": without, "a response": response, "nothing": {}} {
		if signed, err := s.Sign(key, m, ""); err == nil {
			t.Errorf("%s was signed: %v", name, signed)
		}
	}
	if _, err := s.Sign(key, request(), `n";keyid="other`); err == nil {
		t.Error("a nonce that ends its string was echoed")
	}
}

func TestHeadAndTrailersNeedDifferentLabels(t *testing.T) {
	key := secretKey(t, "k1")
	req := sign(t, httpsig.RequestProfile(), key, request(), "n1")
	for label, want := range map[string]httpsig.Code{"": "", "sp": httpsig.Malformed} {
		m := sign(t, httpsig.HeadProfile(httpsig.TagResponseHead), key, &httpsig.Message{Status: 200, Request: req, Fields: httpsig.Lines{}}, "n1")
		m.Trailers = httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest([]byte("x"))}}
		p := httpsig.TailProfile()
		if label != "" {
			p.Label = label
		}
		signed, err := signer(t, p).Sign(key, m, "n1")
		if err != nil {
			t.Fatal(err)
		}
		m.Trailers = append(m.Trailers.(httpsig.Lines), httpsig.Line{Name: "signature-input", Value: signed.Input},
			httpsig.Line{Name: "signature", Value: signed.Signature})
		v := verifier(t, httpsig.TailPolicy(), key)
		if _, err := v.VerifyResponse(m, "n1", true); code(err) != want {
			t.Errorf("label %q: %v, want %q", p.Label, err, want)
		}
		if _, err := v.VerifyResponse(m, "n2", true); err == nil {
			t.Error("another nonce passes")
		}
	}
}
