package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/httpsig"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// signing is the fixture of tests of signatures: keys of acme, of orbit and of an
// upstream, and an issuer.
type signing struct {
	*provider
	clock     *authtest.Clock
	memory    *Memory
	auth      *Auth
	publicKey setting.Path            // of orbit-ed
	keys      map[string]*httpsig.Key // those that sign, by their ids
	issuer    authtest.Key
	aliases   map[string]string
}

func newSigning(t testing.TB) *signing {
	t.Helper()
	s := &signing{clock: authtest.NewClock(), keys: map[string]*httpsig.Key{}, issuer: authtest.NewKey("one", "ES256", authtest.EC(p256()))}
	s.provider = newProvider(t, s.issuer.JWK())
	s.aliases = map[string]string{"issuer/corp:alice": "batch", "key:acme": "batch", "issuer/corp:bob": "bob"}
	orbit := authtest.Ed25519()
	s.publicKey = writeFile(t, pemOf(t, "PUBLIC KEY", orbit.Public()))
	config := map[string]SigningKeyConfig{
		"acme-1":   {Principal: "acme", Secret: literal(secretOf("acme-1"))},
		"acme-2":   {Principal: "acme", Secret: literal(secretOf("acme-2")), NotBefore: setting.Time{Time: s.clock.Now().Add(-time.Hour)}, NotAfter: setting.Time{Time: s.clock.Now().Add(time.Hour)}},
		"plain-1":  {Principal: "acme", Secret: literal(secretOf("plain-1")), RequireNonce: new(bool)},
		"orbit-1":  {Principal: "orbit", Secret: literal(secretOf("orbit-1"))},
		"orbit-ed": {Principal: "planet", PublicKey: s.publicKey},
		"answer-1": {Principal: "acme", Secret: literal(secretOf("answer-1")), Use: setting.List[string]{SignResponse}},
		"out-1":    {Secret: literal(secretOf("out-1")), Use: setting.List[string]{SignRequest}},
	}
	for id := range config {
		s.keys[id] = hmacKey(t, id, id)
	}
	var err error
	if s.keys["orbit-ed"], err = httpsig.Ed25519Key("orbit-ed", orbit); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadSigningKeys(config)
	if err != nil {
		t.Fatal(err)
	}
	s.memory = NewMemory(MemoryOptions{Now: s.clock.Now, Budget: Budget{Burst: 5, Every: time.Second}})
	s.auth = activeAuth(t, s.memory, Config{Issuers: map[string]IssuerConfig{"corp": s.config()}, Keys: keys, Aliases: s.aliases, Skew: 30 * time.Second})
	return s
}

