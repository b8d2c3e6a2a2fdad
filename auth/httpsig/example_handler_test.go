package httpsig_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"sallyport/auth/httpsig"
)

// signedOnly forwards requests whose signature verifies, is not a replay and matches the
// content. It reads no content before it has verified the signature.
type signedOnly struct {
	verifier *httpsig.Verifier
	claims   claims
	next     func(w http.ResponseWriter, caller string, content []byte)
}

func (h *signedOnly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller, content, err := h.verified(r)
	var refused *httpsig.Error
	switch {
	case errors.As(err, &refused):
		status := http.StatusUnauthorized
		if refused.Code == httpsig.DigestMissing || refused.Code == httpsig.DigestMismatch {
			status = http.StatusBadRequest
		}
		http.Error(w, refused.Code.Public().Text(), status) // an unknown key looks like a bad signature
	case err != nil:
		http.Error(w, "the content cannot be read", http.StatusBadRequest)
	default:
		h.next(w, caller, content)
	}
}

func (h *signedOnly) verified(r *http.Request) (caller string, content []byte, err error) {
	m := &httpsig.Message{Method: r.Method, Scheme: "https", Authority: r.Host, Fields: httpsig.Header(r.Header)}
	// The target as it was sent: net/http decodes the path in r.URL.
	m.Path, m.Query, m.HasQuery = strings.Cut(r.RequestURI, "?")
	s, err := h.verifier.Verify(m)
	if err != nil {
		return "", nil, err
	}
	digests, err := httpsig.ParseContentDigest(m.Fields)
	if err != nil {
		return "", nil, err
	}
	// Refuse callers without permission here, before the claim.
	if !h.claims.claim(s.Claim, s.Until()) {
		return "", nil, &httpsig.Error{Code: httpsig.Replayed}
	}
	content, err = io.ReadAll(digests.NewReader(http.MaxBytesReader(nil, r.Body, 1<<20)))
	return s.Key.ID(), content, err
}

// claims stores the used signatures until they are stale.
type claims struct {
	mu   sync.Mutex // guards used
	used map[[16]byte]time.Time
}

// claim reports whether a signature is used for the first time. If the table is full it
// refuses, since evicting an entry would allow its replay.
func (c *claims) claim(id [16]byte, until time.Time) bool {
	const most = 100_000
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used == nil {
		c.used = make(map[[16]byte]time.Time)
	}
	if len(c.used) == most {
		for id, until := range c.used {
			if time.Now().After(until) {
				delete(c.used, id)
			}
		}
	}
	if _, again := c.used[id]; again || len(c.used) == most {
		return false
	}
	c.used[id] = until
	return true
}

// A handler that accepts signed requests, each once, with the signed content.
func ExampleVerifier() {
	key, err := httpsig.HMACKey("alice-2026-11", bytes.Repeat([]byte("64 random bytes "), 4))
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key:       func(id string) *httpsig.Key { return map[string]*httpsig.Key{key.ID(): key}[id] },
		Authority: func(a string) bool { return a == "models.example.com" },
	})
	if err != nil {
		log.Fatal(err)
	}
	handler := &signedOnly{verifier: verifier, next: func(w http.ResponseWriter, caller string, content []byte) {
		fmt.Fprintf(w, "%s sent %s", caller, content)
	}}

	signer, err := httpsig.NewSigner(httpsig.RequestProfile(), nil)
	if err != nil {
		log.Fatal(err)
	}
	header := http.Header{"Content-Digest": {httpsig.ContentDigest([]byte("two apples"))}}
	signed, err := signer.Sign(key, &httpsig.Message{Method: "POST", Scheme: "https", Authority: "models.example.com",
		Path: "/basket", Fields: httpsig.Header(header)}, "")
	if err != nil {
		log.Fatal(err)
	}
	header.Set("Signature-Input", signed.Input)
	header.Set("Signature", signed.Signature)

	send := func(target, content string) {
		r := httptest.NewRequest("POST", target, strings.NewReader(content))
		r.Host, r.Header = "models.example.com", header
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	send("/other", "two apples")
	send("/basket", "two apples")
	send("/basket", "two apples")
	handler.claims = claims{}
	send("/basket", "ten apples")
	// Output:
	// 401 the signature does not match
	// 200 alice-2026-11 sent two apples
	// 401 the signature was used before; sign each attempt anew
	// 400 the content does not match its digest
}
