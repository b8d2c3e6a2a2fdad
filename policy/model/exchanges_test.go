package model

import (
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// exchange is a recorded exchange with a real server; testdata/exchanges/README.md has its form.
type exchange struct {
	name           string
	served         string // the model that made the answer, "" if that is unknown
	method, target string
	header         map[string]string // by canonical name
	body           string
	status         int
	answer         string // its body
}

// exchanges reads the recordings of a server, or all of them for "*".
func exchanges(t testing.TB, server string) []exchange {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "exchanges", server+"-*.http"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings of %s: %v", server, err)
	}
	var all []exchange
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		remarks, rest, asked := strings.Cut(string(b), ">>>\n")
		request, answer, answered := strings.Cut(rest, "\n<<<\n")
		if !asked || !answered {
			t.Fatalf("%s lacks a line >>> or <<<", file)
		}
		x := exchange{name: strings.TrimSuffix(filepath.Base(file), ".http"), header: map[string]string{}}
		if _, served, found := strings.Cut(remarks, "served: "); found {
			x.served = strings.TrimSuffix(served, "\n")
		}
		head, body, _ := strings.Cut(request, "\n\n")
		line, fields, _ := strings.Cut(head, "\n")
		x.method, x.target, _ = strings.Cut(line, " ")
		for field := range strings.Lines(fields) {
			name, value, _ := strings.Cut(strings.TrimSuffix(field, "\n"), ": ")
			x.header[textproto.CanonicalMIMEHeaderKey(name)] = value
		}
		x.body = body
		status, rest, _ := strings.Cut(answer, "\n")
		if x.status, err = strconv.Atoi(status); err != nil {
			t.Fatalf("%s has no status of an answer: %v", file, err)
		}
		_, answer, _ = strings.Cut("\n"+rest, "\n\n")
		x.answer = strings.TrimSuffix(answer, "\n")
		all = append(all, x)
	}
	return all
}

// TestExchangesAreWhole checks that each recording is of a request and a real answer, and that
// they stay small.
func TestExchangesAreWhole(t *testing.T) {
	t.Parallel()
	size := 0
	for _, x := range exchanges(t, "*") {
		size += len(x.body) + len(x.answer)
		if x.method == "" || !strings.HasPrefix(x.target, "/") || x.status < 200 || x.status > 599 {
			t.Errorf("%s: %s %s answered by %d", x.name, x.method, x.target, x.status)
		}
		if x.served != "" && x.status != 200 {
			t.Errorf("%s: %s served a call that was answered by %d", x.name, x.served, x.status)
		}
	}
	if size > 200<<10 {
		t.Errorf("the recordings have %d KiB, more than 200", size>>10)
	}
}
