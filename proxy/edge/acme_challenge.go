package edge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// challenges holds the pending challenges; no others are answered. They are in the storage
// too, so that any process with the same storage can answer.
type challenges struct {
	storage *certStorage

	mu     sync.Mutex                  // guards the fields below
	names  []string                    // names that may have pending challenges, sorted
	tokens map[string]acme.Challenge   // HTTP-01 challenges by token
	certs  map[string]*tls.Certificate // TLS-ALPN-01 certificates by name
}

func newChallenges(storage *certStorage, names []string) *challenges {
	return &challenges{storage: storage, names: names, tokens: map[string]acme.Challenge{}, certs: map[string]*tls.Certificate{}}
}

// setNames sets the names that may have pending challenges. names must be sorted.
func (s *challenges) setNames(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = names
}

// has reports whether a name may have pending challenges. The caller holds mu.
func (s *challenges) has(name string) bool {
	_, ok := slices.BinarySearch(s.names, name)
	return ok
}

// errBadToken rejects malformed tokens: a token becomes part of a file name.
var errBadToken = errors.New("the authority sent a malformed token")

// Storage keys of challenges.
func tokenKey(token string) string { return "challenges/http-" + token + ".json" }
func alpnKey(name string) string   { return "challenges/tls-" + name + ".json" }

// httpSolver answers HTTP-01 challenges on listen.http.
type httpSolver struct{ *challenges }

// Present stores the answer.
func (s httpSolver) Present(ctx context.Context, c acme.Challenge) error {
	if !validToken(c.Token) {
		return errBadToken
	}
	s.mu.Lock()
	s.tokens[c.Token] = c
	s.mu.Unlock()
	return s.save(ctx, tokenKey(c.Token), c)
}

// CleanUp removes the answer.
func (s httpSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	s.mu.Lock()
	delete(s.tokens, c.Token)
	s.mu.Unlock()
	if !validToken(c.Token) {
		return nil
	}
	return s.storage.Delete(context.WithoutCancel(ctx), tokenKey(c.Token))
}

// tlsSolver answers TLS-ALPN-01 challenges on listen.https.
type tlsSolver struct{ *challenges }

// Present stores the answer.
func (s tlsSolver) Present(ctx context.Context, c acme.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.certs[c.Identifier.Value] = cert
	s.mu.Unlock()
	return s.save(ctx, alpnKey(c.Identifier.Value), c)
}

// CleanUp removes the answer.
func (s tlsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	s.mu.Lock()
	delete(s.certs, c.Identifier.Value)
	s.mu.Unlock()
	return s.storage.Delete(context.WithoutCancel(ctx), alpnKey(c.Identifier.Value))
}

func (s *challenges) save(ctx context.Context, key string, c acme.Challenge) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return s.storage.Store(ctx, key, b)
}

// load reads a challenge of another process from the storage.
func (s *challenges) load(key string) (c acme.Challenge, ok bool) {
	b, err := s.storage.Load(context.Background(), key)
	if err != nil || json.Unmarshal(b, &c) != nil {
		return acme.Challenge{}, false
	}
	return c, c.KeyAuthorization != ""
}

// challengePath is the path prefix of HTTP-01 requests (RFC 8555, section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// answer returns the HTTP-01 response for a path of a host; false if no challenge is pending
// there.
func (s *challenges) answer(host, path string) (string, bool) {
	token, ok := strings.CutPrefix(path, challengePath)
	if !ok || !validToken(token) {
		return "", false
	}
	s.mu.Lock()
	known := s.has(host)
	c, ok := s.tokens[token]
	s.mu.Unlock()
	if !known {
		return "", false
	}
	if !ok {
		c, ok = s.load(tokenKey(token))
	}
	if !ok || c.Token != token || c.Identifier.Value != host {
		return "", false
	}
	return c.KeyAuthorization, true
}

// validToken reports whether a token is base64url (RFC 8555, section 8.1) of sane length, so
// that it cannot name another file.
func validToken(token string) bool {
	if len(token) < 16 || len(token) > 128 {
		return false
	}
	for i := range len(token) {
		c := token[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// certificate returns the TLS-ALPN-01 certificate for a name; nil if no challenge is pending.
func (s *challenges) certificate(name string) *tls.Certificate {
	s.mu.Lock()
	known, cert := s.has(name), s.certs[name]
	s.mu.Unlock()
	switch {
	case !known:
		return nil
	case cert != nil:
		return cert
	}
	c, ok := s.load(alpnKey(name))
	if !ok || c.Identifier.Value != name {
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return nil
	}
	return cert
}

// isValidation reports whether a handshake is a TLS-ALPN-01 validation, which offers only the
// acme-tls/1 protocol (RFC 8737, section 3).
func isValidation(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}

// validationConfig is the TLS config for a validator's handshake.
func validationConfig(cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{acmez.ACMETLS1Protocol},
		Certificates:           []tls.Certificate{*cert},
		SessionTicketsDisabled: true,
	}
}

// ChallengeAnswer returns the HTTP-01 response for the path of a host; false if no challenge
// is pending there. It is safe for concurrent use.
func (e *Edge) ChallengeAnswer(host, path string) (text string, ok bool) {
	acme := e.view.Load().acme
	if acme == nil {
		return "", false
	}
	return acme.challenges.answer(host, path)
}
