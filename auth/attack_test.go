package auth

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/proxy/message"
)

// forge is the fixture of the attacks: an issuer with an RSA and an EC key, a route that
// lists it, and a server that the gateway must never contact.
type forge struct {
	*provider
	clock   *authtest.Clock
	rsa, ec authtest.Key
	auth    *Auth
	chain   *Chain
	lure    *httptest.Server
	lured   atomic.Int64
}

func newForge(t *testing.T) *forge {
	t.Helper()
	f := &forge{clock: authtest.NewClock()}
	f.rsa = authtest.NewKey("one", "RS256", authtest.RSA())
	f.ec = authtest.NewKey("two", "ES256", authtest.EC(elliptic.P256()))
	f.provider = newProvider(t, f.rsa.JWK(`"use":"sig"`), f.ec.JWK(`"alg":"ES256"`))
	f.auth, f.chain = newAuth(t, f.clock, f.config())
	f.lure = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.lured.Add(1)
		fmt.Fprint(w, authtest.KeySet(authtest.NewKey("evil", "RS256", authtest.OtherRSA()).JWK()))
	}))
	t.Cleanup(f.lure.Close)
	return f
}

func (f *forge) good() string { return f.provider.claims(f.clock.Now(), nil) }

// TestForgedTokensAreRefused tries the attacks on header and signature of RFC 8725 and of
// published playbooks. Each must get the generic reason, contact no host that the token
// names, and all together cause at most one further fetch.
func TestForgedTokensAreRefused(t *testing.T) {
	f := newForge(t)
	want(t, f.chain, f.rsa.Token(f.good()), "")
	want(t, f.chain, f.ec.Token(f.good()), "")

	good := f.rsa.Token(f.good())
	part := strings.Split(good, ".")
	ecPart := strings.Split(f.ec.Token(f.good()), ".")
	evil := authtest.NewKey("one", "RS256", authtest.OtherRSA())
	der, err := x509.MarshalPKIXPublicKey(authtest.RSA().Public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	unsigned := func(alg string) string {
		return authtest.Base64([]byte(`{"alg":"`+alg+`","kid":"one"}`)) + "." + part[1]
	}
	flip := func(seg string, i int) string {
		raw, _ := base64.RawURLEncoding.DecodeString(seg)
		raw[i%len(raw)] ^= 1
		return authtest.Base64(raw)
	}
	hdr := func(more string) string { return evil.Sign(`{"alg":"RS256","typ":"JWT",`+more+`}`, f.good()) }

	attacks := map[string]string{
		"alg none, no signature":               unsigned("none") + ".",
		"alg none, old signature":              unsigned("none") + "." + part[2],
		"alg None":                             unsigned("None") + "." + part[2],
		"alg NONE":                             unsigned("NONE") + "." + part[2],
		"alg empty":                            unsigned("") + "." + part[2],
		"alg missing":                          authtest.Base64([]byte(`{"kid":"one"}`)) + "." + part[1] + "." + part[2],
		"alg a number":                         authtest.Base64([]byte(`{"alg":256,"kid":"one"}`)) + "." + part[1] + "." + part[2],
		"alg an array":                         authtest.Base64([]byte(`{"alg":["RS256"],"kid":"one"}`)) + "." + part[1] + "." + part[2],
		"alg in lower case":                    unsigned("rs256") + "." + part[2],
		"alg with a space":                     unsigned("RS256 ") + "." + part[2],
		"alg unknown":                          unsigned("RS1") + "." + part[2],
		"alg ES256K":                           unsigned("ES256K") + "." + part[2],
		"alg twice":                            evil.Sign(`{"alg":"none","alg":"RS256","kid":"one"}`, f.good()),
		"alg in two letter cases":              f.rsa.Sign(`{"alg":"RS256","ALG":"none","kid":"one"}`, f.good()),
		"RS to HS with the public key as PEM":  authtest.HS256(`{"alg":"HS256","kid":"one"}`, f.good(), public),
		"RS to HS with the public key as DER":  authtest.HS256(`{"alg":"HS256","kid":"one"}`, f.good(), der),
		"RS to HS with the JWK":                authtest.HS256(`{"alg":"HS256","kid":"one"}`, f.good(), []byte(f.rsa.JWK())),
		"HS with an empty secret":              authtest.HS256(`{"alg":"HS256","kid":"one"}`, f.good(), nil),
		"RSA kid, EC alg":                      authtest.NewKey("one", "ES256", f.ec.Private).Token(f.good()),
		"EC kid, RSA alg":                      authtest.NewKey("two", "RS256", authtest.RSA()).Token(f.good()),
		"P-384 signature for ES384 on P-256":   authtest.NewKey("two", "ES384", authtest.EC(elliptic.P384())).Token(f.good()),
		"PS256 said, RS256 made":               authtest.Base64([]byte(`{"alg":"PS256","kid":"one"}`)) + "." + part[1] + "." + part[2],
		"foreign key, known kid":               evil.Token(f.good()),
		"foreign EC key, known kid":            authtest.NewKey("two", "ES256", authtest.EC(elliptic.P256())).Token(f.good()),
		"r and s zero":                         ecPart[0] + "." + ecPart[1] + "." + authtest.Base64(make([]byte, 64)),
		"r and s the order":                    ecPart[0] + "." + ecPart[1] + "." + authtest.Base64(append(elliptic.P256().Params().N.Bytes(), elliptic.P256().Params().N.Bytes()...)),
		"EC signature in DER":                  ecPart[0] + "." + ecPart[1] + "." + authtest.Base64([]byte{0x30, 6, 2, 1, 1, 2, 1, 1}),
		"RSA signature zero":                   part[0] + "." + part[1] + "." + authtest.Base64(make([]byte, 256)),
		"RSA signature one":                    part[0] + "." + part[1] + "." + authtest.Base64(append(make([]byte, 255), 1)),
		"signature cut":                        part[0] + "." + part[1] + "." + part[2][:len(part[2])-4],
		"signature lengthened":                 good + "AAAA",
		"signature empty":                      part[0] + "." + part[1] + ".",
		"signature missing":                    part[0] + "." + part[1],
		"signature altered":                    part[0] + "." + part[1] + "." + flip(part[2], 0),
		"signature altered at its end":         part[0] + "." + part[1] + "." + flip(part[2], 255),
		"claims altered":                       part[0] + "." + flip(part[1], 9) + "." + part[2],
		"claims of another token":              part[0] + "." + authtest.Base64([]byte(f.provider.claims(f.clock.Now(), map[string]any{"sub": "root"}))) + "." + part[2],
		"header altered":                       authtest.Base64([]byte(`{"alg":"RS256","kid":"one","typ":"at+jwt"}`)) + "." + part[1] + "." + part[2],
		"header empty":                         "." + part[1] + "." + part[2],
		"claims empty":                         part[0] + ".." + part[2],
		"padding":                              part[0] + "." + part[1] + "." + part[2] + "==",
		"spare bits":                           part[0] + "." + part[1] + "." + spareBits(part[2]),
		"line break in a segment":              part[0] + "." + part[1][:8] + "\n" + part[1][8:] + "." + part[2],
		"standard base64":                      part[0] + "." + part[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(part[2]) + "+",
		"JSON serialisation":                   `{"payload":"` + part[1] + `","protected":"` + part[0] + `","signature":"` + part[2] + `"}`,
		"five segments":                        good + ".AAAA.AAAA",
		"four segments":                        good + ".AAAA",
		"many dots":                            strings.Repeat(".", maxToken-1),
		"many dots after a token":              good + strings.Repeat(".", 1000),
		"huge":                                 part[0] + "." + strings.Repeat("A", 1<<20) + "." + part[2],
		"huge header":                          strings.Repeat("A", maxHeader+4) + "." + part[1] + "." + part[2],
		"deep header":                          f.rsa.Sign(`{"alg":"RS256","kid":"one","x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`}`, f.good()),
		"deep claims":                          f.rsa.Token(`{"iss":"` + f.URL + `","x":` + strings.Repeat(`{"a":`, 500) + "1" + strings.Repeat("}", 501)),
		"jwk of the attacker":                  hdr(`"kid":"one","jwk":` + evil.JWK()),
		"jwk of the attacker, no kid":          hdr(`"jwk":` + evil.JWK()),
		"jku to the attacker":                  hdr(`"kid":"one","jku":"` + f.lure.URL + `/jwks"`),
		"jku to the attacker, kid there":       hdr(`"kid":"evil","jku":"` + f.lure.URL + `/jwks"`),
		"x5u to the attacker":                  hdr(`"kid":"one","x5u":"` + f.lure.URL + `/cert.pem"`),
		"x5c of the attacker":                  hdr(`"kid":"one","x5c":["` + base64.StdEncoding.EncodeToString(der) + `"]`),
		"kid a path":                           hdr(`"kid":"../../../../dev/null"`),
		"kid a URL":                            hdr(`"kid":"` + f.lure.URL + `/key"`),
		"kid SQL":                              hdr(`"kid":"x' UNION SELECT 'secret"`),
		"kid a command":                        hdr(`"kid":"|id"`),
		"kid with a line break":                hdr(`"kid":"one\r\nX-Admin: 1"`),
		"kid with NUL":                         hdr(`"kid":"one\u0000"`),
		"kid huge":                             hdr(`"kid":"` + strings.Repeat("k", 1000) + `"`),
		"kid empty":                            f.rsa.Sign(`{"alg":"RS256","kid":""}`, f.good()),
		"kid a number":                         f.rsa.Sign(`{"alg":"RS256","kid":1}`, f.good()),
		"kid null":                             f.rsa.Sign(`{"alg":"RS256","kid":null}`, f.good()),
		"kid twice":                            f.rsa.Sign(`{"alg":"RS256","kid":"two","kid":"one"}`, f.good()),
		"kid in another letter case":           f.rsa.Sign(`{"alg":"RS256","kid":"One"}`, f.good()),
		"crit":                                 f.rsa.Sign(`{"alg":"RS256","kid":"one","crit":["exp"],"exp":1}`, f.good()),
		"crit empty":                           f.rsa.Sign(`{"alg":"RS256","kid":"one","crit":[]}`, f.good()),
		"b64 false":                            f.rsa.Sign(`{"alg":"RS256","kid":"one","b64":false,"crit":["b64"]}`, f.good()),
		"zip":                                  f.rsa.Sign(`{"alg":"RS256","kid":"one","zip":"DEF"}`, f.good()),
		"typ of a logout token":                f.rsa.Sign(`{"alg":"RS256","kid":"one","typ":"logout+jwt"}`, f.good()),
		"typ of a DPoP proof":                  f.rsa.Sign(`{"alg":"RS256","kid":"one","typ":"dpop+jwt"}`, f.good()),
		"typ absent by name":                   f.rsa.Sign(`{"alg":"RS256","kid":"one","typ":"absent"}`, f.good()),
		"typ a number":                         f.rsa.Sign(`{"alg":"RS256","kid":"one","typ":1}`, f.good()),
		"header not an object":                 authtest.Base64([]byte(`[]`)) + "." + part[1] + "." + part[2],
		"header with something after it":       f.rsa.Sign(`{"alg":"RS256","kid":"one"} {}`, f.good()),
		"header not UTF-8":                     f.rsa.Sign("{\"alg\":\"RS256\",\"kid\":\"one\",\"x\":\"\xff\"}", f.good()),
		"another issuer":                       f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"iss": "https://evil.example"})),
		"the attacker's issuer":                authtest.NewKey("evil", "RS256", authtest.OtherRSA()).Token(f.provider.claims(f.clock.Now(), map[string]any{"iss": f.lure.URL})),
		"not a token":                          "opaque",
		"an API key":                           "sk_live_0123456789",
		"a wildcard":                           "*",
		"two tokens joined by a comma":         good + ", Bearer " + good,
		"a token and a space":                  good + " " + good,
		"a token with a trailing control byte": good + "\x7f",
	}
	for name, token := range attacks {
		t.Run(name, func(t *testing.T) {
			f.auth.memory.budget = newBudget(Budget{})
			before := f.auth.memory.tokens.status().Tokens
			want(t, f.chain, token, BadCredential)
			if n := f.auth.memory.tokens.status().Tokens; n != before {
				t.Errorf("the token was kept: %d tokens in the cache, want %d", n, before)
			}
		})
	}
	if n := f.lured.Load(); n != 0 {
		t.Errorf("a host that tokens name was asked %d times", n)
	}
	if n := f.Fetches(); n > 2 {
		t.Errorf("keys were fetched %d times, want at most 2: the first time, and once for what no known key verifies", n)
	}
	want(t, f.chain, f.rsa.Token(f.good()), "")
}

// spareBits sets an unused bit of unpadded base64url, if there is one.
func spareBits(seg string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, seg[len(seg)-1])
	return seg[:len(seg)-1] + string(alphabet[i|1])
}

// TestUnacceptableClaimsAreRefused checks claims that the issuer signed and the route
// must refuse. The reasons may be specific, since the signature is valid.
func TestUnacceptableClaimsAreRefused(t *testing.T) {
	f := newForge(t)
	now := f.clock.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	type m = map[string]any
	cases := map[string]struct {
		claims m
		raw    string
		want   string
	}{
		"good":                        {claims: m{}},
		"aud an array":                {claims: m{"aud": []string{"other", "models"}}},
		"nbf now":                     {claims: m{"nbf": at(0)}},
		"nbf within the skew":         {claims: m{"nbf": at(59 * time.Second)}},
		"nbf at the skew":             {claims: m{"nbf": at(60 * time.Second)}},
		"nbf past the skew":           {claims: m{"nbf": at(61 * time.Second)}, want: TokenNotYetValid},
		"nbf a fraction past":         {raw: fmt.Sprintf(`"nbf":%d.5`, at(60*time.Second)), want: TokenNotYetValid},
		"iat past the skew":           {claims: m{"iat": at(61 * time.Second)}, want: TokenNotYetValid},
		"iat absent":                  {claims: m{"iat": nil}},
		"exp within the skew":         {claims: m{"exp": at(-59 * time.Second)}},
		"exp at the skew":             {claims: m{"exp": at(-60 * time.Second)}, want: TokenExpired},
		"exp a fraction":              {raw: fmt.Sprintf(`"exp":%d.9`, at(time.Hour)), want: BadCredential /* duplicate */},
		"exp long past":               {claims: m{"exp": 1}, want: TokenExpired},
		"exp zero":                    {claims: m{"exp": 0}, want: TokenExpired},
		"exp absent":                  {claims: m{"exp": nil}, want: MissingClaim},
		"exp a string":                {claims: m{"exp": fmt.Sprint(at(time.Hour))}, want: BadCredential},
		"exp true":                    {claims: m{"exp": true}, want: BadCredential},
		"exp null":                    {raw: `"exp":null`, want: BadCredential},
		"exp negative":                {claims: m{"exp": -1}, want: BadCredential},
		"exp huge":                    {claims: m{"exp": 1e300}, want: BadCredential},
		"exp in milliseconds":         {claims: m{"exp": at(time.Hour) * 1000}, want: BadCredential},
		"exp an array":                {claims: m{"exp": []int64{at(time.Hour)}}, want: BadCredential},
		"exp in capitals":             {claims: m{"exp": nil, "EXP": at(time.Hour)}, want: BadCredential},
		"exp twice":                   {raw: fmt.Sprintf(`"exp":%d`, at(time.Hour)), want: BadCredential},
		"exp twice, one in capitals":  {claims: m{"Exp": at(time.Hour)}, want: BadCredential},
		"exp twice, one escaped":      {raw: fmt.Sprintf(`"\u0065xp":%d`, at(time.Hour)), want: BadCredential},
		"nbf a string":                {claims: m{"nbf": "0"}, want: BadCredential},
		"iat a string":                {claims: m{"iat": "0"}, want: BadCredential},
		"aud another":                 {claims: m{"aud": "other"}, want: WrongAudience},
		"aud a longer name":           {claims: m{"aud": "models2"}, want: WrongAudience},
		"aud a part":                  {claims: m{"aud": "model"}, want: WrongAudience},
		"aud in another letter case":  {claims: m{"aud": "Models"}, want: WrongAudience},
		"aud with a space":            {claims: m{"aud": "models "}, want: WrongAudience},
		"aud several in one":          {claims: m{"aud": "other models"}, want: WrongAudience},
		"aud a wildcard":              {claims: m{"aud": "*"}, want: WrongAudience},
		"aud an empty array":          {claims: m{"aud": []string{}}, want: WrongAudience},
		"aud empty":                   {claims: m{"aud": ""}, want: WrongAudience},
		"aud absent":                  {claims: m{"aud": nil}, want: WrongAudience},
		"aud in capitals":             {claims: m{"aud": nil, "AUD": "models"}, want: BadCredential},
		"aud null":                    {raw: `"aud":null`, want: BadCredential},
		"aud an object":               {claims: m{"aud": m{"models": true}}, want: BadCredential},
		"aud an array with a number":  {claims: m{"aud": []any{"models", 1}}, want: BadCredential},
		"aud an array in an array":    {claims: m{"aud": []any{[]string{"models"}}}, want: BadCredential},
		"aud twice":                   {raw: `"aud":"models"`, want: BadCredential},
		"iss absent":                  {claims: m{"iss": nil}, want: BadCredential},
		"iss an array":                {claims: m{"iss": []string{f.URL}}, want: BadCredential},
		"iss with a slash":            {claims: m{"iss": f.URL + "/"}, want: BadCredential},
		"iss in capitals":             {claims: m{"iss": strings.ToUpper(f.URL)}, want: BadCredential},
		"iss longer":                  {claims: m{"iss": f.URL + ".evil.example"}, want: BadCredential},
		"iss twice":                   {raw: `"iss":"` + f.URL + `"`, want: BadCredential},
		"sub absent":                  {claims: m{"sub": nil}, want: MissingClaim},
		"sub empty":                   {claims: m{"sub": ""}, want: MissingClaim},
		"sub a number":                {claims: m{"sub": 7}, want: MissingClaim},
		"sub an array":                {claims: m{"sub": []string{"alice"}}, want: MissingClaim},
		"sub an object":               {claims: m{"sub": m{"name": "alice"}}, want: MissingClaim},
		"sub with a line break":       {claims: m{"sub": "alice\r\nX-Admin: 1"}, want: MissingClaim},
		"sub with NUL":                {claims: m{"sub": "alice\x00"}, want: MissingClaim},
		"sub turned round":            {claims: m{"sub": "\u202eecila"}, want: MissingClaim},
		"sub with a space at its end": {claims: m{"sub": "alice "}, want: MissingClaim},
		"sub too long":                {claims: m{"sub": strings.Repeat("a", 257)}, want: MissingClaim},
		"sub in capitals":             {claims: m{"sub": nil, "SUB": "alice"}, want: BadCredential},
		"scope a number":              {claims: m{"scope": 1}, want: BadCredential},
		"scope in capitals":           {claims: m{"SCOPE": "admin"}, want: BadCredential},
		"scope with a space inside":   {claims: m{"scope": []string{"read admin"}}, want: BadCredential},
		"scope with a line break":     {claims: m{"scope": []string{"read\nadmin"}}, want: BadCredential},
		"bound to a key":              {claims: m{"cnf": m{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, want: TokenBound},
		"an inner name twice":         {raw: `"x":{"a":1,"a":2}`, want: BadCredential},
		"not an object":               {raw: "array", want: BadCredential},
		"something after the object":  {raw: "trailer", want: BadCredential},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f.auth.memory.budget = newBudget(Budget{})
			claims := f.provider.claims(now, c.claims)
			switch c.raw {
			case "":
			case "array":
				claims = "[" + claims + "]"
			case "trailer":
				claims += "{}"
			default:
				claims = "{" + c.raw + "," + claims[1:]
			}
			token := f.rsa.Token(claims)
			want(t, f.chain, token, c.want)
			want(t, f.chain, token, c.want) // from the cache, where it got there
		})
	}
}

// TestForgerGetsGenericReason checks that a token without a valid signature does not
// reveal which claims would be accepted.
func TestForgerGetsGenericReason(t *testing.T) {
	f := newForge(t)
	evil := authtest.NewKey("one", "RS256", authtest.OtherRSA())
	for name, changes := range map[string]map[string]any{
		"expired":        {"exp": 1},
		"not yet valid":  {"nbf": f.clock.Now().Add(time.Hour).Unix()},
		"wrong audience": {"aud": "other"},
		"no principal":   {"sub": nil},
		"bound":          {"cnf": map[string]any{}},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, f.chain, evil.Token(f.provider.claims(f.clock.Now(), changes)), BadCredential)
		})
	}
}

// TestTokenOutsideAuthorizationIsIgnored checks that only a single Authorization line with
// the scheme Bearer provides a token.
func TestTokenOutsideAuthorizationIsIgnored(t *testing.T) {
	f := newForge(t)
	good := f.rsa.Token(f.good())
	with := func(h *message.Head, name, value string) *message.Head { h.Fields.Add(name, value); return h }
	query := func(h *message.Head, q string) *message.Head { h.Query, h.HasQuery = q, true; return h }
	cases := map[string]struct {
		head *message.Head
		want string
	}{
		"Bearer":                         {head("Bearer " + good), ""},
		"bearer":                         {head("bearer " + good), ""},
		"BEARER and two spaces":          {head("BEARER  " + good), ""},
		"a parameter of a similar name":  {query(head("Bearer "+good), "my_access_token=x&access_tokens=y"), ""},
		"nothing":                        {head(), NoCredential},
		"query":                          {query(head(), "access_token="+good), NoCredential},
		"cookie":                         {with(head(), "cookie", "access_token="+good), NoCredential},
		"X-Access-Token":                 {with(head(), "x-access-token", "Bearer "+good), NoCredential},
		"Proxy-Authorization":            {with(head(), "proxy-authorization", "Bearer "+good), NoCredential},
		"X-Forwarded-Access-Token":       {with(head(), "x-forwarded-access-token", good), NoCredential},
		"Authorization with underscore":  {with(head(), "authorization_", "Bearer "+good), NoCredential},
		"Basic":                          {head("Basic YTpi"), UnlistedCredential},
		"Basic with the token":           {head("Basic " + good), UnlistedCredential},
		"DPoP":                           {head("DPoP " + good), UnlistedCredential},
		"Negotiate":                      {head("Negotiate " + good), UnlistedCredential},
		"no scheme":                      {head(good), UnlistedCredential},
		"empty":                          {head(""), UnlistedCredential},
		"Bearer alone":                   {head("Bearer"), BadCredential},
		"Bearer and a space":             {head("Bearer "), BadCredential},
		"Bearer with a tab":              {head("Bearer\t" + good), UnlistedCredential},
		"Bearer:":                        {head("Bearer: " + good), UnlistedCredential},
		"quoted":                         {head(`Bearer "` + good + `"`), BadCredential},
		"two lines, both good":           {head("Bearer "+good, "Bearer "+good), BadCredential},
		"two lines, good first":          {head("Bearer "+good, "Basic YTpi"), BadCredential},
		"two lines, good last":           {head("Basic YTpi", "Bearer "+good), BadCredential},
		"good, and one in the query":     {query(head("Bearer "+good), "a=b&access_token="+good), BadCredential},
		"good, and an empty one in it":   {query(head("Bearer "+good), "access_token"), BadCredential},
		"X-HTTP-Method-Override changes": {with(head(), "x-http-method-override", "OPTIONS"), NoCredential},
		"health check's user agent":      {with(head(), "user-agent", "kube-probe/1.31"), NoCredential},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			proof, err := f.chain.Authenticate(context.Background(), from(client, c.head))
			p := proof.Caller
			if got := reason(t, err); got != c.want || p.IsZero() != (err != nil) {
				t.Errorf("got %q, reason %q, want %q", p.String(), got, c.want)
			}
		})
	}
}

// TestManyDotsCostNothing checks that a token of dots is refused without a slice element
// for each.
func TestManyDotsCostNothing(t *testing.T) {
	dots := strings.Repeat(".", maxToken)
	n := testing.AllocsPerRun(10, func() {
		if new(token).parse(dots) == nil {
			t.Fatal("accepted")
		}
	})
	if n > 2 {
		t.Errorf("%v allocations, want at most 2", n)
	}
}

// TestUnknownKidFloodHarmsNobody checks that a flood of unknown kids causes one fetch and
// does not affect callers with valid tokens, even from the same address.
func TestUnknownKidFloodHarmsNobody(t *testing.T) {
	f := newForge(t)
	want(t, f.chain, f.rsa.Token(f.good()), "")
	claims := f.good()
	text := authtest.Base64([]byte(claims)) + "." + authtest.Base64(make([]byte, 256))
	for i := range 10_000 {
		want(t, f.chain, authtest.Base64([]byte(fmt.Sprintf(`{"alg":"RS256","kid":"flood-%d"}`, i)))+"."+text, BadCredential)
	}
	if n := f.Fetches(); n != 2 {
		t.Errorf("keys were fetched %d times, want 2", n)
	}
	want(t, f.chain, f.ec.Token(f.good()), "")
}

// TestRotationUnderLoad rotates keys under load. Tokens of a key that stays are always
// accepted, and tokens of a withdrawn key never.
func TestRotationUnderLoad(t *testing.T) {
	f := newForge(t)
	stays, goes := f.ec.Token(f.good()), f.rsa.Token(f.good())
	want(t, f.chain, stays, "")
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				want(t, f.chain, stays, "")
				ask(f.chain, goes)
			}
		})
	}
	for range 20 {
		f.Publish(f.ec.JWK(`"alg":"ES256"`), f.rsa.JWK())
		refresh(t, f.auth)
		f.Publish(f.ec.JWK(`"alg":"ES256"`))
		refresh(t, f.auth)
		want(t, f.chain, goes, BadCredential)
	}
	close(stop)
	load.Wait()
}
