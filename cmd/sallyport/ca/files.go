package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// output is a file that a command makes.
type output struct {
	Name string `json:"name"`
	Mode string `json:"mode"`
	For  string `json:"for"`

	mode fs.FileMode
	text []byte
}

func newOutput(name string, mode fs.FileMode, purpose string, text []byte) *output {
	return &output{Name: name, Mode: fmt.Sprintf("%04o", mode), For: purpose, mode: mode, text: text}
}

// outputs are made together or not at all. They never replace a file.
type outputs []*output

// reserve makes all files, empty. If one exists or cannot be made, none stays.
func (all outputs) reserve() error {
	for i, o := range all {
		f, err := os.OpenFile(o.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, o.mode)
		if err == nil {
			err = f.Close()
		}
		switch {
		case errors.Is(err, fs.ErrExist):
			err = fmt.Errorf("%s already exists; nothing was written", o.Name)
			fallthrough
		case err != nil:
			return errors.Join(err, all[:i].remove())
		}
	}
	return nil
}

// fill writes the reserved files. If one cannot be written, none stays.
func (all outputs) fill() error {
	for _, o := range all {
		f, err := os.OpenFile(o.Name, os.O_WRONLY|os.O_TRUNC, 0)
		if err == nil {
			err = writeSynced(f, o.text)
		}
		if err != nil {
			return errors.Join(err, all.remove())
		}
	}
	return nil
}

// remove removes the reserved files.
func (all outputs) remove() error {
	var faults []error
	for _, o := range all {
		faults = append(faults, os.Remove(o.Name))
	}
	return errors.Join(faults...)
}

// writeSynced writes a file to the disk and closes it.
func writeSynced(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replaceFile replaces a file of the authority. After a crash the file is the old one or the new
// one. The caller holds the lock, so what lies beside the file is left from a crash.
func replaceFile(name string, text []byte, mode fs.FileMode) error {
	next := name + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(next) // fails once it is renamed
	if err := f.Chmod(mode); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := writeSynced(f, text); err != nil {
		return err
	}
	if err := os.Rename(next, name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

// syncFolder writes the names in a folder to the disk.
func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
