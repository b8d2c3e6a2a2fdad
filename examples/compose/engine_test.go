package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/examples/story"
)

// inside marks the process that has a network of its own.
const inside = "SALLYPORT_STORY_NETWORK"

// TestMain runs the story in a network namespace of its own: the engine's bridges
// and rules never touch those of the machine, the ports 443 and 80 are free, and
// nothing outside can be reached, so that it shows if a build fetches anything.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	err := cmd.Run()
	if cmd.ProcessState == nil { // no namespace to be had: the story will say so
		fmt.Fprintln(os.Stderr, "starting in a network of its own:", err)
		os.Exit(m.Run())
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// engine is a Docker engine of our own.
type engine struct {
	socket string
}

// startEngine starts dockerd in a folder of its own. Where it cannot start, the
// test is skipped with its last words, whatever SALLYPORT_STORIES says: that is
// the machine's affair.
func startEngine(t *testing.T) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("dockerd runs as root only")
	}
	story.Need(t, "dockerd", "docker", "docker-compose", "ip", "iptables", "openssl", "curl", "go", "node", "npm")
	if os.Getenv(inside) == "" {
		t.Skip("this machine gives no network namespace")
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("the namespace's loopback: %v: %s", err, out)
	}
	dir, err := os.MkdirTemp("", "sallyport-docker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("the engine's folder stays: %v", err)
		}
	})
	e := &engine{socket: filepath.Join(dir, "docker.sock")}
	p := story.Start(t, "dockerd", exec.Command("dockerd",
		"--host", "unix://"+e.socket,
		"--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"),
		"--log-level", "warn"))
	for end := time.Now().Add(time.Minute); e.command(t.Context(), "docker", "version").Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			out := p.Output()
			t.Skipf("dockerd does not start on this machine:\n%s", out[max(0, len(out)-2000):])
		}
	}
	return e
}

// command is a program that asks this engine.
func (e *engine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+e.socket, "DOCKER_BUILDKIT=0")
	return cmd
}

// run runs a program in a folder within a time and returns what it printed.
func (e *engine) run(t testing.TB, dir string, limit time.Duration, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	cmd := e.command(ctx, name, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, tail(out.String()), tail(errs.String()))
	}
	return strings.TrimSpace(out.String())
}

// docker runs docker.
func (e *engine) docker(t testing.TB, args ...string) string {
	t.Helper()
	return e.run(t, "", time.Minute, "docker", args...)
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// container is what the engine says of a container, as far as the story asks.
type container struct {
	ID    string `json:"Id"`
	State struct {
		Pid    int
		Health *struct{ Status string }
	}
	Config     struct{ User string }
	HostConfig struct {
		ReadonlyRootfs bool
		Privileged     bool
		CapDrop        []string
		CapAdd         []string
		SecurityOpt    []string
		RestartPolicy  struct{ Name string }
		PortBindings   map[string][]struct{ HostIp, HostPort string }
		PidsLimit      int64
		Memory         int64
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

func (e *engine) inspect(t testing.TB, id string) container {
	t.Helper()
	var all []container
	if err := json.Unmarshal([]byte(e.docker(t, "inspect", id)), &all); err != nil || len(all) != 1 {
		t.Fatalf("inspecting %s: %v", id, err)
	}
	return all[0]
}
