package interop_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"

	"sallyport/auth/httpsig"
)

// tag is the one of the signatures that we look for.
const tag = "t"

// compareInput compares which signature is found in both fields, and what it says.
// Base64 in the signatures of others is not decoded by ours.
func compareInput(t *testing.T, input, signature string) {
	if !readable(input) || !readable(signature) || len(input) > maxInput || len(signature) > maxInput {
		return
	}
	inputs, err := httpsfv.UnmarshalDictionary([]string{input})
	signatures, err2 := httpsfv.UnmarshalDictionary([]string{signature})
	var corrupt base64.CorruptInputError
	if err = errors.Join(err, err2); errors.As(err, &corrupt) {
		return
	}
	why, label := "not well formed", ""
	var list httpsfv.InnerList
	if err == nil {
		if why = whyNotLabels(input, signature, inputs, signatures); why == "" {
			if label, list, why = ours(inputs); why == "" {
				why = whyNotOurs(input, list)
			}
		}
	}
	fields := httpsig.Lines{{Name: "Signature-Input", Value: input}, {Name: "Signature", Value: signature}}
	m := request("v")
	m.Fields = both{fields, m.Fields}
	got, refused := httpsig.Explain(m, tag)
	found := refused == nil || code(refused) == httpsig.BadSignature // found, and a component has no value
	if member, ok := httpsfv.Member(nil), false; why == "" {
		member, ok = signatures.Get(label)
		sum, _ := member.(httpsfv.Item).Value.([]byte)
		if !ok || !strings.Contains(signature, ":"+base64.StdEncoding.EncodeToString(sum)+":") {
			why = "base64 that is not canonical"
		} else if want, _ := httpsfv.Marshal(list); refused == nil &&
			(got.Label != label || got.Parameters != want || string(got.Signature) != string(sum)) {
			t.Errorf("%q, %q: ours finds %+v; theirs %s, %s, %x", input, signature, got, label, want, sum)
		}
	}
	if found != (why == "") {
		t.Errorf("%q, %q: ours says %v; theirs %v, %q", input, signature, refused, err, why)
	}
}

// both has the fields of a signature, and every other.
type both struct {
	signature httpsig.Lines
	others    httpsig.Fields
}

func (b both) Line(name string, n int) (string, bool) {
	if name == "signature" || name == "signature-input" {
		return b.signature.Line(name, n)
	}
	return b.others.Line(name, n)
}

func whyNotLabels(input, signature string, inputs, signatures *httpsfv.Dictionary) string {
	names, same := inputs.Names(), signatures.Names()
	switch {
	case strings.Count(quoted.ReplaceAllString(input, ""), ",")+1 != len(names), strings.Count(signature, ",")+1 != len(same):
		return "a label given twice"
	case len(names) > maxLabels:
		return "more than are read"
	}
	semicolons := 0
	for _, name := range names {
		member, _ := inputs.Get(name)
		list, ok := member.(httpsfv.InnerList)
		if !ok || !components(list) || !slices.Contains(same, name) {
			return "no list of components, or no signature for it"
		}
		v := values{}
		v.take(list)
		if semicolons += v.parameters; v.longest > maxParameters {
			return "more than are read"
		}
		for _, value := range v.all {
			switch value.(type) {
			case string, bool, int64, float64, []byte, httpsfv.Token:
			default:
				return "a date or a display string"
			}
		}
	}
	if semicolons != strings.Count(quoted.ReplaceAllString(input, ""), ";") {
		return "a parameter given twice"
	}
	for _, name := range same {
		member, _ := signatures.Get(name)
		item, ok := member.(httpsfv.Item)
		if _, isBytes := item.Value.([]byte); !ok || !isBytes || len(item.Params.Names()) > 0 || !slices.Contains(names, name) {
			return "no byte sequence alone, or no input for it"
		}
	}
	return ""
}

// ours finds the one signature that has our tag.
func ours(inputs *httpsfv.Dictionary) (label string, list httpsfv.InnerList, why string) {
	for _, name := range inputs.Names() {
		member, _ := inputs.Get(name)
		if value, _ := member.(httpsfv.InnerList).Params.Get("tag"); value == tag {
			if label != "" {
				return "", list, "two with our tag"
			}
			label, list = name, member.(httpsfv.InnerList)
		}
	}
	if label == "" {
		return "", list, "none has our tag"
	}
	return label, list, ""
}

func whyNotOurs(input string, list httpsfv.InnerList) string {
	v := values{}
	v.take(list)
	for _, value := range v.all {
		if sum, ok := value.([]byte); ok && !strings.Contains(input, ":"+base64.StdEncoding.EncodeToString(sum)+":") {
			return "base64 that is not canonical"
		}
	}
	return meaningless(list)
}

// compareAccept compares which wishes are read of Accept-Signature.
func compareAccept(t *testing.T, text string) {
	if !readable(text) || len(text) > maxInput || text == "" {
		return
	}
	theirs, err := httpsfv.UnmarshalDictionary([]string{text})
	why := "not well formed"
	if err == nil {
		v := values{}
		theirs = v.take(theirs).(*httpsfv.Dictionary)
		if why = whyNot(text, v); v.members > maxLabels {
			why = "more than are read"
		}
		for _, name := range theirs.Names() {
			if member, _ := theirs.Get(name); why == "" {
				why = whyNotWanted(member)
			}
		}
	}
	got, refused := httpsig.ParseAcceptSignature(httpsig.Lines{{Name: "Accept-Signature", Value: text}})
	if (refused == nil) != (why == "") {
		t.Errorf("%q: ours says %v; theirs %v, %q", text, refused, err, why)
	}
	if refused != nil || why != "" {
		return
	}
	for i, name := range theirs.Names() {
		member, _ := theirs.Get(name)
		list := member.(httpsfv.InnerList)
		value := func(key string) string { v, _ := list.Params.Get(key); s, _ := v.(string); return s }
		_, created := list.Params.Get("created")
		_, expires := list.Params.Get("expires")
		w := got[i]
		if w.Label != name || len(w.Components) != len(list.Items) || w.Created != created || w.Expires != expires ||
			w.Nonce != value("nonce") || w.KeyID != value("keyid") || w.Alg != value("alg") || w.Tag != value("tag") {
			t.Errorf("%q: ours reads %+v", text, w)
		}
	}
}

// whyNotWanted is meaningless for wishes, whose times have no value, and whose
// strings must be such as we could write.
func whyNotWanted(member httpsfv.Member) string {
	list, ok := member.(httpsfv.InnerList)
	if !ok || !components(list) {
		return "no list of components"
	}
	rest := httpsfv.InnerList{Items: list.Items, Params: httpsfv.NewParams()}
	for _, key := range list.Params.Names() {
		value, _ := list.Params.Get(key)
		text, _ := value.(string)
		switch {
		case key != "created" && key != "expires":
			rest.Params.Add(key, value)
		case value != true:
			return "a time with a value"
		}
		if (key == "alg" || key == "tag") && len(text) > 128 {
			return "a name that is too long"
		}
	}
	return meaningless(rest)
}
