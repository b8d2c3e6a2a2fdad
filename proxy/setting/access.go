package setting

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// CureUnreadable is the cure for err, with which a file could not be read: who must be let
// read it, where that is all, and otherwise what else would do. Where otherwise is "", err
// says itself what that is, but for a file that is missing.
func CureUnreadable(err error, otherwise string) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "let user " + Myself() + " read it"
	case otherwise == "" && errors.Is(err, fs.ErrNotExist):
		return "name a file that is there"
	}
	return otherwise
}

// Myself is the user that the program runs as, by name where that has one.
func Myself() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}

// FolderFault says why no file could be made in a folder, and what would do; "" if one
// could. A folder that is missing counts as one that will be made where toMake is set. It
// changes nothing.
func FolderFault(dir string, toMake bool) (problem, cure string) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && toMake && filepath.Dir(dir) != dir:
		if problem, cure = FolderFault(filepath.Dir(dir), true); problem != "" {
			problem = "there is no such folder, and none can be made: " + problem
		}
		return problem, cure
	case errors.Is(err, fs.ErrNotExist):
		return "there is no folder " + dir, "make it, and let user " + Myself() + " write there"
	case err != nil:
		return err.Error(), CureUnreadable(err, "")
	case !info.IsDir():
		return dir + " is not a folder", "name a folder"
	}
	if err := mayWrite(dir, true); err != nil {
		return "user " + Myself() + " may not write in " + dir + ": " + err.Error(), "let it write there, or name another place"
	}
	return "", ""
}

// FileFault is FolderFault for a file that is written: one that is there, or a new one.
func FileFault(name string) (problem, cure string) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return FolderFault(filepath.Dir(name), false)
	case info.IsDir():
		return "is a folder", "name a file in it"
	}
	if err := mayWrite(name, false); err != nil {
		return "user " + Myself() + " may not write to it: " + err.Error(), "let it write there, or name another file"
	}
	return "", ""
}
