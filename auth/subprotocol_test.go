package auth

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

const bothForms = KubernetesForm | OpenAIForm

// kubernetesProtocol is the subprotocol by which clients of Kubernetes send a token.
func kubernetesProtocol(token string) string {
	return "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// openAIProtocol is the subprotocol by which clients of OpenAI's Realtime API send a token.
func openAIProtocol(token string) string { return "openai-insecure-api-key." + token }

// handshake is that of a WebSocket, which offers subprotocols in these field lines.
func handshake(lines ...string) *message.Head {
	h := &message.Head{Method: "GET", Path: "/live", Host: "models.example", Authority: "models.example", Upgrade: "websocket"}
	for _, l := range lines {
		h.Fields.Add("sec-websocket-protocol", l)
	}
	return h
}

// webSockets is an Auth of an issuer and API keys, with the chain of a route for tokens in subprotocols.
type webSockets struct {
	*keyring
	chain *Chain
}

func newWebSockets(t *testing.T, callers ...string) *webSockets {
	t.Helper()
	k := newKeyring(t)
	c, err := k.auth.Route(Demand{Callers: callers, Subprotocols: bothForms})
	if err != nil {
		t.Fatal(err)
	}
	return &webSockets{k, c}
}

// TestTokenInSubprotocol checks that a token or an API key counts in each form, beside others in any order
// and number of field lines.
func TestTokenInSubprotocol(t *testing.T) {
	w := newWebSockets(t, "issuer/corp", "apikey")
	token := w.token()
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"Kubernetes, first", []string{kubernetesProtocol(token) + ", chat"}, "issuer/corp:alice"},
		{"Kubernetes, last", []string{"chat, v2.chat," + kubernetesProtocol(token)}, "issuer/corp:alice"},
		{"in a line of its own", []string{kubernetesProtocol(token), "chat"}, "issuer/corp:alice"},
		{"white space", []string{"chat ,\t " + kubernetesProtocol(token) + "\t"}, "issuer/corp:alice"},
		{"OpenAI", []string{"realtime, " + openAIProtocol(token) + ", openai-beta.realtime-v1"}, "issuer/corp:alice"},
		{"OpenAI with organization and project", []string{"realtime, " + openAIProtocol(token) + ", openai-organization.org-1, openai-project.proj-1"}, "issuer/corp:alice"},
		{"an API key, Kubernetes", []string{kubernetesProtocol(w.acme) + ", chat"}, "apikey:acme"},
		{"an API key, OpenAI", []string{"realtime, " + openAIProtocol(w.acme)}, "apikey:acme"},
	} {
		h := handshake(c.lines...)
		if proof := accepted(t, w.chain, h); proof.Caller.String() != c.want || proof.Field != SubprotocolField {
			t.Errorf("%s: got %s in %s, want %s", c.name, proof.Caller.String(), proof.Field, c.want)
		} else if got := recheck(t, w.chain, h, proof); got != c.want {
			t.Errorf("%s: then %s", c.name, got)
		}
	}
}

// TestOpaqueTokenInSubprotocol checks that an issuer is asked about a token in a subprotocol.
func TestOpaqueTokenInSubprotocol(t *testing.T) {
	o := newOpaque(t, nil)
	c, err := o.auth.Route(Demand{Callers: []string{"issuer/corp"}, Subprotocols: bothForms})
	if err != nil {
		t.Fatal(err)
	}
	token := o.know("opaque/token+of~alice==", nil) // which no subprotocol could have unencoded
	if proof := accepted(t, c, handshake(kubernetesProtocol(token)+", chat")); proof.Caller.String() != "issuer/corp:alice" || !proof.Revocable {
		t.Errorf("got %s, revocable: %v", proof.Caller.String(), proof.Revocable)
	}
	if _, err := c.Authenticate(t.Context(), from(client, handshake(kubernetesProtocol("unknown")+", chat"))); reason(t, err) != TokenInactive {
		t.Errorf("an unknown token: %v", err)
	}
}

