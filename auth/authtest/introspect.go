package authtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
)

// introspection is the part of an [Issuer] that answers about tokens (RFC 7662).
type introspection struct {
	asked   atomic.Int64
	instead atomic.Pointer[http.Handler]

	mu     sync.Mutex // guards the fields below
	tokens map[string]map[string]any
	last   LookUp
}

// LookUp is a request for introspection.
type LookUp struct {
	Header http.Header
	Form   url.Values
}

// Know makes the issuer answer that a token is active, with these claims. Nil claims revoke
// the token.
func (i *Issuer) Know(token string, claims map[string]any) {
	i.introspection.mu.Lock()
	defer i.introspection.mu.Unlock()
	if i.introspection.tokens == nil {
		i.introspection.tokens = map[string]map[string]any{}
	}
	if claims == nil {
		delete(i.introspection.tokens, token)
		return
	}
	i.introspection.tokens[token] = maps.Clone(claims)
}

// LookUps returns the number of requests for introspection.
func (i *Issuer) LookUps() int64 { return i.introspection.asked.Load() }

// LastLookUp returns the last request for introspection.
func (i *Issuer) LastLookUp() LookUp {
	i.introspection.mu.Lock()
	defer i.introspection.mu.Unlock()
	return i.introspection.last
}

// AnswerLookUps makes h answer requests for introspection instead of the issuer. Nil undoes
// that. [http.Request.PostForm] is already parsed.
func (i *Issuer) AnswerLookUps(h http.Handler) {
	if h == nil {
		i.introspection.instead.Store(nil)
		return
	}
	i.introspection.instead.Store(&h)
}

// About returns the answer about a token, in JSON.
func (i *Issuer) About(token string) string {
	i.introspection.mu.Lock()
	defer i.introspection.mu.Unlock()
	answer := map[string]any{"active": false}
	if claims, known := i.introspection.tokens[token]; known {
		answer["active"] = true
		maps.Copy(answer, claims)
	}
	return string(must(json.Marshal(answer)))
}

func (i *Issuer) introspect(w http.ResponseWriter, r *http.Request) {
	i.introspection.asked.Add(1)
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	i.introspection.mu.Lock()
	i.introspection.last = LookUp{r.Header.Clone(), r.PostForm}
	i.introspection.mu.Unlock()
	if instead := i.introspection.instead.Load(); instead != nil {
		(*instead).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, i.About(r.PostForm.Get("token")))
}
