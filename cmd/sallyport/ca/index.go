package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

const (
	indexFile    = "index.json"
	lockFile     = "lock"
	indexVersion = 1

	// keptAfterEnd is how long the index has a certificate after its end.
	keptAfterEnd = 90 * day
	// lockPatience is how long a command waits for another one. Nobody holds the lock while a
	// person types.
	lockPatience = 30 * time.Second
	lockPoll     = 20 * time.Millisecond
)

// index is the record of all certificates of an authority. A broken one is refused and
// never begun anew, which would forget what was revoked.
type index struct {
	Version      int      `json:"version"`
	CRL          crlState `json:"crl"`
	Certificates []*entry `json:"certificates"`
}

// crlState describes the last list of revoked certificates.
type crlState struct {
	Number     int64     `json:"number"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
}

// entry is one certificate.
type entry struct {
	Serial      string    `json:"serial"` // 32 hexadecimal digits
	Names       []string  `json:"names"`
	Subject     string    `json:"subject,omitempty"`
	For         string    `json:"for"` // client or server
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Revoked     time.Time `json:"revoked,omitzero"`
	Fingerprint string    `json:"fingerprint"` // sha256:..., as gateway.yaml has it
}

// The two kinds of certificates.
const (
	forClient = "client"
	forServer = "server"
)

var serialForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// newEntry describes a certificate.
func newEntry(c *x509.Certificate) *entry {
	sum := sha256.Sum256(c.Raw)
	e := &entry{
		Serial:      fmt.Sprintf("%032x", c.SerialNumber),
		Names:       sans(c),
		Subject:     c.Subject.String(),
		For:         forClient,
		NotBefore:   c.NotBefore,
		NotAfter:    c.NotAfter,
		Fingerprint: "sha256:" + hex.EncodeToString(sum[:]),
	}
	if slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		e.For = forServer
	}
	return e
}

// number returns the serial number.
func (e *entry) number() *big.Int {
	n, _ := new(big.Int).SetString(e.Serial, 16) // check has seen the form
	return n
}

// state is valid, expired or revoked.
func (e *entry) state(now time.Time) string {
	switch {
	case !e.Revoked.IsZero():
		return "revoked"
	case now.After(e.NotAfter):
		return "expired"
	}
	return "valid"
}

// label is the name by which people know the certificate.
func (e *entry) label() string {
	if len(e.Names) > 0 {
		return e.Names[0]
	}
	return e.Subject
}

// is reports whether the certificate has a name: an alternative one, or its subject.
func (e *entry) is(name string) bool {
	if slices.Contains(e.Names, name) {
		return true
	}
	subject, err := parseSubject(name)
	return err == nil && e.Subject == subject.String()
}

// bySerial returns the entry of a serial number; nil if there is none.
func (x *index) bySerial(serial string) *entry {
	for _, e := range x.Certificates {
		if e.Serial == serial {
			return e
		}
	}
	return nil
}

// readIndex reads the index of a folder.
func readIndex(dir string) (*index, error) {
	name := filepath.Join(dir, indexFile)
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup: it alone says what was issued and revoked", name, err)
	}
	return x, nil
}

func parseIndex(text []byte) (*index, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	x := &index{}
	if err := d.Decode(x); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is more behind its end")
	}
	if x.Version != indexVersion {
		return nil, fmt.Errorf("version is %d, want %d", x.Version, indexVersion)
	}
	if x.CRL.Number < 1 {
		return nil, fmt.Errorf("crl.number is %d, want at least 1", x.CRL.Number)
	}
	seen := make(map[string]bool)
	for i, e := range x.Certificates {
		switch {
		case e == nil || !serialForm.MatchString(e.Serial):
			return nil, fmt.Errorf("certificates[%d] has no serial of 32 hexadecimal digits", i)
		case seen[e.Serial]:
			return nil, fmt.Errorf("certificates[%d]: serial %s occurs twice", i, e.Serial)
		case e.NotAfter.IsZero() || e.For != forClient && e.For != forServer:
			return nil, fmt.Errorf("certificates[%d], %s: for or not_after is missing", i, e.Serial)
		}
		seen[e.Serial] = true
	}
	return x, nil
}

// forget drops certificates that ended long ago and are on no list any more.
func (x *index) forget(now time.Time) {
	x.Certificates = slices.DeleteFunc(x.Certificates, func(e *entry) bool {
		return now.Sub(e.NotAfter) > keptAfterEnd && !x.listed(e)
	})
}

// listed reports whether the next list must have a certificate. One that was revoked stays until
// it was on a list that was made after its end (RFC 5280, section 3.3).
func (x *index) listed(e *entry) bool {
	return !e.Revoked.IsZero() && !x.CRL.ThisUpdate.After(e.NotAfter)
}

func (x *index) text() ([]byte, error) {
	text, err := json.MarshalIndent(x, "", " ")
	return append(text, '\n'), err
}

// lock waits until no other command changes the folder. The system releases the lock if the process
// dies. The file stays: after a removal, two commands could lock different files.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, fmt.Errorf("another command has held %s for %v; end it, then try again", f.Name(), lockPatience)
			}
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}
