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

// maxSecret is the maximum size of a secret in bytes.
const maxSecret = 64 << 10

// Secret refers to a secret: `{file: PATH}` or `{env: NAME}`. Neither the secret nor its
// location is ever printed: all formatting gives "redacted". The zero Secret means none.
type Secret struct {
	// A function, because fmt prints values in unexported fields without calling their methods,
	// and follows pointers.
	at func() secretPlace
}

type secretPlace struct {
	file, env string
	literal   []byte
}

// Literal returns a secret given in the program, for tests and the demo.
func Literal(b []byte) Secret { return secretAt(secretPlace{literal: bytes.Clone(b)}) }

func secretAt(p secretPlace) Secret { return Secret{func() secretPlace { return p }} }

// Secret returns the secret in the file, for a file that others write over and over.
func (p Place) Secret() Secret { return secretAt(secretPlace{file: string(p)}) }

// place returns the location of the secret; the zero secretPlace for none.
func (s Secret) place() secretPlace {
	if s.at == nil {
		return secretPlace{}
	}
	return s.at()
}

// IsZero reports whether no secret was given.
func (s Secret) IsZero() bool { return s.at == nil }

// Read reads the secret and removes one newline at its end. A missing or empty secret is an
// error, and so is a file that users other than its owner may write. Errors contain the location,
// never the content.
func (s Secret) Read() ([]byte, error) {
	p := s.place()
	var b []byte
	var err error
	switch {
	case s.IsZero():
		return nil, errors.New("no secret was given")
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

// Where describes the location of the secret, for messages to the operator.
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

// Warning describes a risk of the secret's location, with a remedy; "" if there is none.
// Readable files are accepted in the folders where container platforms mount secrets.
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

// mountedSecret recognizes the secret folders of Docker (/run/secrets) and Kubernetes, whose
// volumes contain a symbolic link "..data".
func mountedSecret(file string) bool {
	for _, dir := range []string{"/run/secrets/", "/var/run/secrets/"} {
		if strings.HasPrefix(filepath.Clean(file), dir) {
			return true
		}
	}
	_, err := os.Lstat(filepath.Join(filepath.Dir(file), "..data"))
	return err == nil
}

// WrittenByOwner returns an error if users other than the owner may write a file with a key:
// whoever can replace a key, private or public, decides whose signatures verify.
func WrittenByOwner(name string, info os.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 {
		return &writableError{name}
	}
	return nil
}

// writableError is the refusal of a file that others than its owner may write. It has its own correction.
type writableError struct{ file string }

func (e *writableError) Error() string {
	return fmt.Sprintf("file %s can be written by others than its owner; chmod go-w %s", e.file, e.file)
}

func readSecretFile(name string) ([]byte, error) {
	// Opening a named pipe would block until somebody writes.
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

// String returns "redacted".
func (Secret) String() string { return Redacted }

// GoString returns "redacted".
func (Secret) GoString() string { return Redacted }

// Format writes "redacted" for every verb.
func (Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, Redacted) }

// LogValue returns "redacted".
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns "redacted", also in JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalYAML returns "redacted".
func (Secret) MarshalYAML() (any, error) { return Redacted, nil }
