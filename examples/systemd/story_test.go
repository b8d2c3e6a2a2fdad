// Package systemd tests the gateway with the units of deploy/systemd, under a systemd that it boots.
package systemd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

const units = "../../deploy/systemd"

// stubs are the units that those of the gateway refer to.
var stubs = []string{"story", "basic", "sysinit", "shutdown", "sockets", "network-online", "multi-user"}

// write writes a file, with its folders.
func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// machine is a booted systemd.
type machine struct {
	t   *testing.T
	dir string
	pid int // the process id of its process 1 on this system
}

// boot boots systemd, or skips the test where that is not possible.
func boot(t *testing.T) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can boot a systemd of its own")
	}
	story.Need(t, "unshare", "nsenter", "ip", "systemctl", "curl")
	m := &machine{t: t, dir: t.TempDir()}
	for _, dir := range []string{m.dir, filepath.Dir(m.dir)} { // the service's user must reach the binary
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, m.dir+"/bin/sallyport", read(t, os.Getenv("SALLYPORT")), 0o755)
	write(t, m.dir+"/etc/gateway.yaml", read(t, "gateway.yaml"), 0o644)
	write(t, m.dir+"/etc/secrets/acme-2026-11.secret", "c2FsbHlwb3J0IGhhcyBhIHNlY3JldCBvZiAzMiBieXRlcw==\n", 0o600)
	for _, name := range []string{"sallyport.service", "sallyport.socket"} {
		write(t, m.dir+"/units/"+name, read(t, filepath.Join(units, name)), 0o644)
	}
	for _, name := range stubs {
		write(t, m.dir+"/units/"+name+".target", "[Unit]\nDefaultDependencies=no\n", 0o644)
	}
	// There is no journal here.
	m.dropIn("log", "[Service]\nStandardOutput=file:/run/sallyport.log\nStandardError=file:/run/sallyport.log\n"+
		"LoadCredential=acme-2026-11:/etc/sallyport/secrets/acme-2026-11.secret\n")

	script, err := filepath.Abs("boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	c := exec.Command("unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--mount-proc", script, m.dir)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Skip(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			status, _ := m.run("systemctl", "status", "--no-pager", "sallyport.service", "sallyport.socket")
			log, _ := m.run("tail", "-n", "30", "/run/sallyport.log")
			t.Logf("%s\n%s\n%s", status, log, out)
		}
		_ = c.Process.Kill() // and by that its child, which is process 1 there
		<-ended
	})
	m.until("boot", func() bool {
		select {
		case <-ended:
			t.Skipf("systemd does not boot here: %s", out)
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.Process.Pid, c.Process.Pid))
		if err != nil {
			return false
		}
		m.pid, err = strconv.Atoi(strings.TrimSpace(string(children)))
		if err != nil {
			return false
		}
		_, err = m.run("systemctl", "is-active", "story.target")
		return err == nil
	})
	return m
}

// until waits until a state is reached.
func (m *machine) until(what string, holds func() bool) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if holds() {
			return
		}
	}
	m.t.Fatalf("it did not come to this within a minute: %s", what)
}

