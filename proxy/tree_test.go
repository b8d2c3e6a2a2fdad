package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/proxy"
)

// root is the top of the tree, seen from this package.
const root = ".."

// module is the path of the module, and so the prefix of our packages.
const module = "sallyport"

// source is one product file of Go: no test, and no part of another module.
type source struct {
	name string // from the top of the tree, such as "proxy/route.go"
	dir  string // the package, such as "proxy"
	set  *token.FileSet
	file *ast.File
}

// at writes a position as compilers do.
func (s source) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.name, s.set.Position(p).Line)
}

// imports gives the import paths of the file with their positions.
func (s source) imports() map[string]string {
	all := make(map[string]string)
	for _, spec := range s.file.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			all[name] = s.at(spec.Pos())
		}
	}
	return all
}

// walk calls visit with every file of the tree, named from its top.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "node_modules", "__pycache__", "dist"}, d.Name()):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		name, err := filepath.Rel(root, p)
		if err == nil {
			visit(filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources parses the product's files. Tests and examples are exempt from rules
// about code: tests may look inside, and examples are a module of their own.
// auth/authtest belongs to the tests, and no product package may import it.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	walk(t, func(name string) {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") ||
			strings.HasPrefix(name, "examples/") || strings.HasPrefix(name, "auth/authtest/") || strings.Contains(name, "testdata/") {
			return
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, filepath.Join(root, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{name: name, dir: path.Dir(name), set: set, file: file})
	})
	if len(all) == 0 {
		t.Fatal("no source was found")
	}
	return all
}

// covers says whether a package matches a pattern: "a/..." is a and all below.
func covers(pattern, dir string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == tree || strings.HasPrefix(dir, tree+"/")
	}
	return pattern == dir
}

// TestTreeArrows holds who may import whom. The first row that covers a package
// is the one that counts; a package that no row covers is not allowed.
func TestTreeArrows(t *testing.T) {
	arrows := []struct {
		from, to, why string
	}{
		{"cmd/...", "cmd/... proxy auth/httpsig", "commands know the house, not its rooms; signing is a tool of its own"},

		{"auth/identity", "", "a leaf: who a caller is depends on nothing"},
		{"auth/httpsig", "", "a leaf: signatures know nothing of gateways"},
		{"auth/fetch", "proxy/setting", "fetching knows no protocol above HTTP"},
		{"auth", "auth/identity auth/httpsig auth/fetch proxy/message proxy/setting", "credentials are read from heads, not from servers; auth/authtest is for tests"},

		{"policy/model", "proxy/message", "what a request asks is read from the request alone"},
		{"policy", "policy/model auth/identity proxy/message proxy/setting", "decisions are pure: no transport, no proof"},

		{"proxy/message", "", "a leaf: one reading of messages for all"},
		{"proxy/setting", "", "a leaf: values of the configuration"},
		{"proxy/upstream/...", "proxy/upstream/... proxy/wire/... proxy/message proxy/setting auth/identity", "upstreams speak through the wire"},
		{"proxy/wire", "proxy/wire/socket proxy/message proxy/setting auth/identity", "what both engines share knows neither"},
		{"proxy/wire/h1/...", "proxy/wire proxy/wire/socket proxy/message proxy/setting auth/identity", "an engine does not know the other, so that each can be replaced"},
		{"proxy/wire/h2/...", "proxy/wire proxy/wire/socket proxy/message proxy/setting auth/identity", "an engine does not know the other, so that each can be replaced"},
		{"proxy/wire/...", "proxy/wire/... proxy/message proxy/setting auth/identity", "engines know messages, so that they can be replaced"},
		{"proxy/edge/...", "proxy/edge/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/limit/...", "proxy/limit/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/audit/...", "proxy/audit/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/admin/...", "proxy/admin/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/watch", "", "a leaf: files, whatever they mean"},
		{"proxy/shared/...", "proxy/shared/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/seal", "auth auth/httpsig proxy/limit proxy/message proxy/setting proxy/upstream", "what is vouched for knows messages and keys, not routes"},
		{"proxy/route", "auth policy/... proxy/limit proxy/message proxy/seal proxy/setting proxy/upstream proxy/wire", "a route gathers what is done to its messages, and does not know the order"},
		{"proxy/exchange", "auth auth/httpsig auth/identity policy/... proxy/route proxy/seal proxy/audit proxy/limit proxy/message proxy/setting proxy/shared proxy/upstream proxy/wire", "the way knows what it passes, and neither files nor engines"},
		{"proxy/config", "auth policy/... proxy/...", "the whole file has sections of all rooms"},
		{"proxy", "auth auth/httpsig auth/identity policy/... proxy/...", "the house knows all its rooms"},
	}
	for _, s := range sources(t) {
		for name, at := range s.imports() {
			to, ours := strings.CutPrefix(name, module+"/")
			if !ours {
				continue
			}
			if to == "auth/authtest" {
				t.Errorf("%s: the fake issuer is for tests", at)
			}
			i := slices.IndexFunc(arrows, func(a struct{ from, to, why string }) bool { return covers(a.from, s.dir) })
			if i < 0 {
				t.Errorf("%s: no row of the table of arrows covers %s", at, s.dir)
				continue
			}
			allowed := slices.ContainsFunc(strings.Fields(arrows[i].to), func(p string) bool { return covers(p, to) })
			if !allowed {
				t.Errorf("%s: %s must not import %s: %s", at, s.dir, to, arrows[i].why)
			}
		}
	}
}

