package httpsig_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

// vector is one file of testdata/rfc9421. All of their signatures are verified by
// computation, with the keys of appendix B.1, before anything else is tested.
type vector struct {
	algorithm, label, parameters, base string
	signature                          []byte
	message                            *httpsig.Message
}

func readVector(t testing.TB, name string) vector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "rfc9421", name))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(text), "\n-- ")
	values := make(map[string]string)
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		values[key] = value
	}
	v := vector{algorithm: values["algorithm"], label: values["label"], parameters: values["parameters"]}
	if v.signature, err = base64.StdEncoding.DecodeString(values["signature"]); err != nil {
		t.Fatal(err)
	}
	for section := range strings.SplitSeq(rest, "\n-- ") {
		kind, text, _ := strings.Cut(section, " --\n")
		switch kind {
		case "base":
			v.base = strings.TrimSuffix(text, "\n")
		case "request", "response":
			v.message = readMessage(t, text, v.message)
		}
	}
	return v
}

// readMessage reads `POST https://example.com/foo?q` or `200`, and fields.
func readMessage(t testing.TB, text string, request *httpsig.Message) *httpsig.Message {
	t.Helper()
	first, rest, _ := strings.Cut(text, "\n")
	m := &httpsig.Message{Request: request}
	if method, target, ok := strings.Cut(first, " "); ok {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		m.Method, m.Scheme, m.Authority, m.Path = method, u.Scheme, u.Host, u.EscapedPath()
		m.Query, m.HasQuery = u.RawQuery, u.RawQuery != ""
	} else {
		m.Status, _ = strconv.Atoi(first)
	}
	var lines httpsig.Lines
	for line := range strings.Lines(rest) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		lines = append(lines, httpsig.Line{Name: name, Value: value})
	}
	m.Fields = lines
	return m
}

