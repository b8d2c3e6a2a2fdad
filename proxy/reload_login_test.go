package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/auth/login"
)

// edition is a change of the file of a lobby, and who of alice and bob keeps session and streams.
type edition struct {
	name, old, new string
	alice, bob     bool
}

func editions() []edition {
	return []edition{
		{"title", "issuer: corp, client_id", "title: Lab, issuer: corp, client_id", true, true},
		{"prompt", "issuer: corp, client_id", "prompt: login, issuer: corp, client_id", true, true},
		{"max_age", "issuer: corp, client_id", "max_age: 1h, issuer: corp, client_id", true, true},
		{"revoke", "issuer: corp, client_id", "revoke: false, issuer: corp, client_id", true, true},
		{"idle", "session: {", "session: {idle: 2h, ", true, true},
		{"pages", "\nroutes:", "\npages: {title: Lab}\nroutes:", true, true},
		{"identity", "websocket: true", "websocket: true\n    identity: {principal: X-User}", true, true},
		{"access_token", "websocket: true", "websocket: true\n    identity: {access_token: X-Token}", true, true},
		{"id_token", "websocket: true", "websocket: true\n    identity: {id_token: Authorization}", true, true},
		{"claims", "websocket: true", "websocket: true\n    identity: {claims: {amr: X-Amr}}", true, true},
		{"cors", "websocket: true", "websocket: true\n    cors: {origins: [\"https://x.test\"]}", true, true},
		{"absolute", "session: {", "session: {absolute: 20h, ", true, true},
		{"acr_values", "issuer: corp, client_id", "acr_values: [mfa], issuer: corp, client_id", true, false},
		{"step_up", "websocket: true", "websocket: true\n    step_up: {acr_values: [mfa]}", true, false},
		{"who", `models: "*"}`, `models: "*", who: {principal: issuer/corp:alice}}`, true, false},
		{"acr", "acr: {claim: amr}", "acr: {claim: amr, ask_by: claims}", true, true},
		{"client_id", "client_id: gateway", "client_id: another", false, false},
		{"callers", "callers: [login/corp, issuer/corp]", "callers: issuer/corp", false, false},
	}
}

// survives reads on, and returns why the stream has ended. If it is not to go on, it waits for that.
func (s *personStream) survives(kept bool) error {
	wait := 20 * time.Second
	if kept {
		wait = 200 * time.Millisecond
	}
	for end := time.Now().Add(wait); time.Now().Before(end); {
		if err := s.goesOn(); err != nil {
			return err
		}
	}
	return nil
}

// refusesToReload brings files that cannot be used, and puts them back.
func (l *lobby) refusesToReload(sealed bool) {
	l.t.Helper()
	l.edit("issuer: corp, client_id", "issuer: nobody, client_id")
	l.reload("refused")
	l.edit("issuer: nobody, client_id", "issuer: corp, client_id")
	for _, name := range []string{"secret", "keys"} {
		if name == "keys" && !sealed {
			continue
		}
		path := filepath.Join(filepath.Dir(l.file), name)
		good, err := os.ReadFile(path)
		if err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
			l.t.Fatal(err)
		}
		l.reload("refused")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	l.reload("unchanged")
}

// TestReloadAndStreamsOfPeople reloads while two people have streams and WebSockets. Nobody loses what the new file
// allows, and what it forbids ends: at once in streams, and for the next request.
func TestReloadAndStreamsOfPeople(t *testing.T) {
	t.Parallel()
	for kind, section := range map[string]string{"cookie": "{keys: {file: keys}}", "memory": "{kind: memory}"} {
		for _, e := range editions() {
			t.Run(kind+", "+e.name, func(t *testing.T) {
				t.Parallel()
				l := openLobby(t, plan{
					more:   unwatched + strings.Replace(loginSections, "{keys: {file: keys}}", section, 1),
					routes: strings.Replace(loginRoutes, ", who: {principal: issuer/corp:alice}", "", 1),
					handler: func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path != "/" {
							streams(func(string) {})(w, r)
						}
					},
				})
				l.edit("audience: models", "audience: models, acr: {claim: amr}")
				l.reload("changed")
				cookies, open := map[string]string{}, map[string][]*personStream{}
				for who, amr := range map[string]string{"alice": "mfa", "bob": "pwd"} {
					l.provider.Person(who, map[string]any{"amr": []string{amr}})
					cookies[who] = l.browser(false).signInWith("corp")
					open[who] = []*personStream{l.stream("/events", who, cookies[who]), l.stream("/socket", who, cookies[who])}
				}
				l.refusesToReload(kind == "cookie")
				l.edit(e.old, e.new)
				l.reload("changed")
				for who, kept := range map[string]bool{"alice": e.alice, "bob": e.bob} {
					for _, s := range open[who] {
						if err := s.survives(kept); (err == nil) != kept {
							t.Errorf("%s of %s goes on: %v", s.path, who, err)
						}
					}
					hits := l.model.hits.Load()
					status := l.withCookie(login.SessionPath, cookies[who]).StatusCode
					if r := l.withCookie("/", cookies[who]); kept != (status == 200) && e.name != "who" && e.name != "step_up" || !kept && (r.StatusCode < 400 || l.model.hits.Load() != hits) {
						t.Errorf("%s: the session answers %d, a page %d", who, status, r.StatusCode)
					}
				}
			})
		}
	}
}
