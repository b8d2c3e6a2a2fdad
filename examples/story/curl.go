package story

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bufio"
)

// Answer is what curl was told.
type Answer struct {
	Status   int
	Protocol string // "1.1" or "2"
	Header   http.Header
	Body     string
}

// JSON decodes the body.
func (a Answer) JSON(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), into); err != nil {
		t.Fatalf("body %q: %v", a.Body, err)
	}
}

// Curl runs curl with the arguments, believing only in the certificates of the
// file ca (the system's if empty), and returns the last answer. A transport
// error fails the test.
func Curl(t testing.TB, ca string, args ...string) Answer {
	t.Helper()
	Need(t, "curl")
	dir := t.TempDir()
	heads, body := filepath.Join(dir, "heads"), filepath.Join(dir, "body")
	all := []string{"-sS", "--max-time", "60", "-D", heads, "-o", body, "-w", "%{http_code} %{http_version}"}
	if ca != "" {
		all = append(all, "--cacert", ca)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append(all, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	code, version, _ := strings.Cut(out.String(), " ")
	a := Answer{Protocol: version}
	a.Status, _ = strconv.Atoi(code)
	if b, err := os.ReadFile(body); err == nil {
		a.Body = string(b)
	}
	b, err := os.ReadFile(heads)
	if err != nil {
		t.Fatal(err)
	}
	// Interim answers come first, each with a head of its own.
	blocks := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n")), "\n\n")
	_, fields, _ := strings.Cut(blocks[len(blocks)-1]+"\n\n", "\n")
	h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(fields))).ReadMIMEHeader()
	if err != nil {
		t.Fatalf("head of the answer: %v", err)
	}
	a.Header = http.Header(h)
	return a
}
