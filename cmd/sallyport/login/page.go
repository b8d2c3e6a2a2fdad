package login

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
)

// message is a page for people. It holds nothing of a request, so that nobody can write on it.
type message struct{ title, text string }

// messages returns what a page says.
func messages(m page) message {
	switch m {
	case received:
		return message{"Back to the terminal", "sallyport has the answer of the issuer, and goes on in the terminal. You can close this window."}
	case notSignedIn:
		return message{"Not signed in", "The terminal says why, and what to do. You can close this window."}
	case foreign:
		return message{"Not an answer to this login", "The login in the terminal still waits for its own answer. If you have just signed in, begin again from the terminal."}
	case alreadyAnswered:
		return message{"Already answered", "This login has its answer. You can close this window."}
	case alreadyBegun:
		return message{"Already opened", "This link works once, so this login has ended. If you did not open the link before, another user of the machine did. Begin again from the terminal."}
	}
	return message{"Nothing here", "This is the address for the answer of a login in the terminal."}
}

// page names a page of the listener.
type page int

const (
	wrongPlace page = iota
	received
	notSignedIn
	foreign
	alreadyAnswered
	alreadyBegun
)

const style = `:root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1.5rem}h1{font-size:1.5rem}`

// show writes a page.
func show(w http.ResponseWriter, status int, p page) {
	secure(w)
	m := messages(p)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
		`<title>` + m.title + `</title><style>` + style + `</style></head><body><main><h1>` + m.title + `</h1><p>` + m.text + `</p></main></body></html>` + "\n"))
}

// secure sets the fields of every answer. The address of the page has the code, which must go to no
// other site and stay in no cache.
func secure(w http.ResponseWriter) {
	digest := sha256.Sum256([]byte(style))
	for name, value := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Cache-Control":                "no-store",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
	} {
		w.Header().Set(name, value)
	}
}
