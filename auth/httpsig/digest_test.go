package httpsig_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"sallyport/auth/httpsig"
)

func TestParseContentDigest(t *testing.T) {
	const empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
	for name, c := range map[string]struct {
		value string
		want  httpsig.Code
	}{
		"one that counts":             {empty, ""},
		"beside a weak one":           {"md5=:AAAA:, " + empty, ""},
		"absent":                      {"", httpsig.DigestMissing},
		"weak ones alone":             {"md5=:1B2M2Y8AsgTpgAmY7PhCfg==:, sha=:2jmj7l5rSw0yVb/vlWAYkK/YBwk=:", httpsig.DigestMissing},
		"twice":                       {empty + ", " + empty, httpsig.Malformed},
		"no byte sequence":            {`sha-256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="`, httpsig.Malformed},
		"of another length":           {"sha-256=:AAAA:", httpsig.Malformed},
		"base64 that is not one text": {"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=:", httpsig.Malformed},
		"with parameters":             {empty + ";x", httpsig.Malformed},
		"a comma at its end":          {empty + ",", httpsig.Malformed},
		"of the old field":            {"SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", httpsig.Malformed},
		"too long":                    {empty + ", x=:" + strings.Repeat("A", 4096) + ":", httpsig.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			fields := httpsig.Lines{{Name: "content-digest", Value: c.value}}
			if c.value == "" {
				fields = nil
			}
			if _, err := httpsig.ParseContentDigest(fields); code(err) != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	two := httpsig.Lines{{Name: "content-digest", Value: empty}, {Name: "content-digest", Value: empty}}
	if _, err := httpsig.ParseContentDigest(two); code(err) != httpsig.Malformed {
		t.Errorf("two lines: %v", err)
	}
	if (httpsig.Digests{}).Match(nil) == nil {
		t.Error("the zero digests match no content")
	}
}

func TestEverySupportedDigestMustMatch(t *testing.T) {
	const wrong512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
	d, err := httpsig.ParseContentDigest(httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest([]byte("x")) + ", " + wrong512}})
	if err != nil || code(d.Match([]byte("x"))) != httpsig.DigestMismatch {
		t.Errorf("%v, %v", err, d.Match([]byte("x")))
	}
}

func TestDigestReader(t *testing.T) {
	d, err := httpsig.ParseContentDigest(httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest([]byte("content"))}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]httpsig.Code{"content": "", "conten": httpsig.DigestMismatch, "contents": httpsig.DigestMismatch, "": httpsig.DigestMismatch} {
		for name, from := range map[string]io.Reader{
			"whole":               strings.NewReader(text),
			"byte by byte":        iotest.OneByteReader(strings.NewReader(text)),
			"the end with a byte": iotest.DataErrReader(strings.NewReader(text)),
		} {
			r := d.NewReader(from)
			got, err := io.ReadAll(r)
			if code(err) != want || string(got) != text {
				t.Errorf("%s, %s: %q, %v", text, name, got, err)
			}
			if _, again := r.Read(make([]byte, 1)); want != "" && again != err {
				t.Errorf("%s, %s: after the end %v", text, name, again)
			}
		}
	}
	cut := errors.New("cut off")
	if _, err := io.ReadAll(d.NewReader(iotest.ErrReader(cut))); err != cut {
		t.Errorf("%v", err)
	}
}
