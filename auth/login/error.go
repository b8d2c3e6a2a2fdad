package login

import (
	"errors"
	"net/http"
	"slices"
)

// The reasons of an [Error] are a closed set.
const (
	// Of a login that did not succeed.
	StateMismatch   = "login_state"       // the answer is not to a login that this browser began, or it was used before
	AttemptExpired  = "login_expired"     // the person took too long
	WrongIssuer     = "login_issuer"      // the answer is of another issuer (RFC 9207)
	Refused         = "login_refused"     // the issuer says that the person may not log in
	BadTokens       = "login_token"       // the issuer's tokens are not acceptable
	WeakerThanAsked = "login_acr"         // the person logged in by other means than demanded, or too long ago
	Unavailable     = "login_unavailable" // the issuer does not answer, or not as it should
	SessionTooLarge = "session_too_large" // the session fits in no cookies
	BadLogoutToken  = "logout_token"      // a logout token that does not prove the end of a session
	EndUnsaved      = "session_unsaved"   // a session has ended here, but the file of ends does not have that
	BadSession      = "bad_session"       // a cookie that this gateway did not seal for this host and login
	SessionExpired  = "session_expired"   // beyond its idle or absolute lifetime
	SessionEnded    = "session_ended"     // the person signed out, or the issuer ended the session
)

// SessionReasons returns the reasons for which a session is refused.
func SessionReasons() []string { return []string{BadSession, SessionExpired, SessionEnded} }

// Reasons returns all reasons of an [Error].
func Reasons() []string {
	return append([]string{
		StateMismatch, AttemptExpired, WrongIssuer, Refused, BadTokens, WeakerThanAsked, Unavailable, SessionTooLarge, BadLogoutToken, EndUnsaved,
	}, SessionReasons()...)
}

// Error is a login, a session or a logout that is refused.
type Error struct {
	Reason string // one of the constants above
	Err    error  // the cause, for the audit record only; it contains no token, code or cookie
}

// Error returns the reason and its cause, for logs only.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Status returns the HTTP status for the reason.
func (e *Error) Status() int {
	switch e.Reason {
	case BadSession, SessionExpired, SessionEnded:
		return http.StatusUnauthorized
	case Refused, BadTokens, WeakerThanAsked:
		return http.StatusForbidden
	case Unavailable, EndUnsaved:
		return http.StatusServiceUnavailable
	case SessionTooLarge:
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// Text returns the fixed text of the reason, for the client.
func (e *Error) Text() string {
	switch e.Reason {
	case StateMismatch:
		return "this browser did not begin this login, or the answer was used before; sign in again"
	case AttemptExpired:
		return "the login took too long; sign in again"
	case WrongIssuer:
		return "the answer comes from another issuer than the one that was asked"
	case Refused:
		return "the issuer refused the login"
	case BadTokens:
		return "the issuer's answer does not prove who is signing in"
	case WeakerThanAsked:
		return "a stronger or more recent login is required"
	case Unavailable:
		return "the issuer of the login is unavailable; try again"
	case SessionTooLarge:
		return "the session is too large for a browser"
	case BadLogoutToken:
		return "the logout token is not valid"
	case EndUnsaved:
		return "the session has ended, but a restart could bring it back; try again"
	case BadSession:
		return "the session is not valid; sign in again"
	case SessionExpired:
		return "the session has expired; sign in again"
	case SessionEnded:
		return "the session has ended; sign in again"
	}
	return "the login did not succeed"
}

// Again reports whether the browser can begin a login at once, which cures the error. It is false for
// two cookies of one name: the foreign one would outlast each login.
func (e *Error) Again() bool {
	return slices.Contains(SessionReasons(), e.Reason) && !errors.Is(e.Err, errTwice)
}

// Late reports whether an answer of the issuer only comes late: the browser has forgotten its attempt, or has
// finished it before. Whoever has a session by then needs no other.
func (e *Error) Late() bool {
	return e.Reason == AttemptExpired || errors.Is(e.Err, errGone) || errors.Is(e.Err, errUsed)
}

// untimely is the error of a token that may be good at another time.
type untimely struct{ error }

// Unwrap returns the cause.
func (u untimely) Unwrap() error { return u.error }

// Untimely returns the error of an [Issuer] for a token which is not acceptable now, because a clock is off or the
// issuer has not published its key. It begins no session, but at a refresh it is no word about the person.
func Untimely(cause error) error { return untimely{cause} }

func refuse(reason string, cause error) *Error { return &Error{Reason: reason, Err: cause} }
