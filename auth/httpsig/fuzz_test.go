package httpsig_test

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// FuzzBase compares our base with that of a simple implementation, which follows the RFC
// literally with regular expressions.
func FuzzBase(f *testing.F) {
	f.Add(`("@method" "@authority" "@path" "@query" "content-digest");created=1;keyid="k"`, "POST", "h", "/p", "q=1", "a, b")
	f.Add(`("@target-uri" "x";bs "@scheme" "@request-target");expires=5;alg="x\"\\";created=007;tag="t"`, "GET", "H:443", "", "", " v ")
	f.Add(`( "x";sf   "x" ) ;  created=?1;a;b=tok/en;c=:AA==:;d=1.50`, "GET", "h", "/a%2Fb", "", "1")
	f.Fuzz(func(t *testing.T, parameters, method, authority, path, query, value string) {
		m := &httpsig.Message{Method: method, Scheme: "https", Authority: authority, Path: path, Query: query,
			HasQuery: query != "", Fields: httpsig.Lines{{Name: "x", Value: value}, {Name: "X", Value: "second"}, {Name: "content-digest", Value: value}}}
		got, err := httpsig.Base(m, parameters)
		if err != nil {
			return
		}
		want, ok := naiveBase(m, parameters)
		if !ok {
			return // beyond the naive reader: sf, key, query parameters
		}
		if string(got) != want {
			t.Errorf("base of %q:\n%s\nnaively\n%s", parameters, got, want)
		}
		// What we wrote ourselves we read as the same.
		_, canonical, _ := strings.Cut(string(got), `"@signature-params": `)
		if !strings.Contains(canonical, "@signature-params") {
			again, err := httpsig.Base(m, canonical)
			if err != nil || string(again) != string(got) {
				t.Errorf("round trip: %v\n%s\nwas\n%s", err, again, got)
			}
		}
	})
}

// Patterns for structured fields of the simple implementation.
var (
	naiveList  = regexp.MustCompile(`^\(([^()]*)\)(.*)$`)
	naiveItem  = regexp.MustCompile(`^"([^"\\]*)"((?:; *[a-z*][a-z0-9_.*-]*)*)`)
	naiveParam = regexp.MustCompile(`^; *([a-z*][a-z0-9_.*-]*)(?:=("(?:[^"\\]|\\.)*"|:[A-Za-z0-9+/=]*:|-?[0-9]+\.[0-9]+|-?[0-9]+|\?[01]|[A-Za-z*][^ ;,"()]*))?`)
)

func naiveBase(m *httpsig.Message, parameters string) (string, bool) {
	parts := naiveList.FindStringSubmatch(parameters)
	if parts == nil {
		return "", false
	}
	base, list := "", []string{}
	for rest := strings.Trim(parts[1], " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		item := naiveItem.FindStringSubmatch(rest)
		if item == nil {
			return "", false
		}
		rest = rest[len(item[0]):]
		name, flags := item[1], strings.ReplaceAll(item[2], " ", "")
		if strings.Contains(flags, "sf") || strings.HasPrefix(rest, "=") {
			return "", false
		}
		value, ok := naiveValue(m, name, slices.Contains(strings.Split(flags, ";"), "bs"))
		if !ok {
			return "", false
		}
		base += fmt.Sprintf("%q%s: %s\n", name, flags, value)
		list = append(list, fmt.Sprintf("%q%s", name, flags))
	}
	out := "(" + strings.Join(list, " ") + ")"
	for rest := parts[2]; rest != ""; {
		p := naiveParam.FindStringSubmatch(rest)
		if p == nil {
			return "", false
		}
		rest = rest[len(p[0]):]
		out += ";" + p[1]
		if p[2] == "" || p[2] == "?1" {
			continue
		}
		if n, err := strconv.ParseInt(p[2], 10, 64); err == nil {
			p[2] = strconv.FormatInt(n, 10)
		} else if n, err := strconv.ParseFloat(p[2], 64); err == nil && strings.ContainsAny(p[2][:1], "-0123456789") {
			p[2] = strings.TrimPrefix(strconv.FormatFloat(n, 'f', -1, 64), "-0")
			if n == 0 {
				p[2] = "0.0"
			} else if n < 0 && !strings.HasPrefix(p[2], "-") {
				p[2] = "-0" + p[2]
			}
			if !strings.Contains(p[2], ".") {
				p[2] += ".0"
			}
		}
		out += "=" + p[2]
	}
	return base + `"@signature-params": ` + out, true
}

func naiveValue(m *httpsig.Message, name string, bytes bool) (string, bool) {
	path := m.Path
	if path == "" {
		path = "/"
	}
	target, authority := path, strings.TrimSuffix(naiveLower(m.Authority), ":443")
	if m.Query != "" {
		target += "?" + m.Query
	}
	switch name {
	case "@method":
		return m.Method, true
	case "@authority":
		return authority, true
	case "@scheme":
		return m.Scheme, true
	case "@path":
		return path, true
	case "@query":
		return "?" + m.Query, true
	case "@request-target":
		return target, true
	case "@target-uri":
		return m.Scheme + "://" + authority + target, true
	}
	var values []string
	for _, line := range m.Fields.(httpsig.Lines) {
		if strings.EqualFold(line.Name, name) {
			value := strings.Trim(line.Value, " \t")
			if strings.Contains(value, "\n") {
				return "", false
			}
			if bytes {
				value = ":" + base64.StdEncoding.EncodeToString([]byte(value)) + ":"
			}
			values = append(values, value)
		}
	}
	return strings.Join(values, ", "), values != nil
}

