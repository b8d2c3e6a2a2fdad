package model_test

import (
	"net/textproto"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sallyport/policy/model"
	"sallyport/proxy/message"
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

// TestDialectsReadTheModelThatWasServed replays the recorded requests of language models: each that
// a server answered by a model is either refused, or read as a call of that very model.
func TestDialectsReadTheModelThatWasServed(t *testing.T) {
	t.Parallel()
	for server, dialect := range map[string]string{"llamacpp": "openai", "ollama": "ollama"} {
		d, _ := model.ByName(dialect)
		read := 0
		for _, x := range exchanges(t, server) {
			named, err := readExchange(d, x)
			if err != nil || x.served == "" {
				continue
			}
			if read++; named != x.served {
				t.Errorf("%s is read as a call of %q, but %s served it", x.name, named, x.served)
			}
		}
		if read < 8 {
			t.Errorf("of the recordings of %s only %d that a model served are read", server, read)
		}
	}
}

// readExchange reads the request of a recording as the gateway does, and returns the model.
func readExchange(d *model.Dialect, x exchange) (string, error) {
	h := &message.Head{Version: message.HTTP11, Method: x.method, Scheme: "https", Authority: "localhost", Target: x.target}
	for name, value := range x.header {
		h.Fields = append(h.Fields, message.Field{Name: strings.ToLower(name), Value: value})
	}
	if err := h.Settle(); err != nil {
		return "", err
	}
	if h.Forms != 0 && !d.KeepsSlashes(h.Path) {
		return "", message.ErrBadTarget
	}
	r, err := d.Read(&model.Request{Method: h.Method, Path: h.Path, Query: h.Query, HasQuery: h.HasQuery, Fields: h.Fields})
	if err != nil || !r.NeedsBody() {
		return r.Call.Model, err
	}
	named := ""
	s := r.Scanner(model.ScanOptions{Decide: func(n model.Named) error {
		named = n.Model
		return nil
	}})
	defer s.Close()
	if _, err := s.Write([]byte(x.body)); err != nil {
		return "", err
	}
	return named, s.Check()
}
