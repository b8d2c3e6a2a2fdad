package proxy_test

import (
	"log/slog"
	"strings"
	"testing"

	"sallyport/proxy"
)

// TestWarningsAreLogged checks that the start and each reload that changes something log the warnings
// of the configuration once, as check prints them, and that the line of a reload has no empty list.
func TestWarningsAreLogged(t *testing.T) {
	logged := &lines{}
	const nobody = `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, apikey], rules: [{allow: "*", who: {principal: 'issuer/corp:alice'}}]}
`
	h := build(t, plan{more: unwatched + "api_key_file: keys.txt\n", files: map[string]string{"keys.txt": ""}, routes: nobody, options: proxy.Options{Log: slog.New(slog.NewJSONHandler(logged, nil))}})
	warned := func() (warnings []string, reload map[string]any) {
		for _, r := range logged.records(t) {
			switch r["msg"] {
			case "configuration warning":
				warnings = append(warnings, r["warning"].(string))
			case "configuration reloaded":
				reload = r
			}
		}
		logged.forget()
		return warnings, reload
	}
	expect := func(when string, n int) map[string]any {
		t.Helper()
		warnings, reload := warned()
		found := 0
		for _, w := range warnings {
			if strings.Contains(w, "callers[1]: \"apikey\": no rule can ever allow this caller") {
				found++
			}
		}
		if found != n {
			t.Errorf("%s: warned %d times, want %d: %q", when, found, n, warnings)
		}
		return reload
	}
	expect("at the start", 1)
	h.reload("unchanged")
	expect("after a reload of the same", 0)
	h.edit("routes:", "limits: {connections: 100}\nroutes:")
	h.reload("changed")
	if reload := expect("after a reload", 1); reload == nil || !strings.Contains(reload["summary"].(string), "limits") {
		t.Errorf("logged %v", reload)
	} else if changes, there := reload["changes"]; there {
		t.Errorf("changes is %v, want it absent: the summary names the section", changes)
	}
	h.edit("callers: [issuer/corp, apikey]", "callers: issuer/corp")
	h.reload("changed")
	if reload := expect("after the mistake is gone", 0); reload == nil || reload["changes"] == nil {
		t.Errorf("logged %v, want the route that changed", reload)
	}
}
