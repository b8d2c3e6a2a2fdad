package httpsig

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Algorithm is the registered name of a signature algorithm.
type Algorithm string

// The algorithms.
const (
	HMACSHA256 Algorithm = "hmac-sha256"
	Ed25519    Algorithm = "ed25519"
)

// size returns the length of a signature in bytes, 0 for an unknown algorithm. Each
// algorithm has another size, so the length identifies the algorithm.
func (a Algorithm) size() int {
	switch a {
	case HMACSHA256:
		return sha256.Size
	case Ed25519:
		return ed25519.SignatureSize
	}
	return 0
}

// MinSecret is the minimum length of a secret in bytes.
const MinSecret = 32

// Key is a key with its id and its algorithm. Printing it never shows key material. It
// is safe for concurrent use. The zero Key signs and verifies nothing.
type Key struct {
	id        string
	algorithm Algorithm
	macs      *sync.Pool // of hash.Hash, each an HMAC with its precomputed inner and outer state
	private   ed25519.PrivateKey
	public    ed25519.PublicKey
}

// HMACKey returns a key for a shared secret of at least [MinSecret] bytes; 64 random
// bytes are best. The id must have 1 to 128 bytes of printable ASCII without quotes and
// backslashes.
func HMACKey(id string, secret []byte) (*Key, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("key %q: the secret has %d bytes, want at least %d", id, len(secret), MinSecret)
	}
	own := append([]byte(nil), secret...)
	macs := &sync.Pool{New: func() any {
		h := hmac.New(sha256.New, own)
		h.Reset() // makes hmac save the state after the key, for later Resets
		return h
	}}
	return &Key{id: id, algorithm: HMACSHA256, macs: macs}, nil
}

// Ed25519Key returns a key that signs and verifies. For the id see [HMACKey].
func Ed25519Key(id string, private ed25519.PrivateKey) (*Key, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("key %q: the private key has %d bytes, want %d", id, len(private), ed25519.PrivateKeySize)
	}
	own := append(ed25519.PrivateKey(nil), private...)
	return &Key{id: id, algorithm: Ed25519, private: own, public: own.Public().(ed25519.PublicKey)}, nil
}

// Ed25519PublicKey returns a key that verifies and cannot sign. For the id see
// [HMACKey].
func Ed25519PublicKey(id string, public ed25519.PublicKey) (*Key, error) {
	if err := validID(id); err != nil {
		return nil, err
	}
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("key %q: the public key has %d bytes, want %d", id, len(public), ed25519.PublicKeySize)
	}
	return &Key{id: id, algorithm: Ed25519, public: append(ed25519.PublicKey(nil), public...)}, nil
}

func validID(id string) error {
	if id == "" || len(id) > maxKeyID {
		return fmt.Errorf("id of %d bytes: want 1 to %d", len(id), maxKeyID)
	}
	for i := 0; i < len(id); i++ {
		if c := id[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return fmt.Errorf("id %q: want printable ASCII without quotes and backslashes", id)
		}
	}
	return nil
}

// ID returns the key's id.
func (k *Key) ID() string { return k.id }

// Algorithm returns the key's algorithm.
func (k *Key) Algorithm() Algorithm { return k.algorithm }

// Equal reports whether both keys have the same id and algorithm and verify the same
// signatures. It compares secrets in constant time.
func (k *Key) Equal(o *Key) bool {
	switch {
	case k.id != o.id || k.algorithm != o.algorithm:
		return false
	case k.macs != nil:
		const text = "sallyport: are two secrets the same?"
		return hmac.Equal(k.mac(nil, []byte(text)), o.mac(nil, []byte(text)))
	}
	return k.public.Equal(o.public)
}

// String returns the algorithm and id, never key material.
func (k *Key) String() string { return fmt.Sprintf("%s key %q", k.algorithm, k.id) }

// Format prints String for every verb, so that none prints key material.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// sign appends the signature of a base.
func (k *Key) sign(dst, base []byte) ([]byte, error) {
	switch {
	case k.macs != nil:
		return k.mac(dst, base), nil
	case k.private != nil:
		return append(dst, ed25519.Sign(k.private, base)...), nil
	}
	return dst, errors.New("the key cannot sign")
}

// mac appends the HMAC of a base.
func (k *Key) mac(dst, base []byte) []byte {
	h := k.macs.Get().(hash.Hash)
	h.Reset()
	h.Write(base)
	dst = h.Sum(dst)
	k.macs.Put(h)
	return dst
}

// verify reports whether a signature of the right length is valid. scratch is a buffer
// for the expected MAC.
func (k *Key) verify(base, signature, scratch []byte) bool {
	switch {
	case k.macs != nil:
		return hmac.Equal(k.mac(scratch[:0], base), signature)
	case k.public != nil:
		return ed25519.Verify(k.public, base, signature)
	}
	return false
}
