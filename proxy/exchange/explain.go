package exchange

import (
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

// StepUpNeeded returns the error for a caller who was not authenticated as step_up of a route demands.
func StepUpNeeded(cause string) error { return because(auth.StepUpNeeded, cause) }

// Unproven returns the error for a request that proves no caller, on a route with these callers.
func Unproven(r *route.Route, h *message.Head, listed []string) error {
	reason := auth.NoCredential
	for prefix, missing := range map[string]string{"key": auth.SignatureMissing, "cert": auth.CertificateMissing} {
		if !slices.ContainsFunc(listed, func(c string) bool { return c != prefix && !strings.HasPrefix(c, prefix+"/") }) {
			reason = missing
		}
	}
	return because(reason, "the route takes "+setting.Shortened(strings.Join(listed, ", "), 120)+WithoutSession(r, h))
}

// Unlisted returns the error for a caller whom none of a route's callers admits.
func Unlisted(caller string, listed []string) error {
	return because(auth.UnlistedCredential, "callers does not list "+setting.Quoted(caller, 64)+": "+setting.Shortened(strings.Join(listed, ", "), 120))
}

// IsPublic reports whether the gateway itself answers requests for a path on every host.
func IsPublic(path string) bool { return isPublic(path) }

// PublicPage says what the gateway answers to a method on such a path. The error is how it refuses.
func PublicPage(method, path string) (what string, err error) {
	switch path {
	case keysPath:
		what = "tells the keys of signed answers; 404 if there are none"
	case jwksPath:
		what = "tells the keys of assertions; 404 if there are none"
	default:
		return "", errNoDocument()
	}
	if method != http.MethodGet && method != http.MethodHead {
		return "", &route.MethodError{Allow: "GET, HEAD"}
	}
	return what, nil
}

// MetadataPage says what the gateway answers to a method on the path of the metadata of a route. The error
// is how it refuses.
func MetadataPage(method string) (what string, err error) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return "tells who issues tokens for the route (RFC 9728)", nil
	}
	return "", &route.MethodError{Allow: metadataMethods}
}

func errNoDocument() error {
	return because(reasonNoRoute, "the gateway publishes nothing under this path")
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
