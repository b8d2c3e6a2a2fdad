// Package interop_test answers: do others read and sign the same? It compares
// sallyport's package httpsig with a parser of structured fields and with two
// libraries for HTTP Message Signatures. README.md says which differences were
// seen; each has a name in these tests.
package interop_test

import (
	"encoding/base64"
	"errors"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"sallyport/auth/httpsig"
)

// Bounds that ours has and RFC 9651 leaves open.
const (
	maxComponents = 32
	maxMembers    = 64
	maxParameters = 16
	maxLabels     = 4
	maxInput      = 4 << 10
)

// everywhere is a message that has a value for every field.
type everywhere struct{ value string }

func (e everywhere) Line(_ string, n int) (string, bool) { return e.value, n == 0 }

func request(value string) *httpsig.Message {
	return &httpsig.Message{Method: "GET", Scheme: "https", Authority: "example.com", Path: "/p", Query: "x=1", HasQuery: true,
		Fields: everywhere{value},
		Structured: map[string]httpsig.Kind{
			"x-dict": httpsig.Dictionary, "x-list": httpsig.List, "x-item": httpsig.Item}}
}

func code(err error) httpsig.Code {
	var e *httpsig.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// values are all bare items of a structured field, and how many parameters and
// members it has. Zeros without their sign: httpsfv writes -0.0 with it, against
// RFC 9651, section 4.1.5.
type values struct {
	all                 []any
	parameters, members int
	longest             int // parameters of one item
	widest              int // items of one inner list
}

func (v *values) take(m httpsfv.StructuredFieldValue) httpsfv.StructuredFieldValue {
	switch m := m.(type) {
	case httpsfv.Item:
		m.Value = v.bare(m.Value)
		v.params(m.Params)
		return m
	case httpsfv.InnerList:
		v.widest = max(v.widest, len(m.Items))
		for i := range m.Items {
			m.Items[i] = v.take(m.Items[i]).(httpsfv.Item)
		}
		v.params(m.Params)
		return m
	case httpsfv.List:
		for i := range m {
			m[i] = v.take(m[i]).(httpsfv.Member)
		}
		v.members = len(m)
	case *httpsfv.Dictionary:
		for _, name := range m.Names() {
			member, _ := m.Get(name)
			m.Add(name, v.take(member).(httpsfv.Member))
		}
		v.members = len(m.Names())
	}
	return m
}

func (v *values) params(p *httpsfv.Params) {
	v.parameters += len(p.Names())
	v.longest = max(v.longest, len(p.Names()))
	for _, name := range p.Names() {
		value, _ := p.Get(name)
		p.Add(name, v.bare(value))
	}
}

func (v *values) bare(b any) any {
	v.all = append(v.all, b)
	if f, ok := b.(float64); ok && f == 0 && math.Signbit(f) {
		return 0.0
	}
	return b
}

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// whyNot says why we refuse the text of a field that httpsfv reads as v, or "".
// The differences of reading, one by one:
//   - a key or a parameter given twice: httpsfv lets the last one count
//   - base64 without padding or with bits that mean nothing
//   - dates and display strings, which no field has that is signed here
//   - more members or parameters than are read
func whyNot(text string, v values) string {
	plain := quoted.ReplaceAllString(text, "")
	if v.parameters != strings.Count(plain, ";") || v.members != strings.Count(plain, ",")+1 {
		return "given twice"
	}
	for _, value := range v.all {
		switch value := value.(type) {
		case []byte:
			if !strings.Contains(text, ":"+base64.StdEncoding.EncodeToString(value)+":") {
				return "base64 that is not canonical"
			}
		case string, bool, int64, float64, httpsfv.Token:
		default:
			return "a date or a display string"
		}
	}
	if v.members > maxMembers || v.widest > maxMembers || v.longest > maxParameters {
		return "more than is read"
	}
	return ""
}

// readable reports whether a text could be the value of a field at all.
func readable(text string) bool {
	return !strings.ContainsAny(text, "\r\n") && strings.Trim(text, " \t") == text
}

// compareField compares what is written for a whole field with the flag sf.
func compareField(t *testing.T, text, name string) {
	if !readable(text) {
		return
	}
	var theirs httpsfv.StructuredFieldValue
	var err error
	switch name {
	case "x-dict":
		theirs, err = httpsfv.UnmarshalDictionary([]string{text})
	case "x-list":
		theirs, err = httpsfv.UnmarshalList([]string{text})
	default:
		theirs, err = httpsfv.UnmarshalItem([]string{text})
	}
	why := "not well formed"
	want := ""
	if err == nil {
		v := values{members: 1}
		theirs = v.take(theirs)
		if why = whyNot(text, v); v.members == 0 {
			why = "empty: nothing to sign"
		}
		if want, err = httpsfv.Marshal(theirs); err != nil {
			t.Fatal(err)
		}
	}
	id := `"` + name + `";sf`
	got, refused := httpsig.Base(request(text), "("+id+")")
	switch {
	case (refused == nil) != (why == ""):
		t.Errorf("%s %q: ours says %v; theirs %v, %q", name, text, refused, err, why)
	case refused == nil && string(got) != id+": "+want+"\n\"@signature-params\": ("+id+")":
		t.Errorf("%s %q: ours\n%s\ntheirs\n%s", name, text, got, want)
	}
}

// compareMember compares what is written for each member of a dictionary.
func compareMember(t *testing.T, text string) {
	theirs, err := httpsfv.UnmarshalDictionary([]string{text})
	if err != nil || !readable(text) {
		return // compareField sees that ours refuses too
	}
	v := values{}
	theirs = v.take(theirs).(*httpsfv.Dictionary)
	why := whyNot(text, v)
	for _, name := range theirs.Names() {
		member, _ := theirs.Get(name)
		want, err := httpsfv.Marshal(member)
		if err != nil {
			t.Fatal(err)
		}
		id := `"x-dict";key="` + name + `"`
		got, refused := httpsig.Base(request(text), "("+id+")")
		switch {
		case (refused == nil) != (why == ""):
			t.Errorf("%q, %s: ours says %v; theirs reads it, %q", text, name, refused, why)
		case refused == nil && string(got) != id+": "+want+"\n\"@signature-params\": ("+id+")":
			t.Errorf("%q: ours\n%s\ntheirs\n%s", text, got, want)
		}
	}
}

// compareDigest compares which digests are read, and that they are the same.
// Base64 of algorithms that do not count is not decoded by ours.
func compareDigest(t *testing.T, text string) {
	if !readable(text) || len(text) > maxInput {
		return
	}
	theirs, err := httpsfv.UnmarshalDictionary([]string{text})
	var corrupt base64.CorruptInputError
	if errors.As(err, &corrupt) {
		return
	}
	why, canonical := "not well formed", ""
	if err == nil {
		v := values{}
		theirs = v.take(theirs).(*httpsfv.Dictionary)
		why = whyNotDigest(text, theirs, v)
		for _, name := range []string{"sha-256", "sha-512"} {
			if member, ok := theirs.Get(name); ok && why == "" {
				value, _ := httpsfv.Marshal(member)
				canonical += ", " + name + "=" + value
			}
		}
	}
	read := func(value string) (httpsig.Digests, error) {
		return httpsig.ParseContentDigest(httpsig.Lines{{Name: "Content-Digest", Value: value}})
	}
	got, refused := read(text)
	if (refused == nil) != (why == "") {
		t.Errorf("%q: ours says %v; theirs %v, %q", text, refused, err, why)
		return
	}
	if refused == nil {
		if want, err := read(strings.TrimPrefix(canonical, ", ")); err != nil || got != want {
			t.Errorf("%q: not the same as %q, %v", text, canonical, err)
		}
	}
}

func whyNotDigest(text string, d *httpsfv.Dictionary, v values) string {
	counts := false
	for _, name := range d.Names() {
		member, _ := d.Get(name)
		item, ok := member.(httpsfv.Item)
		if !ok {
			return "no item"
		}
		sum, ok := item.Value.([]byte)
		length := map[string]int{"sha-256": 32, "sha-512": 64}[name]
		switch {
		case !ok || len(item.Params.Names()) > 0:
			return "no byte sequence alone"
		case length != 0 && len(sum) != length:
			return "not of its length"
		case length != 0 && !strings.Contains(text, ":"+base64.StdEncoding.EncodeToString(sum)+":"):
			return "base64 that is not canonical"
		}
		counts = counts || length != 0
	}
	switch {
	case strings.Count(text, ",")+1 != len(d.Names()):
		return "given twice"
	case !counts:
		return "none that counts"
	case v.members > maxParameters:
		return "more than is read"
	}
	return ""
}

// identifier is what an item means as a component, or "" if it means none to us.
func identifier(item httpsfv.Item) string {
	name, _ := item.Value.(string)
	derived := []string{"@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query", "@status", "@query-param"}
	if !slices.Contains(derived, name) && !regexp.MustCompile("^[a-z0-9!#$%&'*+.^_`|~-]+$").MatchString(name) {
		return ""
	}
	has := make(map[string]string)
	for _, key := range item.Params.Names() {
		value, _ := item.Params.Get(key)
		text, isString := value.(string)
		switch key {
		case "sf", "bs", "req", "tr":
			if value != true {
				return ""
			}
		case "key", "name":
			if !isString || strings.ContainsAny(text, `"\`) || (key == "name") != (name == "@query-param") || key == "name" && text == "" {
				return ""
			}
		default:
			return ""
		}
		has[key] = "=" + text
	}
	for key := range has {
		if name[0] == '@' && key != "name" && (key != "req" || name == "@status") {
			return ""
		}
	}
	if name == "@query-param" && has["name"] == "" || has["bs"] != "" && (has["sf"] != "" || has["key"] != "") {
		return ""
	}
	for _, key := range []string{"sf", "bs", "req", "tr", "key", "name"} { // their order does not count
		if value, ok := has[key]; ok {
			name += ";" + key + value
		}
	}
	return name
}

// meaningless says why the parameters of a signature mean nothing to us.
func meaningless(list httpsfv.InnerList) string {
	var seen []string
	for _, item := range list.Items {
		id := identifier(item)
		if id == "" || slices.Contains(seen, id) {
			return "a component that is unknown or listed twice"
		}
		seen = append(seen, id)
	}
	for _, key := range list.Params.Names() {
		value, _ := list.Params.Get(key)
		_, isInteger := value.(int64)
		text, isString := value.(string)
		plain := isString && !strings.ContainsAny(text, `"\`)
		ok := true
		switch key {
		case "created", "expires":
			ok = isInteger
		case "nonce":
			ok = plain && regexp.MustCompile(`^[A-Za-z0-9_.~-]{1,64}$`).MatchString(text)
		case "keyid":
			ok = plain && len(text) <= 128
		case "alg", "tag":
			ok = plain
		}
		if !ok {
			return "the parameter " + key
		}
	}
	return ""
}

// components reports whether a list is one of components at all, known or not.
func components(list httpsfv.InnerList) bool {
	for _, item := range list.Items {
		if _, ok := item.Value.(string); !ok {
			return false
		}
	}
	return len(list.Items) <= maxComponents
}

// compareParameters compares what is read of components and parameters, and the
// form in which they are covered.
func compareParameters(t *testing.T, text string) {
	if !readable(text) {
		return
	}
	why, want := "not well formed", ""
	theirs, err := httpsfv.UnmarshalDictionary([]string{"x=" + text})
	if err == nil {
		v := values{}
		theirs = v.take(theirs).(*httpsfv.Dictionary)
		member, _ := theirs.Get("x")
		if list, ok := member.(httpsfv.InnerList); ok && components(list) && !strings.Contains(quoted.ReplaceAllString(text, ""), ",") {
			if why = whyNot(text, v); why == "" {
				why = meaningless(list)
			}
			want, _ = httpsfv.Marshal(list)
		}
	}
	got, refused := httpsig.Base(request("v"), text)
	if read := code(refused) != httpsig.Malformed; read != (why == "") {
		t.Errorf("%q: ours says %v; theirs %v, %q", text, refused, err, why)
		return
	}
	if _, line, _ := strings.Cut("\n"+string(got), "\n\"@signature-params\": "); refused == nil && line != want {
		t.Errorf("%q: ours covers\n%s\ntheirs\n%s", text, line, want)
	}
}