// TestTreeNetHTTP holds the border to net/http: its server types stay in the
// adaptor, so that another engine can take its place and no second reading of a
// request comes into being. Its words for methods and statuses are no types.
func TestTreeNetHTTP(t *testing.T) {
	servers := map[string]string{
		"proxy/wire/stdhttp": "the adaptor, for tests that compare",
		"proxy/admin":        "health, metrics and the control socket, on listeners of their own",
		"cmd/sallyport/demo": "the issuer and the model server of the demonstration",
	}
	clients := map[string]string{
		"auth/fetch":    "the one client for what is fetched; go-oidc uses it for discovery",
		"auth/httpsig":  "the transport that signs requests and verifies responses, for clients in Go",
		"proxy/edge":    "acmez's client for authorities, bounded; webhooks that make records",
		"cmd/sallyport": "sallyport curl, a client over httpsig's transport",
	}
	clientNames := strings.Fields("Client DefaultTransport ProxyFromEnvironment ParseTime Transport RoundTripper Request Response Header ErrUseLastResponse NewRequestWithContext")
	for _, s := range sources(t) {
		for name, at := range s.imports() {
			if strings.HasPrefix(name, "net/http/") || name == module+"/proxy/wire/stdhttp" {
				t.Errorf("%s: product code must not import %s", at, name)
			}
		}
		if servers[s.dir] != "" {
			continue
		}
		eachUse(s, func(pkg, name string, at token.Pos) {
			word := strings.HasPrefix(name, "Status") || strings.HasPrefix(name, "Method")
			if pkg != "net/http" || word || clients[s.dir] != "" && slices.Contains(clientNames, name) {
				return
			}
			t.Errorf("%s: %s must not use http.%s", s.at(at), s.dir, name)
		})
	}
}

// eachUse calls visit with every name that a file uses of another package, by
// that package's import path.
func eachUse(s source, visit func(pkg, name string, at token.Pos)) {
	names := make(map[string]string) // local name -> import path
	for _, spec := range s.file.Imports {
		full, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		local := path.Base(full)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		names[local] = full
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if local, ok := selector.X.(*ast.Ident); ok && names[local.Name] != "" {
				visit(names[local.Name], selector.Sel.Name, selector.Pos())
			}
		}
		return true
	})
}