// run runs a command on the machine, and returns what it prints.
func (m *machine) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all := append([]string{"--target", strconv.Itoa(m.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"}, args...)
	out, err := exec.CommandContext(ctx, "nsenter", all...).CombinedOutput()
	return string(out), err
}

// do runs a command that must succeed.
func (m *machine) do(args ...string) string {
	m.t.Helper()
	out, err := m.run(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// property returns a property of the service.
func (m *machine) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.do("systemctl", "show", "--value", "--property", name, "sallyport.service"))
}

// dropIn adds lines to the unit of the service.
func (m *machine) dropIn(name, text string) {
	m.t.Helper()
	write(m.t, m.dir+"/units/sallyport.service.d/"+name+".conf", text, 0o644)
}

// refused asks without a credential and expects that the gateway says so.
func (m *machine) refused() {
	m.t.Helper()
	if got := m.do("curl", "-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", "https://localhost/v1/models"); got != "401" {
		m.t.Errorf("status %s without a credential, want 401", got)
	}
}

// main returns what /proc says of the service's process.
func (m *machine) main() string {
	m.t.Helper()
	return m.do("cat", "/proc/"+m.property("MainPID")+"/status")
}

func TestServiceUnderSystemd(t *testing.T) {
	m := boot(t)
	m.do("systemctl", "start", "sallyport.service")
	if got := m.property("StatusText"); !strings.HasPrefix(got, "serving on https [::]:443, http [::]:80") {
		t.Errorf("the status is %q", got)
	}
	m.refused()
	status := m.main()
	for _, want := range []string{`CapEff:\s+0+400\n`, `CapBnd:\s+0+400\n`, `NoNewPrivs:\s+1\n`, `Seccomp:\s+2\n`, `Uid:\s+6\d{4}\s`} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("the process lacks %s:\n%s", want, status)
		}
	}
	for _, name := range []string{"/var/lib/sallyport/sallyport-ca/root.pem", "/var/log/sallyport/audit.log", "/run/sallyport/control.sock"} {
		m.do("stat", name)
	}

	// A reload waits for the result, and is refused with the reason.
	config := m.dir + "/etc/gateway.yaml"
	write(t, config, read(t, "gateway.yaml")+"drain: 5s\n", 0o644)
	m.do("systemctl", "reload", "sallyport.service")
	write(t, config, read(t, "gateway.yaml")+"drain: soon\n", 0o644)
	if out, err := m.run("systemctl", "reload", "sallyport.service"); err == nil {
		t.Errorf("a faulty configuration was reloaded: %s", out)
	}
	if got := m.property("StatusText"); !strings.Contains(got, "the last reload was refused") {
		t.Errorf("the status is %q", got)
	}
	if got := m.property("ActiveState") + "/" + m.property("SubState"); got != "active/running" {
		t.Errorf("after the refused reload it is %s", got)
	}
	m.refused()
	write(t, config, read(t, "gateway.yaml"), 0o644)
	pid := m.property("MainPID")
	m.do("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "sallyport.service")
	m.until("the reload by SIGHUP has ended", func() bool {
		return !strings.Contains(m.property("StatusText"), "refused") && m.property("SubState") == "running"
	})
	if got := m.property("MainPID"); got != pid {
		t.Errorf("the process is %s, was %s", got, pid)
	}

	m.do("systemctl", "stop", "sallyport.service")
	if got := m.property("Result"); got != "success" {
		t.Errorf("the result is %s", got)
	}
}

// The watchdog restarts a gateway that is stopped.
func TestWatchdogRestartsAStoppedProcess(t *testing.T) {
	m := boot(t)
	m.dropIn("watchdog", "[Service]\nWatchdogSec=5\n")
	m.do("systemctl", "daemon-reload")
	m.do("systemctl", "start", "sallyport.service")
	m.do("systemctl", "kill", "--kill-whom=main", "--signal=STOP", "sallyport.service")
	m.until("the watchdog has restarted the service", func() bool {
		return m.property("NRestarts") != "0" && m.property("SubState") == "running"
	})
	m.refused()
}

// With the socket unit the service has no capability, starts with the first connection, and no
// client is refused a connection while it restarts.
func TestSocketUnitUnderSystemd(t *testing.T) {
	m := boot(t)
	m.dropIn("unprivileged", "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n")
	m.do("systemctl", "daemon-reload")
	m.do("systemctl", "start", "sallyport.socket")
	if got := m.property("ActiveState"); got != "inactive" {
		t.Fatalf("the service is %s before the first connection", got)
	}
	m.refused()
	if got := m.property("StatusText"); !strings.HasPrefix(got, "serving on https [::]:443, http [::]:80") {
		t.Errorf("the status is %q", got)
	}
	// check does not complain of a privilege that the gateway does not need.
	if out, _ := m.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sallyport", "check", "-c", "/etc/sallyport/gateway.yaml"); strings.Contains(out, "may not listen") {
		t.Errorf("check misses a right: %s", out)
	}
	if status := m.main(); !regexp.MustCompile(`CapBnd:\s+0+\n`).MatchString(status) {
		t.Errorf("the process has capabilities:\n%s", status)
	}
	var clients sync.WaitGroup
	restarted := make(chan struct{})
	clients.Go(func() {
		for ended := false; !ended; {
			select {
			case <-restarted:
				ended = true // and once more
			default:
			}
			// The end of a connection without a request is for the client to repeat.
			out, err := m.run("curl", "-sk", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code} %{num_connects} %{errormsg}", "https://localhost/v1/models")
			if strings.Contains(out, "refused") || err == nil && !strings.HasPrefix(out, "401 ") {
				t.Errorf("while it restarts: %q, %v", out, err)
			}
		}
	})
	for range 3 {
		m.do("systemctl", "restart", "sallyport.service")
	}
	close(restarted)
	clients.Wait()
}

// systemd accepts the units without a warning, and rates their exposure low.
func TestUnitsAreSound(t *testing.T) {
	story.Need(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"sallyport.service", "sallyport.socket"} {
		// verify wants the programs to exist.
		text := strings.ReplaceAll(read(t, filepath.Join(units, name)), "/usr/local/bin/sallyport", os.Getenv("SALLYPORT"))
		write(t, filepath.Join(dir, name), text, 0o644)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", dir+"/sallyport.service", dir+"/sallyport.socket").CombinedOutput()
	if err != nil || strings.Contains(string(out), "sallyport.") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", dir+"/sallyport.service").CombinedOutput()
	if err != nil {
		t.Errorf("the service is exposed at more than 2.0: %v\n%s", err, out)
	}
}

// If the process may not listen on a port, the error names the cures, such as the kernel's setting.
func TestRefusedPortNamesTheCures(t *testing.T) {
	m := boot(t)
	m.dropIn("unprivileged", "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\nRestart=no\n")
	m.do("systemctl", "daemon-reload")
	if out, err := m.run("systemctl", "start", "sallyport.service"); err == nil {
		t.Fatalf("it listens on 443 without the right: %s", out)
	}
	log := m.do("cat", "/run/sallyport.log")
	check, err := m.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sallyport", "check", "-c", "/etc/sallyport/gateway.yaml")
	if err == nil {
		t.Error("check finds no fault")
	}
	for _, want := range []string{"AmbientCapabilities=CAP_NET_BIND_SERVICE", "setcap", "sallyport.socket", "net.ipv4.ip_unprivileged_port_start="} {
		if !strings.Contains(log, want) || !strings.Contains(check, want) {
			t.Errorf("log or check lacks %q:\n%s\n%s", want, log, check)
		}
	}
	m.do("sysctl", "-q", "-w", "net.ipv4.ip_unprivileged_port_start=80")
	m.do("systemctl", "start", "sallyport.service")
	m.refused()
}
