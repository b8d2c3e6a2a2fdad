package config

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/exchange"
	"sallyport/proxy/limit"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// TestSchemaIsCurrent sees that deploy/gateway.schema.json says what the structs
// say. `go test ./proxy/config -run Schema -update` writes it.
func TestSchemaIsCurrent(t *testing.T) {
	t.Chdir("../..") // comments are found by the path of their package
	const name = "deploy/gateway.schema.json"
	want := configSchema(t)
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale (%v); go test ./proxy/config -run Schema -update", name, err)
	}
}

// TestSchemaDescribesAll sees that each setting has a description there.
func TestSchemaDescribesAll(t *testing.T) {
	t.Chdir("../..")
	var s jsonschema.Schema
	if err := json.Unmarshal(configSchema(t), &s); err != nil {
		t.Fatal(err)
	}
	walkSchema("", &s, func(path string, s *jsonschema.Schema) {
		if s.Properties == nil {
			return
		}
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			if len(p.Value.Description) < 15 {
				t.Errorf("%s has the description %q", setting.Join(path, p.Key), p.Value.Description)
			}
		}
	})
}

func configSchema(t *testing.T) []byte {
	t.Helper()
	comments := &jsonschema.Reflector{}
	for _, dir := range []string{"proxy", "auth", "policy"} {
		if err := comments.AddGoComments("sallyport", "./"+dir); err != nil {
			t.Fatal(err)
		}
	}
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", DoNotReference: true, Anonymous: true, RequiredFromJSONSchemaTags: true,
		LookupComment: func(in reflect.Type, field string) string { return describe(comments.CommentMap, in, field) },
	}
	r.Mapper = func(t reflect.Type) *jsonschema.Schema { return schemaOf(r, t) }
	s := r.Reflect(&Config{})
	s.Title = "gateway.yaml of sallyport"
	walkSchema("", s, refine)
	s.AnyOf = wholes()
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

// describe is the comment of a field with the name that it has in the file.
func describe(comments map[string]string, in reflect.Type, field string) string {
	if field == "" {
		return ""
	}
	text := strings.Join(strings.Fields(comments[in.PkgPath()+"."+in.Name()+"."+field]), " ")
	if f, ok := in.FieldByName(field); ok {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if rest, ok := strings.CutPrefix(text, field+" "); ok {
			text = name + " " + rest
		}
	}
	return text
}

// schemaOf gives the schema of types that are not what they look like in Go; nil
// for the rest.
func schemaOf(r *jsonschema.Reflector, t reflect.Type) *jsonschema.Schema {
	inner := func(t reflect.Type) *jsonschema.Schema {
		s := r.ReflectFromType(t)
		s.Version = ""
		return s
	}
	text := func(pattern string, examples ...any) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern, Examples: examples}
	}
	const duration = `([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+`
	switch t {
	case reflect.TypeFor[setting.Duration]():
		return text("^"+duration+"$", "30s", "5m", "1h30m")
	case reflect.TypeFor[setting.Timeout]():
		return text("^(never|"+duration+")$", "30s", "5m", "never")
	case reflect.TypeFor[setting.Size]():
		one := json.Number("1")
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text(`^[0-9]+ ?([KMG]i?B|kB|B)?$`, "64MiB", "1GB"), {Type: "integer", Minimum: one}}}
	case reflect.TypeFor[setting.Rate]():
		return text("^[1-9][0-9]*/[smh]$", "200/s", "10/m")
	case reflect.TypeFor[setting.URL]():
		return text("^[a-z][a-z0-9+.-]*://.+$", "http://host:8000")
	case reflect.TypeFor[setting.Source]():
		return text("^.+$", "clients.crl", "http://ca.internal/clients.crl")
	case reflect.TypeFor[setting.CIDR]():
		return text("^[0-9a-fA-F:.]+(/[0-9]+)?$", "10.0.0.0/8", "fd00::/8")
	case reflect.TypeFor[auth.ClaimValue]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
	case reflect.TypeFor[route.CompressConfig]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "boolean"}, inner(reflect.TypeFor[route.CompressFields]())}}
	case reflect.TypeFor[route.RespondConfig]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer"}, inner(reflect.TypeFor[route.RespondFields]())}}
	case reflect.TypeFor[route.SecurityConfig]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			{Type: "string", Enum: []any{route.SecurityDefault, route.SecurityTalisman, route.SecurityOff}}, inner(reflect.TypeFor[map[string]string]()),
		}}
	case reflect.TypeFor[route.InFlightConfig]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer"}, inner(reflect.TypeFor[setting.List[limit.InFlightConfig]]())}}
	case reflect.TypeFor[setting.Glob]():
		return text("^.+$", "bert-*")
	case reflect.TypeFor[route.CallersConfig]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{inner(reflect.TypeFor[setting.List[string]]()), inner(reflect.TypeFor[route.CallersFields]())}}
	case reflect.TypeFor[setting.Time]():
		return text(`^[0-9]{4}-[0-9]{2}-[0-9]{2}(T.+)?$`, "2027-02-01T00:00:00Z", "2027-02-01")
	case reflect.TypeFor[setting.Secret]():
		return secretSchema()
	case reflect.TypeFor[policy.Version]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{text("^(latest|label:.+|[^*? ]+)$", "3", "latest", "label:stable"), {Type: "integer", Minimum: json.Number("0")}}}
	case reflect.TypeFor[route.RulesRef]():
		list, one := inner(reflect.TypeFor[[]policy.Rule]()), uint64(1)
		list.MinItems = &one
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, list}}
	}
	if t.PkgPath() == reflect.TypeFor[setting.Size]().PkgPath() && strings.HasPrefix(t.Name(), "List[") {
		one, item := uint64(1), inner(t.Elem())
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{item, {Type: "array", Items: item, MinItems: &one}}}
	}
	return nil
}

