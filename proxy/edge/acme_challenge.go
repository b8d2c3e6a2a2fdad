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

// challenges are those that an authority is about to check: nothing else is ever
// answered. They lie in the storage too, so that whichever process with the same
// storage is asked can answer.
type challenges struct {
	storage *certStorage

	mu     sync.Mutex                  // guards what follows
	names  []string                    // that certificates are had for, sorted; others are not looked for
	tokens map[string]acme.Challenge   // of HTTP-01, by token
	certs  map[string]*tls.Certificate // of TLS-ALPN-01, by name
}

func newChallenges(storage *certStorage, names []string) *challenges {
	return &challenges{storage: storage, names: names, tokens: map[string]acme.Challenge{}, certs: map[string]*tls.Certificate{}}
}

// setNames changes for which names challenges are answered. names must be sorted.
func (s *challenges) setNames(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = names
}

// has says whether challenges are answered for a name. The caller holds mu.
func (s *challenges) has(name string) bool {
	_, ok := slices.BinarySearch(s.names, name)
	return ok
}

// errBadToken refuses what an authority must not send: it would name files.
var errBadToken = errors.New("the authority sent a token that is none")

// Keys in the storage.
func tokenKey(token string) string { return "challenges/http-" + token + ".json" }
func alpnKey(name string) string   { return "challenges/tls-" + name + ".json" }

// httpSolver answers on listen.http.
type httpSolver struct{ *challenges }

// Present makes the answer ready.
func (s httpSolver) Present(ctx context.Context, c acme.Challenge) error {
	if !validToken(c.Token) {
		return errBadToken
	}
	s.mu.Lock()
	s.tokens[c.Token] = c
	s.mu.Unlock()
	return s.save(ctx, tokenKey(c.Token), c)
}

// CleanUp forgets the answer.
func (s httpSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	s.mu.Lock()
	delete(s.tokens, c.Token)
	s.mu.Unlock()
	if !validToken(c.Token) {
		return nil
	}
	return s.storage.Delete(context.WithoutCancel(ctx), tokenKey(c.Token))
}

// tlsSolver answers on listen.https.
type tlsSolver struct{ *challenges }

// Present makes the answer ready.
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

// CleanUp forgets the answer.
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

// load reads a challenge that another process is to meet; false if there is none.
func (s *challenges) load(key string) (c acme.Challenge, ok bool) {
	b, err := s.storage.Load(context.Background(), key)
	if err != nil || json.Unmarshal(b, &c) != nil {
		return acme.Challenge{}, false
	}
	return c, c.KeyAuthorization != ""
}

// challengePath is where HTTP-01 asks (RFC 8555, section 8.3).
const challengePath = "/.well-known/acme-challenge/"

// answer is what HTTP-01 must find at a path of a host; false if nothing is
// pending there.
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

// validToken says whether a token has the form of one: base64url (RFC 8555,
// section 8.1), which can name no other file.
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

// certificate is what TLS-ALPN-01 must find for a name; nil if nothing is pending.
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

// isValidation says whether a handshake is that of TLS-ALPN-01, which offers its
// protocol alone (RFC 8737, section 3).
func isValidation(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}

// validationConfig is the config for a validator's handshake: it shows the
// certificate of the pending order, and asks for none.
func validationConfig(cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{acmez.ACMETLS1Protocol},
		Certificates:           []tls.Certificate{*cert},
		SessionTicketsDisabled: true,
	}
}

// ChallengeAnswer is what has to be answered to a request for the path of the
// host over plain HTTP, so that an authority sees that the host is ours; false if
// no order that asks for it is pending. It is safe for concurrent use.
func (e *Edge) ChallengeAnswer(host, path string) (text string, ok bool) {
	acme := e.view.Load().acme
	if acme == nil {
		return "", false
	}
	return acme.challenges.answer(host, path)
}
