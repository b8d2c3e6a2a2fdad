package config

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

// maxFiles bounds the files that `include` may bring in.
const maxFiles = 256

// include is what an included file may hold.
type include struct {
	Upstreams map[string]upstream.Config `yaml:"upstreams"`
	Policies  map[string][]policy.Rule   `yaml:"policies"`
	Routes    []route.Config             `yaml:"routes"`
}

// Load reads a gateway.yaml and the files that it includes, and checks them
// all. It opens no other file. The error, if any, is [setting.Faults]: every
// fault there is, in the order of files and lines.
//
// Relative paths in the configuration count from the folder of the file that
// they stand in.
func Load(path string) (*Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, setting.Faults{{File: path, Problem: err.Error(), Cure: setting.CureUnreadable(err, "-c names another file; sallyport init prints a first one")}}
	}
	return parse(path, text, disk{filepath.Glob, readFile})
}

// Parse is [Load] for a text that stands alone: `include` is a fault
// in it. name is shown in faults, and its folder is where relative paths start.
func Parse(name string, text []byte) (*Config, error) {
	return parse(name, text, disk{})
}

// disk is where included files come from; nil functions for nowhere.
type disk struct {
	glob func(pattern string) ([]string, error)
	read func(name string) ([]byte, error)
}

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errors.New("no such file")
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", errors.Unwrap(err))
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", errors.Unwrap(err))
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, setting.MaxFile+1))
}

// source knows which file and line each path of a Config came from.
type source struct {
	main   *setting.Document
	routes []origin // by index in Config.Routes
	named  map[string]origin
	files  []string  // the documents
	globs  []string  // where include looks for more
	onDisk bool      // the documents are files
	text   hash.Hash // of the names and bytes of all files, in the order in which they were read
}

// read records the bytes of a file.
func (s *source) read(name string, text []byte) {
	fmt.Fprintf(s.text, "%q %d\n", name, len(text))
	_, _ = s.text.Write(text)
}

// origin is where something stands that included files may hold.
type origin struct {
	doc  *setting.Document
	path string // in that file
}

// find tells where a path of the Config stands.
func (s *source) find(path string) (*setting.Document, string) {
	var i int
	if _, err := fmt.Sscanf(path, "routes[%d]", &i); err == nil && i >= 0 && i < len(s.routes) {
		_, rest, _ := strings.Cut(path, "]")
		return s.routes[i].doc, s.routes[i].path + rest
	}
	for at := path; at != ""; at = at[:max(0, strings.LastIndexAny(at, ".["))] {
		if o, ok := s.named[at]; ok {
			return o.doc, path
		}
	}
	return s.main, path
}

// place gives the faults of checks their files and lines. Those that are only
// consequences of what decoding refused are dropped.
func (s *source) place(found setting.Faults) setting.Faults {
	var kept setting.Faults
	for _, f := range found {
		doc, path := s.find(f.Path)
		if doc.Bad(path) {
			continue
		}
		f.File, f.Path, f.Line = doc.File, path, doc.Line(path)
		f = doc.AsWritten(f)
		kept = append(kept, f)
	}
	return kept
}

func parse(name string, text []byte, disk disk) (*Config, error) {
	c := &Config{}
	doc, faults := setting.Decode(name, text, c)
	c.source = &source{main: doc, named: map[string]origin{}, files: []string{name}, onDisk: disk.read != nil, text: sha256.New()}
	c.source.read(name, text)
	c.source.enter(doc, c.Upstreams, c.Policies, c.Routes)
	var found setting.Faults
	faults = append(faults, c.include(disk, &found)...)
	c.raiseMethods()
	c.check(&found)
	faults = append(faults, c.source.place(found)...)
	if len(faults) > 0 {
		// The main file comes first, whatever was found first.
		faults = append(setting.Faults{{File: name}}, faults...)
		faults.Sort()
		i := slices.IndexFunc(faults, func(f setting.Fault) bool { return f.Problem == "" })
		faults = slices.Delete(faults, i, i+1)
		return nil, faults[:min(len(faults), setting.MaxFaults)]
	}
	c.normalize()
	return c, nil
}

// enter records where the things of a file stand.
func (s *source) enter(doc *setting.Document, upstreams map[string]upstream.Config, policies map[string][]policy.Rule, routes []route.Config) {
	for name := range upstreams {
		s.named["upstreams."+name] = origin{doc, "upstreams." + name}
	}
	for name := range policies {
		s.named["policies."+name] = origin{doc, "policies." + name}
	}
	for i := range routes {
		s.routes = append(s.routes, origin{doc, setting.Index("routes", i)})
	}
}

// include adds what the included files hold. Faults of their text come back with
// file and line; those of `include` itself are added to found.
func (c *Config) include(disk disk, found *setting.Faults) (faults setting.Faults) {
	main := c.source.main.File
	seen := map[string]bool{filepath.Clean(main): true}
	for i, pattern := range c.Include {
		at := setting.Index("include", i)
		if disk.glob == nil {
			found.Add(at, pattern, "a text that is no file can include none", "write everything in one")
			continue
		}
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(main), pattern)
		}
		c.source.globs = append(c.source.globs, pattern)
		names, err := disk.glob(pattern)
		switch {
		case err != nil:
			found.Add(at, c.Include[i], "not a pattern for files", "write one such as conf.d/*.yaml")
		case len(names) == 0:
			found.Add(at, c.Include[i], "no file fits", "patterns are relative to the folder of this file; remove the line if there is nothing to include")
		}
		for _, name := range names {
			switch clean := filepath.Clean(name); {
			case clean == filepath.Clean(main):
				found.Add(at, c.Include[i], "the file would include itself", "choose a pattern that does not fit it, such as conf.d/*.yaml")
			case seen[clean]:
			case len(seen) > maxFiles:
				found.Add(at, c.Include[i], fmt.Sprintf("more than %d files", maxFiles), "gather routes in fewer files")
				return faults
			default:
				seen[clean] = true
				faults = append(faults, c.includeFile(name, disk)...)
			}
		}
	}
	return faults
}

