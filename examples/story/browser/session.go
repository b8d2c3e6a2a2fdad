package browser

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

// Session is the answer of /.sallyport/session.
type Session struct {
	Expires                time.Time
	Idle                   time.Time `json:"idle_expires"`
	Principal, Name, Login string
	Groups                 []string
}

// Session asks the gateway who is signed in, as a script of the page does, and returns the status too.
func (p *Tab) Session() (Session, int) {
	p.t.Helper()
	a := p.Fetch("/.sallyport/session", "{}")
	var s Session
	if a.Status == 200 {
		if err := json.Unmarshal([]byte(a.Body), &s); err != nil {
			p.t.Fatalf("%s: %v", a.Body, err)
		}
	}
	return s, a.Status
}

// Cookies checks what a server got: never a cookie of the gateway, and the app's own where want is one.
func Cookies(t *testing.T, relay *story.Relay, want string) {
	t.Helper()
	found := false
	exchanges := relay.Take()
	for _, x := range exchanges {
		if strings.Contains(string(x.Request), "sallyport=") || strings.Contains(string(x.Request), "sallyport-login") {
			t.Errorf("the server got %.400q", x.Request)
		}
		found = found || strings.Contains(string(x.Request), want)
	}
	if !found {
		t.Errorf("none of %d requests has %s", len(exchanges), want)
	}
}

// Eventually asks again until something holds, as long as [Patience].
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}
