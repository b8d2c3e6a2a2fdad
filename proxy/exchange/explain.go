package exchange

import (
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/auth/login"
	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// Outcome is how the gateway answers a request that it refuses.
type Outcome struct {
	Reason string // one of [Reasons]
	Status int
	Cause  string // for the operator only
}

// OutcomeOf returns how an error of a step is answered.
func OutcomeOf(err error) Outcome {
	r := asRefusal(err)
	o := Outcome{Reason: r.reason, Status: outcomes[r.reason].status}
	if r.cause != nil {
		o.Cause = r.cause.Error()
	}
	return o
}

// Interpret reads what the head of a request asks of the upstream of a route, as a request on its way
// does. The head must be settled.
func Interpret(r *route.Route, h *message.Head, grpc bool) (model.Reading, error) {
	target, err := r.Rewriting.Target(h)
	if err != nil {
		return model.Reading{}, err
	}
	return readAt(r, h, target, grpc, new(model.Request))
}

// InterpretFor reads like [Interpret] what a caller asks, with the version that the route chooses, and
// the place of the setting that does; "" if none does. caller is as of [KnownAs].
func InterpretFor(r *route.Route, h *message.Head, grpc bool, caller string) (got model.Reading, at string, err error) {
	target, err := r.Rewriting.Target(h)
	if err != nil {
		return model.Reading{}, "", err
	}
	var ask model.Request
	read, err := readAt(r, h, target, grpc, &ask)
	if err != nil {
		return model.Reading{}, "", err
	}
	return WithVersion(r, &ask, read, caller)
}

// AddressRefusal returns the error for a client whose address the route does not admit.
func AddressRefusal(r *route.Route, client netip.Addr) error {
	return because(reasonAddress, r.Access.Refusal(client))
}

// TooWeak returns the error for a caller who was not authenticated as step_up of a route demands.
func TooWeak(cause string) error { return because(auth.TooWeak, cause) }

// Unlisted returns the error for a caller whom none of a route's callers admits.
func Unlisted(caller string, listed []string) error {
	return because(auth.UnlistedCredential, "callers does not list "+setting.Quoted(caller, 64)+": "+setting.Shortened(strings.Join(listed, ", "), 120))
}

// IsOwnPage reports whether the gateway itself answers requests for a path, on a host where people sign
// in.
func IsOwnPage(path string) bool { return isDoorPath(path) }

// OwnPage says what the gateway answers to a method on one of its own paths, where people sign in by
// these logins. The error is how it refuses.
func OwnPage(method, path string, logins []string) (what string, err error) {
	by := strings.Join(logins, " or ")
	answered, isAnswer := strings.CutPrefix(path, login.CallbackPath(""))
	pages := map[string]string{}
	switch {
	case path == login.SignInPath:
		pages[http.MethodGet] = "begins a login by " + by + ": 303 to the issuer"
		if len(logins) > 1 {
			pages[http.MethodGet] = "lets a person choose between logins by " + by
		}
	case isAnswer && slices.Contains(logins, answered):
		pages[http.MethodGet] = "takes the answer of the issuer of " + answered + ", and sends the browser back to its page (303)"
	case path == login.SignOutPath:
		pages[http.MethodGet] = "asks a person whether to sign out, and changes nothing"
		pages[http.MethodPost] = "ends the session, for pages of the same host"
	case path == login.LeavePath:
		pages[http.MethodGet] = "sends the browser on to the sign-out of the issuer (303)"
	case path == login.SignedOutPath:
		pages[http.MethodGet] = "is the page after sign-out"
	case path == login.SessionPath:
		pages[http.MethodGet] = "says in JSON who is signed in; 401 without a session"
	case path == login.BackChannelPath:
		pages[http.MethodPost] = "takes a logout token, by which the issuer ends sessions of " + by
	default:
		return "", errNoOwnPage()
	}
	if what = pages[method]; what == "" {
		return "", &route.MethodError{Allow: strings.Join(slices.Sorted(maps.Keys(pages)), ", ")}
	}
	return what, nil
}

// DoorRefusal returns the error for a client whose address may not sign in on a host.
func DoorRefusal(client netip.Addr) error {
	return because(reasonAddress, "no route of the host that has a login admits "+client.WithZone("").String())
}

func errNoOwnPage() error {
	return because(reasonNoRoute, "the gateway has no such page under "+login.Prefix)
}

// WithoutSession says what becomes of a request without a session, on a route where people sign in.
func WithoutSession(r *route.Route, h *message.Head) string {
	switch {
	case len(r.Logins) == 0:
		return ""
	case h.Method != http.MethodGet && h.Method != http.MethodHead || h.Upgrade != "" || message.IsGRPC(h.Fields.Get("content-type")):
		return "; without a session: 401"
	}
	return "; without a session: a browser is sent to " + login.SignInPath + " (303), a program gets 401"
}
