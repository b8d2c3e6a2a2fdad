package login

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	keySize   = 32
	maxKeys   = 8
	keyIDSize = 4 // bytes before each sealed text, which say what key sealed it
	nonceSize = 24
	tagSize   = 16

	sealOverhead = keyIDSize + nonceSize + tagSize
)

// Keys seal cookies. The first key seals, and all of them open, so that a key can be replaced while
// sessions last: put the new key first, and remove the old one after the longest session.
type Keys struct{ all []*sealKey }

// sealKey is a key of XAES-256-GCM (C2SP). A key of AES-GCM alone would wear out after 2^32 random
// nonces; this one derives another key from each nonce of 24 bytes.
type sealKey struct {
	id    [keyIDSize]byte
	block cipher.Block
	k1    [aes.BlockSize]byte // subkey of CMAC
}

// newSealKey returns the key of keySize bytes.
func newSealKey(raw []byte) *sealKey {
	block, _ := aes.NewCipher(raw) // never fails with this length
	k := &sealKey{block: block}
	sum := sha256.Sum256(append([]byte("sallyport key id\x00"), raw...))
	copy(k.id[:], sum[:])
	block.Encrypt(k.k1[:], k.k1[:])
	msb := byte(0)
	for i := len(k.k1) - 1; i >= 0; i-- {
		msb, k.k1[i] = k.k1[i]>>7, k.k1[i]<<1|msb
	}
	k.k1[len(k.k1)-1] ^= msb * 0x87
	return k
}

// derive returns the AES-GCM of one nonce, by two blocks of CMAC over a counter (NIST SP 800-108).
func (k *sealKey) derive(nonce []byte) cipher.AEAD {
	var derived [keySize]byte
	for i := range 2 {
		half := derived[i*aes.BlockSize : (i+1)*aes.BlockSize]
		half[1], half[2] = byte(i+1), 'X'
		copy(half[4:], nonce[:12])
		for j := range half {
			half[j] ^= k.k1[j]
		}
		k.block.Encrypt(half, half)
	}
	block, _ := aes.NewCipher(derived[:]) // never fails with this length
	aead, _ := cipher.NewGCM(block)       // nor does this with AES
	return aead
}

// ParseKeys reads the text of a file of keys: 32 bytes in base64 a line. Lines that are empty or begin
// with # are skipped. Errors do not repeat the text.
func ParseKeys(text []byte) (*Keys, error) {
	keys := &Keys{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "=")))
		if err != nil || len(raw) != keySize {
			return nil, fmt.Errorf("line %d is not a key of %d bytes in base64", n, keySize)
		}
		if distinct(raw) < keySize/4 {
			return nil, fmt.Errorf("line %d is a key that somebody made up: anyone can guess it", n)
		}
		k := newSealKey(raw)
		for _, other := range keys.all {
			if other.id == k.id {
				return nil, fmt.Errorf("line %d repeats a key", n)
			}
		}
		if keys.all = append(keys.all, k); len(keys.all) > maxKeys {
			return nil, fmt.Errorf("more than %d keys: remove those that have sealed no living session", maxKeys)
		}
	}
	if len(keys.all) == 0 {
		return nil, errors.New("there is no key")
	}
	return keys, nil
}

// distinct returns how many different bytes a key has. A random one has fewer than a quarter of its length
// once in 10^36.
func distinct(raw []byte) int {
	seen := map[byte]bool{}
	for _, b := range raw {
		seen[b] = true
	}
	return len(seen)
}

// NewKey returns a new key as a line of the file that [ParseKeys] reads.
func NewKey() string {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

// seal appends the sealed text to dst: key id, nonce, and the encrypted text with its tag. It opens
// only with the same additional data.
func (k *Keys) seal(dst, text, additional []byte) []byte {
	key := k.all[0]
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails
	dst = append(append(dst, key.id[:]...), nonce[:]...)
	return key.derive(nonce[:]).Seal(dst, nonce[12:], text, additional)
}

var (
	errCut     = errors.New("it is too short")
	errRetired = errors.New("it was sealed with a key that session.keys lacks")
	errForged  = errors.New("it was changed, or sealed for another host, login or purpose")
)

// open returns the text of a sealed one, which it overwrites.
func (k *Keys) open(sealed, additional []byte) ([]byte, error) {
	if len(sealed) < sealOverhead {
		return nil, errCut
	}
	for _, key := range k.all {
		if !bytes.Equal(key.id[:], sealed[:keyIDSize]) {
			continue
		}
		nonce := sealed[keyIDSize : keyIDSize+nonceSize]
		body := sealed[keyIDSize+nonceSize:]
		text, err := key.derive(nonce).Open(body[:0], nonce[12:], body, additional)
		if err != nil {
			return nil, errForged
		}
		return text, nil
	}
	return nil, errRetired
}
