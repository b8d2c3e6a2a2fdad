package proxy_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the top of the tree, relative to this package.
const root = ".."

// module is the path of the module, the prefix of its packages.
const module = "sallyport"

// source is one product file of Go: no test and no file of another module.
type source struct {
	name string // relative to the top, such as "proxy/route.go"
	dir  string // the package, such as "proxy"
	set  *token.FileSet
	file *ast.File
}

// at formats a position as compilers do.
func (s source) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.name, s.set.Position(p).Line)
}

// imports returns the import paths of the file with their positions.
func (s source) imports() map[string]string {
	all := make(map[string]string)
	for _, spec := range s.file.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			all[name] = s.at(spec.Pos())
		}
	}
	return all
}

// walk calls visit with every file of the tree, relative to its top.
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

// sources parses the product's files. Tests and examples are exempt from rules about code: tests
// may use internals, and examples are a module of their own. auth/authtest belongs to the tests,
// and no product package may import it.
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

// covers reports whether a package matches a pattern: "a/..." is a and everything below.
func covers(pattern, dir string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == tree || strings.HasPrefix(dir, tree+"/")
	}
	return pattern == dir
}

// TestTreeArrows checks the permitted imports. The first row that covers a package applies; a
// package without a row may import nothing.
func TestTreeArrows(t *testing.T) {
	arrows := []struct {
		from, to, why string
	}{
		{"cmd/...", "cmd/... proxy auth/httpsig auth/apikey auth/login", "commands know the house, not its rooms; signing and making keys are tools of their own"},

		{"auth/identity", "", "a leaf: who a caller is depends on nothing"},
		{"auth/httpsig", "", "a leaf: signatures know nothing of gateways"},
		{"auth/apikey", "", "a leaf: the form of keys, for who makes and who reads them"},
		{"auth/fetch", "proxy/setting", "fetching knows no protocol above HTTP"},
		{"auth/clientcert", "auth/fetch auth/identity proxy/setting", "certificates are judged alone, for handshakes and for requests"},
		{"auth/login/endfile", "", "a leaf: lines in a file, whatever ends by them"},
		{"auth/login", "auth/fetch auth/identity auth/login/endfile proxy/message proxy/setting", "logins know their issuer by an interface, not the issuers of tokens"},
		{"auth", "auth/apikey auth/clientcert auth/identity auth/httpsig auth/fetch auth/login auth/login/endfile proxy/message proxy/setting", "credentials are read from heads, not from servers; auth/authtest is for tests"},

		{"policy/model", "proxy/message", "what a request asks is read from the request alone"},
		{"policy", "policy/model auth/identity proxy/message proxy/setting", "decisions are pure: no transport, no proof"},

		{"proxy/message", "", "a leaf: one reading of messages for all"},
		{"proxy/setting", "", "a leaf: values of the configuration"},
		{"proxy/pages", "proxy/setting", "pages know what they say, not who asks"},
		{"proxy/ratelog", "", "a leaf: lines of a log"},
		{"proxy/upstream/...", "proxy/upstream/... proxy/wire/... proxy/message proxy/ratelog proxy/setting auth/identity", "upstreams speak through the wire"},
		{"proxy/wire", "proxy/wire/socket proxy/message proxy/setting auth/identity", "what both engines share knows neither"},
		{"proxy/wire/h1/...", "proxy/wire proxy/wire/socket proxy/message proxy/setting auth/identity", "an engine does not know the other, so that each can be replaced"},
		{"proxy/wire/h2/...", "proxy/wire proxy/wire/socket proxy/message proxy/setting auth/identity", "an engine does not know the other, so that each can be replaced"},
		{"proxy/wire/...", "proxy/wire/... proxy/message proxy/setting auth/identity", "engines know messages, so that they can be replaced"},
		{"proxy/edge/...", "proxy/edge/... proxy/message proxy/ratelog proxy/setting proxy/wire/socket auth/identity", "a room of the house knows only the leaves"},
		{"proxy/limit/...", "proxy/limit/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/audit/...", "proxy/audit/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/admin/...", "proxy/admin/... proxy/ratelog proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/watch", "", "a leaf: files, whatever they mean"},
		{"proxy/shared/...", "proxy/shared/... proxy/message proxy/setting auth/identity", "a room of the house knows only the leaves"},
		{"proxy/seal", "auth auth/httpsig proxy/limit proxy/message proxy/setting proxy/upstream", "what is vouched for knows messages and keys, not routes"},
		{"proxy/credential", "auth auth/fetch auth/identity proxy/message proxy/ratelog proxy/setting proxy/upstream", "what proves the gateway to upstreams knows neither routes nor callers' proofs"},
		{"proxy/route", "auth policy/... proxy/credential proxy/limit proxy/message proxy/ratelog proxy/seal proxy/setting proxy/upstream proxy/wire", "a route gathers what is done to its messages, and does not know the order"},
		{"proxy/exchange", "auth auth/httpsig auth/identity auth/login policy/... proxy/credential proxy/route proxy/seal proxy/audit proxy/limit proxy/message proxy/pages proxy/setting proxy/shared proxy/upstream proxy/wire", "the way knows what it passes, and neither files nor engines"},
		{"proxy/explain", "auth auth/identity auth/login policy/... proxy/config proxy/exchange proxy/message proxy/route", "questions about decisions are answered by what decides, without engines"},
		{"proxy/obtain", "proxy/config proxy/edge proxy/exchange proxy/limit proxy/setting proxy/wire proxy/wire/h1 proxy/wire/socket", "commands get certificates as the gateway does, and answer challenges in its place"},
		{"proxy/clientpolicy", "auth auth/clientcert proxy/config proxy/edge proxy/exchange proxy/message proxy/wire", "handshakes and requests are held to one policy of a host"},
		{"proxy/revocation", "auth proxy/admin", "a file is changed by commands, under the lock of its folder"},
		{"proxy/config", "auth auth/clientcert auth/login policy/... proxy/...", "the whole file has sections of all rooms"},
		{"proxy", "auth auth/clientcert auth/httpsig auth/identity policy/... proxy/...", "the gateway joins all packages"},
	}
	for _, s := range sources(t) {
		for name, at := range s.imports() {
			to, ours := strings.CutPrefix(name, module+"/")
			if !ours {
				continue
			}
			if slices.Contains([]string{"auth/authtest", "proxy/setting/settingtest", "proxy/wire/socket/sockettest"}, to) {
				t.Errorf("%s: %s is for tests", at, to)
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

// TestTreeNetHTTP keeps net/http's server types in the adaptor, so that the engine can be replaced
// and no second parser of requests is used. Its constants for methods and statuses are allowed.
func TestTreeNetHTTP(t *testing.T) {
	servers := map[string]string{
		"proxy/wire/stdhttp": "the adaptor, for tests that compare",
		"proxy/admin":        "health, metrics and the control socket, on listeners of their own",
		"cmd/sallyport/demo": "the issuer and the model server of the demonstration",

		"cmd/sallyport/login": "the page on loopback to which an issuer sends the browser back",
	}
	clients := map[string]string{
		"auth/fetch":    "the one client for what is fetched; go-oidc uses it for discovery",
		"auth/httpsig":  "the transport that signs requests and verifies responses, for clients in Go",
		"proxy/edge":    "acmez's client for authorities, bounded; webhooks that make records",
		"cmd/sallyport": "sallyport curl, a client over httpsig's transport; sallyport token, over oauth2's",

		"cmd/sallyport/doctor": "the time of issuers, by which the clock is checked",
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

// eachUse calls visit with every name of another package that a file uses, with that package's
// import path.
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

// linkedModules lists the modules linked into the binary, with the reasons.
func linkedModules() map[string]string {
	return map[string]string{
		"github.com/coreos/go-oidc/v3":              "discovery of issuers; in tests the oracle for signatures of tokens",
		"github.com/go-jose/go-jose/v4":             "go-oidc's JOSE, which verifies nothing here",
		"filippo.io/bigmod":                         "RSA keys of issuers with a prepared modulus: crypto/rsa's own arithmetic",
		"golang.org/x/oauth2":                       "go-oidc; client credentials; people who sign in at a terminal",
		"cel.dev/cel-go":                            "conditions of rules",
		"cel.dev/expr":                              "cel-go's types",
		"github.com/antlr4-go/antlr/v4":             "cel-go's parser",
		"go.yaml.in/yaml/v3":                        "cel-go's environments",
		"golang.org/x/exp":                          "antlr's sets and slices",
		"google.golang.org/genproto/googleapis/api": "cel-go's types",
		"google.golang.org/genproto/googleapis/rpc": "cel-go's types, and the status of refused calls",
		"github.com/go-json-experiment/json":        "JSON of hostile parties: exact names, duplicates refused",
		"gopkg.in/yaml.v3":                          "gateway.yaml, with lines",
		"github.com/pires/go-proxyproto":            "the PROXY protocol of balancers in front",
		"github.com/spf13/cobra":                    "the command line",
		"github.com/spf13/pflag":                    "cobra's flags",
		"github.com/coreos/go-systemd/v22":          "sockets and messages of systemd",
		"software.sslmate.com/src/go-pkcs12":        "keys and certificates in one file, as Java and browsers take them",
		"golang.org/x/term":                         "passphrases that are typed and not shown",
		"github.com/fsnotify/fsnotify":              "the kernel's reports of changed files, on every system; it needs golang.org/x/sys alone",
		"github.com/prometheus/client_golang":       "metrics",
		"github.com/prometheus/client_model":        "client_golang's data model",
		"github.com/prometheus/common":              "client_golang's exposition format, and the status of refused calls",
		"github.com/prometheus/procfs":              "client_golang's process metrics",
		"github.com/beorn7/perks":                   "client_golang's summaries",
		"github.com/cespare/xxhash/v2":              "client_golang's hashes",
		"github.com/munnerz/goautoneg":              "client_golang's content negotiation",
		"google.golang.org/protobuf":                "client_golang's exposition format, and the status of refused calls",
		"golang.org/x/sys":                          "procfs; certmagic; fsnotify",

		"github.com/caddyserver/certmagic":                              "certificates by ACME: storage, keys, requests, issuers in order",
		"github.com/caddyserver/zerossl":                                "certmagic's ZeroSSL API, unused",
		"github.com/mholt/acmez/v3":                                     "certmagic's ACME client",
		"github.com/klauspost/compress":                                 "S2, which makes sealed sessions smaller",
		"github.com/klauspost/cpuid/v2":                                 "certmagic's hashes",
		"github.com/zeebo/blake3":                                       "certmagic's hashes",
		"github.com/miekg/dns":                                          "certmagic's look at records; rfc2136",
		"go.uber.org/zap":                                               "certmagic's log, which is discarded",
		"go.uber.org/multierr":                                          "zap",
		"golang.org/x/crypto":                                           "bcrypt, for passwords; scrypt, for sealed keys; certmagic's OCSP; go-pkcs12",
		"golang.org/x/net":                                              "HPACK for HTTP/2; a limit of connections; public suffixes; certmagic's names (IDNA); miekg/dns",
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

// TestTreeModules checks the modules linked into the binary. An unused module must leave the list.
func TestTreeModules(t *testing.T) {
	allowed := linkedModules()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
		`{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}`, "./cmd/...")
	list.Dir = root
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64") // linked modules differ between systems
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

// TestTreeTestModules checks the modules used only by tests.
func TestTreeTestModules(t *testing.T) {
	allowed := map[string]string{
		"golang.org/x/net":                 "frames of HTTP/2 by hand",
		"github.com/google/go-cmp":         "differences that can be read",
		"github.com/rogpeppe/go-internal":  "scripts that run the binary",
		"github.com/invopop/jsonschema":    "the JSON Schema of gateway.yaml",
		"github.com/letsencrypt/pebble/v2": "an ACME server, in the test's process",
		"github.com/c2sp/wycheproof":       "signatures and keys that must be refused",

		"google.golang.org/genproto/googleapis/rpc": "the status of a gRPC call as clients decode it",
		"github.com/santhosh-tekuri/jsonschema/v6":  "what editors make of that schema: a validator of another hand",
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
			if err != nil || !strings.Contains(first, ".") { // of this module or the standard library
				continue
			}
			if !slices.ContainsFunc(modules, func(m string) bool { return covers(m+"/...", full) }) {
				t.Errorf("%s: %s has no reason here", name, full)
			}
		}
	})
}

// TestTreeGoMod checks that the module builds from published modules alone.
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