// TestBadTokenInSubprotocol checks the refusals. Their causes name the fault, and repeat no token.
func TestBadTokenInSubprotocol(t *testing.T) {
	w := newWebSockets(t, "issuer/corp", "apikey")
	token := w.token()
	const name = "Sec-WebSocket-Protocol"
	raw := func(encoded string) []string {
		return []string{"base64url.bearer.authorization.k8s.io." + encoded + ", chat"}
	}
	long := strings.Repeat("a", maxToken+1)
	for _, c := range []struct {
		name   string
		lines  []string
		more   []string // pairs of fields
		reason string
		cause  string
	}{
		{"the same twice", []string{kubernetesProtocol(token) + ", " + kubernetesProtocol(token) + ", chat"}, nil, BadCredential, "more than one token in " + name},
		{"in two lines", []string{kubernetesProtocol(token), "chat, " + kubernetesProtocol(token)}, nil, BadCredential, "more than one token in " + name},
		{"of two forms", []string{kubernetesProtocol(token) + ", realtime, " + openAIProtocol(token)}, nil, BadCredential, "more than one token in " + name},
		{"beside Authorization", []string{kubernetesProtocol(token) + ", chat"}, []string{"authorization", "Bearer " + token}, BadCredential, "beside an Authorization field"},
		{"beside Basic", []string{kubernetesProtocol(token) + ", chat"}, []string{"authorization", "Basic eDp5"}, BadCredential, "beside an Authorization field"},
		{"two API keys", []string{kubernetesProtocol(w.acme) + ", chat"}, []string{"x-api-key", w.acme}, BadCredential, "more than one field with an API key"},
		{"empty, Kubernetes", raw(""), nil, BadCredential, "no token behind it"},
		{"empty, OpenAI", []string{"realtime, openai-insecure-api-key."}, nil, BadCredential, "no token behind it"},
		{"padding", raw(base64.URLEncoding.EncodeToString([]byte("abcd"))), nil, BadCredential, "with padding"},
		{"base64 of the other alphabet", raw("a+b/"), nil, BadCredential, "is not base64url"},
		{"not base64", raw("a.b"), nil, BadCredential, "is not base64url"},
		{"a line break in base64", raw("YWJj\nZGVm"), nil, BadCredential, "is not base64url"},
		{"spare bits", raw("YR"), nil, BadCredential, "is not base64url"},
		{"one letter too many", raw("YWJjZ"), nil, BadCredential, "is not base64url"},
		{"not UTF-8", raw(base64.RawURLEncoding.EncodeToString([]byte("a\xffb"))), nil, BadCredential, "a byte that no token has"},
		{"white space in it", []string{kubernetesProtocol("a b") + ", chat"}, nil, BadCredential, "a byte that no token has"},
		{"a line break in it", []string{kubernetesProtocol(token+"\r\nX-Evil: 1") + ", chat"}, nil, BadCredential, "a byte that no token has"},
		{"another scheme in it", []string{kubernetesProtocol("Basic eDp5") + ", chat"}, nil, BadCredential, "a byte that no token has"},
		{"NUL in it", []string{kubernetesProtocol(token+"\x00") + ", chat"}, nil, BadCredential, "a byte that no token has"},
		{"another alphabet", []string{"realtime, " + openAIProtocol("tokén")}, nil, BadCredential, "a byte that no token has"},
		{"too long, Kubernetes", []string{kubernetesProtocol(long) + ", chat"}, nil, BadCredential, "token is too long"},
		{"too long, OpenAI", []string{"realtime, " + openAIProtocol(long)}, nil, BadCredential, "token is too long"},
		{"forged", []string{kubernetesProtocol(token[:len(token)-4]+"AAAA") + ", chat"}, nil, BadCredential, ""},
		{"cut API key", []string{"realtime, " + openAIProtocol(w.acme[:len(w.acme)-1])}, nil, APIKeyUnknown, "its form or checksum is wrong"},
		{"unknown API key", []string{"realtime, " + openAIProtocol(apikey.New())}, nil, APIKeyUnknown, "no API key has a hash"},
	} {
		h := handshake(c.lines...)
		for i := 0; i < len(c.more); i += 2 {
			h.Fields.Add(c.more[i], c.more[i+1])
		}
		proof, err := w.chain.Authenticate(t.Context(), from(client, h))
		if reason(t, err) != c.reason || !strings.Contains(err.Error(), c.cause) || !proof.Caller.IsZero() {
			t.Errorf("%s: got %s and %v, want %s: %s", c.name, proof.Caller.String(), err, c.reason, c.cause)
			continue
		}
		for _, line := range c.lines {
			for s := range strings.SplitSeq(line, ",") {
				if _, rest := formOfSubprotocol(trimmed(s)); len(rest) > 3 && strings.Contains(err.Error(), rest) {
					t.Errorf("%s: the error repeats the token", c.name)
				}
			}
		}
	}
	h := handshake(kubernetesProtocol(token) + ", chat")
	h.Query = "a=b&access_token=x"
	if _, err := w.chain.Authenticate(t.Context(), from(client, h)); reason(t, err) != BadCredential {
		t.Errorf("beside a token in the query: %v", err)
	}
}

