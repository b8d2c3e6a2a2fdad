package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// leastSecret is the least length of what people choose. Scrypt makes each try slow, not impossible.
const leastSecret = 10

// maxSecret bounds a file with a secret, which may be named by mistake.
const maxSecret = 1024

// readSecret reads a secret from a file of one line that other users cannot read.
func readSecret(name string) (string, error) {
	text, err := readPrivate(name)
	if err != nil {
		return "", err
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	switch {
	case len(text) > maxSecret || bytes.ContainsAny(text, "\n\x00"):
		return "", fmt.Errorf("%s: want one line of at most %d bytes", name, maxSecret)
	case len(text) < leastSecret:
		return "", fmt.Errorf("%s: want at least %d characters", name, leastSecret)
	}
	return string(text), nil
}

// readPrivate reads a file that only its owner may read.
func readPrivate(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("other users can read %s; chmod 600 it, and if somebody may have read it, make a new one", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return text, nil
}

// errNoTerminal says that nobody can be asked.
var errNoTerminal = errors.New("standard input is no terminal")

// ask reads a secret from the terminal without showing it, twice if it is a new one.
func ask(c *cobra.Command, what string, isNew bool) (string, error) {
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errNoTerminal
	}
	read := func(prompt string) (string, error) {
		fmt.Fprint(c.ErrOrStderr(), prompt+": ")
		defer fmt.Fprintln(c.ErrOrStderr())
		text, err := readHidden(c.Context(), int(in.Fd()))
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", what, err)
		}
		return text, nil
	}
	first, err := read(what)
	if err != nil || !isNew {
		return first, err
	}
	if len(first) < leastSecret || len(first) > maxSecret {
		return "", fmt.Errorf("%s: want %d to %d characters", what, leastSecret, maxSecret)
	}
	again, err := read(what + " again")
	if err == nil && again != first {
		err = fmt.Errorf("%s: the two differ", what)
	}
	return first, err
}

// readHidden reads a line that the terminal does not show. If the context ends, as by Ctrl-C, the
// terminal shows again what is typed.
func readHidden(ctx context.Context, fd int) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type line struct {
		text []byte
		err  error
	}
	typed := make(chan line, 1)
	go func() { // the read ends with the process at the latest
		text, err := term.ReadPassword(fd)
		typed <- line{text, err}
	}()
	select {
	case l := <-typed:
		return string(l.text), l.err
	case <-ctx.Done():
		return "", errors.Join(errors.New("interrupted"), term.Restore(fd, before))
	}
}
