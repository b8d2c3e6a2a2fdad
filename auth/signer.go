package auth

import (
	"context"
	"errors"
	"fmt"
)

// signer returns the key that signed a token of the issuer. The error wraps errNotChecked if
// the keys are unavailable. Otherwise it is the cause for the audit record.
func (s *keySet) signer(ctx context.Context, iss *issuer, t *token) (*key, error) {
	found, err := s.resolve(ctx, t.kid, t.alg)
	switch {
	case errors.Is(err, errNotChecked):
		return nil, fmt.Errorf("issuer %s: %w", iss.name, err)
	case err != nil:
		return nil, iss.unknownKey(s, t, err)
	}
	k, refused := iss.signer(found, t)
	if refused == nil {
		return k, nil
	}
	// An issuer that lost its keys, as one that keeps them in memory does with each start, may
	// publish a new one under the same kid.
	switch again, changed, err := s.doubt(ctx, t.kid, t.alg, found); {
	case changed:
		return iss.signer(again, t)
	case err != nil:
		return nil, &unknownKeyError{refused.Error(), errors.Join(refused, errNotFetched)}
	}
	return nil, refused
}

// signer returns the one of the keys that signed a token, or the cause of its refusal.
func (iss *issuer) signer(found tries, t *token) (*key, error) {
	other := found.keepOwn(iss, t.registered.iss)
	if found.n == 0 {
		return nil, iss.foreignKey(other)
	}
	if k := found.signer(t); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("issuer %s: %w %s", iss.name, errSignature, found.inWords())
}

// doubt waits for a fetch, if one runs or is due, because the keys that were found refuse a
// token. changed reports whether other keys were found then. The error means that the keys
// were not fetched.
//
// Most such tokens are forged. They share the bound on fetches with unknown kids, and few
// of them wait. All others are refused at once, so that they hold no goroutines while the
// issuer hangs.
func (s *keySet) doubt(ctx context.Context, kid, alg string, before tries) (found tries, changed bool, err error) {
	if s.fixed != nil {
		return tries{}, false, nil
	}
	set := s.current.Load()
	if found, changed = set.other(kid, alg, before); changed { // a fetch has just ended
		return found, true, nil
	}
	if _, err := s.await(ctx, set, kid, needOther); err != nil {
		return tries{}, false, err
	}
	set = s.current.Load()
	if s.failing() || !s.usable(set, s.now()) {
		return tries{}, false, s.notChecked()
	}
	found, changed = set.other(kid, alg, before)
	return found, changed, nil
}

// other returns the keys that may have signed a token, and whether they are others than before.
func (s *keys) other(kid, alg string, before tries) (found tries, changed bool) {
	found, _, err := s.find(kid, alg)
	return found, err == nil && found != before
}

// need is why a request waits for a fetch of keys.
type need int

const (
	needKeys  need = iota // there are no usable keys
	needKid               // none of the keys has the token's kid
	needOther             // the keys that fit the token refuse it
)

func (n need) mostWaiting() int {
	if n == needOther {
		return maxDoubts
	}
	return maxWaiting
}
