package story

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The recorded exchanges with real servers, seen from the folder of a story. The README there
// describes their form.
const recordings = "../../policy/model/testdata/exchanges"

// keptBody is how much of an answer's body a recording keeps. It is enough to tell what the
// server did, and keeps the folder small.
const keptBody = 1200

// Recorded sends the request of each recording SERVER-*.http to the server at address, and
// compares the answer with the recorded one, or writes it down if record is set. The function
// served tells from the body of an answer which model made it; it returns "" if that is unknown.
func Recorded(t *testing.T, record bool, server, address string, served func(body string) string) {
	files, err := filepath.Glob(filepath.Join(recordings, server+"-*.http"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings of %s: %v", server, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".http"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, rest, found := strings.Cut(string(old), ">>>\n")
			request, _, answered := strings.Cut(rest, "\n<<<\n")
			if !found || !answered {
				t.Fatalf("%s has no lines >>> and <<<", file)
			}
			answer, body := ask(t, address, request)
			var remarks strings.Builder
			for line := range strings.Lines(head) {
				if !strings.HasPrefix(line, "served: ") {
					remarks.WriteString(line)
				}
			}
			if model := served(body); model != "" {
				fmt.Fprintf(&remarks, "served: %s\n", model)
			}
			now := remarks.String() + ">>>\n" + request + "\n<<<\n" + answer
			switch {
			case now == string(old):
			case record:
				if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s is out of date; record it again with -record if this is right. Now it would be:\n%s", file, now)
			}
		})
	}
}

// ask sends a recorded request and returns the answer in the form of a recording, and its body.
func ask(t *testing.T, address, request string) (answer, whole string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	if _, err := c.Write(wire(t, request)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", res.StatusCode)
	for _, name := range []string{"Allow", "Content-Type", "Location"} {
		if v := res.Header.Get(name); v != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	kept := stable(string(body))
	if len(kept) > keptBody {
		kept = strings.ToValidUTF8(kept[:keptBody], "") + " [cut]"
	}
	fmt.Fprintf(&b, "\n%s\n", kept)
	return b.String(), string(body)
}

// wire makes the bytes of an HTTP/1.1 request from a recorded one: it adds what frames the
// body, and compresses the body if the head says that it is.
func wire(t *testing.T, request string) []byte {
	t.Helper()
	head, body, _ := strings.Cut(request, "\n\n")
	line, fields, _ := strings.Cut(head, "\n")
	if strings.Contains(fields, "Content-Encoding: gzip") {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		body = z.String()
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", line)
	for field := range strings.Lines(fields) {
		b.WriteString(strings.TrimSuffix(field, "\n") + "\r\n")
	}
	switch {
	case strings.Contains(fields, "Transfer-Encoding: chunked"):
		fmt.Fprintf(&b, "\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	case body != "" || strings.HasPrefix(line, "P"): // POST, PUT, PATCH
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

// unstable are the parts of answers that differ from run to run.
var unstable = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`"(created|created_at|completed_at|modified_at|expires_at|[a-z_]*duration|[a-z]+_(?:ms|per_second|per_token_ms)|size_vram)": ?(?:[0-9.e+-]+|"[^"]*")`), `"$1":0`},
	{regexp.MustCompile(`(chatcmpl|cmpl|resp|msg|rs)[-_][A-Za-z0-9]{1,}`), "$1-ID"},
	{regexp.MustCompile(`"(cached_tokens|cache_n|cache_read_input_tokens|prompt_n|input_tokens)": ?[0-9]+`), `"$1":0`},
	// What models say and compute depends on the processor in its last digits.
	{regexp.MustCompile(`"(content|text|delta|response)":"[tiny]+"`), `"$1":"tiny"`},
	{regexp.MustCompile(`"(content|text|delta|response)":"[secr]+"`), `"$1":"secret"`},
	{regexp.MustCompile(`\[-?[0-9]+\.[0-9e-]+(?:,-?[0-9.e-]+)*\]`), "[0.0]"},
	{regexp.MustCompile(`"relevance_score":-?[0-9.e-]+`), `"relevance_score":0`},
	{regexp.MustCompile(`"(context|tokens)":\[[0-9,]+\]`), `"$1":[0]`},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "DIGEST"},
	{regexp.MustCompile(`"status":\{"value":[^}]*\}`), `"status":{}`},
	{regexp.MustCompile(`,"meta":\{"vocab_type"[^}]*\}`), ""},
	{regexp.MustCompile(`(?:/[\w.@-]+)+/([\w.-]+\.gguf|llama-server|sha256-\w+)`), "/.../$1"},
	{regexp.MustCompile(`(127\.0\.0\.1:|"--port","|port = )[0-9]+`), "${1}80"},
}

func stable(body string) string {
	for _, u := range unstable {
		body = u.pattern.ReplaceAllString(body, u.instead)
	}
	return body
}

// spoken finds the first letter of what a model said.
var spoken = regexp.MustCompile(`"(?:content|text|delta|response)":"([a-z])`)

// Spoke tells which of the models of models-openai/make_model.py made an answer: each has letters
// of its own. It is "" if the answer has no word of either.
func Spoke(body string) string {
	m := spoken.FindStringSubmatch(body)
	switch {
	case m == nil:
		return ""
	case strings.Contains("tiny", m[1]):
		return "tiny"
	case strings.Contains("secr", m[1]):
		return "secret"
	}
	return ""
}
