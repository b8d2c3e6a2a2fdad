package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/proxy/setting"
)

func TestReloadsRecordTheLastAttempt(t *testing.T) {
	at := time.Unix(1700000000, 0)
	start := at
	pass := func() time.Time { at = at.Add(time.Minute); return at }
	r := NewReloads("3f9a", func() time.Time { return at })
	r.SetWatching(true)
	want := Configuration{Hash: "3f9a", Loaded: start, Watching: true, LastAttempt: start, LastSuccess: start}
	see := func(step string) {
		t.Helper()
		if diff := cmp.Diff(want, r.Configuration()); diff != "" {
			t.Errorf("%s: %s", step, diff)
		}
	}
	see("start")

	want.LastAttempt = pass()
	faults := setting.Faults{{File: "gateway.yaml", Line: 3, Path: "x", Problem: "unknown field"}, {File: "gateway.yaml", Problem: "p"}}
	r.Failed(fmt.Errorf("reading the configuration: %w", faults.Err()))
	want.LastError, want.Faults, want.Reloads.Failed = "reading the configuration: gateway.yaml:3: x: unknown field", 2, 1
	see("broken file")

	want.LastAttempt = pass()
	r.Failed(errors.New("listen.https cannot change"))
	want.LastError, want.Faults, want.Reloads.Failed = "listen.https cannot change", 0, 2
	see("another reason")

	want.LastAttempt = pass()
	want.LastSuccess = at
	r.Unchanged()
	want.LastError, want.Reloads.Unchanged = "", 1
	see("the file is as it was")

	want.LastAttempt = pass()
	want.LastSuccess, want.Loaded, want.Hash = at, at, "81c2"
	r.Changed("81c2")
	want.Reloads.Changed = 1
	see("another configuration")
}

func TestFailedReloadLeavesTheGatewayReady(t *testing.T) {
	r := NewReloads("3f9a", nil)
	base, _ := serve(t, Options{State: func() State {
		c := r.Configuration()
		c.Snapshots = 1
		return State{Ready: true, Configuration: c}
	}})
	for i, step := range []func(){func() {}, func() { r.Failed(errors.New("broken")) }, r.Unchanged} {
		step()
		status, _, body := fetch(t, "GET", base+"/readyz")
		if status != 200 || strings.Contains(body, `"last_error": "broken"`) != (i == 1) {
			t.Errorf("step %d: got %d, %s", i, status, body)
		}
		_, _, metrics := fetch(t, "GET", base+"/metrics")
		want := "\nsallyport_config_last_reload_successful 1\n"
		if i == 1 {
			want = "\nsallyport_config_last_reload_successful 0\n"
		}
		if !strings.Contains(metrics, want) {
			t.Errorf("step %d: no %q in the metrics", i, want)
		}
	}
}

func TestUnknownConfigurationIsOmitted(t *testing.T) {
	base, _ := serve(t, Options{State: func() State { return State{Ready: true} }})
	_, _, ready := fetch(t, "GET", base+"/readyz")
	_, _, metrics := fetch(t, "GET", base+"/metrics")
	if strings.Contains(ready, "configuration") || strings.Contains(metrics, "sallyport_config_") {
		t.Errorf("got %s and\n%s", ready, metrics)
	}
}
