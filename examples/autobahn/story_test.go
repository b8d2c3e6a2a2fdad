// Package autobahn holds the story of Autobahn's WebSocket suite through the gateway.
package autobahn

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// cases are all cases, except most of those about compression, which take most of an hour. Of these,
// it has the first of each group and two with other parameters, because the gateway only forwards
// the frames.
var cases = []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*",
	"12.1.1", "12.2.1", "12.3.1", "12.4.1", "12.5.1", "13.1.1", "13.3.1", "13.7.1"}

// numberOfCases is the number of cases that the patterns in cases match.
const numberOfCases = 309

// verdicts lists the cases in which the server ws itself is not OK. The gateway must not change that.
var verdicts = map[string][]string{
	"NON-STRICT":    {"6.4.1", "6.4.2", "6.4.3", "6.4.4"}, // it checks UTF-8 at the end of a message
	"INFORMATIONAL": {"7.1.6", "7.13.1", "7.13.2"},        // no behaviour is right or wrong
}

// verdict is the suite's verdict on one case.
type verdict struct {
	Behavior      string `json:"behavior"`
	BehaviorClose string `json:"behaviorClose"`
	Report        string `json:"reportfile"`
}

// as reports whether the verdict on a case is that on ws without a gateway.
func (v verdict) as(id string) bool {
	for behavior, ids := range verdicts {
		if slices.Contains(ids, id) {
			return v.Behavior == behavior && (v.BehaviorClose == behavior || v.BehaviorClose == "OK")
		}
	}
	return v.Behavior == "OK" && v.BehaviorClose == "OK"
}

// suite is what runs the cases.
type suite struct{ python, folder string }

// install returns the suite, or skips the test where there is no Python 2.7 for it.
func install(t *testing.T) suite {
	t.Helper()
	python, err := exec.Command("./python2.sh").Output()
	if err != nil {
		t.Skip("this machine has no Python 2.7, which Autobahn's suite needs")
	}
	return suite{strings.TrimSpace(string(python)), story.Installed(t, "autobahn", "autobahn/requirements.txt")}
}

// echo starts echo.js.
func echo(t *testing.T) (address string) {
	t.Helper()
	story.Need(t, "node")
	dir, address := t.TempDir(), story.FreeAddress(t)
	program, err := os.ReadFile("echo.js")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"echo.js": string(program), "package.json": `{"type": "module"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	installed := story.Installed(t, "autobahn-node", "autobahn/package-lock.json")
	if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "echo.js", address)
	cmd.Dir = dir
	story.Start(t, "echo.js", cmd).Listens(t, address)
	return address
}

// run runs cases against a server and returns the verdicts by the case's number.
func (s suite) run(t *testing.T, url string, cases []string) map[string]verdict {
	t.Helper()
	dir := t.TempDir()
	spec := filepath.Join(dir, "spec.json")
	b, err := json.Marshal(map[string]any{
		"outdir": dir, "cases": cases, "exclude-cases": []string{}, "exclude-agent-cases": map[string]any{},
		"servers": []map[string]string{{"agent": "ws", "url": url}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(spec, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.python, filepath.Join(s.folder, "bin", "wstest"), "-m", "fuzzingclient", "-s", spec)
	cmd.Env = append(os.Environ(), "PYTHONUSERBASE="+s.folder)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("wstest: %v\n%s", err, out)
	}
	b, err = os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var index map[string]map[string]verdict
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	for id, v := range index["ws"] {
		if !v.as(id) {
			report, _ := os.ReadFile(filepath.Join(dir, v.Report))
			t.Logf("case %s: %s, at the close %s\n%.2000s", id, v.Behavior, v.BehaviorClose, report)
		}
	}
	return index["ws"]
}

// secondTries is how many cases may be run again. The suite gives a server one second for some
// answers, and a busy machine may need longer; a real fault shows the second time too.
const secondTries = 5

func TestAutobahn(t *testing.T) {
	s := install(t)
	g := story.StartGateway(t, "127.0.0.1:9001", echo(t))
	got := s.run(t, "wss://"+g.Address, cases)
	if again := differing(got); 0 < len(again) && len(again) <= secondTries {
		t.Logf("again: %v", again)
		maps.Copy(got, s.run(t, "wss://"+g.Address, again))
	}
	for _, id := range differing(got) {
		t.Errorf("case %s: %s, at the close %s", id, got[id].Behavior, got[id].BehaviorClose)
	}
	if len(got) != numberOfCases {
		t.Errorf("%d cases, want %d", len(got), numberOfCases)
	}
	counts := map[string]int{}
	for _, v := range got {
		counts[v.Behavior]++
	}
	t.Logf("%d cases: %v", len(got), counts)
}

// differing returns the cases whose verdict is not that on ws.
func differing(got map[string]verdict) []string {
	var ids []string
	for id, v := range got {
		if !v.as(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
