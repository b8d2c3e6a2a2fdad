package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sallyport": func() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) },
		"xdg-open":  func() { os.Exit(openAsPerson(os.Args[1])) },
	})
}

// TestScripts runs the scripts of testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		// The default root stays behind if -run selects some of the scripts only.
		WorkdirRoot: t.TempDir(),
		Setup: func(e *testscript.Env) error {
			// Otherwise the race detector makes each command wait for a second at its end.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "modes": modes, "gateway": startGateway, "issuer": startIssuer, "people": startPeople, "seen": seen, "end-sessions": endSessions},
	})
}

// exits runs a program and checks its exit status: `exits 2 sallyport chekc`.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		got = ended.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// modes checks the mode of files: `modes 0400 acme/*.secret`.
func modes(ts *testscript.TestScript, _ bool, args []string) {
	for _, pattern := range args[1:] {
		names, err := filepath.Glob(ts.MkAbs(pattern))
		ts.Check(err)
		if len(names) == 0 {
			ts.Fatalf("there is no %s", pattern)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			ts.Check(err)
			if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
				ts.Fatalf("%s has mode %s, want %s", name, got, args[0])
			}
		}
	}
}