func hmacKey(t testing.TB, id, secret string) *httpsig.Key {
	t.Helper()
	k, err := httpsig.HMACKey(id, secretOf(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// route is a chain for these callers; the zero Demand takes any authority.
func (s *signing) route(t testing.TB, d Demand) *Chain {
	t.Helper()
	if d.Signatures.Authority == nil {
		d.Signatures.Authority = func(string) bool { return true }
	}
	c, err := s.auth.Route(d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// request is a head without content, with these fields as "name: value".
func request(fields ...string) *message.Head {
	h := &message.Head{Version: message.HTTP11, Method: "GET", Scheme: "https", Authority: "models.test", Target: "/v1/models/m?a=b"}
	h.Fields.Add("content-digest", httpsig.ContentDigest(nil))
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		h.Fields.Add(name, value)
	}
	return h
}

// signed signs a head with a key.
func (s *signing) signed(t testing.TB, key *httpsig.Key, h *message.Head, change func(*httpsig.Profile)) *message.Head {
	t.Helper()
	p := httpsig.RequestProfile()
	if change != nil {
		change(&p)
	}
	signer, err := httpsig.NewSigner(p, s.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	m := Message(h)
	made, err := signer.Sign(key, &m, "")
	if err != nil {
		t.Fatal(err)
	}
	h.Fields.Add("signature-input", made.Input)
	h.Fields.Add("signature", made.Signature)
	return h
}

// outcome returns the caller or the reason, with "+" if the proof has a signature.
func outcome(t testing.TB, c *Chain, h *message.Head, peer netip.Addr) string {
	t.Helper()
	proof, err := c.Authenticate(context.Background(), from(peer, h))
	got := proof.Caller.String()
	if err != nil {
		if got != "" {
			t.Errorf("%s is known beside %v", got, err)
		}
		got = reason(t, err)
	}
	if proof.Signature != nil {
		got += "+"
	}
	return got
}

// TestOnlyRequestKeysOfTheRouteVerify checks that all other keys are treated as unknown.
func TestOnlyRequestKeysOfTheRouteVerify(t *testing.T) {
	s := newSigning(t)
	acme, all := s.route(t, Demand{Callers: []string{"key/acme"}}), s.route(t, Demand{Callers: []string{"key"}})
	two := s.route(t, Demand{Callers: []string{"key/acme", "key/orbit"}})
	for _, c := range []struct{ key, acme, all, two string }{
		{"acme-1", "key:acme+", "key:acme+", "key:acme+"}, {"acme-2", "key:acme+", "key:acme+", "key:acme+"},
		{"orbit-1", "bad_signature", "key:orbit+", "key:orbit+"}, {"orbit-ed", "malformed", "key:planet+", "malformed"},
		{"answer-1", "bad_signature", "bad_signature", "bad_signature"}, {"out-1", "bad_signature", "bad_signature", "bad_signature"},
	} {
		for i, want := range []string{c.acme, c.all, c.two} {
			chain := []*Chain{acme, all, two}[i]
			if got := outcome(t, chain, s.signed(t, s.keys[c.key], request(), nil), client); got != want {
				t.Errorf("%s on route %d: got %s, want %s", c.key, i, got, want)
			}
		}
	}
	for _, id := range []string{"", "acme-3", "ACME-1", "acme-1 "} {
		if id == "" {
			continue
		}
		if got := outcome(t, acme, s.signed(t, hmacKey(t, id, "acme-1"), request(), nil), client); got != "bad_signature" {
			t.Errorf("keyid %q: got %s", id, got)
		}
	}
}

// Only the owner of a key learns that it has ended, and only on routes that accept it.
func TestOnlyTheOwnerLearnsThatAKeyHasEnded(t *testing.T) {
	s := newSigning(t)
	acme, orbit := s.route(t, Demand{Callers: []string{"key/acme"}}), s.route(t, Demand{Callers: []string{"key/orbit"}})
	for _, c := range []struct {
		name   string
		after  time.Duration
		key    *httpsig.Key
		chain  *Chain
		reason string
		cause  string
	}{
		{"ended", time.Hour, s.keys["acme-2"], acme, "key_expired", "acme-2 ended 0s ago, at 2"},
		{"ended a while ago", 74 * time.Second, s.keys["acme-2"], acme, "key_expired", "acme-2 ended 1m14s ago, at 2"},
		{"a forger", 0, hmacKey(t, "acme-2", "x"), acme, "bad_signature", "the signature does not match"},
		{"another route", 0, s.keys["acme-2"], orbit, "bad_signature", "the key is unknown"},
		{"not begun", -3*time.Hour - 74*time.Second, s.keys["acme-2"], acme, "key_not_yet_valid", "acme-2 begins in 1h0m0s, at 2"},
		{"a forger before", 0, hmacKey(t, "acme-2", "x"), acme, "bad_signature", "the signature does not match"},
	} {
		s.clock.Add(c.after)
		proof, err := c.chain.Authenticate(context.Background(), from(client, s.signed(t, c.key, request(), nil)))
		var e *Error
		if !errors.As(err, &e) || e.Reason != c.reason || e.Status() != 401 || !strings.Contains(e.Error(), c.cause) || proof.Signature != nil {
			t.Errorf("%s: got %v, want %s with %q", c.name, err, c.reason, c.cause)
		} else if told := strings.HasPrefix(c.reason, "key_"); (e.KeyID == "acme-2") != told {
			t.Errorf("%s: the key is %q", c.name, e.KeyID)
		}
	}
}

// TestSignatureErrorsNameCauseWithoutSecrets checks the causes for the audit record.
func TestSignatureErrorsNameCauseWithoutSecrets(t *testing.T) {
	s := newSigning(t)
	c := s.route(t, Demand{Callers: []string{"key/acme"}})
	for _, x := range []struct {
		head  *message.Head
		cause string
		keyID string
	}{
		{s.signed(t, hmacKey(t, "acme-3", "x"), request(), nil), `the key is unknown: keyid "acme-3"`, ""},
		{s.signed(t, hmacKey(t, "acme-1", "x"), request(), nil), `the signature does not match: keyid "acme-1"`, ""},
		{s.signed(t, s.keys["acme-1"], request(), func(p *httpsig.Profile) { p.Nonce = false }), "no nonce", "acme-1"},
	} {
		_, err := c.Authenticate(context.Background(), from(client, x.head))
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), x.cause) || e.KeyID != x.keyID || e.Status() != 401 {
			t.Errorf("got %v, of key %q; want %s", err, e.KeyID, x.cause)
		}
		if strings.Contains(e.Text(), "acme") || strings.Contains(e.Text(), "unknown") {
			t.Errorf("the client sees %q", e.Text())
		}
		if got := challenge(c, "models.test", err); got != `Signature realm="models.test"` {
			t.Errorf("challenge %s", got)
		}
	}
	if got := outcome(t, c, s.signed(t, s.keys["plain-1"], request(), func(p *httpsig.Profile) { p.Nonce = false }), client); got != "key:acme+" {
		t.Errorf("a key that wants no nonce: got %s", got)
	}
}

func TestRoutesRestrictSignatures(t *testing.T) {
	s := newSigning(t)
	key := s.keys["acme-1"]
	bare := func(p *httpsig.Profile) { p.Cover, p.IfPresent = p.Cover[:4], nil }
	cover := func(more ...string) func(*httpsig.Profile) {
		return func(p *httpsig.Profile) { p.IfPresent = append(p.IfPresent, more...) }
	}
	usual := s.route(t, Demand{Callers: []string{"key"}})
	heads := s.route(t, Demand{Callers: []string{"key"}, Signatures: SignatureDemand{HeadersOnly: true}})
	covers := s.route(t, Demand{Callers: []string{"key"}, Signatures: SignatureDemand{Cover: []string{"x-tenant"}}})
	hosts := s.route(t, Demand{Callers: []string{"key"}, Signatures: SignatureDemand{Authority: func(a string) bool { return a == "models.test" }}})
	other := request()
	other.Authority = "models.test:444"
	for i, c := range []struct {
		chain *Chain
		head  *message.Head
		want  string
	}{
		{usual, s.signed(t, key, request(), nil), "key:acme+"},
		{usual, s.signed(t, key, request(), bare), "coverage"},
		{heads, s.signed(t, key, request(), bare), "key:acme+"},
		{heads, s.signed(t, key, request("content-type: a/b"), bare), "coverage"},
		{usual, s.signed(t, key, request("x-tenant: a"), nil), "key:acme+"},
		{covers, s.signed(t, key, request("x-tenant: a"), nil), "coverage"},
		{covers, s.signed(t, key, request("x-tenant: a"), cover("x-tenant")), "key:acme+"},
		{covers, s.signed(t, key, request(), nil), "key:acme+"},
		{hosts, s.signed(t, key, request(), nil), "key:acme+"},
		{hosts, s.signed(t, key, other, nil), "authority"},
		{usual, request(), "signature_missing"},
		{usual, request("authorization: Bearer x"), "signature_missing"},
		{usual, s.signed(t, key, request(), func(p *httpsig.Profile) { p.Tag = httpsig.TagForward }), "signature_missing"},
	} {
		if got := outcome(t, c.chain, c.head, client); got != c.want {
			t.Errorf("case %d: got %s, want %s", i, got, c.want)
		}
	}
	if got, want := usual.AcceptSignature(), `sp=("@method" "@authority" "@path" "@query" "content-digest");created;tag="sallyport-req"`; got != want {
		t.Errorf("Accept-Signature: %s", got)
	}
	if got, want := heads.AcceptSignature(), `sp=("@method" "@authority" "@path" "@query");created;tag="sallyport-req"`; got != want {
		t.Errorf("Accept-Signature: %s", got)
	}
	// Who says nothing about authorities accepts none.
	none, err := s.auth.Route(Demand{Callers: []string{"key"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := outcome(t, none, s.signed(t, key, request(), nil), client); got != "authority" {
		t.Errorf("without authorities: got %s", got)
	}
}

// TestBudgetLimitsForgedSignatures bounds the public-key work that a forger can cause.
func TestBudgetLimitsForgedSignatures(t *testing.T) {
	s := newSigning(t)
	forged, err := httpsig.Ed25519Key("orbit-ed", authtest.Ed25519())
	if err != nil {
		t.Fatal(err)
	}
	c := s.route(t, Demand{Callers: []string{"key"}})
	planet := s.route(t, Demand{Callers: []string{"key/planet", "issuer/corp"}})
	token := "authorization: Bearer " + s.issuer.Token(s.claims(s.clock.Now(), nil))
	if got := outcome(t, planet, request(token), client); got != "issuer/corp:alice" {
		t.Fatalf("got %s", got)
	}
	for range 5 {
		if got := outcome(t, c, s.signed(t, forged, request(), nil), client); got != "bad_signature" {
			t.Fatalf("got %s", got)
		}
	}
	if got := outcome(t, c, s.signed(t, forged, request(), nil), client); got != "too_many_failures" {
		t.Errorf("the sixth: got %s", got)
	}
	if got := outcome(t, c, s.signed(t, s.keys["orbit-ed"], request(), nil), netip.MustParseAddr("192.0.2.8")); got != "key:planet+" {
		t.Errorf("another address: got %s", got)
	}
	if got := outcome(t, c, s.signed(t, s.keys["acme-1"], request(), nil), client); got != "key:acme+" {
		t.Errorf("a MAC from the address of the forger: got %s", got)
	}
	if got := outcome(t, planet, s.signed(t, forged, request(), nil), client); got != "too_many_failures" {
		t.Errorf("on another route: got %s", got)
	}
	if got := outcome(t, planet, request(token), client); got != "issuer/corp:alice" {
		t.Errorf("a token that was seen before, from the address of the forger: got %s", got)
	}
	s.clock.Add(5 * time.Second)
	if got := outcome(t, c, s.signed(t, s.keys["orbit-ed"], request(), nil), client); got != "key:planet+" {
		t.Errorf("after a while: got %s", got)
	}
	macs := s.route(t, Demand{Callers: []string{"key/acme"}})
	for i := range 50 {
		if got := outcome(t, macs, s.signed(t, hmacKey(t, "acme-1", "x"), request(), nil), client); got != "bad_signature" {
			t.Fatalf("MAC %d: got %s", i, got)
		}
	}
}

func TestMessageEqualsTheSentBytes(t *testing.T) {
	for target, want := range map[string]string{
		"/": "/ false ", "/?": "/ true ", "/a?b=c?d": "/a true b=c?d", "/%61/b%2Fc?%20": "/%61/b%2Fc true %20",
	} {
		h := request()
		h.Target, h.Path, h.Query = target, "/other", "other"
		m := Message(h)
		if got := fmt.Sprintf("%s %v %s", m.Path, m.HasQuery, m.Query); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
		if m.Method != "GET" || m.Scheme != "https" || m.Authority != "models.test" || m.Status != 0 {
			t.Errorf("got %+v", m)
		}
	}
}
