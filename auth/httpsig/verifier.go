package httpsig

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Policy is what a signature must be to count. The zero Policy is no policy:
// [NewVerifier] refuses it.
//
// Components are written as such: `@method`, `content-digest;req`,
// `@query-param;name="x"`.
type Policy struct {
	Tag string // signatures with another tag are not looked at; required

	Require   []string // components that must be covered, by exact identifier
	IfPresent []string // fields that must be covered if the message has them

	// Target demands that a request's target is covered: @method and either
	// @authority, @path and @query, or @target-uri.
	Target bool

	MaxAge time.Duration // how old a signature may be; required
	Skew   time.Duration // how far the signer's clock may be ahead

	RequireNonce bool        // demand a nonce
	Algorithms   []Algorithm // those that keys may have; hmac-sha256 if empty
}

// Signature is a signature that was verified.
type Signature struct {
	Key     *Key
	Label   string // means nothing: any party on the way may choose another
	Nonce   string // "" if there was none
	Created time.Time
	Expires time.Time // zero if the signer gave none

	// Claim identifies this signature among those of all keys: the beginning of
	// the signature itself, which covers key, nonce and time. Whoever stops replays
	// keeps it until [Signature.Until].
	Claim [16]byte

	until      int64
	components [maxComponents]component
	n          int
}

// Until is the time after which the verifier would refuse the signature as stale.
func (s *Signature) Until() time.Time { return time.Unix(s.until, 0) }

// Covers reports whether the signature covers exactly this component, written as in
// a [Policy].
func (s *Signature) Covers(text string) bool {
	c, err := parseComponent(text)
	return err == nil && has(s.components[:s.n], c)
}

// Components are the covered components in the signer's order, written as in a
// [Policy].
func (s *Signature) Components() []string {
	all := make([]string, s.n)
	for i, c := range s.components[:s.n] {
		all[i] = c.String()
	}
	return all
}

// Verifier verifies signatures under one policy. It is safe for concurrent use.
type Verifier struct {
	policy     Policy
	require    []component
	ifPresent  []component
	key        func(id string) *Key
	authority  func(authority string) bool
	now        func() time.Time
	hmac, edsa bool
	dummyHMAC  *Key
	dummyEd    *Key
	scratch    sync.Pool // of *scratch
}

// scratch is the working memory of one verification or signature.
type scratch struct {
	selection
	base []byte
	mac  [64]byte
	host []byte
}

// VerifierOptions are what a Verifier needs besides its policy.
type VerifierOptions struct {
	// Key returns the key with an id, or nil if there is none that is valid now for
	// this purpose. It must take no longer for one than for the other. Required.
	Key func(id string) *Key

	// Authority reports whether a request may be for this authority, given in lower
	// case and without the default port. A signature for another host that is
	// served at the same place would count here too. If nil, no request is
	// accepted; responses are not asked about.
	Authority func(authority string) bool

	Now func() time.Time // time.Now if nil
}

// NewVerifier makes a Verifier. It starts nothing.
func NewVerifier(p Policy, o VerifierOptions) (*Verifier, error) {
	if p.Tag == "" || p.MaxAge <= 0 || o.Key == nil || p.Skew < 0 {
		return nil, errors.New("a verifier needs a tag, a greatest age and keys")
	}
	v := &Verifier{policy: p, key: o.Key, authority: o.Authority, now: o.Now}
	if v.now == nil {
		v.now = time.Now
	}
	var err error
	if v.require, err = parseComponents(p.Require); err != nil {
		return nil, err
	}
	if v.ifPresent, err = parseComponents(p.IfPresent); err != nil {
		return nil, err
	}
	v.policy.Algorithms = slices.Clone(p.Algorithms)
	v.hmac = len(p.Algorithms) == 0 || slices.Contains(p.Algorithms, HMACSHA256)
	v.edsa = slices.Contains(p.Algorithms, Ed25519)
	for _, a := range p.Algorithms {
		if a.size() == 0 {
			return nil, fmt.Errorf("algorithm %q is not known", a)
		}
	}
	secret := make([]byte, 64)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("making the key for unknown ones: %w", err)
	}
	if v.dummyHMAC, err = HMACKey("unknown", secret); err != nil {
		return nil, err
	}
	if v.dummyEd, err = Ed25519Key("unknown", ed25519.NewKeyFromSeed(secret[:ed25519.SeedSize])); err != nil {
		return nil, err
	}
	v.scratch.New = func() any { return &scratch{base: make([]byte, 0, 1<<10)} }
	return v, nil
}