// TestUnreadSubprotocols checks where a token does not count, and that the cause says why.
func TestUnreadSubprotocols(t *testing.T) {
	w := newWebSockets(t, "issuer/corp", "apikey")
	route := func(forms SubprotocolForms, callers ...string) *Chain {
		c, err := w.auth.Route(Demand{Callers: callers, Subprotocols: forms})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	token := w.token()
	plain := handshake(kubernetesProtocol(token) + ", chat")
	plain.Upgrade = ""
	for _, c := range []struct {
		name  string
		chain *Chain
		head  *message.Head
		want  string
	}{
		{"no option", route(0, "issuer/corp"), handshake(kubernetesProtocol(token) + ", chat"), "unlisted_credential: Sec-WebSocket-Protocol has a token, which counts with websocket_token: kubernetes alone"},
		{"another form", route(KubernetesForm, "issuer/corp"), handshake("realtime, " + openAIProtocol(token)), "unlisted_credential: Sec-WebSocket-Protocol has a token, which counts with websocket_token: openai alone"},
		{"no handshake", w.chain, plain, "unlisted_credential: Sec-WebSocket-Protocol has a token, which counts in a WebSocket handshake with the gateway alone"},
		{"a token where keys count", route(bothForms, "apikey"), handshake(kubernetesProtocol(token) + ", chat"), "unlisted_credential: Sec-WebSocket-Protocol has a bearer token"},
		{"a key where tokens count", route(bothForms, "issuer/corp"), handshake(kubernetesProtocol(w.acme) + ", chat"), "unlisted_credential: Sec-WebSocket-Protocol has an API key"},
		{"none at all", w.chain, handshake("chat"), "no_credential: there is no field Authorization, X-Api-Key or Api-Key, and no token in Sec-WebSocket-Protocol"},
		{"a name that only begins alike", w.chain, handshake("base64url.bearer.authorization.k8s.iox." + token), "no_credential: there is no field"},
	} {
		_, err := c.chain.Authenticate(t.Context(), from(client, c.head))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), token) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	// A credential elsewhere counts as ever, whatever is offered in a form that the route does not read.
	h := handshake("realtime, " + openAIProtocol("x"))
	h.Fields.Add("authorization", "Bearer "+token)
	if got := accepted(t, route(KubernetesForm, "issuer/corp"), h); got.Field != "authorization" {
		t.Errorf("got %s", got.Field)
	}
}

// TestRecheckReadsSubprotocolsAgain checks that a tunnel loses its right with its token, or when its route
// reads no tokens from subprotocols any more.
func TestRecheckReadsSubprotocolsAgain(t *testing.T) {
	w := newWebSockets(t, "issuer/corp")
	h := handshake(kubernetesProtocol(w.token()) + ", chat")
	proof := accepted(t, w.chain, h)
	if got := recheck(t, w.keyring.chain("issuer/corp"), h, proof); got != UnlistedCredential {
		t.Errorf("without the option: %s", got)
	}
	w.clock.Add(2 * time.Hour)
	if got := recheck(t, w.chain, h, proof); got != TokenExpired {
		t.Errorf("after its end: %s", got)
	}
}

