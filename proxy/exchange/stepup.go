package exchange

import (
	"net/http"
	"strings"

	"sallyport/auth/login"
	"sallyport/proxy/message"
)

// demandAt returns how a person must prove themselves to see a page of the host, or one that
// [exchange.returnPage] returned with another host. The route of a GET of the page decides, and no
// parameter of the request for a sign-in. If that route demands nothing, the route of another method of
// the path counts, to which the page may send its forms.
func (x *exchange) demandAt(page string) login.StepUp {
	authority := x.head.Authority
	if rest, elsewhere := strings.CutPrefix(page, "https://"); elsewhere {
		at := strings.IndexByte(rest+"/", '/')
		authority, page = rest[:at], rest[at:]
	}
	for _, method := range [...]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		h := message.Head{Version: message.HTTP11, Method: method, Scheme: x.scheme(), Authority: authority, Target: page}
		if h.Settle() != nil {
			break
		}
		if r, err := x.snapshot.Routes.Match(&h); err == nil && r.StepUp != nil && len(r.Logins) > 0 {
			return *r.StepUp
		}
	}
	return login.StepUp{}
}

// replaceSession ends the session that the browser had before a person signed in for a page with a
// demand, unless that session satisfies it too: then another tab of the same person has just stepped up,
// and its page begins to load. Other sign-ins leave the session before alone, for the same reason: a
// browser that restores its tabs may sign in with each.
func (x *exchange) replaceSession(before, after *login.Session, page string) {
	demanded := x.demandAt(page)
	switch {
	case before == nil || demanded.IsZero():
	case before.Principal().String() == after.Principal().String() && before.Lacking(&demanded, x.server.now()) == "":
	default:
		login.Discard(before)
	}
}
