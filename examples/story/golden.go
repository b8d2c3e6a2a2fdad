package story

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// A golden exchange is a file: one line "NAME: COUNT" for each of the blocks
// client, request and response, an empty line, then the blocks themselves, each
// of COUNT bytes and followed by a line feed. Client is what a client sent, but
// for its token; request is what the gateway made of it, and response what the
// server answered to that. What differs from run to run is replaced: the date,
// the port of the server and the request id.

// variable are the parts of messages that differ from run to run.
var variable = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`(?im)^(host: 127\.0\.0\.1:)[0-9]+\r$`), "${1}80\r"},
	{regexp.MustCompile(`(?im)^(x-sallyport-request-id: ).*\r$`), "${1}ID\r"},
	{regexp.MustCompile(`(?im)^(date: ).*\r$`), "${1}Thu, 01 Jan 1970 00:00:00 GMT\r"},
}

func steady(b []byte) []byte {
	for _, v := range variable {
		b = v.pattern.ReplaceAll(b, []byte(v.instead))
	}
	return b
}

// Golden compares an exchange with testdata/golden/NAME.http, or writes that file
// if record is set.
func Golden(t testing.TB, record bool, name string, client []byte, e Exchange) {
	t.Helper()
	request, response := steady(e.Request), steady(e.Response)
	var b bytes.Buffer
	fmt.Fprintf(&b, "client: %d\nrequest: %d\nresponse: %d\n\n", len(client), len(request), len(response))
	for _, block := range [][]byte{client, request, response} {
		b.Write(block)
		b.WriteByte('\n')
	}
	keep(t, record, filepath.Join("testdata", "golden", name+".http"), b.Bytes())
}

// keep compares content with that of a file, or writes the file if record is set.
func keep(t testing.TB, record bool, file string, content []byte) {
	t.Helper()
	if record {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content, want) {
		t.Errorf("%s is out of date; record it again with -record if this is right. Now it would be:\n%s", file, content)
	}
}