// TestSessionDoesNotCountBesideSubprotocolToken checks that the token that a page sends proves the caller,
// whatever cookie its browser adds, unless the route requires both.
func TestSessionDoesNotCountBesideSubprotocolToken(t *testing.T) {
	clock := authtest.NewClock()
	issuer := authtest.StartAt(t, clock.Now)
	p := newPeopleOf(t, clock, issuer)
	route := func(d Demand) *Chain {
		d.Subprotocols = bothForms
		c, err := p.auth.Route(d)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	session := p.signIn("alice", nil)
	token, err := issuer.Sign(issuer.Claims("bob"))
	if err != nil {
		t.Fatal(err)
	}
	both := handshake(kubernetesProtocol(token) + ", chat")
	both.Fields.Add("cookie", session)
	any := route(Demand{Callers: []string{"login/corp", "issuer/corp"}})
	if proof := accepted(t, any, both); proof.Caller.String() != "issuer/corp:bob" || proof.Session != nil {
		t.Errorf("got %s, session %v", proof.Caller.String(), proof.Session)
	}
	stale := handshake(kubernetesProtocol(token) + ", chat")
	stale.Fields.Add("cookie", session+"x")
	if proof := accepted(t, any, stale); proof.Caller.String() != "issuer/corp:bob" {
		t.Errorf("beside a broken session: %s", proof.Caller.String())
	}
	forged := handshake(kubernetesProtocol("x.y.z") + ", chat")
	forged.Fields.Add("cookie", session)
	if _, err := any.Authenticate(t.Context(), from(client, forged)); reason(t, err) != BadCredential {
		t.Errorf("a forged token beside a session: %v", err)
	}
	alone := handshake("chat")
	alone.Fields.Add("cookie", session)
	if proof := accepted(t, any, alone); proof.Caller.String() != "issuer/corp:alice" || proof.Session == nil {
		t.Errorf("a session alone: %s", proof.Caller.String())
	}
	all := route(Demand{Callers: []string{"login/corp", "issuer/corp"}, All: true, Independent: true})
	if proof := accepted(t, all, both); proof.Session == nil {
		t.Error("a route that requires both took the token alone")
	}
}

// TestSignatureBesideSubprotocolToken checks that a token that the signature does not cover does not change
// the caller.
func TestSignatureBesideSubprotocolToken(t *testing.T) {
	s := newSigning(t)
	c := s.route(t, Demand{Callers: []string{"issuer/corp", "key"}, Subprotocols: bothForms})
	token := s.issuer.Token(s.claims(s.clock.Now(), map[string]any{"sub": "alice"}))
	for _, covered := range []bool{false, true} {
		h := request()
		h.Upgrade = "websocket"
		h.Fields.Add(SubprotocolField, kubernetesProtocol(token)+", chat")
		h = s.signed(t, s.keys["acme-1"], h, func(p *httpsig.Profile) {
			if covered {
				p.Cover = append(p.Cover, SubprotocolField)
			}
		})
		want := map[bool]string{false: "key:acme+", true: "issuer/corp:alice+"}[covered]
		if got := outcome(t, c, h, client); got != want {
			t.Errorf("covered %v: got %s, want %s", covered, got, want)
		}
	}
}

// TestSubprotocolBesideTokenOfAProxy checks that a token in a field of token_from is a credential of its
// own, as it is beside Authorization.
func TestSubprotocolBesideTokenOfAProxy(t *testing.T) {
	clock, key := authtest.NewClock(), authtest.NewKey("one", "EdDSA", authtest.Ed25519())
	front, corp := newProvider(t, key.JWK()), newProvider(t, key.JWK())
	fc := front.config()
	proxy := netip.MustParseAddr("10.0.0.7")
	fc.TokenFrom = &TokenFromConfig{Header: "X-Front", From: setting.List[setting.CIDR]{{Prefix: netip.PrefixFrom(proxy, 32)}}}
	a := activeAuth(t, NewMemory(MemoryOptions{Now: clock.Now}), Config{Issuers: map[string]IssuerConfig{"front": fc, "corp": corp.config()}})
	c, err := a.Route(Demand{Callers: []string{"issuer/front", "issuer/corp"}, Subprotocols: bothForms})
	if err != nil {
		t.Fatal(err)
	}
	h := handshake(kubernetesProtocol(key.Token(corp.claims(clock.Now(), nil))) + ", chat")
	r := from(client, h)
	r.Via = proxy
	if proof, err := c.Authenticate(t.Context(), r); err != nil || proof.Caller.String() != "issuer/corp:alice" {
		t.Errorf("the subprotocol alone: %s, %v", proof.Caller.String(), err)
	}
	h.Fields.Add("x-front", key.Token(front.claims(clock.Now(), map[string]any{"sub": "bob"})))
	if proof, err := c.Authenticate(t.Context(), r); err != nil || proof.Caller.String() != "issuer/front:bob" || proof.Field != "x-front" {
		t.Errorf("both: %s in %s, %v", proof.Caller.String(), proof.Field, err)
	}
}

// TestWithoutSubprotocolToken checks what remains for the upstream, byte for byte.
func TestWithoutSubprotocolToken(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "chat": "chat", " chat ,, v2": " chat ,, v2",
		kubernetesProtocol("t"):                            "",
		kubernetesProtocol("t") + ", chat":                 "chat",
		"chat, " + kubernetesProtocol("t"):                 "chat",
		"a ,\t" + openAIProtocol("t") + "  , b.c,d":        "a , b.c,d",
		"realtime, " + openAIProtocol("t"):                 "realtime",
		openAIProtocol("t") + "," + kubernetesProtocol(""): "",
		", " + openAIProtocol("t") + " ,":                  "",
		"OpenAI-Insecure-API-Key.t, Chat":                  "Chat",
		"Base64URL.bearer.authorization.k8s.io.!!, chat":   "chat",
		"base64url.bearer.authorization.k8s.io, chat":      "base64url.bearer.authorization.k8s.io, chat",
	} {
		if got := WithoutSubprotocolToken(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if !HoldsAPIKey(SubprotocolField, "chat, "+kubernetesProtocol(apikey.Prefix+"x")) || !HoldsAPIKey(SubprotocolField, openAIProtocol(apikey.New())) || HoldsAPIKey(SubprotocolField, "chat, "+kubernetesProtocol("x.y.z")) {
		t.Error("API keys in subprotocols are not told apart")
	}
}

// TestAttackPageSpendsItsVisitorsBudget opens WebSockets with made-up tokens, as a page of any site can in
// the browsers of its visitors. Programs at the same address are checked as before, and the page is bounded.
func TestAttackPageSpendsItsVisitorsBudget(t *testing.T) {
	f := newForge(t)
	f.auth.memory.budget, f.auth.memory.pages = newBudget(Budget{Burst: 10, Every: time.Second}), newBudget(Budget{Burst: 10, Every: time.Second})
	c, err := f.auth.Route(Demand{Callers: []string{"issuer/corp"}, Subprotocols: bothForms})
	if err != nil {
		t.Fatal(err)
	}
	evil := authtest.NewKey("one", "RS256", authtest.OtherRSA())
	flood := func(origin, after string) {
		t.Helper()
		for i := range 11 {
			h := handshake("realtime, openai-insecure-api-key." + evil.Token(f.good()))
			if origin != "" {
				h.Fields.Add("origin", origin)
			}
			expected := BadCredential
			if i == 10 {
				expected = TooManyFailures
			}
			if _, err := c.Authenticate(t.Context(), from(client, h)); reason(t, err) != expected {
				t.Errorf("token %d of %q: %v; want %s", i, origin, err, expected)
			}
		}
		want(t, c, f.rsa.Token(f.provider.claims(f.clock.Now(), map[string]any{"sub": "bob", "jti": origin})), after)
	}
	flood("https://evil.example", "")
	flood("", TooManyFailures) // a program spends its own
}

// FuzzSubprotocols: nothing that is sent on has a token, the others stay as they are and in their order,
// and a token that is read is the one that was offered.
func FuzzSubprotocols(f *testing.F) {
	f.Add("chat, " + kubernetesProtocol("x.y.z"))
	f.Add("realtime," + openAIProtocol("sk-1") + ",openai-beta.realtime-v1")
	f.Add(" ,\t,BASE64URL.bearer.authorization.k8s.io.YQ==,\"a,b\"")
	f.Add(kubernetesProtocol("a\r\nb") + "," + openAIProtocol(""))
	f.Fuzz(func(t *testing.T, value string) {
		offered := func(s string) (all []string) {
			for one := range offeredIn(handshake(s)) {
				if form, _ := formOfSubprotocol(one); form == 0 {
					all = append(all, one)
				}
			}
			return all
		}
		rest := WithoutSubprotocolToken(value)
		if HasSubprotocolToken(rest) || !slices.Equal(offered(rest), offered(value)) {
			t.Fatalf("%q became %q", value, rest)
		}
		h := handshake(value)
		if OffersOnlyToken(h) != (HasSubprotocolToken(value) && len(offered(value)) == 0) {
			t.Fatalf("%q: the token is alone: %v", value, OffersOnlyToken(h))
		}
		if implied := ImpliedSubprotocol(h); implied != "" && !slices.Contains(offered(value), implied) {
			t.Fatalf("%q implies %q, which is not offered", value, implied)
		}
		read := bothForms.read(h)
		switch {
		case read == nil:
			if HasSubprotocolToken(value) {
				t.Fatalf("the token in %q was not seen", value)
			}
		case read.err == nil:
			if read.raw == "" || len(read.raw) > maxToken || strings.ContainsAny(read.raw, " \t\r\n\x00") {
				t.Fatalf("read %q", read.raw)
			}
			if !strings.Contains(value, base64.RawURLEncoding.EncodeToString([]byte(read.raw))) && !strings.Contains(value, read.raw) {
				t.Fatalf("read %q, which %q does not have", read.raw, value)
			}
		}
	})
}