// secretSchema describes a secret: exactly one of file and env.
func secretSchema() *jsonschema.Schema {
	one, places := uint64(1), jsonschema.NewProperties()
	places.Set("file", &jsonschema.Schema{Type: "string", Description: "The file that holds the secret."})
	places.Set("env", &jsonschema.Schema{Type: "string", Description: "The environment variable that holds the secret."})
	return &jsonschema.Schema{Type: "object", Properties: places, AdditionalProperties: jsonschema.FalseSchema, MinProperties: &one, MaxProperties: &one}
}

// wholes returns what a file must have, by its kind: one with TLS, one without a listener that
// needs TLS, and one that another file includes.
func wholes() []*jsonschema.Schema {
	https, listen := jsonschema.NewProperties(), jsonschema.NewProperties()
	https.Set("https", &jsonschema.Schema{Const: off, Description: "No listener has TLS."})
	listen.Set("listen", &jsonschema.Schema{Type: "object", Properties: https, Required: []string{"https"}, Description: "Listeners without TLS alone."})
	return []*jsonschema.Schema{
		{Required: []string{"tls"}},
		{Properties: listen, Required: []string{"listen"}},
		{PropertyNames: &jsonschema.Schema{Enum: []any{"upstreams", "policies", "routes"}}},
	}
}

// restrict limits a property, or the items of a list, to these values.
func restrict(s *jsonschema.Schema, name string, values ...string) {
	p, ok := s.Properties.Get(name)
	if !ok {
		return
	}
	walkSchema("", p, func(_ string, s *jsonschema.Schema) {
		if s.Type != "string" {
			return
		}
		s.Enum = nil
		for _, v := range values {
			s.Enum = append(s.Enum, v)
		}
	})
}

// refine adds what the types of the fields do not say.
func refine(path string, s *jsonschema.Schema) {
	if s.Properties == nil {
		return
	}
	switch path {
	case "tls":
		restrict(s, "min_version", "1.2", "1.3")
	case "listen.forward_auth":
		restrict(s, "dialect", exchange.DialectNginx, exchange.DialectTraefik, exchange.DialectCaddy)
	case "client_certificates":
		restrict(s, "mode", clientcert.Modes()...)
		restrict(s, "principal", clientcert.Kinds()...)
		restrict(s, "groups", clientcert.GroupFields()...)
		s.Required = []string{"ca"}
	case "client_certificates.header":
		s.Required = []string{"name", "from"}
	case "signing_keys":
		restrict(s, "use", auth.VerifyRequest, auth.SignResponse, auth.SignRequest, auth.VerifyResponse, auth.SignAssertion)
	case "routes.callers":
		restrict(s, "bind", route.BindAlias, route.BindIndependent)
	case "routes.integrity":
		restrict(s, "request", seal.WhenKey, seal.Always)
		restrict(s, "response", seal.Sign, off)
		restrict(s, "body", seal.HoldBody, seal.StreamBody, seal.HeadersOnly)
		restrict(s, "events", seal.Trailer, seal.Inline)
	case "routes.limits.rate", "routes.limits.in_flight":
		restrict(s, "per", limit.Pers()...)
	case "routes":
		restrict(s, "serves", model.Names()...)
		s.Required = []string{"host", "callers"}
	case "issuers":
		restrict(s, "bound_tokens", auth.BoundOff, auth.BoundAccept, auth.BoundRequire)
		s.Required = []string{"url", "audience"}
	case "issuers.acr":
		restrict(s, "ask_by", auth.AskByValues, auth.AskByClaims)
	case "logins":
		restrict(s, "client_auth", "basic", "post")
		restrict(s, "claims", "id_token", "access_token", "userinfo")
		restrict(s, "prompt", auth.Prompts()...)
		s.Required = []string{"issuer", "client_id"}
	case "routes.step_up":
		restrict(s, "prompt", auth.Prompts()...)
		s.AnyOf = []*jsonschema.Schema{{Required: []string{"acr_values"}}, {Required: []string{"max_age"}}}
	case "logins.session":
		restrict(s, "kind", auth.SessionInCookie, auth.SessionInMemory)
	case "upstreams":
		restrict(s, "serves", model.Names()...)
		s.AnyOf = []*jsonschema.Schema{{Required: []string{"rest"}}, {Required: []string{"grpc"}}}
	case "upstreams.client_certificate":
		s.Required = []string{"cert", "key"}
	case "upstreams.credentials.basic":
		s.Required = []string{"user", "password"}
	case "upstreams.credentials.header":
		s.Required = []string{"name", "value"}
	case "upstreams.credentials.oauth2":
		restrict(s, "auth_style", upstream.SecretBasic, upstream.SecretPost)
		s.Required = []string{"client_id", "client_secret"}
	case "upstreams.credentials.assertion":
		restrict(s, "claims", upstream.ClaimGroups, upstream.ClaimScopes)
		s.Required = []string{"key", "audience"}
	}
}

// walkSchema visits a schema and all within it. The path has the names of
// properties alone.
func walkSchema(path string, s *jsonschema.Schema, visit func(path string, s *jsonschema.Schema)) {
	if s == nil {
		return
	}
	visit(path, s)
	for _, alternative := range s.AnyOf {
		walkSchema(path, alternative, visit)
	}
	walkSchema(path, s.Items, visit)
	walkSchema(path, s.AdditionalProperties, visit)
	if s.Properties == nil {
		return
	}
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		walkSchema(setting.Join(path, p.Key), p.Value, visit)
	}
}
