package setting

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// CureUnreadable returns the correction for a file whose reading failed with err. If permission
// was denied, it names the user who must be able to read the file. For a file that others may write it
// returns "", because that error says what to do. For all other errors it returns
// otherwise; if that is "", it still has a correction for a missing file.
func CureUnreadable(err error, otherwise string) string {
	var writable *writableError
	switch {
	case errors.As(err, &writable):
		return ""
	case errors.Is(err, fs.ErrPermission):
		return "let user " + Myself() + " read it"
	case otherwise == "" && errors.Is(err, fs.ErrNotExist):
		return "name an existing file"
	}
	return otherwise
}

// Myself returns the name of the user that runs the program, or the number if there is no name.
func Myself() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}

// FolderFault returns why no file could be made in a folder, and how to correct that; "" if one
// could be. If toMake is set, the program will make a missing folder, so FolderFault checks that it
// can. It changes nothing.
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
	case errors.Is(err, syscall.ENAMETOOLONG):
		return NameFault(dir)
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

// FileFault returns why a file could not be written, and how to correct that; "" if it could be. The
// file may be missing. It changes nothing.
func FileFault(name string) (problem, cure string) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, syscall.ENAMETOOLONG):
		return NameFault(name)
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

// NameFault returns why the name of a file or folder is too long, and how to correct that; "" if it is not. The
// gateway writes other files beside it, whose names have these endings besides. The file may be missing,
// but not its folder.
func NameFault(name string, endings ...string) (problem, cure string) {
	long := func(name string) bool {
		_, err := os.Lstat(name)
		return errors.Is(err, syscall.ENAMETOOLONG)
	}
	longest := ""
	for _, e := range endings {
		if len(e) > len(longest) {
			longest = e
		}
	}
	if !long(name + longest) {
		return "", ""
	}
	problem = "its name is too long for the file system"
	if longest != "" {
		problem = "its name is too long, since the gateway makes a file beside it with " + longest + " at the end of the name"
	}
	for n := len(filepath.Base(name)) - 1; n > 0; n-- {
		if !long(name[:len(name)-len(filepath.Base(name))+n] + longest) {
			return problem, fmt.Sprintf("write a name of %d bytes or less; it has %d", n, len(filepath.Base(name)))
		}
	}
	return problem, "write a shorter path"
}
