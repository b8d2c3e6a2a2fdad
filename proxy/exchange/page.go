package exchange

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"sallyport/auth/login"
	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/pages"
	"sallyport/proxy/setting"
)

// wantsPage reports whether a person sees the answer: the browser goes to a page. Scripts and programs
// do not, and nobody may ever see what is fetched ahead.
func (x *exchange) wantsPage() bool {
	switch {
	case x.grpc, x.mayTunnel(), x.fetchedAhead() != "", x.asker != "" && !x.tellsPages():
		return false
	}
	f := x.head.Fields
	if mode := f.Get("sec-fetch-mode"); mode != "" {
		return mode == "navigate"
	}
	return acceptsPage(f.Get("accept")) && f.Get("x-requested-with") != "XMLHttpRequest"
}

// acceptsPage reports whether a value of Accept is one of a browser that goes to a page. It takes HTML and
// names no JSON: clients that do read answers by themselves, whatever else they list.
func acceptsPage(accept string) bool {
	html := false
	for element := range strings.SplitSeq(accept, ",") {
		media, parameters, _ := strings.Cut(element, ";")
		switch media = strings.ToLower(strings.TrimSpace(media)); {
		case media == "text/html":
			weight, _ := strings.CutPrefix(strings.ToLower(strings.TrimSpace(parameters)), "q=")
			html = strings.Trim(weight, "0.") != "" || weight == ""
		case media == "application/json", strings.HasSuffix(media, "+json"):
			return false
		}
	}
	return html
}

// fetchedAhead returns the field that says that the browser fetches a page which nobody has opened yet;
// "" for none. Older browsers have names of their own for that.
func (x *exchange) fetchedAhead() string {
	for _, f := range [...]struct{ name, value string }{{"sec-purpose", "prefetch"}, {"purpose", "prefetch"}, {"x-purpose", "preview"}, {"x-moz", "prefetch"}} {
		if got := x.head.Fields.Get(f.name); strings.HasPrefix(got, f.value) {
			return f.name + " is " + setting.Quoted(got, 48)
		}
	}
	return ""
}

// isFramed reports whether a page is asked for that is no window of its own: for a frame, or as another
// part of a page. A service worker of the application that passes a request on leaves its mode and Accept as they
// are, and takes away its destination: that is taken for a window, because nobody could sign in there otherwise. No
// page can send such a request to another host. Downloads have no destination either, and take no page.
func (x *exchange) isFramed() bool {
	switch dest := x.head.Fields.Get("sec-fetch-dest"); dest {
	case "", "document":
		return false
	case "empty":
		return x.head.Fields.Get("sec-fetch-mode") != "navigate" || !acceptsPage(x.head.Fields.Get("accept"))
	}
	return true
}

// sendPage sends a page for people.
func (x *exchange) sendPage(page []byte) error {
	h := message.Response{Status: http.StatusOK, ContentLength: int64(len(page)), Fields: x.pageFields(false)}
	x.dressOwn(&h)
	return x.respondHere(&h, page)
}

// pageFields returns the fields of every page for people. framed is for a refusal in a frame.
func (x *exchange) pageFields(framed bool) message.Fields {
	return message.Fields{
		{Name: "content-type", Value: pages.Type},
		{Name: "content-security-policy", Value: x.snapshot.Logins.Pages.Policy(framed)},
	}
}

// dressOwn adds the fields of every answer of the door. The address of a page may have a code in it,
// which no other site may learn.
func (x *exchange) dressOwn(h *message.Response) {
	h.Fields.Set("cache-control", "no-store")
	referrer := "no-referrer"
	if x.head.Path == login.SignOutPath && x.head.Method == http.MethodGet {
		// Else browsers send its form with Origin: null. Those without Sec-Fetch-Site (Safari before 16.4) could sign
		// nobody out.
		referrer = "same-origin"
	}
	h.Fields.Set("referrer-policy", referrer)
	h.Fields.Set("x-content-type-options", "nosniff")
	if x.leaves {
		h.Fields.Set("clear-site-data", `"cache"`) // else the key for the page before shows them to whoever comes next
	}
	switch https := x.scheme() == "https"; {
	case x.door != nil:
		x.door.Security.Dress(h, https)
	case x.route != nil:
		x.route.Security.Dress(h, https)
	}
}

// sendJSON sends an answer for programs.
func (x *exchange) sendJSON(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := message.Response{Status: http.StatusOK, ContentLength: int64(len(text)), Fields: message.Fields{{Name: "content-type", Value: "application/json"}}}
	x.dressOwn(&h)
	return x.respondHere(&h, text)
}

// refusalPage returns the page of a refusal for a person; nil for programs, and for hosts where nobody
// signs in.
func (x *exchange) refusalPage(o outcome, r *refusal) []byte {
	host := x.hostBefore()
	if x.snapshot.Logins == nil || !x.wantsPage() || x.snapshot.Routes.Door(host) == nil {
		return nil
	}
	page := pages.Refusal{
		Reason: r.reason, RequestID: x.record.RequestID, Wait: r.retryAfter, Framed: x.isFramed(),
		NoCredential: o.status == http.StatusUnauthorized,
	}
	if x.proof.Session != nil {
		page.Caller = x.caller.Name
	}
	var session *login.Error
	page.ForeignCookie = errors.As(r.cause, &session) && slices.Contains(login.SessionReasons(), session.Reason) && !session.Again()
	switch {
	case page.Caller != "" && (r.reason == policy.ReasonForbidden || r.reason == policy.ReasonInsufficientScope):
		page.SignOut = login.SignOutPath
	case page.NoCredential && x.route != nil && len(x.route.Logins) > 0:
		page.SignIn = signInURL(x.head.PathAndQuery(), x.route.Logins...)
	case x.door != nil && (page.NoCredential || slices.Contains(login.Reasons(), r.reason) || pages.Again(r.reason)):
		page.SignIn = signInURL(cmp.Or(x.back, "/"))
	case x.door == nil && x.head.Method == http.MethodGet && pages.Again(r.reason):
		page.Again = login.ReturnPage(x.head.PathAndQuery())
	}
	return x.snapshot.Logins.Pages.Refuse(host, &page)
}
