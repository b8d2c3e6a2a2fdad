// Package upstream answers: did this request come through the gateway, unchanged?
// It is a handler for servers in Go that stand behind a sallyport which signs what
// it forwards. Copy it into your server.
package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sallyport/auth/httpsig"
)

// MaxContent is how much content is read before a request is handed on.
const MaxContent = 32 << 20

// Options are what [Require] needs.
type Options struct {
	Key       *httpsig.Key // the key that the gateway signs with for this upstream
	Authority string       // what the gateway calls this server: host, and port if it is not the default
	Scheme    string       // "https" or "http", as the gateway reaches it; "http" if empty

	// Identity are the lower-case names of the headers that say who calls, and that
	// must be signed, such as "x-sallyport-principal".
	Identity []string

	// Seen claims a signature until a time and reports whether it was claimed before.
	// It must be atomic. If nil, replays within a minute pass: the gateway has
	// stopped those of clients, but not those of who can reach this server.
	Seen func(claim [16]byte, until time.Time) bool

	Now func() time.Time // time.Now if nil
}

// Require lets only those requests through that the gateway signed and whose
// content is what it signed. Handlers behind it get the content whole.
func Require(o Options, next http.Handler) (http.Handler, error) {
	if o.Key == nil || o.Authority == "" {
		return nil, errors.New("a key and an authority are needed")
	}
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	policy := httpsig.ForwardPolicy(o.Identity...)
	policy.Algorithms = []httpsig.Algorithm{o.Key.Algorithm()}
	verifier, err := httpsig.NewVerifier(policy, httpsig.VerifierOptions{
		Key: func(id string) *httpsig.Key {
			if id == o.Key.ID() {
				return o.Key
			}
			return nil
		},
		Authority: func(a string) bool { return strings.EqualFold(a, o.Authority) },
		Now:       o.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("the gateway's signatures: %w", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := o.verify(verifier, r); err != nil {
			code := httpsig.BadSignature
			var refused *httpsig.Error
			if errors.As(err, &refused) {
				code = refused.Code.Public()
			}
			http.Error(w, code.Text(), http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}), nil
}

// verify reads no content before the signature holds.
func (o *Options) verify(v *httpsig.Verifier, r *http.Request) error {
	m := &httpsig.Message{Method: r.Method, Scheme: o.Scheme, Authority: r.Host, Fields: httpsig.Header(r.Header)}
	// The target as it was sent: net/http decodes the path in r.URL.
	m.Path, m.Query, m.HasQuery = strings.Cut(r.RequestURI, "?")
	s, err := v.Verify(m)
	if err != nil {
		return err
	}
	if o.Seen != nil && o.Seen(s.Claim, s.Until()) {
		return &httpsig.Error{Code: httpsig.Replayed}
	}
	digests, err := httpsig.ParseContentDigest(m.Fields)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, MaxContent))
	if err != nil {
		return err
	}
	r.Body.Close()
	r.Body = io.NopCloser(bytes.NewReader(content))
	return digests.Match(content)
}
