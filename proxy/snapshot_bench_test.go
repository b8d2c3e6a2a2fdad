package proxy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkBuild builds the snapshot of a configuration with 1000 routes, as a reload does.
// BenchmarkLoad measures reading the file.
func BenchmarkBuild(b *testing.B) {
	file := thousandRoutes(b)
	cfg, err := LoadConfig(file)
	if err != nil {
		b.Fatal(err)
	}
	g, err := New(cfg, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := build(cfg, g.memory)
		if err != nil {
			b.Fatal(err)
		}
		s.release()
	}
}

// BenchmarkLoad reads and checks a gateway.yaml with 1000 routes.
func BenchmarkLoad(b *testing.B) {
	file := thousandRoutes(b)
	for b.Loop() {
		if _, err := LoadConfig(file); err != nil {
			b.Fatal(err)
		}
	}
}

// thousandRoutes writes a gateway.yaml.
func thousandRoutes(b *testing.B) string {
	b.Helper()
	var text strings.Builder
	text.WriteString("listen: {https: \"127.0.0.1:0\", http: off, health: off}\ntls: {local: {}}\naudit: {file: /dev/null}\nroutes:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  - {host: h%d.test, path: /v%d, upstream: \"http://127.0.0.1:%d\", callers: anonymous, rules: [{allow: [get, post]}]}\n", i, i, 20000+i%50)
	}
	file := filepath.Join(b.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}
