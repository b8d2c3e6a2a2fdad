package proxy_test

import (
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// peers are the servers that TestConformanceOfOthers asks.
var peers = flag.String("peers", "", "servers, as column=address,..., to compare with deploy/CONFORMANCE.md")

// pageRow is a row of a table of deploy/CONFORMANCE.md, by the names of its columns.
type pageRow map[string]string

// pageRows returns the rows of the tables whose first column has a name.
func pageRows(t *testing.T, first string) []pageRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "CONFORMANCE.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []pageRow
	var columns []string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			columns = nil
		case columns == nil:
			columns = cells
		case columns[0] == first && !strings.HasPrefix(cells[0], "---"):
			row := pageRow{}
			for i, c := range columns {
				row[c] = cells[min(i, len(cells)-1)]
			}
			all = append(all, row)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no table with the column %q", first)
	}
	return all
}

// probesByID returns all probes by their id, which must be unique.
func probesByID(t *testing.T) map[string]*probe {
	t.Helper()
	rows, byID := probes(), map[string]*probe{}
	for i := range rows {
		if byID[rows[i].id] != nil {
			t.Errorf("two probes are about %s", rows[i].id)
		}
		byID[rows[i].id] = &rows[i]
	}
	return byID
}

// The page on conformance gives the answers of the gateway and of Go's own server. It contains every
// request that one of them refuses and the other serves.
func TestConformancePage(t *testing.T) {
	s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})}
	server := &httptest.Server{Listener: localListener(t), Config: s}
	server.Start()
	t.Cleanup(server.Close)

	told, all := map[string]bool{}, probesByID(t)
	for _, row := range pageRows(t, "request") {
		p := all[row["request"]]
		if p == nil {
			t.Errorf("no probe is about %q", row["request"])
			continue
		}
		told[p.id] = true
		if want := "`" + p.want + "`"; row["sallyport"] != want {
			t.Errorf("%s: the page says %s; the answer is %s", p.id, row["sallyport"], want)
		}
		if got := p.statusFrom(t, server.Listener.Addr().String(), 0); row["Go"] != got {
			t.Errorf("%s: the page says that Go answers %q; it is %q", p.id, row["Go"], got)
		}
	}
	for id, p := range all {
		if !told[id] && p.strict() && strings.HasPrefix(p.statusFrom(t, server.Listener.Addr().String(), 0), "2") {
			t.Errorf("Go's server takes %q, which is %s here: the page does not say so", id, p.want)
		}
	}
}

// localListener returns a listener on a free port of this machine.
func localListener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Every option that the page names is a key of the reference, and every test that it names exists.
func TestConformancePageNamesWhatExists(t *testing.T) {
	reference, err := os.ReadFile(filepath.Join(root, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	walk(t, func(name string) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
	})
	option := regexp.MustCompile("`([a-z0-9_.]+)(: [^`]*)?`")
	for _, row := range slices.Concat(pageRows(t, "request"), pageRows(t, "frames"), pageRows(t, "refused")) {
		for _, m := range option.FindAllStringSubmatch(row["option"], -1) {
			key := m[1][strings.LastIndexByte(m[1], '.')+1:]
			if !regexp.MustCompile(`\b` + key + `:`).Match(reference) {
				t.Errorf("the page names the option %s, which gateway.yaml does not have", m[1])
			}
		}
		for name := range strings.FieldsFuncSeq(row["shown by"], func(r rune) bool { return r == ',' || r == ' ' }) {
			if !tests[name] {
				t.Errorf("the page names the test %s, which does not exist", name)
			}
		}
	}
}

// TestConformanceOfOthers compares columns of the page with the servers that -peers names. A proxy
// among them needs an origin server behind it that answers 200.
func TestConformanceOfOthers(t *testing.T) {
	if *peers == "" {
		t.Skip("-peers names no servers")
	}
	all := probesByID(t)
	for _, peer := range strings.Split(*peers, ",") {
		column, address, _ := strings.Cut(peer, "=")
		for _, row := range pageRows(t, "request") {
			t.Run(column+" "+row["request"], func(t *testing.T) {
				t.Parallel() // most wait for a second
				if got := all[row["request"]].statusFrom(t, address, time.Second); row[column] != got {
					t.Errorf("the page says that %s answers %q; it is %q", column, row[column], got)
				}
			})
		}
	}
}

// strict reports whether a probe is refused for its form, not for a missing route or permission.
func (p *probe) strict() bool {
	switch p.want[strings.LastIndexByte(p.want, ' ')+1:] {
	case "no_route", "method_not_allowed", "no_credential":
		return false
	}
	return strings.Contains(p.want, "_")
}

// statusFrom sends a probe to a server without TLS and returns the status of its last answer; "-" for
// none. wait limits each wait for bytes, and for the server's close after the client's own.
func (p *probe) statusFrom(t *testing.T, address string, wait time.Duration) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if wait > 0 {
		_ = c.SetReadDeadline(time.Now().Add(wait))
	}
	_, _ = io.WriteString(c, strings.ReplaceAll(p.raw, "{h}", probeHost+probeToken))
	if wait == 0 {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	received, _ := io.ReadAll(c)
	answers := statusLine.FindAllStringSubmatch(string(received), strings.Count(p.want, " "))
	if len(answers) == 0 {
		return "-"
	}
	return answers[len(answers)-1][1]
}
