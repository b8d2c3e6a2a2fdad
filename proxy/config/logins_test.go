package config

import (
	"strings"
	"testing"
)

// loginWith returns a configuration whose login has this section session.
func loginWith(more, session string) string {
	return more + `
tls: {local: {}}
issuers: {corp: {url: 'https://login.example.com', audience: models}}
logins: {corp: {issuer: corp, client_id: gateway, session: {` + session + `}}, other: {issuer: corp, client_id: other, session: {` + session + `}}}
routes: [{host: a.example.com, upstream: 'http://a:1', callers: [login/corp, login/other], rules: [{allow: '*', who: {group: ml}}]}]
`
}

func TestStateOfLogins(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/private/sallyport")
	const keys = "keys: {file: keys}"
	for name, c := range map[string]struct{ more, session, file, fault string }{
		"default":             {session: keys, file: "/var/lib/private/sallyport/sallyport-sessions"},
		"named":               {session: keys + ", state: /srv/ends", file: "/srv/ends"},
		"off":                 {session: keys + ", state: off"},
		"no keys":             {session: "idle: 5m"},
		"memory":              {session: "kind: memory"},
		"without keys":        {session: "state: /srv/ends", fault: `logins.corp.session.state: "/srv/ends": without keys all sessions end at a restart, so nothing is kept of them; add keys: {file: PATH}, or remove the line`},
		"off without keys":    {session: "state: off", fault: `logins.corp.session.state: "off": without keys`},
		"memory with a file":  {session: "kind: memory, state: /srv/ends", fault: "sessions in memory end at a restart, so nothing is kept of them; remove the line, or kind: memory"},
		"another word":        {session: keys + ", state: none", fault: `logins.corp.session.state: "none": is not a valid destination here; name a file, or write off`},
		"the file of nonces":  {more: "integrity: {state: /srv/ends}", session: keys + ", state: /srv/ends", fault: "is the file of integrity.state too; name a file of its own"},
		"the file of records": {more: "audit: {file: /srv/ends}", session: keys + ", state: /srv/ends", fault: "is the file of audit.file too; name a file of its own"},
	} {
		cfg, err := Parse("gateway.yaml", []byte(loginWith(c.more, c.session)))
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), "gateway.yaml:") {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var places []StatePlace
		for _, p := range cfg.StatePlaces() {
			if strings.HasPrefix(p.Setting, "logins.") {
				places = append(places, p)
			}
		}
		switch {
		case c.file == "" && len(places) == 0:
		case len(places) == 1 && places[0] == StatePlace{"logins.corp.session.state", "ends of people's sessions", c.file}:
		default:
			t.Errorf("%s: got %v, want %q", name, places, c.file)
		}
		var warnings []string
		for _, f := range cfg.Warnings() {
			warnings = append(warnings, f.Error())
		}
		if got := strings.Contains(strings.Join(warnings, "\n"), "a cookie that somebody signed out of opens again after a restart"); got != (name == "off") {
			t.Errorf("%s: warnings %q", name, warnings)
		}
	}
}
