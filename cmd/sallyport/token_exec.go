package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// childStatus is the exit status of a command that ran in the place of this one.
type childStatus int

// Error implements error.
func (s childStatus) Error() string { return fmt.Sprintf("the command ended with status %d", int(s)) }

// killedBySignal is what shells add to the number of the signal that ended a command.
const killedBySignal = 128

// execute runs a command with the token in its environment, and waits for it. The error is a
// [childStatus] unless the command succeeds or cannot be started.
func (t *tokenCommand) execute(ctx context.Context, c *cobra.Command, args []string, token string) error {
	child := exec.CommandContext(ctx, args[0], args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()
	child.Env = append(withoutVariable(os.Environ(), t.env), t.env+"="+token)
	// A signal to this process is for the command, which decides when to end.
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	err := child.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &ended):
		return fmt.Errorf("running %s: %w", args[0], err)
	}
	if code := ended.ExitCode(); code >= 0 {
		return childStatus(code)
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return childStatus(killedBySignal + int(status.Signal()))
	}
	return childStatus(exitFailed)
}

// withoutVariable returns an environment without a variable.
func withoutVariable(environment []string, name string) []string {
	var kept []string
	for _, line := range environment {
		if !strings.HasPrefix(line, name+"=") {
			kept = append(kept, line)
		}
	}
	return kept
}
