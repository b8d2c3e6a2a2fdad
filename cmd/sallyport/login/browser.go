package login

import (
	"os"
	"os/exec"
	"runtime"
)

// Browser returns the command that opens a page, to which its URL is added; nil where there is no
// browser: on a server, or over SSH.
func Browser() []string {
	remote := os.Getenv("SSH_CONNECTION") != ""
	switch runtime.GOOS {
	case "darwin":
		if !remote {
			return []string{"open"}
		}
	case "windows":
		if !remote {
			return []string{"rundll32", "url.dll,FileProtocolHandler"}
		}
	default: // a display may be there over SSH, too
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return nil
		}
		if _, err := exec.LookPath("xdg-open"); err == nil {
			return []string{"xdg-open"}
		}
	}
	return nil
}

// Open opens a page with a command of [Browser], and does not wait for it.
func Open(command []string, page string) error {
	child := exec.Command(command[0], append(command[1:len(command):len(command)], page)...)
	if err := child.Start(); err != nil {
		return err
	}
	go func() { _ = child.Wait() }() // the browser outlives this process
	return nil
}
