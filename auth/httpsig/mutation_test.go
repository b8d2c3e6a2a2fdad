package httpsig_test

import (
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// Every byte of a signed request's head, and of its content, replaced by every
// other that could matter: none passes.
func TestMutations(t *testing.T) {
	key := secretKey(t, "k1")
	good := sign(t, httpsig.RequestProfile(), key, request(), "")
	v, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key:       func(id string) *httpsig.Key { return map[string]*httpsig.Key{"k1": key}[id] },
		Authority: func(string) bool { return true }, // the signature alone must tell
		Now:       now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(good); err != nil {
		t.Fatal(err)
	}
	refused := 0
	each := func(part, value string, apply func(string) *httpsig.Message) {
		for i := range len(value) {
			for _, c := range []byte{value[i] ^ 1, value[i] ^ 0x20, ' ', '"', ';', ',', '=', ':', '0', 'A', 0, 0xff, '\n'} {
				if c == value[i] {
					continue
				}
				changed := value[:i] + string([]byte{c}) + value[i+1:]
				// Letter case of names and hosts means nothing in HTTP.
				if (part == "authority" || part == "scheme") && c == value[i]^0x20 && value[i] >= 'A' {
					continue
				}
				if _, err := v.Verify(apply(changed)); err == nil {
					t.Errorf("%s: %q passes for %q", part, changed, value)
				}
				refused++
			}
			for _, changed := range []string{value[:i] + value[i+1:], value[:i] + "x" + value[i:]} {
				if _, err := v.Verify(apply(changed)); err == nil {
					t.Errorf("%s: %q passes for %q", part, changed, value)
				}
				refused++
			}
		}
	}
	each("method", good.Method, func(s string) *httpsig.Message { m := *good; m.Method = s; return &m })
	each("authority", good.Authority, func(s string) *httpsig.Message { m := *good; m.Authority = s; return &m })
	each("path", good.Path, func(s string) *httpsig.Message { m := *good; m.Path = s; return &m })
	each("query", good.Query, func(s string) *httpsig.Message { m := *good; m.Query = s; return &m })
	for _, line := range good.Fields.(httpsig.Lines) {
		each(line.Name, line.Value, func(s string) *httpsig.Message { return set(good, line.Name, s) })
		if line.Name == "content-type" || line.Name == "content-digest" {
			each("name of "+line.Name, line.Name, func(s string) *httpsig.Message {
				if strings.EqualFold(s, line.Name) { // letter case of names means nothing
					s = "x"
				}
				m := *good
				m.Fields = append(without(good.Fields.(httpsig.Lines), line.Name), httpsig.Line{Name: s, Value: line.Value})
				return &m
			})
		}
	}
	digest, err := httpsig.ParseContentDigest(good.Fields)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(body) {
		changed := []byte(body)
		for bit := range 8 {
			changed[i] = body[i] ^ 1<<bit
			if digest.Match(changed) == nil {
				t.Errorf("content %q passes", changed)
			}
			refused++
		}
		if digest.Match([]byte(body[:i])) == nil {
			t.Errorf("content cut at %d passes", i)
		}
	}
	if refused < 5000 {
		t.Errorf("only %d mutations", refused)
	}
}

// A signature of one direction never passes in another.
func TestReflection(t *testing.T) {
	key := secretKey(t, "k1")
	req := sign(t, httpsig.RequestProfile(), key, request(), "n1")
	profiles := map[string]httpsig.Profile{
		"request":  httpsig.RequestProfile(),
		"forward":  httpsig.ForwardProfile(),
		"response": httpsig.ResponseProfile(),
		"head":     httpsig.HeadProfile(httpsig.TagResponseHead),
		"only":     httpsig.HeadProfile(httpsig.TagResponseHeadOnly),
	}
	policies := map[string]httpsig.Policy{
		"request":  httpsig.RequestPolicy(),
		"forward":  httpsig.ForwardPolicy(),
		"response": httpsig.ResponsePolicy(),
		"head":     httpsig.HeadPolicy(httpsig.TagResponseHead),
		"only":     httpsig.HeadPolicy(httpsig.TagResponseHeadOnly),
	}
	response := &httpsig.Message{Status: 200, Request: req, Fields: httpsig.Lines{
		{Name: "content-type", Value: "application/json"}, {Name: "content-digest", Value: httpsig.ContentDigest(nil)}}}
	for made, profile := range profiles {
		m := response
		if made == "request" || made == "forward" {
			m = request()
		}
		m = sign(t, profile, key, m, "n1")
		for asked, policy := range policies {
			_, err := verifier(t, policy, key).Verify(m)
			if (err == nil) != (made == asked) {
				t.Errorf("a signature of a %s as that of a %s: %v", made, asked, err)
			}
			// With the tag changed in flight, the signature itself must fail.
			_, err = verifier(t, policy, key).Verify(edit(m, `tag="`+profile.Tag, `tag="`+policy.Tag))
			if (err == nil) != (made == asked) {
				t.Errorf("a %s retagged as a %s: %v", made, asked, err)
			}
		}
	}
}