func readKey(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "keys", name))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(text); block != nil {
		return block.Bytes
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func privateEd25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(readKey(t, "test-key-ed25519.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return key.(ed25519.PrivateKey)
}

// holds verifies a signature with the standard library alone.
func holds(t *testing.T, v vector) bool {
	t.Helper()
	public := func(name string) any {
		key, err := x509.ParsePKIXPublicKey(readKey(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	switch v.algorithm {
	case "hmac-sha256":
		mac := hmac.New(sha256.New, readKey(t, "test-shared-secret.b64"))
		mac.Write([]byte(v.base))
		return hmac.Equal(mac.Sum(nil), v.signature)
	case "ed25519":
		return ed25519.Verify(privateEd25519(t).Public().(ed25519.PublicKey), []byte(v.base), v.signature)
	case "ecdsa-p256-sha256":
		sum := sha256.Sum256([]byte(v.base))
		r, s := new(big.Int).SetBytes(v.signature[:32]), new(big.Int).SetBytes(v.signature[32:])
		return ecdsa.Verify(public("test-key-ecc-p256.pem").(*ecdsa.PublicKey), sum[:], r, s)
	case "rsa-v1_5-sha256":
		key, err := x509.ParsePKCS1PublicKey(readKey(t, "test-key-rsa.pem"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(v.base))
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], v.signature) == nil
	case "rsa-pss-sha512":
		sum := sha512.Sum512([]byte(v.base))
		return rsa.VerifyPSS(public("test-key-rsa-pss.pem").(*rsa.PublicKey), crypto.SHA512, sum[:], v.signature,
			&rsa.PSSOptions{SaltLength: 64}) == nil
	}
	t.Fatalf("algorithm %q", v.algorithm)
	return false
}

func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/rfc9421/*.txt")
	if err != nil || len(files) < 13 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			v := readVector(t, filepath.Base(file))
			if !holds(t, v) {
				t.Fatal("the vector itself does not hold")
			}
			got, err := httpsig.Base(v.message, v.parameters)
			if err != nil || string(got) != v.base {
				t.Errorf("base: %v\n%s\nwant\n%s", err, got, v.base)
			}
		})
	}
}

// testKeys are those keys of appendix B.1 whose algorithms we have.
func testKeys(t testing.TB) func(string) *httpsig.Key {
	t.Helper()
	shared, err := httpsig.HMACKey("test-shared-secret", readKey(t, "test-shared-secret.b64"))
	if err != nil {
		t.Fatal(err)
	}
	ed, err := httpsig.Ed25519Key("test-key-ed25519", privateEd25519(t))
	if err != nil {
		t.Fatal(err)
	}
	return func(id string) *httpsig.Key {
		switch id {
		case shared.ID():
			return shared
		case ed.ID():
			return ed
		}
		return nil
	}
}

// tagged gives the vector's signature the tag that a policy needs, by signing it
// anew: no vector that we can verify has a tag.
func tagged(t *testing.T, v vector, sign func(base []byte) []byte) *httpsig.Message {
	t.Helper()
	parameters := v.parameters + `;tag="t"`
	base, err := httpsig.Base(v.message, parameters)
	if err != nil {
		t.Fatal(err)
	}
	m := *v.message
	m.Fields = append(m.Fields.(httpsig.Lines)[:len(m.Fields.(httpsig.Lines)):len(m.Fields.(httpsig.Lines))],
		httpsig.Line{Name: "Signature-Input", Value: v.label + "=" + parameters},
		httpsig.Line{Name: "Signature", Value: v.label + "=:" + base64.StdEncoding.EncodeToString(sign(base)) + ":"})
	return &m
}

func verifierOf(t *testing.T, p httpsig.Policy) *httpsig.Verifier {
	t.Helper()
	p.Tag, p.MaxAge = "t", time.Minute
	p.Algorithms = []httpsig.Algorithm{httpsig.HMACSHA256, httpsig.Ed25519}
	v, err := httpsig.NewVerifier(p, httpsig.VerifierOptions{
		Key:       testKeys(t),
		Authority: func(a string) bool { return a == "example.com" || a == "example.org" },
		Now:       func() time.Time { return time.Unix(1618884473+10, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Appendix B.2.5 and B.2.6, signed and verified by this package: both algorithms
// are deterministic.
func TestVectorsWhole(t *testing.T) {
	keys := testKeys(t)
	for name, cover := range map[string][]string{
		"b25.txt": {"date", "@authority", "content-type"},
		"b26.txt": {"date", "@method", "@path", "@authority", "content-type", "content-length"},
	} {
		t.Run(name, func(t *testing.T) {
			v := readVector(t, name)
			id := strings.Split(v.parameters, `keyid="`)[1]
			key := keys(strings.TrimSuffix(id, `"`))
			got, err := httpsig.SignBase(key, []byte(v.base))
			if err != nil || string(got) != string(v.signature) {
				t.Errorf("signature %x, %v; want %x", got, err, v.signature)
			}
			m := tagged(t, v, func(base []byte) []byte { s, _ := httpsig.SignBase(key, base); return s })
			s, err := verifierOf(t, httpsig.Policy{Require: cover}).Verify(m)
			if err != nil || s.Key.ID() != key.ID() || s.Label != v.label {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// Appendix B.4: what a signature survives and what not, for both algorithms.
func TestVectorsTransformations(t *testing.T) {
	type lines = httpsig.Lines
	accept := func(values ...string) (l lines) {
		for _, v := range values {
			l = append(l, httpsig.Line{Name: "accept", Value: v})
		}
		return l
	}
	cases := []struct {
		name  string
		holds bool
		apply func(m *httpsig.Message, fields lines) lines
	}{
		{"unchanged", true, func(_ *httpsig.Message, f lines) lines { return f }},
		{"field and parameter added", true, func(m *httpsig.Message, f lines) lines {
			m.Query += "&param=added"
			return append(f, httpsig.Line{Name: "Accept-Language", Value: "en-US,en;q=0.5"})
		}},
		{"date removed, referer added", true, func(_ *httpsig.Message, f lines) lines {
			return append(without(f, "date"), httpsig.Line{Name: "Referer", Value: "https://developer.example.org/demo"})
		}},
		{"fields in another order", true, func(_ *httpsig.Message, f lines) lines {
			return append(accept("application/json", "*/*"), without(f, "accept")...)
		}},
		{"lines merged", true, func(_ *httpsig.Message, f lines) lines {
			return append(without(f, "accept"), accept("application/json, */*")...)
		}},
		{"authority in capitals, with the default port", true, func(m *httpsig.Message, f lines) lines {
			m.Authority = "EXAMPLE.org:443"
			return f
		}},
		{"values in another order", false, func(_ *httpsig.Message, f lines) lines {
			return append(without(f, "accept"), accept("*/*", "application/json")...)
		}},
		{"value added", false, func(_ *httpsig.Message, f lines) lines { return append(f, accept("text/plain")...) }},
		{"method", false, func(m *httpsig.Message, f lines) lines { m.Method = "POST"; return f }},
		{"method in small letters", false, func(m *httpsig.Message, f lines) lines { m.Method = "get"; return f }},
		{"authority", false, func(m *httpsig.Message, f lines) lines { m.Authority = "example.com"; return f }},
		{"path", false, func(m *httpsig.Message, f lines) lines { m.Path = "/demo/"; return f }},
	}
	keys := testKeys(t)
	for _, id := range []string{"test-key-ed25519", "test-shared-secret"} {
		for _, c := range cases {
			t.Run(id+"/"+c.name, func(t *testing.T) {
				v := readVector(t, "b4.txt")
				v.parameters = strings.Replace(v.parameters, "test-key-ed25519", id, 1)
				m := tagged(t, v, func(base []byte) []byte { s, _ := httpsig.SignBase(keys(id), base); return s })
				m.Fields = c.apply(m, append(lines(nil), m.Fields.(lines)...))
				_, err := verifierOf(t, httpsig.Policy{Require: []string{"@method", "@path", "@authority", "accept"}}).Verify(m)
				if (err == nil) != c.holds {
					t.Errorf("%v, want it to hold: %v", err, c.holds)
				}
			})
		}
	}
}

