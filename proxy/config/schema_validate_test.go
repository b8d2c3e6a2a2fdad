package config

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"sallyport/proxy/setting"
)

// editorSchema returns deploy/gateway.schema.json, compiled as editors do.
func editorSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile("../../deploy/gateway.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON decodes YAML into the types of JSON values, which a validator wants.
func asJSON(text []byte) (any, error) {
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(b))
}

// TestSchemaAcceptsAllFilesThatTheGatewayLoads checks that an editor marks nothing in the reference, in
// the examples, and in all other files of this tree that the gateway loads.
func TestSchemaAcceptsAllFilesThatTheGatewayLoads(t *testing.T) {
	s := editorSchema(t)
	found := 0
	err := filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".yaml" || strings.HasPrefix(filepath.Base(name), "bad-") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), "\nroutes:") && !strings.HasPrefix(string(text), "routes:") {
			return nil
		}
		if strings.Contains(name, "testdata/broken/") {
			return nil // included by a bad-*.yaml
		}
		found++
		v, err := asJSON(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return nil
	})
	if err != nil || found < 15 {
		t.Errorf("%v, %d files; want 15 or more", err, found)
	}
}

// TestSchemaRefusesWhatCannotBeDecoded checks that an editor marks unknown keys and values of a
// wrong type. It cannot mark faults that only the checks find, such as unknown names.
func TestSchemaRefusesWhatCannotBeDecoded(t *testing.T) {
	s := editorSchema(t)
	unseen := map[string]string{
		"bad-duration-zero.yaml": "a pattern that knows zero in all units would be a riddle",
		"bad-merge-key.yaml":     "a validator gets the fields merged",
		"bad-octal-number.yaml":  "a validator gets the number",
		"bad-tag.yaml":           "a validator gets the value without its tag",
		"bad-two-documents.yaml": "a validator gets one document",
	}
	files, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	undecodable := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, faults := setting.Decode(name, text, &Config{})
		v, err := asJSON(text)
		if err != nil || len(faults) == 0 {
			continue // it is not YAML, or only the checks can find the fault
		}
		undecodable++
		refused, reason := s.Validate(v) != nil, unseen[filepath.Base(name)]
		if refused != (reason == "") {
			t.Errorf("%s: refused %v; want %v (%s)\n%v", name, refused, reason == "", reason, faults)
		}
	}
	if undecodable < 30 {
		t.Errorf("%d files; want 30 or more", undecodable)
	}
}

// TestSchemaRefusesValuesOutsideItsLists also checks that a list applies only where it belongs: a
// section called request exists under headers too.
func TestSchemaRefusesValuesOutsideItsLists(t *testing.T) {
	s := editorSchema(t)
	const route = "{host: a.example, callers: anonymous, rules: [{allow: '*'}], upstream: 'http://a:1', "
	for text, refused := range map[string]bool{
		"tls: {local: {}}\nroutes: [" + route + "headers: {request: {set: {X-A: b}}}}]":       false,
		"tls: {local: {}}\nroutes: [" + route + "integrity: {request: always}}]":              false,
		"tls: {local: {}}\nroutes: [" + route + "integrity: {request: sometimes}}]":           true,
		"tls: {local: {}}\nsigning_keys: {a: {use: [sign_request], secret: {env: A}}}":        false,
		"tls: {local: {}}\nsigning_keys: {a: {use: sign_request, secret: {file: a, env: A}}}": true,
		"tls: {local: {}}\nsigning_keys: {a: {use: sign_request, secret: c2VjcmV0}}":          true,
		"tls: {local: {}}\nsigning_keys: {a: {use: sign_everything, secret: {env: A}}}":       true,
		"routes: [" + route + "}]":                                                false, // an included file
		"listen: {https: off}\nroutes: [" + route + "}]":                          false,
		"listen: {https: ':443'}\nroutes: [" + route + "}]":                       true,
		"issuers: {a: {url: 'https://a', audience: a}}\nroutes: [" + route + "}]": true,
	} {
		v, err := asJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); (err != nil) != refused {
			t.Errorf("%s\ngot %v", text, err)
		}
	}
}
