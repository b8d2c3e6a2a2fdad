package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"sallyport/auth/httpsig"
)

// readKey reads a key from a file or, written env:NAME, from an environment variable. No
// error contains key material.
func readKey(id, from string) (*httpsig.Key, error) {
	var text []byte
	if name, ok := strings.CutPrefix(from, "env:"); ok {
		if text = []byte(os.Getenv(name)); len(text) == 0 {
			return nil, fmt.Errorf("reading the key: the variable %s is not set", name)
		}
	} else {
		var err error
		if text, err = os.ReadFile(from); err != nil {
			return nil, fmt.Errorf("reading the key: %w", err)
		}
	}
	if block, _ := pem.Decode(text); block != nil {
		return pemKey(id, block)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("reading the key from %s: neither base64 nor PEM", from)
	}
	return httpsig.HMACKey(id, secret)
}

func pemKey(id string, block *pem.Block) (*httpsig.Key, error) {
	switch block.Type {
	case "PRIVATE KEY":
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := key.(ed25519.PrivateKey); ok {
				return httpsig.Ed25519Key(id, private)
			}
		}
	case "PUBLIC KEY":
		if key, err := x509.ParsePKIXPublicKey(block.Bytes); err == nil {
			if public, ok := key.(ed25519.PublicKey); ok {
				return httpsig.Ed25519PublicKey(id, public)
			}
		}
	}
	return nil, errors.New("reading the key: the PEM holds no Ed25519 key")
}

// readPublic reads Ed25519 public keys: one key in PEM, which matches any id, or a JWK set
// as gateways publish it.
func readPublic(name string) (func(id string) *httpsig.Key, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		key, err := readKey("any", name)
		if err != nil {
			return nil, err
		}
		if key.Algorithm() != httpsig.Ed25519 {
			return nil, fmt.Errorf("reading the public key: %s holds a secret", name)
		}
		return func(id string) *httpsig.Key {
			key, err := readKey(id, name)
			if err != nil {
				return nil
			}
			return key
		}, nil
	}
	var set struct {
		Keys []struct {
			Kty, Crv, Kid, X string
		} `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("reading the public key: %s: %w", name, err)
	}
	keys := make(map[string]*httpsig.Key)
	for _, k := range set.Keys {
		if k.Kty != "OKP" || k.Crv != "Ed25519" {
			continue
		}
		public, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil {
			return nil, fmt.Errorf("reading the public key: %s: key %q: x is not base64url", name, k.Kid)
		}
		if keys[k.Kid], err = httpsig.Ed25519PublicKey(k.Kid, ed25519.PublicKey(public)); err != nil {
			return nil, fmt.Errorf("reading the public key: %s: %w", name, err)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("reading the public key: %s holds none for Ed25519", name)
	}
	return func(id string) *httpsig.Key { return keys[id] }, nil
}