func without(l httpsig.Lines, name string) (kept httpsig.Lines) {
	for _, line := range l {
		if !strings.EqualFold(line.Name, name) {
			kept = append(kept, line)
		}
	}
	return kept
}

// The worked examples of sections 2.1 and 2.2.
func TestBaseExamples(t *testing.T) {
	fields := httpsig.Lines{
		{Name: "Host", Value: "www.example.com"},
		{Name: "X-OWS-Header", Value: "   Leading and trailing whitespace.   "},
		{Name: "X-Obs-Fold-Header", Value: "Obsolete\r\n    line folding."},
		{Name: "Cache-Control", Value: "max-age=60"},
		{Name: "Cache-Control", Value: "   must-revalidate"},
		{Name: "Example-Dict", Value: "  a=1,    b=2;x=1;y=2,   c=(a   b   c), d"},
		{Name: "X-Empty-Header", Value: ""},
		{Name: "Example-Header", Value: "value, with, lots"},
		{Name: "Example-Header", Value: "of, commas"},
	}
	request := &httpsig.Message{
		Method: "GET", Scheme: "https", Authority: "www.Example.com:443", Path: "/parameters", HasQuery: true,
		Query:      "var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&empty=",
		Fields:     fields,
		Structured: map[string]httpsig.Kind{"example-dict": httpsig.Dictionary},
	}
	bare := &httpsig.Message{Method: "GET", Scheme: "HTTP", Authority: "example.com:80"}
	response := &httpsig.Message{
		Status: 200, Request: request, Fields: httpsig.Lines{{Name: "Trailer", Value: "Expires"}},
		Trailers: httpsig.Lines{{Name: "Expires", Value: "Wed, 9 Nov 2022 07:28:00 GMT"}},
	}
	cases := []struct {
		m    *httpsig.Message
		id   string
		want string
	}{
		{request, `"host"`, "www.example.com"},
		{request, `"x-ows-header"`, "Leading and trailing whitespace."},
		{request, `"x-obs-fold-header"`, "Obsolete line folding."},
		{request, `"cache-control"`, "max-age=60, must-revalidate"},
		{request, `"example-dict"`, "a=1,    b=2;x=1;y=2,   c=(a   b   c), d"},
		{request, `"x-empty-header"`, ""},
		{request, `"example-dict";sf`, "a=1, b=2;x=1;y=2, c=(a b c), d"},
		{request, `"example-dict";key="a"`, "1"},
		{request, `"example-dict";key="d"`, "?1"},
		{request, `"example-dict";key="b"`, "2;x=1;y=2"},
		{request, `"example-dict";key="c"`, "(a b c)"},
		{request, `"example-header"`, "value, with, lots, of, commas"},
		{request, `"example-header";bs`, ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"},
		{request, `"@authority"`, "www.example.com"},
		{request, `"@scheme"`, "https"},
		{request, `"@target-uri"`, "https://www.example.com/parameters?" + request.Query},
		{request, `"@request-target"`, "/parameters?" + request.Query},
		{request, `"@query-param";name="var"`, "this%20is%20a%20big%0Amultiline%20value"},
		{request, `"@query-param";name="bar"`, "with%20plus%20whitespace"},
		{request, `"@query-param";name="fa%C3%A7ade%22%3A%20"`, "something"},
		{request, `"@query-param";name="empty"`, ""},
		{bare, `"@path"`, "/"},
		{bare, `"@query"`, "?"},
		{bare, `"@scheme"`, "http"},
		{bare, `"@target-uri"`, "http://example.com/"},
		{response, `"@status"`, "200"},
		{response, `"trailer"`, "Expires"},
		{response, `"expires";tr`, "Wed, 9 Nov 2022 07:28:00 GMT"},
		{response, `"@method";req`, "GET"},
		{response, `"example-dict";req;key="a"`, "1"},
	}
	for _, c := range cases {
		t.Run(c.id, func(t *testing.T) {
			want := c.id + ": " + c.want + "\n\"@signature-params\": (" + c.id + ")"
			if got, err := httpsig.Base(c.m, "("+c.id+")"); err != nil || string(got) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}
