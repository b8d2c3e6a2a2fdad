package login

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Browser returns the command that opens a page; "" where there is no browser: on a server, or over
// SSH.
func Browser() string {
	if runtime.GOOS == "darwin" {
		if os.Getenv("SSH_CONNECTION") != "" {
			return ""
		}
		return "open"
	}
	// A display may be there over SSH, too.
	if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
		return ""
	}
	if _, err := exec.LookPath("xdg-open"); err != nil {
		return ""
	}
	return "xdg-open"
}

// Open opens a page with a command of [Browser], and does not wait for it.
func Open(command, page string) error {
	child := exec.Command(command, page)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // neither Ctrl-C nor the terminal's end is for the browser
	if err := child.Start(); err != nil {
		return err
	}
	go func() { _ = child.Wait() }() // the browser outlives this process
	return nil
}
