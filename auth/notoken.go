package auth

import "errors"

// errNoBearer is the cause of a refusal of Authorization that says Bearer and has no token: nothing, or what
// scripts write there for a value that they do not have. No issuer gives out such a token, so nobody has failed to
// prove who they are.
var errNoBearer = errors.New("no token after Bearer")

// isNoToken reports whether the text after Bearer is that of JavaScript for no token, as in
// `Bearer ${token}`.
func isNoToken(text string) bool {
	switch text {
	case "", "undefined", "null", "[object Object]", "[object Promise]":
		return true
	}
	return false
}

// onlySession reports whether a session is all that a request proves. Then it counts beside an Authorization
// with no token, as it does without that field. No other credential does: programs have those, and a program
// whose token got lost must learn of it.
func onlySession(all []proven, joined *Proof) bool {
	return len(all) == 1 && joined.Session != nil
}
