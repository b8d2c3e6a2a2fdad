// Package revocation lists and changes the file of revocations, for the command that a person uses. The
// gateway reads the file by package auth.
package revocation

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sallyport/auth"
	"sallyport/proxy/admin"
)

// List lists the file of revocations in the order of its lines. A missing file has none.
func List(file string) ([]auth.Revocation, error) {
	var all []auth.Revocation
	err := auth.EachRevocation(file, func(_ int, r *auth.Revocation) { all = append(all, *r) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return all, err
}

// Add appends a revocation to the file, which it makes if it is missing. It reports whether the
// line is new. A reader sees the line as a whole or not at all. The error joins the faults of a file
// that has some: nothing is then added, since no gateway would read it.
func Add(file string, r auth.Revocation) (added bool, err error) {
	unlock, err := admin.LockFolder(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	defer unlock()
	all, err := List(file)
	if err != nil {
		return false, err
	}
	for i := range all {
		if all[i].String() == r.String() {
			return false, nil
		}
	}
	text := r.String() + "\n"
	// An editor may have left the last line without its end.
	if old, err := os.ReadFile(file); err == nil && len(old) > 0 && old[len(old)-1] != '\n' {
		text = "\n" + text
	}
	// The gateway's user must be able to read the file, which holds no secret.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, fmt.Errorf("adding to %s: %w", file, err)
	}
	return true, nil
}

// Prune removes the lines whose until has passed, and returns how many. Comments and all
// other lines stay.
func Prune(file string, now time.Time) (removed int, err error) {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // the link stays one
	}
	unlock, err := admin.LockFolder(filepath.Dir(file))
	if err != nil {
		return 0, err
	}
	defer unlock()
	ended := map[int]bool{}
	if err := auth.EachRevocation(file, func(line int, r *auth.Revocation) {
		if !r.Until.IsZero() && !now.Before(r.Until.Time) {
			ended[line] = true
		}
	}); err != nil {
		return 0, err
	}
	if len(ended) == 0 {
		return 0, nil
	}
	return len(ended), removeLines(file, ended)
}

// removeLines replaces a file by one without these lines.
func removeLines(file string, ended map[int]bool) error {
	file, err := filepath.EvalSymlinks(file) // else the link would become a file, and its target keep the lines
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".revoked-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing once it is renamed
	n := 0
	var kept []byte
	for line := range bytes.Lines(text) {
		if n++; !ended[n] {
			kept = append(kept, line...)
		}
	}
	_, err = f.Write(kept)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), file)
}
