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

// Policy lists the requirements on a signature. [NewVerifier] refuses the zero Policy.
//
// Components are written like `@method`, `content-digest;req` or
// `@query-param;name="x"`.
type Policy struct {
	Tag string // signatures with another tag are ignored; required

	Require   []string // components that must be covered, by exact identifier
	IfPresent []string // fields that must be covered if the message has them

	// Target requires that the signature covers a request's target: @method, and
	// either @target-uri or all of @authority, @path and @query.
	Target bool

	MaxAge time.Duration // maximum age of a signature; required
	Skew   time.Duration // how far the signer's clock may be ahead

	RequireNonce bool        // refuse signatures without a nonce
	Algorithms   []Algorithm // accepted algorithms; hmac-sha256 if empty
}

// Signature is a verified signature.
type Signature struct {
	Key     *Key
	Label   string // not significant: an intermediary may change it
	Nonce   string // "" if there is none
	Created time.Time
	Expires time.Time // zero if there is none

	// Claim identifies the signature for replay protection, among those of all keys. It
	// is the first bytes of the signature, which covers key, nonce and time. A replay
	// cache must remember it until [Signature.Until].
	Claim [16]byte

	until      int64
	components [maxComponents]component
	n          int
}

// Until returns the time after which the verifier refuses the signature as stale.
func (s *Signature) Until() time.Time { return time.Unix(s.until, 0) }

// Covers reports whether the signature covers exactly this component, written as in
// a [Policy].
func (s *Signature) Covers(text string) bool {
	c, err := parseComponent(text)
	return err == nil && has(s.components[:s.n], c)
}

// Components returns the covered components in the signer's order, written as in a
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
	usable     func(id string) *Error
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

// VerifierOptions configure a Verifier besides its policy.
type VerifierOptions struct {
	// Key returns the key with an id, or nil if there is none for this purpose. It must
	// take the same time in both cases. Required.
	Key func(id string) *Key

	// Usable returns nil, or why the key with this id may not be used now. The Verifier calls
	// it only for signatures by the key that are right, so only its owner learns that the key
	// exists. Nil means that every key is usable.
	Usable func(id string) *Error

	// Authority reports whether a request for this authority is accepted. The argument
	// is in lower case and has no default port. Without this check a signature for
	// another host of the same server would be accepted here. Nil accepts no request;
	// responses are not checked.
	Authority func(authority string) bool

	Now func() time.Time // time.Now if nil
}

// NewVerifier returns a Verifier. It starts no goroutine.
func NewVerifier(p Policy, o VerifierOptions) (*Verifier, error) {
	if p.Tag == "" || p.MaxAge <= 0 || o.Key == nil || p.Skew < 0 {
		return nil, errors.New("a verifier needs a tag, a maximum age and keys")
	}
	v := &Verifier{policy: p, key: o.Key, usable: o.Usable, authority: o.Authority, now: o.Now}
	if v.now == nil {
		v.now = time.Now
	}
	if v.usable == nil {
		v.usable = func(string) *Error { return nil }
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
		return nil, fmt.Errorf("making the dummy key: %w", err)
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

// Verify finds the only signature with the policy's tag and verifies it. The error is
// nil or of type *[Error]. The caller must still claim the nonce and verify the content.
//
// For a response, m.Request is the request that it answers, and the caller must also
// compare the nonce with that of the request: see [Verifier.VerifyResponse].
func (v *Verifier) Verify(m *Message) (*Signature, error) {
	s := v.scratch.Get().(*scratch)
	defer v.scratch.Put(s)
	if err := s.find(m.Fields, v.policy.Tag); err != nil {
		return nil, err
	}
	return v.finish(m, s)
}

// VerifyTrailer is Verify for a signature in the trailers. Its label must be unique in
// the whole message, so it must differ from the labels in the head.
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

// VerifyResponse is Verify or VerifyTrailer for a response. The signature must have the
// nonce of the request, which must not be empty.
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

// Recheck checks a signature of m that this or another Verifier has verified before
// against this policy. The key with its id must still be the same key and usable, and
// coverage and authority must satisfy the policy. It does not check times, nonce or the
// signature itself again. The error is nil or of type *[Error].
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
		return fault(UnknownKey, "keyid "+quoted(id))
	case !key.Equal(signature.Key):
		return fault(BadSignature, "keyid "+quoted(id)+" is another key now")
	}
	if err := v.usable(id); err != nil {
		return err
	}
	return nil
}

// finish verifies the signature that find has selected.
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

// timely checks the parameters and times and returns the last second at which the
// signature is valid.
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
		return 0, fault(Future, strconv.FormatInt(in.created-now.Unix(), 10)+" s ahead, accepted are "+strconv.FormatInt(int64(v.policy.Skew/time.Second), 10)+" s")
	case now.Unix() > until && in.hasExpires && until == in.expires:
		return 0, fault(Stale, strconv.FormatInt(now.Unix()-in.created, 10)+" s old, expired "+strconv.FormatInt(now.Unix()-until, 10)+" s ago")
	case now.Unix() > until:
		return 0, fault(Stale, strconv.FormatInt(now.Unix()-in.created, 10)+" s old, accepted are "+strconv.FormatInt(int64(v.policy.MaxAge/time.Second), 10)+" s")
	}
	return until, nil
}

// covers checks that the signature covers all components that the policy requires.
func (v *Verifier) covers(m *Message, covered []component) *Error {
	for _, c := range v.require {
		if !has(covered, c) {
			return fault(Coverage, c.String()+" is not covered")
		}
	}
	for _, c := range v.ifPresent {
		if !has(covered, c) && m.present(c) {
			return fault(Coverage, c.String()+" is present and not covered")
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

// present reports whether the message has the field of a component.
func (m *Message) present(c component) bool {
	if c.flags&flagReq != 0 {
		if m = m.Request; m == nil {
			return true // fail closed: the request is not known
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

// forUs checks that a request is for an accepted authority.
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
		return fault(WrongAuthority, quoted(authority))
	}
	return nil
}

// algorithm returns the algorithm of a signature by its length. It needs no key, so a
// refusal here reveals nothing about keys.
func (v *Verifier) algorithm(in *input, size int) (Algorithm, *Error) {
	a := Algorithm("")
	switch {
	case v.hmac && size == HMACSHA256.size():
		a = HMACSHA256
	case v.edsa && size == Ed25519.size():
		a = Ed25519
	default:
		return "", fault(Malformed, "the signature does not have the length of an accepted algorithm")
	}
	if in.hasAlg && in.alg != string(a) {
		return "", fault(Malformed, "the parameter alg is not the signature's algorithm")
	}
	return a, nil
}

// quoted returns text from a message in quotes, cut to 64 characters, for the detail of an [Error].
func quoted(s string) string { return fmt.Sprintf("%.64q", s) }

// signedBy looks up the key and verifies the signature. If the key is unknown or has
// another algorithm, it verifies with a random dummy key to take the same time.
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
		return key, v.usable(id)
	}
	code := BadSignature
	if key == nil {
		code = UnknownKey
	}
	return nil, fault(code, "keyid "+quoted(id))
}
