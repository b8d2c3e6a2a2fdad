package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionComesFromTheRepository(t *testing.T) {
	const hash = "50a8cc3bf08ddae24a690661836608cf2cb1dd87"
	stamp := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: hash}, {Key: "vcs.time", Value: "2026-11-29T08:47:05Z"}, {Key: "vcs.modified", Value: modified}}
	}
	for _, tt := range []struct {
		name, main string
		settings   []debug.BuildSetting
		want       string
	}{
		{"a tag", "v0.6.0", stamp("false"), "v0.6.0"},
		{"a commit", "v0.0.0-20261129084705-50a8cc3bf08d", stamp("false"), "v0.0.0-20261129084705-50a8cc3bf08d"},
		{"a Go that names no version", "(devel)", stamp("false"), "50a8cc3bf08d"},
		{"the same with changes", "(devel)", stamp("true"), "50a8cc3bf08d+dirty"},
		{"no repository", "(devel)", nil, "(devel)"},
		{"no build information", "", nil, "(devel)"},
	} {
		got := describeBuild(&debug.BuildInfo{Main: debug.Module{Version: tt.main}, Settings: tt.settings})
		if got.Version != tt.want || (got.Revision == hash) != (tt.settings != nil) {
			t.Errorf("%s: got %+v, want version %s", tt.name, got, tt.want)
		}
	}
}