// Verify finds the one signature that the policy is about and verifies it. The
// error is nil or of type *[Error]. Neither nonce nor content is looked at
// further: the caller claims the one and compares the other.
//
// For a response, m.Request is the request that it answers. The caller must also
// see that the nonce is that of the request: see [Verifier.VerifyResponse].
func (v *Verifier) Verify(m *Message) (*Signature, error) {
	s := v.scratch.Get().(*scratch)
	defer v.scratch.Put(s)
	if err := s.find(m.Fields, v.policy.Tag); err != nil {
		return nil, err
	}
	return v.finish(m, s)
}

// VerifyTrailer is Verify for a signature that stands in the trailers. Its label
// must be of the whole message, and so not be one of the head.
func (v *Verifier) VerifyTrailer(m *Message) (*Signature, error) {
	s := v.scratch.Get().(*scratch)
	defer v.scratch.Put(s)
	if err := s.find(m.Trailers, v.policy.Tag); err != nil {
		return nil, err
	}
	if hasLabel(m.Fields, s.inputs[s.ours].label) {
		return nil, fault(Malformed, "head and trailers have signatures with the same label")
	}
	return v.finish(m, s)
}

// VerifyResponse is Verify, or VerifyTrailer, for a response that must echo the
// nonce of the request that it answers, which must not be empty.
func (v *Verifier) VerifyResponse(m *Message, nonce string, trailer bool) (*Signature, error) {
	verify := v.Verify
	if trailer {
		verify = v.VerifyTrailer
	}
	s, err := verify(m)
	switch {
	case err != nil:
		return nil, err
	case nonce == "" || s.Nonce != nonce:
		return nil, fault(Unbound, "the nonce is not that of the request")
	}
	return s, nil
}

// Recheck reports whether a signature that was verified on m before, by this or another
// Verifier, would count for this one: the key with its id must be the same key,
// and coverage and authority must be as the policy demands. Times, nonce and the
// signature itself are not checked again. The error is nil or of type *[Error].
func (v *Verifier) Recheck(m *Message, signature *Signature) error {
	s := v.scratch.Get().(*scratch)
	defer v.scratch.Put(s)
	if err := v.covers(m, signature.components[:signature.n]); err != nil {
		return err
	}
	if err := v.forUs(m, s); err != nil {
		return err
	}
	id := signature.Key.ID()
	switch key := v.key(id); {
	case key == nil:
		return fault(UnknownKey, "keyid "+strconv.Quote(id))
	case !key.Equal(signature.Key):
		return fault(BadSignature, "keyid "+strconv.Quote(id)+" is another key now")
	}
	return nil
}

// finish checks what find has selected.
func (v *Verifier) finish(m *Message, s *scratch) (*Signature, error) {
	in := &s.inputs[s.ours]
	until, err := v.timely(in)
	if err != nil {
		return nil, err
	}
	if err := v.covers(m, in.components[:in.n]); err != nil {
		return nil, err
	}
	if err := v.forUs(m, s); err != nil {
		return nil, err
	}
	algorithm, err := v.algorithm(in, len(s.selection.mac))
	if err != nil {
		return nil, err
	}
	if s.base, err = appendBase(s.base[:0], m, in); err != nil {
		return nil, err
	}
	key, err := v.signedBy(in.keyID, algorithm, s)
	if err != nil {
		return nil, err
	}
	out := &Signature{Key: key, Label: in.label, Nonce: in.nonce, until: until}
	out.Created = time.Unix(in.created, 0)
	if in.hasExpires {
		out.Expires = time.Unix(in.expires, 0)
	}
	copy(out.Claim[:], s.selection.mac)
	out.n = copy(out.components[:], in.components[:in.n])
	return out, nil
}