// linkedModules are those that are linked into the binary, with the reason why.
func linkedModules() map[string]string {
	return map[string]string{
		"github.com/coreos/go-oidc/v3":        "discovery of issuers; in tests the oracle for signatures of tokens",
		"github.com/go-jose/go-jose/v4":       "go-oidc's JOSE, which verifies nothing here",
		"golang.org/x/oauth2":                 "go-oidc; client credentials",
		"github.com/go-json-experiment/json":  "JSON of hostile parties: exact names, duplicates refused",
		"gopkg.in/yaml.v3":                    "gateway.yaml, with lines",
		"github.com/pires/go-proxyproto":      "the PROXY protocol of balancers in front",
		"github.com/spf13/cobra":              "the command line",
		"github.com/spf13/pflag":              "cobra's flags",
		"github.com/fsnotify/fsnotify":        "the kernel's reports of changed files, on every system; it needs golang.org/x/sys alone",
		"github.com/prometheus/client_golang": "metrics",
		"github.com/prometheus/client_model":  "client_golang's data model",
		"github.com/prometheus/common":        "client_golang's exposition format",
		"github.com/prometheus/procfs":        "client_golang's process metrics",
		"github.com/beorn7/perks":             "client_golang's summaries",
		"github.com/cespare/xxhash/v2":        "client_golang's hashes",
		"github.com/munnerz/goautoneg":        "client_golang's content negotiation",
		"google.golang.org/protobuf":          "client_golang's exposition format",
		"golang.org/x/sys":                    "procfs; certmagic; fsnotify",

		"github.com/caddyserver/certmagic":                              "certificates by ACME: storage, keys, requests, issuers in order",
		"github.com/caddyserver/zerossl":                                "certmagic's ZeroSSL API, unused",
		"github.com/mholt/acmez/v3":                                     "certmagic's ACME client",
		"github.com/klauspost/cpuid/v2":                                 "certmagic's hashes",
		"github.com/zeebo/blake3":                                       "certmagic's hashes",
		"github.com/miekg/dns":                                          "certmagic's look at records; rfc2136",
		"go.uber.org/zap":                                               "certmagic's log, which is discarded",
		"go.uber.org/multierr":                                          "zap",
		"golang.org/x/crypto":                                           "certmagic's OCSP",
		"golang.org/x/net":                                              "HPACK for HTTP/2; certmagic's names (IDNA); miekg/dns",
		"golang.org/x/text":                                             "golang.org/x/net/idna",
		"github.com/libdns/libdns":                                      "what providers of DNS have in common",
		"github.com/libdns/rfc2136":                                     "dns-01 by dynamic updates",
		"github.com/libdns/cloudflare":                                  "dns-01 at Cloudflare",
		"github.com/libdns/route53":                                     "dns-01 at Amazon Route 53",
		"github.com/aws/aws-sdk-go-v2":                                  "libdns/route53",
		"github.com/aws/aws-sdk-go-v2/config":                           "libdns/route53: keys from the environment or the machine's role",
		"github.com/aws/aws-sdk-go-v2/credentials":                      "the same",
		"github.com/aws/aws-sdk-go-v2/feature/ec2/imds":                 "the same",
		"github.com/aws/aws-sdk-go-v2/internal/configsources":           "aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/internal/endpoints/v2":            "aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/internal/ini":                     "aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/service/internal/accept-encoding": "aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/service/internal/presigned-url":   "aws-sdk-go-v2",
		"github.com/aws/aws-sdk-go-v2/service/route53":                  "libdns/route53",
		"github.com/aws/aws-sdk-go-v2/service/sso":                      "aws-sdk-go-v2/config",
		"github.com/aws/aws-sdk-go-v2/service/ssooidc":                  "aws-sdk-go-v2/config",
		"github.com/aws/aws-sdk-go-v2/service/sts":                      "aws-sdk-go-v2/config",
		"go.uber.org/zap/exp":                                           "certmagic's log",
		"github.com/aws/smithy-go":                                      "aws-sdk-go-v2",
	}
}

