package route

import (
	"strings"

	"sallyport/policy/model"
	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// PathsConfig is the section `paths` of a route. It permits spellings in paths that servers interpret
// differently. A kept spelling is forwarded byte for byte and does not separate segments for routes
// and rules. It is still refused if some server could read the path as one of another route. Default:
// refuse, except for encoded_slash.
type PathsConfig struct {
	// EncodedSlash is %2F. Default: refuse; for upstreams that serve openai or ollama, keep in the ID
	// of a model after /v1/models/, which those servers decode once.
	EncodedSlash string `yaml:"encoded_slash"`
	// EncodedPercent is %25, as in 100%25.ipynb.
	EncodedPercent string `yaml:"encoded_percent"`
	// EncodedQuestion is %3F.
	EncodedQuestion string `yaml:"encoded_question"`
	// EncodedHash is %23.
	EncodedHash string `yaml:"encoded_hash"`
	// Semicolon is ";" and %3B.
	Semicolon string `yaml:"semicolon"`
	// DoubleSlash is an empty segment, as in //v1 or file=https://h/a.png: keep it, or merge several
	// slashes into one, for the match and the upstream. At the start of a path it can only be merged.
	DoubleSlash string `yaml:"double_slash"`
}

// Values of PathsConfig.
const (
	keep   = "keep"
	merge  = "merge"
	refuse = "refuse"
)

// pathForm is one form with its key in PathsConfig.
type pathForm struct {
	form message.Forms
	key  string
	what string
	set  func(*PathsConfig) string
}

var pathForms = [...]pathForm{
	{message.EncodedSlash, "encoded_slash", "an encoded slash, which some servers take for a slash", func(c *PathsConfig) string { return c.EncodedSlash }},
	{message.EncodedPercent, "encoded_percent", "an encoded percent sign, which some servers decode twice", func(c *PathsConfig) string { return c.EncodedPercent }},
	{message.EncodedQuestion, "encoded_question", "an encoded question mark, where some servers begin the query", func(c *PathsConfig) string { return c.EncodedQuestion }},
	{message.EncodedHash, "encoded_hash", "an encoded hash, where some servers end the path", func(c *PathsConfig) string { return c.EncodedHash }},
	{message.Semicolon, "semicolon", "a semicolon, after which some servers read parameters", func(c *PathsConfig) string { return c.Semicolon }},
	{message.DoubleSlash, "double_slash", "an empty segment, which some servers drop", func(c *PathsConfig) string { return c.DoubleSlash }},
}

// InWords lists the keys that the section sets, as in "encoded_slash keep".
func (c *PathsConfig) InWords() []string {
	words := []string{}
	for i := range pathForms {
		if value := pathForms[i].set(c); value != "" {
			words = append(words, pathForms[i].key+" "+value)
		}
	}
	return words
}

// Paths holds the forms that a route accepts in paths. The zero Paths accepts none. It is immutable.
type Paths struct {
	kept  message.Forms
	merge bool
	ids   *model.Dialect // keeps slashes in ids as this dialect does; nil: does not
}

// NewPaths compiles the section.
func NewPaths(c *PathsConfig, dialect *model.Dialect) Paths {
	p := Paths{merge: c.DoubleSlash == merge}
	for i := range pathForms {
		if pathForms[i].set(c) == keep {
			p.kept |= pathForms[i].form
		}
	}
	if c.EncodedSlash == "" {
		p.ids = dialect
	}
	return p
}

// check returns an error for a form in the path that the route does not accept.
func (r *Route) check(head *message.Head) error {
	path := r.Rewriting.path(head.Path)
	refused := head.Forms &^ r.Paths.kept
	if refused&message.EncodedSlash != 0 && r.Paths.ids != nil && r.Paths.ids.KeepsSlashes(path) {
		refused &^= message.EncodedSlash
	}
	if refused == 0 && strings.HasPrefix(path, "//") {
		return head.Refuse(message.DoubleSlash, "an empty segment at the start of the upstream's path, after which some servers read an authority", "paths: {double_slash: merge} in the route makes one slash of it")
	}
	return refusedForm(head, refused)
}

// refusedForm returns the error for the first of some forms; nil for none.
func refusedForm(head *message.Head, refused message.Forms) error {
	for i := range pathForms {
		if f := &pathForms[i]; refused&f.form != 0 {
			cure := "paths: {" + f.key + ": keep} in the route accepts it"
			if f.form == message.DoubleSlash {
				cure = "paths: {double_slash: merge} in the route makes one slash of it, and keep accepts it"
			}
			return head.Refuse(f.form, f.what, cure)
		}
	}
	return nil
}

// check records the faults of the section of a route.
func (c *PathsConfig) check(at string, f *setting.Faults) {
	for i := range pathForms {
		form := &pathForms[i]
		switch value := form.set(c); {
		case value == "" || value == keep || value == refuse:
		case form.form == message.DoubleSlash && value == merge:
		case form.form == message.DoubleSlash:
			f.Add(at+"."+form.key, value, "not a way to treat empty segments", "write keep, merge or refuse")
		default:
			f.Add(at+"."+form.key, value, "not a way to treat this form", "write keep or refuse")
		}
	}
}

// CheckSibling records the options of r with which a server could read one of its paths as one of
// another route on the same host: r would let through what that route refuses. where is the place of
// the other route.
func (r *Config) CheckSibling(at string, other *Config, where string, f *setting.Faults) {
	path, longer := r.Path, strings.TrimPrefix(other.Path, "=")
	if strings.HasPrefix(path, "=") || longer == "" {
		return
	}
	if path == "" {
		path = "/"
	}
	if longer == path && !strings.HasPrefix(other.Path, "=") || !under(longer, path) {
		return
	}
	for i := range pathForms {
		if form := &pathForms[i]; form.set(&r.Paths) == keep {
			f.Add(at+".paths."+form.key, keep, "could be read as "+longer+" of the route on "+where, "give the route a path or a host of its own, or remove the line")
		}
	}
}

// checkForms returns an error if some server could read the path as one of another route. found is
// the configured path that matches the canonical path.
func (h *hostRoutes) checkForms(head *message.Head, found string) error {
	all, known := message.Readings(head.Path)
	if !known {
		return head.Refuse(head.Forms, "decoding it yields a dot segment, a control or another escape, or the path is longer than 4 KiB", "")
	}
	for _, reading := range all {
		folded := strings.ToLower(reading)
		if h.findFolded(folded) != found || h.dodge(folded, found) != "" {
			return head.Refuse(head.Forms, "some servers read the path as one of another route", "give that route a host of its own")
		}
	}
	return nil
}
