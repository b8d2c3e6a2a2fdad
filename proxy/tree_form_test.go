package proxy_test

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/doc"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/proxy"
)

// TestTreePackageDocs checks that each package has a doc comment.
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

// TestTreeDocComments checks that every exported name outside package main has a comment: its own,
// its group's, or its type's for a list of constants. Well-known methods of the standard library
// need none.
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

// exportedReceiver reports whether other packages can name the function.
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

// TestTreeForbidden checks that product code avoids certain calls.
func TestTreeForbidden(t *testing.T) {
	// These files are exempt, for the reason given.
	allowed := map[string]string{
		"proxy/wire/socket/direct_linux.go unsafe":     "system calls take addresses; there is no other way past package net",
		"proxy/wire/stdhttp/server.go panic":           "net/http cuts a connection so",
		"proxy/wire/stdhttp/server.go log":             "net/http's own log is discarded so",
		"proxy/credential/oauth2.go context.WithValue": "golang.org/x/oauth2 takes its HTTP client so",
		"proxy/audit/audit.go os.Stdout":               "the audit log goes there unless the configuration says otherwise",
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
			case pkg == "context" && name == "WithValue" && !may(s, "context.WithValue"):
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

// TestTreeState checks that packages keep no state: package variables are immutable or listed here.
func TestTreeState(t *testing.T) {
	tables := map[string]string{ // "dir.name" -> why it is allowed
		"auth.errOtherLogin":             "an error that is only read",
		"auth.tokenPool":                 "a pool: what it holds means nothing",
		"auth/login.unsealings":          "a pool: what it holds means nothing",
		"auth/login.commonTexts":         "a dictionary that is only read",
		"cmd/sallyport.pythonClient":     "a file that is embedded, which needs a variable",
		"cmd/sallyport.callProgram":      "the same",
		"proxy/pages.layout":             "a file that is embedded, which needs a variable",
		"proxy/pages.style":              "the same",
		"policy/model.inflaters":         "a pool: what it holds means nothing",
		"policy/model.servedScanners":    "a pool: what it holds means nothing",
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

// fixed reports whether an initial value cannot change later: a sentinel error, a compiled pattern,
// an address, a time, an array.
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

// TestTreeSize limits the length of files, so that each holds one idea.
func TestTreeSize(t *testing.T) {
	const most = 500
	const copied = "cmd/sallyport/handover/sallyport_client.py" // one file, because partners copy it
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

// TestTreeTop checks that the top folder holds only the expected files.
func TestTreeTop(t *testing.T) {
	fixed := strings.Fields("cmd proxy auth policy examples deploy gateway.yaml go.mod go.sum README.md")
	ignored := []string{"sallyport", "dist", "*.test", "*.prof"} // build outputs, as in .gitignore
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

// TestTreeWords checks that unfinished work names its issue, and that no file holds a path of the
// machine it was written on or what is left of a merge.
func TestTreeWords(t *testing.T) {
	t.Parallel()
	// The words are split, because this file is checked too.
	unfinished := regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	numbered := regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME)\(#\d+\)`)
	machine := regexp.MustCompile(`(?:^|[^\w.])/(?:wo` + `rk|ro` + `ot|ho` + `me/\w+)/`)
	conflict := regexp.MustCompile(`^(?:<{7}|>{7}|\|{7})(?: |$)`)
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
			if conflict.MatchString(line) {
				t.Errorf("%s:%d: a conflict of a merge", name, n)
			}
		}
	})
}

// TestTreeConfigs loads every configuration in the tree, including those in documentation, so that
// copied examples work.
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

// yamlBlocks returns the fenced YAML blocks of a Markdown text by line.
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