// TestTreeModules holds what is linked into the binary. A module leaves the list
// with its last use.
func TestTreeModules(t *testing.T) {
	allowed := linkedModules()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
		`{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}`, "./cmd/...")
	list.Dir = root
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64") // what is linked differs between systems
	var faults bytes.Buffer
	list.Stderr = &faults
	out, err := list.Output()
	if err != nil {
		t.Fatalf("listing the modules: %v\n%s", err, faults.Bytes())
	}
	linked := make(map[string]bool)
	for name := range strings.Lines(string(out)) {
		if name = strings.TrimSpace(name); name != "" {
			linked[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(linked)) {
		if allowed[name] == "" {
			t.Errorf("%s is linked and has no reason here", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		if !linked[name] {
			t.Errorf("%s has a reason here and is not linked", name)
		}
	}
}

// TestTreeTestModules holds what tests may use besides the modules of the binary.
func TestTreeTestModules(t *testing.T) {
	allowed := map[string]string{
		"golang.org/x/net":                 "frames of HTTP/2 by hand",
		"github.com/google/go-cmp":         "differences that can be read",
		"github.com/rogpeppe/go-internal":  "scripts that run the binary",
		"github.com/invopop/jsonschema":    "the JSON Schema of gateway.yaml",
		"github.com/letsencrypt/pebble/v2": "an ACME server, in the test's process",
	}
	modules := slices.Concat(slices.Collect(maps.Keys(allowed)), slices.Collect(maps.Keys(linkedModules())))
	walk(t, func(name string) {
		if !strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "examples/") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			full, err := strconv.Unquote(spec.Path.Value)
			first, _, _ := strings.Cut(full, "/")
			if err != nil || !strings.Contains(first, ".") { // ours, or of the standard library
				continue
			}
			if !slices.ContainsFunc(modules, func(m string) bool { return covers(m+"/...", full) }) {
				t.Errorf("%s: %s has no reason here", name, full)
			}
		}
	})
}

// TestTreeGoMod sees that the module builds from published modules alone.
func TestTreeGoMod(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "replace", "exclude", "toolchain":
			t.Errorf("go.mod: %s: `go install` of a tagged version must not depend on it", strings.TrimSpace(line))
		}
	}
}

// TestTreePackageDocs sees that each package says what it is for.
func TestTreePackageDocs(t *testing.T) {
	docs := make(map[string][]string)
	for _, s := range sources(t) {
		docs[s.dir] = append(docs[s.dir], "")
		if s.file.Doc == nil {
			continue
		}
		begin := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			begin = "Command "
		}
		text := s.file.Doc.Text()
		first := new(doc.Package).Synopsis(text)
		if !strings.HasPrefix(text, begin) || !strings.HasSuffix(first, ".") && !strings.HasSuffix(first, "?") {
			t.Errorf("%s: the first sentence must begin with %q and be whole: %q", s.name, begin, first)
		}
		docs[s.dir] = append(docs[s.dir], s.name)
	}
	for dir, names := range docs {
		names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
		if len(names) != 1 {
			t.Errorf("%s: want one package doc, found %d: %v", dir, len(names), names)
		}
	}
}

// TestTreeDocComments sees that every exported name outside of package main has
// a comment, its own, its group's, or its type's where it is one of a list of
// constants. Methods that everyone knows from the standard library need none.
func TestTreeDocComments(t *testing.T) {
	known := strings.Fields(`Error Unwrap Is String GoString LogValue Read Write Close
		UnmarshalYAML MarshalYAML UnmarshalText MarshalText JSONSchema Describe Collect`)
	for _, s := range sources(t) {
		if s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				known := d.Recv != nil && slices.Contains(known, d.Name.Name)
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc == nil && !known {
					t.Errorf("%s: %s has no comment", s.at(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, name := range undocumented(d) {
					t.Errorf("%s: %s has no comment", s.at(name.Pos()), name.Name)
				}
			}
		}
	}
}

// exportedReceiver says whether callers of other packages can name the function.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	of := d.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	switch generic := of.(type) {
	case *ast.IndexExpr:
		of = generic.X
	case *ast.IndexListExpr:
		of = generic.X
	}
	name, ok := of.(*ast.Ident)
	return ok && name.IsExported()
}