// naiveLower converts ASCII letters to lower case.
func naiveLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// FuzzVerify holds that what verifies was signed: of all messages that share a
// signature with ours, only those pass that say the same. The seeds are near
// misses, one for each thing that a verifier could forget.
func FuzzVerify(f *testing.F) {
	key := secretKey(f, "k1")
	good := sign(f, httpsig.RequestProfile(), key, request(), "n1")
	type parts = [7]string // as the target takes them
	of := func(m *httpsig.Message) parts {
		return parts{m.Method, m.Authority, m.Path, m.Query, get(m, "content-type"), get(m, "signature-input"), get(m, "signature")}
	}
	add := func(p parts) { f.Add(p[0], p[1], p[2], p[3], p[4], p[5], p[6]) }
	add(of(good))
	add(parts{"GET", "models.example.com", "/", "", "", `sp=()`, `sp=::`})
	near := parts{"post", "other.example.com", "/v1/models/other:predict", "trace=2", "text/plain",
		strings.Replace(get(good, "signature-input"), "n1", "n3", 1), strings.Replace(get(good, "signature"), "=:", "=:A", 1)}
	for i, value := range near {
		missed := of(good)
		missed[i] = value
		add(missed)
	}
	other := of(good)
	mac := []byte(other[6])
	mac[len(mac)-4] ^= 1 // at the end of the signature: to compare its beginning is not enough
	other[6] = string(mac)
	add(other)
	foreign := of(good)
	foreign[5], foreign[6] = "a=(),"+foreign[5], "a=:AA==: , "+foreign[6]
	add(foreign)
	for i := range httpsig.RequestProfile().Cover { // signed by who has the key, but less than must be
		less := httpsig.RequestProfile()
		less.Cover = slices.Delete(less.Cover, i, i+1)
		add(of(sign(f, less, key, request(), "n2")))
	}
	less := httpsig.RequestProfile()
	less.IfPresent = nil
	add(of(sign(f, less, key, request(), "n2")))

	v := verifier(f, httpsig.RequestPolicy(), key)
	f.Fuzz(func(t *testing.T, method, authority, path, query, contentType, input, signature string) {
		m := set(set(set(request(), "content-type", contentType), "signature-input", input), "signature", signature)
		m.Method, m.Authority, m.Path, m.Query, m.HasQuery = method, authority, path, query, true
		s, err := v.Verify(m)
		if err != nil {
			if code(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		_, mac, _ := strings.Cut(get(good, "signature"), "=")
		same := method == good.Method && path == good.Path && query == good.Query &&
			strings.EqualFold(strings.TrimSuffix(authority, ":443"), good.Authority) &&
			strings.Trim(contentType, " \t") == get(good, "content-type") && s.Nonce == "n1" && strings.Contains(signature, mac)
		if !same {
			t.Errorf("%q %q %q %q %q passes with %q, %q", method, authority, path, query, contentType, input, signature)
		}
	})
}

// FuzzStructured holds that what is written canonically is read as itself.
func FuzzStructured(f *testing.F) {
	for _, s := range []string{`a=1,    b=2;x=1;y=2,   c=(a   b   c), d`, `a=?1;x, b=-00.50, c="\"";d=:AA==:`, `a=()`, `a=0000`, `a, a`} {
		f.Add(s, uint8(httpsig.Dictionary))
		f.Add(s, uint8(httpsig.List))
		f.Add(s, uint8(httpsig.Item))
	}
	f.Fuzz(func(t *testing.T, text string, kind uint8) {
		once, ok := httpsig.Canonical(text, httpsig.Kind(kind))
		if !ok {
			return
		}
		twice, ok := httpsig.Canonical(once, httpsig.Kind(kind))
		if !ok || twice != once {
			t.Errorf("%q is written %q, and that %q, %v", text, once, twice, ok)
		}
	})
}

// FuzzFields reads what anyone may send: no panic, and bounds hold.
func FuzzFields(f *testing.F) {
	f.Add(`sp=("@method" "content-digest";req);created;nonce="n";tag="t"`)
	f.Add(`a=();tag="` + strings.Repeat("0", 129) + `"`)
	f.Add("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:, md5=:AA==:")
	f.Fuzz(func(t *testing.T, value string) {
		fields := httpsig.Lines{{Name: "accept-signature", Value: value}, {Name: "content-digest", Value: value}}
		if wanted, err := httpsig.ParseAcceptSignature(fields); err == nil && wanted != nil {
			text, err := httpsig.FormatAcceptSignature(wanted...)
			if err != nil {
				t.Fatalf("%q is read and cannot be written: %v", value, err)
			}
			again, err := httpsig.ParseAcceptSignature(httpsig.Lines{{Name: "accept-signature", Value: text}})
			if err != nil || fmt.Sprint(again) != fmt.Sprint(wanted) {
				t.Errorf("%q is read %v, written %q, read %v, %v", value, wanted, text, again, err)
			}
		}
		d, err := httpsig.ParseContentDigest(fields)
		if (err == nil) == (d == httpsig.Digests{}) {
			t.Errorf("%q: %v, %v", value, d, err)
		}
	})
}
