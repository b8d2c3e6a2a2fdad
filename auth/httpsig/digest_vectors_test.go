package httpsig_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// digestVector is one file of testdata/rfc9530: an example of its appendices,
// whose content is a quoted string or hexadecimal. Digests of representations are
// among them where the content is the whole representation.
type digestVector struct {
	expect, digest string
	content        []byte
}

func readDigestVector(t *testing.T, file string) digestVector {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		values[key] = value
	}
	v := digestVector{expect: values["expect"], digest: values["digest"]}
	if strings.HasPrefix(values["content"], `"`) {
		var content string
		content, err = strconv.Unquote(values["content"])
		v.content = []byte(content)
	} else {
		v.content, err = hex.DecodeString(values["content"])
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestDigestVectors parses, compares and recomputes the examples of RFC 9530.
func TestDigestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/rfc9530/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			v := readDigestVector(t, file)
			d, err := httpsig.ParseContentDigest(httpsig.Lines{{Name: "Content-Digest", Value: v.digest}})
			if err == nil {
				err = d.Match(v.content)
			}
			want := httpsig.Code(v.expect)
			if v.expect == "match" {
				want = ""
			}
			if code(err) != want {
				t.Errorf("%v, want %s", err, v.expect)
			}
			if v.expect != "match" {
				return
			}
			if d.Match(append(v.content, ' ')) == nil {
				t.Error("other content matches")
			}
			if made := httpsig.ContentDigest(v.content); strings.Contains(v.digest, "sha-256=") && !strings.Contains(v.digest, made) {
				t.Errorf("computed %s, want %s", made, v.digest)
			}
			by := httpsig.NewDigester()
			for i := range v.content {
				_, _ = by.Write(v.content[i : i+1])
			}
			if by.Value() != httpsig.ContentDigest(v.content) {
				t.Errorf("written byte by byte %s", by.Value())
			}
		})
	}
}
