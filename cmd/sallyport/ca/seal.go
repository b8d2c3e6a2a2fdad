package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/scrypt"
)

// A sealed key is a PEM block whose bytes are a salt and the PKCS#8 key under AES-256-GCM with a
// random nonce, by the key that scrypt makes of the passphrase and the salt. The header names the
// parameters and is authenticated.
const (
	sealedType   = "SALLYPORT SEALED PRIVATE KEY"
	sealedHeader = "Seal"
	sealedBy     = "scrypt-131072-8-1 aes-256-gcm"
	saltBytes    = 16
)

// errPassphrase says that the passphrase is wrong, or that the file was changed.
var errPassphrase = errors.New("the passphrase is wrong, or the file was changed")

// seal encrypts a key in PKCS#8.
func seal(der []byte, passphrase string) (*pem.Block, error) {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	gcm, err := sealCipher(passphrase, salt)
	if err != nil {
		return nil, err
	}
	sealed := gcm.Seal(salt, nil, der, []byte(sealedBy))
	return &pem.Block{Type: sealedType, Headers: map[string]string{sealedHeader: sealedBy}, Bytes: sealed}, nil
}

// unseal decrypts what seal made. It returns errPassphrase if that fails.
func unseal(b *pem.Block, passphrase string) ([]byte, error) {
	if b.Headers[sealedHeader] != sealedBy || len(b.Bytes) < saltBytes {
		return nil, fmt.Errorf("it is not sealed by %s", sealedBy)
	}
	gcm, err := sealCipher(passphrase, b.Bytes[:saltBytes])
	if err != nil {
		return nil, err
	}
	der, err := gcm.Open(nil, nil, b.Bytes[saltBytes:], []byte(sealedBy))
	if err != nil {
		return nil, errPassphrase
	}
	return der, nil
}

func sealCipher(passphrase string, salt []byte) (cipher.AEAD, error) {
	key, err := scrypt.Key([]byte(passphrase), salt, 1<<17, 8, 1, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