func undocumented(d *ast.GenDecl) (names []*ast.Ident) {
	if d.Doc != nil {
		return nil
	}
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil {
				names = append(names, spec.Name)
			}
		case *ast.ValueSpec:
			if first := d.Specs[0].(*ast.ValueSpec); d.Tok == token.CONST && first.Type != nil {
				continue
			}
			for _, name := range spec.Names {
				if name.IsExported() && spec.Doc == nil && spec.Comment == nil {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// TestTreeForbidden holds what product code does not do.
func TestTreeForbidden(t *testing.T) {
	// What a file may do all the same, and why.
	allowed := map[string]string{
		"proxy/wire/socket/direct_linux.go unsafe": "system calls take addresses; there is no other way past package net",
		"proxy/wire/stdhttp/server.go panic":       "net/http cuts a connection so",
		"proxy/wire/stdhttp/server.go log":         "net/http's own log is discarded so",
		"proxy/audit/audit.go os.Stdout":           "the audit log goes there unless the configuration says otherwise",
	}
	used := make(map[string]bool)
	may := func(s source, what string) bool {
		used[s.name+" "+what] = true
		return allowed[s.name+" "+what] != ""
	}
	for _, s := range sources(t) {
		command := covers("cmd/...", s.dir)
		for name, at := range s.imports() {
			switch name {
			case "log":
				if may(s, "log") {
					continue
				}
				t.Errorf("%s: a logger is passed in (log/slog), not global", at)
			case "unsafe", "plugin", "math/rand":
				if may(s, name) {
					continue
				}
				t.Errorf("%s: product code must not import %s", at, name)
			}
		}
		eachUse(s, func(pkg, name string, at token.Pos) {
			switch {
			case pkg == "fmt" && strings.HasPrefix(name, "Print"):
				t.Errorf("%s: fmt.%s writes to whatever stdout is", s.at(at), name)
			case pkg == "os" && name == "Exit" && s.file.Name.Name != "main":
				t.Errorf("%s: only main ends the process", s.at(at))
			case pkg == "os" && (name == "Stdout" || name == "Stderr") && !command && !may(s, "os."+name):
				t.Errorf("%s: os.%s belongs to commands", s.at(at), name)
			case pkg == "log/slog" && (name == "Default" || name == "SetDefault"):
				t.Errorf("%s: a logger is passed in, not global", s.at(at))
			case pkg == "context" && name == "WithValue":
				t.Errorf("%s: facts are fields, not values of a context", s.at(at))
			}
		})
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: no init: main wires", s.at(n.Pos()))
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "panic" && !may(s, "panic") {
					t.Errorf("%s: no panic: return an error", s.at(n.Pos()))
				}
			}
			return true
		})
	}
	for what := range allowed {
		if !used[what] {
			t.Errorf("%s: has a reason here and does not occur", what)
		}
	}
}

// TestTreeState sees that packages keep no state: variables of packages are
// values that cannot change, or named here.
func TestTreeState(t *testing.T) {
	tables := map[string]string{ // "dir.name" -> why it may
		"auth.tokenPool":                 "a pool: what it holds means nothing",
		"cmd/sallyport.pythonClient":     "a file that is embedded, which needs a variable",
		"proxy/seal.Blocks":              "a pool: what it holds means nothing",
		"proxy/exchange.outcomes":        "a table that is only read",
		"proxy/exchange.upstreamReasons": "a table that is only read",
		"proxy/exchange.errorReasons":    "a table that is only read",
		"proxy/wire/stdhttp.toLower":     "a table that is only read",
		"proxy/wire/stdhttp.toCanonical": "a table that is only read",
	}
	used := make(map[string]bool)
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				spec := spec.(*ast.ValueSpec)
				for i, name := range spec.Names {
					full := s.dir + "." + name.Name
					used[full] = true
					if name.Name == "_" || tables[full] != "" || i < len(spec.Values) && fixed(spec.Values[i]) {
						continue
					}
					t.Errorf("%s: %s is a variable of the package: make it a field, or give its reason here", s.at(name.Pos()), full)
				}
			}
		}
	}
	for name := range tables {
		if !used[name] {
			t.Errorf("%s has a reason here and does not exist", name)
		}
	}
}

// fixed says whether an initial value is one that nobody can change later: a
// sentinel error, a compiled pattern, an address, a time, an array.
func fixed(value ast.Expr) bool {
	makers := strings.Fields("errors.New regexp.MustCompile netip.MustParseAddr netip.MustParsePrefix time.Unix time.Date")
	switch v := value.(type) {
	case *ast.CallExpr:
		switch f := v.Fun.(type) {
		case *ast.SelectorExpr:
			pkg, ok := f.X.(*ast.Ident)
			return ok && slices.Contains(makers, pkg.Name+"."+f.Sel.Name)
		case *ast.FuncLit: // computed once, in place
			results := f.Type.Results.List
			return len(results) == 1 && isArray(results[0].Type)
		}
	case *ast.CompositeLit:
		return isArray(v.Type)
	}
	return false
}

func isArray(e ast.Expr) bool {
	array, ok := e.(*ast.ArrayType)
	return ok && array.Len != nil
}

