package auth

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/auth/apikey"
	"sallyport/auth/identity"
)

// IsAPIKeyField reports whether a field, named in lower case, is only for API keys. Routes
// that list such callers never forward it.
func IsAPIKeyField(name string) bool { return name == "x-api-key" || name == "api-key" }

// HoldsAPIKey reports whether the value of a field of this lower-case name holds an API
// key where the gateway would read one. No upstream may get such a field.
func HoldsAPIKey(name, value string) bool {
	switch {
	case IsAPIKeyField(name):
		_, ok := apikey.Hash(value)
		return ok
	case name == "authorization":
		key, _ := keyInAuthorization(value)
		return key != ""
	case name == SubprotocolField:
		return holdsAPIKeyInSubprotocol(value)
	}
	return false
}

// keyInAuthorization returns the API key in a value of Authorization: after Bearer, or as
// the password after Basic (RFC 7617), where everything after the first colon is the
// password. "" means that the credential is of another kind. The prefix decides, so that a
// mistyped key is refused as one, and never reaches an issuer.
func keyInAuthorization(value string) (key string, err error) {
	scheme, raw, _ := strings.Cut(value, " ")
	raw = strings.TrimLeft(raw, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		if strings.HasPrefix(raw, apikey.Prefix) {
			return raw, nil
		}
	case strings.EqualFold(scheme, "Basic"):
		var buf basicBuffer
		text, _ := buf.decode(raw)
		user, password, _ := bytes.Cut(text, []byte(":"))
		switch {
		case bytes.HasPrefix(password, []byte(apikey.Prefix)):
			return string(password), nil
		case bytes.HasPrefix(user, []byte(apikey.Prefix)):
			return string(user), errKeyIsUser
		}
	}
	return "", nil
}

var (
	errKeyIsUser  = errors.New("the API key is Basic's user name; it must be the password")
	errNotAKey    = errors.New("not an API key: its form or checksum is wrong, as if it were cut off or mistyped")
	errSeveralKey = errors.New("more than one field with an API key")
)

// apiKeyOf returns the API key of a request. It does not accept one in the query, a cookie
// or the body, which end up in logs. Except for Basic it does not allocate.
func apiKeyOf(r *Request) (key, field string, err error) {
	head := r.Head
	if t := r.subprotocol; t != nil {
		if t.err != nil {
			return "", "", t.err
		}
		if t.isAPIKey() {
			key, field = t.raw, SubprotocolField
		}
	}
	for i := range head.Fields {
		f := &head.Fields[i]
		found, fault := "", error(nil)
		switch {
		case IsAPIKeyField(f.Name):
			found = f.Value
			if found == "" {
				fault = errNotAKey
			}
		case f.Name == "authorization":
			if found, fault = keyInAuthorization(f.Value); found == "" {
				continue
			}
		default:
			continue
		}
		switch {
		case field != "":
			return "", "", bad(errSeveralKey)
		case fault != nil:
			return "", "", &Error{Reason: APIKeyUnknown, Err: fault}
		}
		key, field = found, f.Name
	}
	switch {
	case field == "":
		return "", "", ErrNoCredential
	case tokenInQuery(head.Query):
		return "", "", bad(errors.New("a second token in the query"))
	}
	return key, field, nil
}

// apiKeys checks the API keys of the principals that a route lists.
type apiKeys struct {
	memory     *Memory
	table      *APIKeys
	principals []string // whose keys are accepted; nil: any
}

// newAPIKeys makes the authenticator for callers that are all "apikey/PRINCIPAL" or
// "apikey". A principal may have no key: a file that loses its last one still loads.
func (a *Auth) newAPIKeys(callers []string, _ *Demand) (Authenticator, error) {
	k := &apiKeys{memory: a.memory, table: a.apiKeys}
	if !slices.Contains(callers, "apikey") {
		for _, caller := range callers {
			k.principals = append(k.principals, strings.TrimPrefix(caller, "apikey/"))
		}
	}
	return k, nil
}

// Traits implements [Authenticator].
func (k *apiKeys) Traits() Traits { return Traits{Missing: NoCredential} }

// Challenge implements [Authenticator]. It asks for Bearer, which all clients know. It does
// not ask for Basic, at which browsers would show a window for passwords.
func (k *apiKeys) Challenge(realm string, e *Error) string { return bearerChallenge(realm, e) }

// Authenticate implements [Authenticator].
func (k *apiKeys) Authenticate(_ context.Context, r *Request) (Proof, error) {
	return k.prove(r, k.memory.budgetOf(r))
}

// Recheck implements [Authenticator]: the key is looked up as if it were new.
func (k *apiKeys) Recheck(_ context.Context, r *Request, _ Proof) (Proof, error) {
	return k.prove(r, nil)
}

// prove looks the key of a request up. Failures are charged to the budget, but a known key
// never depends on it: a forger must not lock out callers behind the same address.
func (k *apiKeys) prove(r *Request, budget *budget) (Proof, error) {
	raw, field, err := apiKeyOf(r)
	if err != nil {
		return Proof{}, err
	}
	var found *apiKey
	hash, ok := apikey.Hash(raw)
	// A look-up in a map takes a time that depends on the hash. That tells a guesser
	// nothing, since a key has 256 random bits, and the hash shows none of them.
	if ok {
		found = k.table.byHash[hash]
	}
	now := k.memory.now()
	switch {
	case found != nil && k.accepts(found):
		if end := found.principal.Expires; !end.IsZero() && !now.Before(end) {
			return Proof{}, &Error{Reason: APIKeyExpired, KeyID: found.principal.KeyID,
				Err: fmt.Errorf("API key %s ended at %s", found.principal.KeyID, end.UTC().Format(time.RFC3339))}
		}
		return Proof{Caller: found.principal, Field: field, Limited: found.limited}, nil
	case !budget.left(r.Peer, now):
		return Proof{}, tooManyFailures(budget, r.Peer)
	}
	budget.charge(r.Peer, now)
	e := &Error{Reason: APIKeyUnknown}
	switch {
	case found != nil:
		// The client must not learn that another route accepts the key.
		e.Err = fmt.Errorf("the route does not list %s, whose key %s is", found.principal.String(), found.principal.KeyID)
	case ok:
		e.Err = fmt.Errorf("no API key has a hash that begins with %s%s", apikey.HashPrefix, hex.EncodeToString(hash[:hashShown]))
	default:
		e.Err = errNotAKey
	}
	return Proof{}, e
}

// accepts reports whether the route accepts the key's principal.
func (k *apiKeys) accepts(key *apiKey) bool {
	return k.principals == nil || slices.Contains(k.principals, key.principal.Name)
}

// qualifiedKey returns the principal that a key of this name and hash proves until a time.
func qualifiedKey(name string, c *APIKeyConfig, hash []byte, until time.Time) identity.Principal {
	p := identity.Principal{Source: "apikey", Name: c.PrincipalOr(name), Groups: slices.Clone(c.Groups), Expires: until}
	p.KeyID = secretID(name, hash)
	p.Qualify()
	return p
}
