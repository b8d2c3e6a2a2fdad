package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// built describes the build: the JSON output of `version`.
type built struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // the whole commit
	Time     string `json:"time,omitempty"`     // the time of the commit
	Modified bool   `json:"modified"`           // the tree had uncommitted changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of sallyport, and of the Go that built it",
		Long: `Print the version of sallyport, and of the Go that built it. The version is that of
the commit: its tag or, without one, its date and hash, with +dirty if the tree had
uncommitted changes. A build outside the repository, or with -buildvcs=false, is (devel).`,
		Example: `  sallyport version
  sallyport version -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			switch output {
			case "json":
				return writeJSON(c.OutOrStdout(), thisBuild())
			case "text":
				_, err := fmt.Fprintln(c.OutOrStdout(), versionLine())
				return err
			}
			return usageError{fmt.Errorf("--output %q: want text or json", output)}
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

// versionLine is the output of `version` and --version.
func versionLine() string {
	b := thisBuild()
	return fmt.Sprintf("sallyport %s %s %s", b.Version, b.Go, b.Platform)
}

// version returns the version of this build.
func version() string { return thisBuild().Version }

func thisBuild() built {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return describeBuild(info)
}

// describeBuild reads the build information in the binary. Go derives the module's version from the
// repository; if there is none, the version is the start of the commit's hash.
func describeBuild(info *debug.BuildInfo) built {
	b := built{Version: info.Main.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	if b.Version != "" && b.Version != "(devel)" {
		return b
	}
	b.Version = "(devel)"
	if b.Revision != "" {
		b.Version = b.Revision[:min(12, len(b.Revision))]
		if b.Modified {
			b.Version += "+dirty"
		}
	}
	return b
}