// TestTreeSize sees that a file stays one idea.
func TestTreeSize(t *testing.T) {
	const most = 500
	const copied = "cmd/sallyport/handover/sallyport_client.py" // one file for all of Python: partners copy it
	code := []string{".go", ".py", ".sh", ".js", ".cc", ".cpp", ".h"}
	walk(t, func(name string) {
		if !slices.Contains(code, path.Ext(name)) || strings.HasSuffix(name, "_test.go") || name == copied {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > most {
			t.Errorf("%s: %d lines, want at most %d", name, n, most)
		}
	})
}

// TestTreeTop sees that the top of the tree holds what it should and no more.
func TestTreeTop(t *testing.T) {
	fixed := strings.Fields("cmd proxy auth policy examples deploy gateway.yaml go.mod go.sum README.md")
	ignored := []string{"sallyport", "dist", "*.test", "*.prof"} // what builds leave, as in .gitignore
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, e := range entries {
		found[e.Name()] = true
		match := func(pattern string) bool { ok, _ := path.Match(pattern, e.Name()); return ok }
		if strings.HasPrefix(e.Name(), ".") || slices.ContainsFunc(ignored, match) || slices.Contains(fixed, e.Name()) {
			continue
		}
		t.Errorf("%s does not belong to the top of the tree: %v", e.Name(), fixed)
	}
	for _, name := range fixed {
		if !found[name] {
			t.Errorf("%s is missing from the top of the tree", name)
		}
	}
}

// TestTreeWords sees that the tree speaks of itself: no unfinished work without
// the number of its issue, and no path of the machine that it was written on.
func TestTreeWords(t *testing.T) {
	// Written in two parts, because this file is read too.
	unfinished := regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	numbered := regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME)\(#\d+\)`)
	machine := regexp.MustCompile(`(?:^|[^\w.])/(?:wo` + `rk|ro` + `ot|ho` + `me/\w+)/`)
	binary := []string{".png", ".ico", ".pb", ".der", ".gz", ".gguf", ".sum"}
	walk(t, func(name string) {
		if slices.Contains(binary, path.Ext(name)) || strings.Contains(name, "testdata/fuzz/") {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		lines.Buffer(nil, len(text)+1)
		for n := 1; lines.Scan(); n++ {
			line := lines.Text()
			if unfinished.MatchString(numbered.ReplaceAllString(line, "")) {
				t.Errorf("%s:%d: unfinished work without the number of its issue", name, n)
			}
			if machine.MatchString(line) {
				t.Errorf("%s:%d: a path of one machine", name, n)
			}
		}
	})
}

// TestTreeConfigs loads every configuration that the tree holds, those that the
// documentation shows included: what readers copy works.
func TestTreeConfigs(t *testing.T) {
	loaded := 0
	walk(t, func(name string) {
		full := filepath.Join(root, name)
		switch {
		case strings.Contains(name, "testdata/"):
			return
		case strings.HasSuffix(name, "gateway.yaml"):
			loaded++
			if _, err := proxy.LoadConfig(full); err != nil {
				t.Errorf("%s:\n%v", name, err)
			}
		case path.Ext(name) == ".md":
			text, err := os.ReadFile(full)
			if err != nil {
				t.Fatal(err)
			}
			for line, block := range yamlBlocks(string(text)) {
				if !strings.Contains(block, "\nroutes:") {
					continue
				}
				loaded++
				if _, err := proxy.ParseConfig(full, []byte(block)); err != nil {
					t.Errorf("%s:%d:\n%v", name, line, err)
				}
			}
		}
	})
	if loaded == 0 {
		t.Error("no configuration was found")
	}
}

// yamlBlocks gives the fenced blocks of YAML in a Markdown text by their lines.
func yamlBlocks(text string) map[int]string {
	blocks := make(map[int]string)
	begin, n := 0, 0
	for line := range strings.Lines(text) {
		n++
		switch fence := strings.TrimSpace(line); {
		case begin == 0 && (fence == "```yaml" || fence == "```yml"):
			begin = n + 1
			blocks[begin] = ""
		case begin > 0 && fence == "```":
			begin = 0
		case begin > 0:
			blocks[begin] += line
		}
	}
	return blocks
}
