package httpsig

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Profile lists the components and parameters of signatures. Components are written as
// in a [Policy].
type Profile struct {
	Tag       string
	Label     string   // in the message; "sp" if empty
	Cover     []string // covered in this order; signing fails if the message lacks one
	IfPresent []string // fields covered after Cover if the message has them

	Lifetime time.Duration // whole seconds from created to expires; 0: no expires
	Nonce    bool          // make a nonce if the caller gives none
	Alg      bool          // add the parameter alg, which some peers require
}

// Signed is a signature to send: the values of two fields.
type Signed struct {
	Input     string // of Signature-Input
	Signature string // of Signature
	Nonce     string // "" if there is none
	Created   time.Time
}

// Signer makes signatures with one profile. It is safe for concurrent use.
type Signer struct {
	profile   Profile
	cover     []component
	ifPresent []component
	now       func() time.Time
	scratch   sync.Pool // of *signing
}

// signing is the working memory of one signature.
type signing struct {
	input
	base, out []byte
	mac       [64]byte
	random    [16]byte
	nonceAt   [2]int // begin and end within the parameters; 0, 0: none
}

// NewSigner returns a Signer; now is time.Now if nil.
func NewSigner(p Profile, now func() time.Time) (*Signer, error) {
	s := &Signer{profile: p, now: now}
	if now == nil {
		s.now = time.Now
	}
	if p.Label == "" {
		s.profile.Label = "sp"
	}
	label := parser{s: s.profile.Label}
	if _, ok := label.key(); !ok || !label.end() {
		return nil, fmt.Errorf("label %q: want lower-case letters, digits and hyphens", p.Label)
	}
	if p.Tag == "" || validID(p.Tag) != nil {
		return nil, fmt.Errorf("tag %q: want printable ASCII", p.Tag)
	}
	if p.Lifetime < 0 {
		return nil, fmt.Errorf("lifetime %s: want none or a positive one", p.Lifetime)
	}
	var err error
	if s.cover, err = parseComponents(p.Cover); err != nil {
		return nil, err
	}
	if s.ifPresent, err = parseComponents(p.IfPresent); err != nil {
		return nil, err
	}
	for _, c := range s.ifPresent {
		if has(s.cover, c) {
			return nil, fmt.Errorf("component %q is in both Cover and IfPresent", c)
		}
	}
	if len(s.cover)+len(s.ifPresent) > maxComponents {
		return nil, fmt.Errorf("more than %d components", maxComponents)
	}
	s.scratch.New = func() any { return &signing{base: make([]byte, 0, 1<<10), out: make([]byte, 0, 512)} }
	return s, nil
}

// Sign signs a message. A nonce that is not empty is used as it is; otherwise Sign makes
// one if the profile says so. The caller must set Content-Digest before, and Request for
// a response.
func (s *Signer) Sign(key *Key, m *Message, nonce string) (Signed, error) {
	if nonce != "" && !validNonce(nonce) {
		return Signed{}, errors.New("signing: the given nonce is not valid")
	}
	w := s.scratch.Get().(*signing)
	defer s.scratch.Put(w)
	now := s.now()
	label := len(s.profile.Label) + 1
	w.out = append(append(w.out[:0], s.profile.Label...), '=')
	from := len(w.out)
	if err := s.describe(w, key, m, now, nonce); err != nil {
		return Signed{}, err
	}
	w.text = append(w.text[:0], w.out[label:]...)
	base, fault := appendBase(w.base[:0], m, &w.input)
	if w.base = base; fault != nil {
		return Signed{}, fmt.Errorf("signing: %s", fault.Detail)
	}
	mac, err := key.sign(w.mac[:0], w.base)
	if err != nil {
		return Signed{}, fmt.Errorf("signing with %s: %w", key, err)
	}
	end := len(w.out)
	w.out = append(append(w.out, s.profile.Label...), "=:"...)
	w.out = base64.StdEncoding.AppendEncode(w.out, mac)
	w.out = append(w.out, ':')
	all := string(w.out) // one allocation for both values
	signed := Signed{Input: all[:end], Signature: all[end:], Created: time.Unix(now.Unix(), 0)}
	if at := w.nonceAt; at[1] > 0 {
		signed.Nonce = all[from+at[0] : from+at[1]]
	}
	return signed, nil
}

// describe appends the components and parameters to w.out.
func (s *Signer) describe(w *signing, key *Key, m *Message, now time.Time, nonce string) error {
	w.n, w.nonceAt = 0, [2]int{}
	from := len(w.out)
	w.out = append(w.out, '(')
	add := func(c component) {
		if w.n > 0 {
			w.out = append(w.out, ' ')
		}
		w.from[w.n] = len(w.out) - from
		w.out = c.appendTo(w.out)
		w.to[w.n] = len(w.out) - from
		w.components[w.n] = c
		w.n++
	}
	for _, c := range s.cover {
		add(c)
	}
	for _, c := range s.ifPresent {
		if m.present(c) {
			add(c)
		}
	}
	w.out = append(w.out, ");created="...)
	w.out = strconv.AppendInt(w.out, now.Unix(), 10)
	if life := int64(s.profile.Lifetime / time.Second); life > 0 {
		w.out = append(w.out, ";expires="...)
		w.out = strconv.AppendInt(w.out, now.Unix()+life, 10)
	}
	if nonce != "" || s.profile.Nonce {
		w.out = append(w.out, `;nonce="`...)
		begin := len(w.out) - from
		if nonce != "" {
			w.out = append(w.out, nonce...)
		} else {
			if _, err := rand.Read(w.random[:]); err != nil {
				return fmt.Errorf("making a nonce: %w", err)
			}
			w.out = base64.RawURLEncoding.AppendEncode(w.out, w.random[:])
		}
		w.nonceAt = [2]int{begin, len(w.out) - from}
		w.out = append(w.out, '"')
	}
	w.out = appendParam(w.out, `;keyid="`, key.id)
	if s.profile.Alg {
		w.out = appendParam(w.out, `;alg="`, string(key.algorithm))
	}
	w.out = appendParam(w.out, `;tag="`, s.profile.Tag)
	return nil
}

func appendParam(dst []byte, name, value string) []byte {
	return append(append(append(dst, name...), value...), '"')
}