// includeFile adds what one file holds.
func (c *Config) includeFile(name string, disk disk) setting.Faults {
	c.source.files = append(c.source.files, name)
	text, err := disk.read(name)
	if err != nil {
		return setting.Faults{{File: name, Problem: err.Error(), Cure: setting.CureUnreadable(err, "remove it, or let the gateway's user read it")}}
	}
	c.source.read(name, text)
	var part include
	doc, faults := setting.Decode(name, text, &part)
	for i := range faults {
		f := &faults[i]
		if f.Problem == "unknown field" && slices.Contains(setting.Fields[Config](), f.Path) {
			f.Problem, f.Cure = "cannot stand in an included file", "write it in the main file; here may be upstreams, policies and routes"
		}
	}
	again := func(kind, key string) {
		before := c.source.named[kind+"."+key].doc
		faults = append(faults, setting.Fault{File: name, Line: doc.Line(kind + "." + key), Path: kind + "." + key,
			Problem: fmt.Sprintf("is defined before, in %s on line %d", before.File, before.Line(kind+"."+key)), Cure: "give one of the two another name"})
	}
	for _, key := range slices.Sorted(maps.Keys(part.Upstreams)) {
		if _, taken := c.Upstreams[key]; taken {
			again("upstreams", key)
			delete(part.Upstreams, key)
			continue
		}
		if c.Upstreams == nil {
			c.Upstreams = map[string]upstream.Config{}
		}
		c.Upstreams[key] = part.Upstreams[key]
	}
	for _, key := range slices.Sorted(maps.Keys(part.Policies)) {
		if _, taken := c.Policies[key]; taken {
			again("policies", key)
			delete(part.Policies, key)
			continue
		}
		if c.Policies == nil {
			c.Policies = map[string][]policy.Rule{}
		}
		c.Policies[key] = part.Policies[key]
	}
	c.source.enter(doc, part.Upstreams, part.Policies, part.Routes)
	c.Routes = append(c.Routes, part.Routes...)
	return faults
}

// Place gives faults of values of the configuration their files and lines.
func (c *Config) Place(found setting.Faults) setting.Faults {
	if c.source == nil {
		return found
	}
	return c.source.place(found)
}

// Path is the main file; "" for a Config that was not loaded from one.
func (c *Config) Path() string {
	if c.source == nil || !c.source.onDisk {
		return ""
	}
	return c.source.main.File
}

// Globs are the patterns of further files to include.
func (c *Config) Globs() []string {
	if c.source == nil {
		return nil
	}
	return c.source.globs
}

// Files lists all that the configuration was read from: the main file, what it includes,
// and every certificate, key and secret that it names. A change of any of them is a
// change of the configuration; what the gateway writes itself is not among them. A file
// may be missing. It is empty for a Config that was not loaded.
func (c *Config) Files() []string {
	if c.source == nil {
		return nil
	}
	names := slices.Concat(c.source.files, setting.Files(c))
	slices.Sort(names)
	return slices.Compact(names)
}

// raiseMethods converts the methods of routes to upper case, the only form that requests may
// have. It comes before the checks, which compare methods with one another.
func (c *Config) raiseMethods() {
	raise := func(methods []string) {
		for i, m := range methods {
			methods[i] = strings.ToUpper(m)
		}
	}
	for i := range c.Routes {
		raise(c.Routes[i].Methods)
		if c.Routes[i].CORS != nil {
			raise(c.Routes[i].CORS.Methods)
		}
	}
}

// normalize writes names in the one form that is used, and fills in the defaults that
// depend on other fields or on the place of the file. It comes after the checks, so
// that faults show what was written.
func (c *Config) normalize() {
	c.fillPlaces(systemState)
	for i := range c.ClientCertificates {
		e := &c.ClientCertificates[i]
		e.Hosts = canonicalPatterns(e.Hosts)
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		r.Host = canonicalPatterns(r.Host)
		if r.Name == "" {
			r.Name = defaultName(r)
		}
		if r.Path == "" {
			r.Path = "/"
		}
	}
}

// canonicalPatterns returns a copy with each host in its one form.
func canonicalPatterns(hosts []string) []string {
	hosts = slices.Clone(hosts)
	for i, h := range hosts {
		hosts[i] = canonicalPattern(h)
	}
	return hosts
}

// canonicalPattern writes a host, or *.host, in its one form; what is neither stays.
func canonicalPattern(h string) string {
	star, rest := "", h
	if strings.HasPrefix(h, "*.") {
		star, rest = "*.", h[2:]
	}
	if canonical, err := message.CanonicalHost(rest); err == nil {
		return star + canonical
	}
	return h
}

// defaultName is what a route without a name is called: its methods, if it has some, its
// first host, and its path. A route without a host, which is a fault, has none.
func defaultName(r *route.Config) string {
	if len(r.Host) == 0 {
		return ""
	}
	name := canonicalPattern(r.Host[0]) + cmp.Or(r.Path, "/")
	if len(r.Methods) > 0 {
		name = strings.Join(r.Methods, ",") + " " + name
	}
	return name
}
