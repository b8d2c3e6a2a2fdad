package route

import (
	"errors"
	"strings"
	"testing"

	"sallyport/policy/model"
	"sallyport/proxy/message"
)

// Whatever a lax route keeps, no reading of it by any server may be the path of a
// stricter one: the check of the configuration is not the only thing that holds this.
func TestAttackKeptFormsNeverReachAnotherRoute(t *testing.T) {
	all := PathsConfig{EncodedSlash: keep, EncodedPercent: keep, EncodedQuestion: keep, EncodedHash: keep, Semicolon: keep, DoubleSlash: keep}
	var table Table
	for path, c := range map[string]PathsConfig{"/": all, "/v1": all, "/v1/secret": {}, "=/v1/only": {}, "/docs/": {}} {
		table.Add("a.test", path, &Route{Name: path, Paths: NewPaths(&c, model.Raw())})
	}
	match := func(target string) (*Route, error) {
		h := &message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "a.test", Target: target}
		if err := h.Settle(); err != nil {
			return nil, err
		}
		return table.Match(h)
	}
	for _, target := range []string{
		"/v1%2Fsecret", "/v1%2fSECRET%2Fx", "/v1%252Fsecret", "/v1%25252Fsecret", "/v1/%2573ecret", "/v1/%25%37%33ecret", "/v1//secret", "/v1/x//../secret",
		"/v1/secret;x", "/v1;x/secret", "/v1/secret%3Bx/y", "/v1/secret%3Fx", "/v1/secret%23/x", "/v1/secret%253Fx", "/v1/secret%2F", "/v1/secret%3Apredict;",
		"/v1%255csecret", "//h/v1/secret", "/%2Fh/v1/secret", "/x%2F..%2Fv1/secret", "/x%252F..%252Fv1%252Fsecret", "/v1%2Fonly", "/v1/only;x", "/v1/only%2F", "/v1/%256Fnly", "/docs%2F", "/docs;", "/docs%3F", "/%2564ocs/x",
		"/%2Fv1%2Fsecret", "/v1%2F%2Fsecret", "/v1;a=%2Fsecret",
	} {
		if r, err := match(target); !errors.Is(err, message.ErrAmbiguousPath) && !errors.Is(err, ErrEnd) && !errors.Is(err, ErrCase) {
			t.Errorf("%s leads to %+v, %v; want a refusal", target, r, err)
		}
	}
	for target, want := range map[string]string{
		"/v1/m%2Fsecret": "/v1", "/v1/a;b": "/v1", "/x%2Fy": "/", "/v1/100%25": "/v1", "/v1/a%3Fsecret": "/v1", "/v1/secretly%2Fx": "/v1", "/v1/a//b": "/v1", "/v1/secret": "/v1/secret",
	} {
		if r, err := match(target); err != nil || r.Name != want {
			t.Errorf("%s: %+v, %v; want %s", target, r, err, want)
		}
	}
}

// A refusal says which option would serve the request.
func TestRefusedFormNamesItsOption(t *testing.T) {
	var table Table
	table.Add("a.test", "/", &Route{Name: "/", Paths: NewPaths(&PathsConfig{}, model.Raw())})
	for target, want := range map[string]string{
		"/a%2fb": "%2f at byte 2 of the request target", "/a%25": "encoded_percent: keep", "/a%3F": "encoded_question: keep", "/a%23": "encoded_hash: keep",
		"/ab;c": "semicolon: keep", "/a//b": "// at byte 2 of the request target: an empty segment, which some servers drop; paths: {double_slash: merge}",
	} {
		h := &message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "a.test", Target: target}
		if err := h.Settle(); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Match(h); !errors.Is(err, message.ErrAmbiguousPath) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s in it", target, err, want)
		}
	}
}
