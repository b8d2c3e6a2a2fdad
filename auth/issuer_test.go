package auth

import (
	"strings"
	"testing"

	"sallyport/proxy/setting"
)

// TestIssuerCheckReportsFaults checks the place and the text of each fault, and that valid
// settings have none.
func TestIssuerCheckReportsFaults(t *testing.T) {
	const sound = "url: https://login.example.com/realms/ml\naudience: models\n"
	for name, c := range map[string]struct{ text, path, problem string }{
		"smallest":                       {text: sound},
		"all":                            {text: sound + "discovery: https://keycloak:8443/realms/ml\njwks: https://keycloak:8443/certs\nca: ca.pem\nrefresh: 1m\nmax_stale: 48h\nalgorithms: [RS256, EdDSA]\ntyp: at+jwt\nskew: 10s\nmax_lifetime: 1h\nrequire: {email_verified: true, tenant: [a, b], level: 3}\nprincipal: azp\ngroups: realm_access.roles\n"},
		"loopback without TLS":           {text: "url: http://127.0.0.1:8080\naudience: models\n"},
		"http by name":                   {text: "url: http://keycloak:8080\naudience: models\ninsecure_http: true\n"},
		"http name, keys inside":         {text: "url: http://keycloak:8080\naudience: models\njwks: https://keycloak/certs\n"},
		"no url":                         {"audience: models\n", "issuers.corp.url", "needs its URL"},
		"url without host":               {"url: login\naudience: models\n", "issuers.corp.url", "not the URL"},
		"url with a query":               {"url: https://a.example?x=1\naudience: models\n", "issuers.corp.url", "not the URL"},
		"url with a password":            {"url: https://a:b@a.example\naudience: models\n", "issuers.corp.url", "not the URL"},
		"url over http":                  {"url: http://a.example\naudience: models\n", "issuers.corp.url", "http to another machine"},
		"url of another scheme":          {"url: ftp://a.example\naudience: models\n", "issuers.corp.url", "neither https nor http"},
		"name of another scheme":         {"url: urn://x\njwks: https://a.example\naudience: models\n", "issuers.corp.url", "not the URL"},
		"discovery over http":            {sound + "discovery: http://keycloak:8080\n", "issuers.corp.discovery", "http to another machine"},
		"jwks over http":                 {sound + "jwks: http://keycloak:8080/certs\n", "issuers.corp.jwks", "http to another machine"},
		"jwks at a metadata service":     {sound + "jwks: https://169.254.169.254/\n", "issuers.corp.jwks", "never dialed"},
		"metadata service, insecure too": {sound + "jwks: http://169.254.169.254/\ninsecure_http: true\n", "issuers.corp.jwks", "never dialed"},
		"url of a placeholder":           {"url: \"https://a.example/realms/{realm}\"\naudience: models\n", "issuers.corp.url", "braces stand for a name"},
		"host of a placeholder":          {"url: \"https://{tenant}.a.example\"\naudience: models\n", "issuers.corp.url", "braces stand for a name"},
		"tenantid without tenants":       {"url: \"https://a.example/{tenantid}/v2.0\"\naudience: models\n", "issuers.corp.url", "braces stand for a name"},
		"tenants":                        {text: "url: \"https://a.example/{tenantid}/v2.0\"\naudience: models\ntenants: 72f988bf-86f1-41af-91ab-2d7cd011db47\n"},
		"tenants without tenantid":       {sound + "tenants: 72f988bf-86f1-41af-91ab-2d7cd011db47\n", "issuers.corp.url", "has {tenantid} once"},
		"more braces than tenantid":      {"url: \"https://a.example/{tenantid}/{policy}\"\naudience: models\ntenants: 72f988bf-86f1-41af-91ab-2d7cd011db47\n", "issuers.corp.url", "no other braces"},
		"tenant common":                  {"url: \"https://a.example/{tenantid}/v2.0\"\naudience: models\ntenants: common\n", "issuers.corp.tenants[0]", "not the id of a tenant"},
		"tenant in capitals":             {"url: \"https://a.example/{tenantid}/v2.0\"\naudience: models\ntenants: 72F988BF-86F1-41AF-91AB-2D7CD011DB47\n", "issuers.corp.tenants[0]", "not the id of a tenant"},
		"tenant twice":                   {"url: \"https://a.example/{tenantid}/v2.0\"\naudience: models\ntenants: [72f988bf-86f1-41af-91ab-2d7cd011db47, 72f988bf-86f1-41af-91ab-2d7cd011db47]\n", "issuers.corp.tenants[1]", "listed twice"},
		"url of discovery":               {"url: https://a.example/r/.well-known/openid-configuration\naudience: models\n", "issuers.corp.url", "the URL of a document"},
		"url of OAuth's discovery":       {"url: https://a.example/.well-known/oauth-authorization-server/r\naudience: models\n", "issuers.corp.url", "the URL of a document"},
		"discovery of a document":        {sound + "discovery: https://a.example/.well-known/openid-configuration\n", "issuers.corp.discovery", "the URL of a document"},
		"keys in a file":                 {text: sound + "jwks_file: keys.json\n"},
		"name over http, keys in a file": {text: "url: http://keycloak:8080\naudience: models\njwks_file: keys.json\n"},
		"keys in a file and fetched":     {sound + "jwks_file: keys.json\njwks: https://a.example/keys\n", "issuers.corp.jwks", "nothing is fetched"},
		"keys in a file, refreshed":      {sound + "jwks_file: keys.json\nrefresh: 1m\n", "issuers.corp.refresh", "nothing is fetched"},
		"token and proxy":                {text: sound + "token_file: token\nproxy: http://egress:3128\n"},
		"proxy with credentials":         {text: sound + "proxy: {url: \"http://egress:3128/\", credentials: {file: egress}}\n"},
		"token in the clear":             {"url: http://127.0.0.1:8001\naudience: models\ntoken_file: token\n", "issuers.corp.token_file", "in the clear"},
		"token in the clear, for keys":   {sound + "jwks: http://127.0.0.1:8001\ntoken_file: token\n", "issuers.corp.token_file", "in the clear"},
		"token of no file":               {sound + "token_file: off\n", "issuers.corp.token_file", "not a valid destination"},
		"proxy and http":                 {"url: http://127.0.0.1:8001\naudience: models\nproxy: http://egress:3128\n", "issuers.corp.proxy", "carries https only"},
		"proxy over https":               {sound + "proxy: https://egress:3128\n", "issuers.corp.proxy", "not the URL of an HTTP proxy"},
		"proxy with a path":              {sound + "proxy: http://egress:3128/x\n", "issuers.corp.proxy", "not the URL of an HTTP proxy"},
		"credentials without proxy":      {sound + "proxy: {credentials: {file: egress}}\n", "issuers.corp.proxy", "without a proxy"},
		"token for a file":               {sound + "jwks_file: keys.json\ntoken_file: token\n", "issuers.corp.token_file", "nothing is fetched"},
		"token from a field":             {text: sound + "token_from: {header: Cf-Access-Jwt-Assertion, from: [10.0.0.7, \"fd00::/8\"]}\n"},
		"token from Authorization":       {sound + "token_from: {header: Authorization, from: 10.0.0.7}\n", "issuers.corp.token_from.header", "without token_from"},
		"token from a cookie":            {sound + "token_from: {header: Cookie, from: 10.0.0.7}\n", "issuers.corp.token_from.header", "another meaning"},
		"token from a subprotocol":       {sound + "token_from: {header: Sec-WebSocket-Protocol, from: 10.0.0.7}\n", "issuers.corp.token_from.header", "another meaning"},
		"token from Connection":          {sound + "token_from: {header: Connection, from: 10.0.0.7}\n", "issuers.corp.token_from.header", "another meaning"},
		"token from no field":            {sound + "token_from: {from: 10.0.0.7}\n", "issuers.corp.token_from.header", "is not said"},
		"token from nobody":              {sound + "token_from: {header: X-Token}\n", "issuers.corp.token_from.from", "is not said"},
		"token from everybody":           {sound + "token_from: {header: X-Token, from: 0.0.0.0/0}\n", "issuers.corp.token_from.from[0]", "everybody"},
		"no audience":                    {"url: https://a.example\n", "issuers.corp.audience", "without an audience"},
		"audience of nothing":            {"url: https://a.example\naudience: \"\"\n", "issuers.corp.audience", "not an audience"},
		"any audience":                   {"url: https://a.example\naudience: [models, \"*\"]\n", "issuers.corp.audience", "not an audience"},
		"HS256":                          {sound + "algorithms: [RS256, HS256]\n", "issuers.corp.algorithms", "private key"},
		"none":                           {sound + "algorithms: none\n", "issuers.corp.algorithms", "private key"},
		"unknown algorithm":              {sound + "algorithms: rs256\n", "issuers.corp.algorithms", "unknown algorithm"},
		"empty typ":                      {sound + "typ: \"\"\n", "issuers.corp.typ", "not a type"},
		"skew":                           {sound + "skew: 6m\n", "issuers.corp.skew", "out of bounds"},
		"refresh too often":              {sound + "refresh: 1s\n", "issuers.corp.refresh", "out of bounds"},
		"refresh too seldom":             {sound + "refresh: 2h\n", "issuers.corp.refresh", "out of bounds"},
		"stale for ever":                 {sound + "max_stale: 100000h\n", "issuers.corp.max_stale", "out of bounds"},
		"second factor":                  {text: sound + "acr: {claim: amr, ask_as: {mfa: \"http://schemas.openid.net/pape/policies/2007/06/multi-factor\"}}\n"},
		"authentication contexts":        {text: sound + "acr: {claim: acrs, ask_by: claims}\n"},
		"claim of one's own":             {text: sound + "acr: {claim: \"https://example.com/amr\", ask_by: acr_values}\n"},
		"acr of nothing":                 {sound + "acr: {}\n", "issuers.corp.acr", "says nothing"},
		"claim with a space":             {sound + "acr: {claim: \"a b\"}\n", "issuers.corp.acr.claim", "not the name of a claim"},
		"claim of the token":             {sound + "acr: {claim: scope}\n", "issuers.corp.acr.claim", "by what means"},
		"claim of the person":            {sound + "acr: {claim: address.locality}\n", "issuers.corp.acr.claim", "about the person"},
		"asked otherwise":                {sound + "acr: {ask_by: prompt}\n", "issuers.corp.acr.ask_by", "unknown value"},
		"asked twice":                    {sound + "acr: {ask_by: claims, ask_as: {mfa: x}}\n", "issuers.corp.acr.ask_as", "asks for the value itself"},
		"asked as two words":             {sound + "acr: {ask_as: {mfa: \"x y\"}}\n", "issuers.corp.acr.ask_as.mfa", "not one word"},
		"asked as nothing":               {sound + "acr: {ask_as: {mfa: \"\"}}\n", "issuers.corp.acr.ask_as.mfa", "not one word"},
		"two words asked as one":         {sound + "acr: {ask_as: {\"a b\": x}}\n", "issuers.corp.acr.ask_as.a b", "not one word"},
		"stale at once":                  {sound + "max_stale: 2m\n", "issuers.corp.max_stale", "before they are fetched again"},
	} {
		t.Run(name, func(t *testing.T) {
			var file struct {
				Issuers map[string]IssuerConfig `yaml:"issuers"`
			}
			text := "issuers:\n  corp:\n    " + strings.ReplaceAll(strings.TrimSpace(c.text), "\n", "\n    ") + "\n"
			_, faults := setting.Decode("gateway.yaml", []byte(text), &file)
			ic := file.Issuers["corp"]
			ic.Check("issuers.corp", &faults)
			switch {
			case c.problem == "" && len(faults) > 0:
				t.Errorf("got faults %v, want none", faults)
			case c.problem != "" && len(faults) != 1:
				t.Errorf("got faults %v, want one", faults)
			case c.problem != "" && (faults[0].Path != c.path || !strings.Contains(faults[0].Problem, c.problem) || faults[0].Cure == ""):
				t.Errorf("got %v, want one at %s with %q and a cure", faults[0], c.path, c.problem)
			}
		})
	}
}
