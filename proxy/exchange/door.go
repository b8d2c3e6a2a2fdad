package exchange

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"sallyport/auth/login"
	"sallyport/proxy/audit"
	"sallyport/proxy/route"
)

// doorPage is what the gateway itself answers to a method on one of its own paths.
type doorPage struct {
	method string
	serve  func(*exchange) error
	says   string // in the words of explain
	// head means that HEAD is answered like GET, without the content. It is for pages that change nothing: a
	// link checker must use up neither the issuer's answer nor the way to its sign-out.
	head bool
}

// doorPages returns the pages of a path, where people sign in by these logins; nil if there are none.
// elsewhere is the host that people are sent to for that; "" for none.
func doorPages(path string, logins []string, elsewhere string) []doorPage {
	by := strings.Join(logins, " or ")
	switch path {
	case login.SignInPath:
		begins, looks := "begins a login by "+by+": 303 to the issuer", "is where logins by "+by+" begin; HEAD begins none"
		switch {
		case len(logins) > 1:
			begins = "lets a person choose between logins by " + by
			looks = begins
		case elsewhere != "":
			begins = "sends a person to sign in by " + by + " at " + elsewhere + " (303)"
			looks = begins
		}
		return []doorPage{{http.MethodGet, (*exchange).beginLogin, begins, false}, {http.MethodHead, (*exchange).showSignIn, looks, false}}
	case login.SignOutPath:
		return []doorPage{
			{http.MethodGet, (*exchange).offerSignOut, "asks a person whether to sign out, and changes nothing", true},
			{http.MethodPost, (*exchange).signOut, "ends the session, for pages of the same host", false},
		}
	case login.LeavePath:
		return []doorPage{{http.MethodGet, (*exchange).leave, "sends the browser on to the sign-out of the issuer (303)", false}}
	case login.SignedOutPath:
		return []doorPage{{http.MethodGet, (*exchange).sayGoodbye, "is the page after sign-out", true}}
	case login.SessionPath:
		return []doorPage{{http.MethodGet, (*exchange).tellSession, "says in JSON who is signed in; 401 without a session", true}}
	case login.BackChannelPath:
		return []doorPage{{http.MethodPost, (*exchange).endSessions, "takes a logout token, by which the issuer ends sessions of " + by, false}}
	}
	if name, ok := strings.CutPrefix(path, login.CallbackPath("")); ok && slices.Contains(logins, name) {
		return []doorPage{{http.MethodGet, (*exchange).finishLogin, "takes the answer of the issuer of " + name + ", and sends the browser back to its page (303)", false}}
	}
	return nil
}

// findDoorPage returns the page of a method. The error is how the gateway refuses.
func findDoorPage(method string, of []doorPage) (*doorPage, error) {
	var allowed []string
	for i := range of {
		if of[i].method == method || of[i].head && method == http.MethodHead {
			return &of[i], nil
		}
		if allowed = append(allowed, of[i].method); of[i].head {
			allowed = append(allowed, http.MethodHead)
		}
	}
	if allowed == nil {
		return nil, because(reasonNoRoute, "the gateway has no such page under "+login.Prefix)
	}
	return nil, &route.MethodError{Allow: strings.Join(allowed, ", ")}
}

// IsOwnPage reports whether the gateway itself answers requests for a path, on a host where people sign
// in.
func IsOwnPage(path string) bool { return isDoorPath(path) }

// OwnPage says what the gateway answers to a method on one of its own paths, where people sign in by
// these logins. elsewhere is the host that they are sent to for that; "" for none. The error is how it refuses.
func OwnPage(method, path string, logins []string, elsewhere string) (what string, err error) {
	p, err := findDoorPage(method, doorPages(path, logins, elsewhere))
	if err != nil {
		return "", err
	}
	return p.says, nil
}

// DoorRefusal returns the error for a client whose address may not sign in on a host.
func DoorRefusal(client netip.Addr) error {
	return because(reasonAddress, "no route of the host that has a login admits "+client.WithZone("").String())
}

// isDoorPath reports whether a path is of the pages for sign-in. It ignores case, because some servers
// do.
func isDoorPath(path string) bool {
	const bare = len(login.Prefix) - 1
	return len(path) >= bare && strings.EqualFold(path[:bare], login.Prefix[:bare]) && (len(path) == bare || path[bare] == '/')
}

// findDoor returns the door whose pages are asked for; nil for other requests.
func (x *exchange) findDoor() *route.Door {
	if !isDoorPath(x.head.Path) {
		return nil
	}
	return x.snapshot.Routes.Door(x.head.Host)
}

// serveDoor serves the pages for sign-in and sign-out. None of these requests is ever forwarded.
func (x *exchange) serveDoor() error {
	if err := x.enterDoor(); err != nil {
		return err
	}
	page, err := findDoorPage(x.head.Method, doorPages(x.head.Path, x.door.Logins, ""))
	if err != nil {
		return err
	}
	if err = page.serve(x); err != nil && x.head.Path != login.SessionPath {
		x.record.LoginEvent = audit.LoginRefused
	}
	return err
}

// enterDoor makes the checks of a route that concern no caller: those of the connection, the client's
// address and free memory.
func (x *exchange) enterDoor() error {
	if err := x.checkConnection(); err != nil {
		return err
	}
	if !x.door.Admits(x.client) {
		return DoorRefusal(x.client)
	}
	if x.server.Pressure.Spent() {
		r := because(reasonOverloaded, x.server.Pressure.String())
		r.retryAfter = busyRetry
		return r
	}
	if err := x.server.Audit.Reserve(); err != nil {
		return &refusal{reason: reasonAudit, cause: err, retryAfter: busyRetry}
	}
	x.record.Reserved = true
	return nil
}
