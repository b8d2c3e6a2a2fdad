package auth

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"sallyport/proxy/setting"
)

const (
	// maxListed is the maximum size of a file with a credential in each line: what a reload
	// compares.
	maxListed = setting.MaxDigested
	// maxLineErrors bounds how many faults of a file are reported.
	maxLineErrors = 20
)

// LineError reports a line of a file that cannot be used. It never contains a secret.
type LineError struct {
	File string
	Line int // 0 for the whole file
	Err  error
}

func (e *LineError) Error() string {
	if e.Line == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// eachLine calls f for each line of a file that is neither empty nor a comment, without the space
// around it, or with a fault; line 0 is the whole file. Nobody but the owner may be able to write
// the file. It stops if f returns false.
func eachLine(file string, f func(line int, text string, err error) bool) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
	case !info.Mode().IsRegular(): // opening a named pipe would block
		err = fmt.Errorf("%s is not a regular file", file)
	case info.Size() > maxListed:
		err = fmt.Errorf("%s is larger than %d bytes", file, maxListed)
	default:
		err = setting.WrittenByOwner(file, info)
	}
	var opened *os.File
	if err == nil {
		opened, err = os.Open(file)
	}
	if err != nil {
		f(0, "", err)
		return
	}
	defer opened.Close()
	lines := bufio.NewScanner(io.LimitReader(opened, maxListed))
	n := 0
	for lines.Scan() {
		n++
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // editors of Windows begin a file with it
		}
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		if !f(n, text, nil) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		f(n+1, "", err)
	}
}
