package setting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// maxSecret bounds a secret, in bytes.
const maxSecret = 64 << 10

// Secret names where a secret lies: `{file: PATH}` or `{env: NAME}`. Neither the
// secret nor its place is ever printed: every way of writing it says "redacted".
// The zero Secret means that none was given, and has nothing to read.
type Secret struct {
	// A function, because fmt prints a Secret in an unexported field, where it
	// cannot call its methods, down to the bottom of pointers.
	at func() secretPlace
}

type secretPlace struct {
	file, env string
	literal   []byte
}

// Literal is a secret given in the program, for tests and the demo.
func Literal(b []byte) Secret { return secretAt(secretPlace{literal: bytes.Clone(b)}) }

func secretAt(p secretPlace) Secret { return Secret{func() secretPlace { return p }} }

// place is where the secret lies; nowhere for the zero Secret.
func (s Secret) place() secretPlace {
	if s.at == nil {
		return secretPlace{}
	}
	return s.at()
}

// IsZero says whether no secret was named.
func (s Secret) IsZero() bool { return s.at == nil }

// Read reads the secret now and trims one newline from its end. An absent or
// empty secret is an error, and so is a file that others than its owner may write. Errors name
// the place, never the content.
func (s Secret) Read() ([]byte, error) {
	p := s.place()
	var b []byte
	var err error
	switch {
	case s.IsZero():
		return nil, errors.New("no secret was named")
	case p.file != "":
		if b, err = readSecretFile(p.file); err != nil {
			return nil, err
		}
	case p.env != "":
		b = []byte(os.Getenv(p.env))
	default:
		b = bytes.Clone(p.literal)
	}
	if len(b) > maxSecret {
		return nil, fmt.Errorf("%s is larger than %d bytes", s.Where(), maxSecret)
	}
	if line, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		b = bytes.TrimSuffix(line, []byte("\r"))
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s is empty or not set", s.Where())
	}
	return b, nil
}

// Where names the place of the secret, for messages to the operator.
func (s Secret) Where() string {
	switch p := s.place(); {
	case s.IsZero():
		return "no secret"
	case p.file != "":
		return "file " + p.file
	case p.env != "":
		return "environment variable " + p.env
	}
	return "a literal"
}

// Warning says what is unwise about the place of the secret, with the cure; "" if
// nothing is. Files that others may read are fine where container platforms
// mount secrets, always world-readable.
func (s Secret) Warning() string {
	file := s.place().file
	if file == "" {
		return ""
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o004 == 0 || mountedSecret(file) {
		return ""
	}
	return fmt.Sprintf("%s can be read by every user of this machine; chmod o-r %s", s.Where(), file)
}

// mountedSecret knows the folders of Docker (/run/secrets) and Kubernetes, whose
// volumes hold a symbolic link "..data" that swaps all files at once.
func mountedSecret(file string) bool {
	for _, dir := range []string{"/run/secrets/", "/var/run/secrets/"} {
		if strings.HasPrefix(filepath.Clean(file), dir) {
			return true
		}
	}
	_, err := os.Lstat(filepath.Join(filepath.Dir(file), "..data"))
	return err == nil
}

// WrittenByOwner returns an error if others than its owner may write a file that holds a
// key: whoever can replace a key, private or public, decides who is believed.
func WrittenByOwner(name string, info os.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("file %s can be written by others than its owner; chmod go-w %s", name, name)
	}
	return nil
}

func readSecretFile(name string) ([]byte, error) {
	// Opening a named pipe would wait for its writer.
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("file %s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	if err := WrittenByOwner(name, info); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	return b, nil
}

// String is "redacted".
func (Secret) String() string { return Redacted }

// GoString is "redacted".
func (Secret) GoString() string { return Redacted }

// Format writes "redacted" for every verb.
func (Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, Redacted) }

// LogValue is "redacted".
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText is "redacted"; JSON takes it too.
func (Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalYAML is "redacted".
func (Secret) MarshalYAML() (any, error) { return Redacted, nil }
