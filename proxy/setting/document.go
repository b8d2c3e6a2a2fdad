package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// MaxFile is the maximum size of a file in bytes.
const MaxFile = 1 << 20

// Document is a decoded file. It maps paths to lines.
type Document struct {
	File  string
	lines map[string]int
	// bad holds the paths with decoding faults.
	bad map[string]bool
	// paths maps locations in the document to the file system paths written there.
	paths map[string]writtenPath
	end   int // last line
}

// Decode strictly decodes one YAML document into the struct that into points to. It returns all
// faults at once: unknown fields, duplicate keys, values of the wrong type. Valid parts are
// decoded despite faults elsewhere, so that checks can report more. file is the name in faults.
// Its folder is the base of relative paths in a [Path], [Place] or [Secret].
//
// The document is never nil.
func Decode(file string, text []byte, into any) (*Document, Faults) {
	d := &decoder{
		doc: &Document{File: file, lines: map[string]int{"": 1}, bad: map[string]bool{}, paths: map[string]writtenPath{}, end: bytes.Count(text, []byte("\n")) + 1},
	}
	if n := d.parse(text); n != nil {
		d.root(n, into)
	}
	return d.doc, d.faults
}

// Line returns the line of the path, or of its nearest parent in the file.
func (d *Document) Line(path string) int {
	for ; path != ""; path = parent(path) {
		if n, ok := d.lines[path]; ok {
			return n
		}
	}
	return d.lines[""]
}

// Has reports whether the file contains this path.
func (d *Document) Has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

// Bad reports whether decoding found a fault at the path or at a parent. A check should then
// ignore missing values there.
func (d *Document) Bad(path string) bool {
	for ; path != ""; path = parent(path) {
		if d.bad[path] {
			return true
		}
	}
	return d.bad[""]
}

// parent returns the path without its last element.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// parse returns the root node of the only document in text.
func (d *decoder) parse(text []byte) (root *yaml.Node) {
	if len(text) > MaxFile {
		d.fault("", 1, "", fmt.Sprintf("the file is larger than %d bytes", MaxFile), "split it with include")
		return nil
	}
	if line, ok := plainText(text); !ok {
		d.fault("", line, "", "not UTF-8 text with lines that end in LF or CRLF", "save the file as UTF-8 with LF line ends, and escape other line separators in double quotes")
		return nil
	}
	// The YAML parser panics internally and recovers its own faults. A panic that it misses must
	// not end the process during a reload.
	defer func() {
		if recover() != nil {
			root = nil
			d.fault("", 1, "", "cannot be read as YAML", "check indentation and quotes")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var n yaml.Node
	if err := dec.Decode(&n); errors.Is(err, io.EOF) {
		d.fault("", 1, "", "the file is empty", "sallyport init prints a first one")
		return nil
	} else if err != nil {
		d.syntax(text, err)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		d.fault("", second.Line, "", "a second document begins here", `remove the line "---" and what belongs to the other document`)
		return nil
	} else if !errors.Is(err, io.EOF) {
		d.syntax(text, err)
		return nil
	}
	if n.Kind != yaml.DocumentNode || len(n.Content) != 1 {
		d.fault("", 1, "", "the file is empty", "sallyport init prints a first one")
		return nil
	}
	return n.Content[0]
}

// plainText reports whether all readers see the same lines in the text. YAML also ends lines, and
// thus comments, at a lone CR, NEL, LS or PS (YAML 1.1 section 4.2), and reads UTF-16. An editor
// would then show other lines than we decode. line is the first offending line.
func plainText(text []byte) (line int, ok bool) {
	line = 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1,
			r == '\u0085', r == '\u2028', r == '\u2029',
			r == '\r' && !bytes.HasPrefix(text[i+1:], []byte("\n")):
			return line, false
		case r == '\n':
			line++
		}
		i += size
	}
	return line, true
}

// Nearest returns the known name that a mistyped name probably means; "" if none is similar.
func Nearest(name string, known []string) string {
	best, bestDistance := "", len(name)/3+1
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	if len(name) > 64 {
		return ""
	}
	for _, k := range slices.Sorted(slices.Values(known)) {
		if distance := editDistance(name, k); distance < bestDistance || distance == 0 {
			best, bestDistance = k, distance
		}
	}
	return best
}

// editDistance counts insertions, removals, replacements and swaps of letters.
func editDistance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