// timely checks the times and returns the last second at which they hold.
func (v *Verifier) timely(in *input) (until int64, err *Error) {
	switch {
	case !in.hasCreated:
		return 0, fault(Malformed, "the parameter created is missing")
	case in.keyID == "":
		return 0, fault(Malformed, "the parameter keyid is missing")
	case v.policy.RequireNonce && !in.hasNonce:
		return 0, fault(Malformed, "the parameter nonce is missing")
	}
	now := v.now()
	until = in.created + int64(v.policy.MaxAge/time.Second)
	if in.hasExpires {
		until = min(until, in.expires)
	}
	switch {
	case in.created > now.Add(v.policy.Skew).Unix():
		return 0, fault(Future, strconv.FormatInt(in.created-now.Unix(), 10)+" s ahead")
	case now.Unix() > until:
		return 0, fault(Stale, strconv.FormatInt(now.Unix()-in.created, 10)+" s old")
	}
	return until, nil
}

// covers checks that all is covered that must be.
func (v *Verifier) covers(m *Message, covered []component) *Error {
	for _, c := range v.require {
		if !has(covered, c) {
			return fault(Coverage, c.String()+" is not covered")
		}
	}
	for _, c := range v.ifPresent {
		if !has(covered, c) && m.present(c) {
			return fault(Coverage, c.String()+" is there and not covered")
		}
	}
	if !v.policy.Target {
		return nil
	}
	if !has(covered, component{name: "@method"}) {
		return fault(Coverage, "@method is not covered")
	}
	if has(covered, component{name: "@target-uri"}) {
		return nil
	}
	for _, name := range [...]string{"@authority", "@path", "@query"} {
		if !has(covered, component{name: name}) {
			return fault(Coverage, name+" is not covered")
		}
	}
	return nil
}

// present reports whether the message has the field that a component is about.
func (m *Message) present(c component) bool {
	if c.flags&flagReq != 0 {
		if m = m.Request; m == nil {
			return true // not known to be absent
		}
	}
	fields := m.Fields
	if c.flags&flagTr != 0 {
		fields = m.Trailers
	}
	if c.derived() {
		return true
	}
	if fields == nil {
		return false
	}
	_, ok := fields.Line(c.name, 0)
	return ok
}

// forUs checks that a request is for an authority that is served here.
func (v *Verifier) forUs(m *Message, s *scratch) *Error {
	if m.Status != 0 {
		return nil
	}
	s.host = m.appendAuthority(s.host[:0])
	authority := m.Authority
	if string(s.host) != authority {
		authority = string(s.host)
	}
	if v.authority == nil || !v.authority(authority) {
		return fault(WrongAuthority, "")
	}
	return nil
}

// algorithm says which algorithm a signature of this length is of. It needs no
// key: what is refused here says nothing about any.
func (v *Verifier) algorithm(in *input, size int) (Algorithm, *Error) {
	a := Algorithm("")
	switch {
	case v.hmac && size == HMACSHA256.size():
		a = HMACSHA256
	case v.edsa && size == Ed25519.size():
		a = Ed25519
	default:
		return "", fault(Malformed, "the signature has a length of no algorithm that is accepted")
	}
	if in.hasAlg && in.alg != string(a) {
		return "", fault(Malformed, "the parameter alg is not the signature's algorithm")
	}
	return a, nil
}

// signedBy looks the key up and verifies. With a key that is unknown, or of
// another algorithm, the same work is done with one that nobody has.
func (v *Verifier) signedBy(id string, a Algorithm, s *scratch) (*Key, *Error) {
	key := v.key(id)
	used := key
	if key == nil || key.algorithm != a {
		used = v.dummyHMAC
		if a == Ed25519 {
			used = v.dummyEd
		}
	}
	ok := used.verify(s.base, s.selection.mac, s.mac[:])
	if ok && used == key {
		return key, nil
	}
	code := BadSignature
	if key == nil {
		code = UnknownKey
	}
	return nil, fault(code, "keyid "+strconv.Quote(id))
}
