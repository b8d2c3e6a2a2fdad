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

// MaxFile is the size, in bytes, above which a file is refused unread.
const MaxFile = 1 << 20

// Document is one decoded file: it knows on which line each of its paths is.
type Document struct {
	File  string
	lines map[string]int
	// bad holds the paths at which decoding found a fault.
	bad map[string]bool
	// paths holds, by the place where it stands, each file system path that was decoded.
	paths map[string]writtenPath
	end   int // the last line
}

// Decode reads one YAML document strictly into the struct that into points to,
// and returns every fault of it at once: fields that the struct does not have,
// duplicate keys, values of the wrong type. What is sound is decoded in spite of
// faults elsewhere, so that checks can find more. file is shown in the faults, and
// its folder is where relative paths start: those of a [Path], [Place] or [Secret].
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

// Line is the line on which the path stands, or the nearest thing around it that
// is in the file.
func (d *Document) Line(path string) int {
	for ; path != ""; path = parent(path) {
		if n, ok := d.lines[path]; ok {
			return n
		}
	}
	return d.lines[""]
}

// Has says whether the file has something at this path.
func (d *Document) Has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

// Bad says whether decoding found a fault at the path or around it: what a check
// then finds missing there is only a consequence.
func (d *Document) Bad(path string) bool {
	for ; path != ""; path = parent(path) {
		if d.bad[path] {
			return true
		}
	}
	return d.bad[""]
}

// parent cuts the last step off a path.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// parse returns the root node of the one document in text.
func (d *decoder) parse(text []byte) (root *yaml.Node) {
	if len(text) > MaxFile {
		d.fault("", 1, "", fmt.Sprintf("the file is larger than %d bytes", MaxFile), "split it with include")
		return nil
	}
	if line, ok := plainText(text); !ok {
		d.fault("", line, "", "not UTF-8 text with lines that end in LF or CRLF", "save the file as UTF-8 with LF line ends, and write other line separators as escapes in double quotes")
		return nil
	}
	// The YAML parser reports its own faults by panicking inside and recovers
	// those; one that it misses must not end the process on a reload.
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

// plainText says whether all readers of the text see the same lines in it. YAML
// also ends a line, and with it a comment, at a lone CR, NEL, LS or PS (YAML 1.1
// section 4.2) and reads UTF-16: there an editor shows other lines than we would
// obey and count. line is that of the first such place.
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

// Nearest is the known name that a mistyped one probably means, "" if none is near.
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

// editDistance counts the letters to insert, remove, replace or swap.
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
