package setting

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)$`)

// syntax records an error of the YAML parser on the line of the fault. The parser reports the line
// on which the mapping or list around the fault began, and sometimes the line before.
func (d *decoder) syntax(text []byte, err error) {
	m := yamlLine.FindStringSubmatch(oneLine(err.Error()))
	said, _ := strconv.Atoi(m[1])
	said = max(said, 1)
	problem, cure := "not YAML: "+shown(m[2]), "check indentation, quotes and colons on this line and the one before"
	line := said
	switch what := m[2]; {
	case strings.Contains(what, "tab character"), strings.Contains(what, "cannot start any token"):
		if at := tabbed(text, said, lastRead(text)); at > 0 {
			line, problem, cure = at, "a tab in the indentation", "indent with spaces"
		} else {
			cure = "put the value in quotes"
		}
	case strings.Contains(what, "alphabetic or numeric character"), strings.HasPrefix(what, "unknown anchor"):
		if at, word := starred(text, said); at > 0 {
			line, problem, cure = at, "a star begins an alias in YAML", `quote the star: "`+shown(word)+`"`
		}
	case strings.HasSuffix(what, "expected key"), strings.HasSuffix(what, "'-' indicator"), strings.HasSuffix(what, "<document start>"):
		line, cure = firstFailing(text, lastRead(text), err), "indent this line like the others of its list or mapping"
	case strings.HasSuffix(what, "expected ',' or ']'"), strings.HasSuffix(what, "expected ',' or '}'"):
		line, cure = said+1, "close each bracket that opens here, and separate its items by commas" // the parser counts lines from 0 here
	}
	d.fault("", line, "", problem, cure)
}

// oneByOne gives the parser one byte at a time, so that it reads no further than it needs. read
// counts the bytes.
type oneByOne struct {
	text []byte
	read int
}

func (r *oneByOne) Read(p []byte) (int, error) {
	if r.read == len(r.text) {
		return 0, io.EOF
	}
	p[0] = r.text[r.read]
	r.read++
	return 1, nil
}

// lastRead returns the line that the parser has reached when it fails: the line of the fault, or
// one soon after it.
func lastRead(text []byte) int {
	r := &oneByOne{text: text}
	dec := yaml.NewDecoder(r)
	for {
		var n yaml.Node
		if dec.Decode(&n) != nil {
			return 1 + bytes.Count(text[:max(r.read-1, 0)], []byte("\n"))
		}
	}
}

// maxLookahead is how many lines before the last one that the parser read the fault may be.
const maxLookahead = 32

// firstFailing goes back from line and returns the first line such that the text up to it fails with
// the error of the whole.
func firstFailing(text []byte, line int, whole error) int {
	for range maxLookahead {
		if line <= 1 {
			break
		}
		dec := yaml.NewDecoder(bytes.NewReader(firstLines(text, line-1)))
		var err error
		for err == nil {
			var n yaml.Node
			err = dec.Decode(&n)
		}
		if err.Error() != whole.Error() {
			break
		}
		line--
	}
	return line
}

// firstLines returns the first n lines of a text.
func firstLines(text []byte, n int) []byte {
	end := 0
	for ; n > 0; n-- {
		i := bytes.IndexByte(text[end:], '\n')
		if i < 0 {
			return text
		}
		end += i + 1
	}
	return text[:end]
}

// tabbed returns the first line from first to last whose indentation has a tab; 0 if there is none.
func tabbed(text []byte, first, last int) int {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if n >= first && n <= last && bytes.IndexByte(indent, '\t') >= 0 {
			return n
		}
	}
	return 0
}

var star = regexp.MustCompile(`\*[^\s,\]}"']*`)

// starred returns the first line with a star, from first on, and the word that begins with the star.
// The line is 0 if there is none.
func starred(text []byte, first int) (line int, word string) {
	for l := range bytes.Lines(text) {
		line++
		if word := star.Find(l); line >= first && word != nil {
			return line, string(word)
		}
	}
	return 0, ""
}
