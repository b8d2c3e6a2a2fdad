package config

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestListenersThatCannotBeOpenedAreFaults(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	const text = `
listen: {https: ["192.0.2.1:8443", ":0", "[::]:0", "0.0.0.0:0", "localhost:0", "127.0.0.1:0"], http: "BUSY", health: "127.0.0.1:0"}
tls: {local: {}}
routes: [{host: a.example, upstream: "http://a:1", callers: anonymous, rules: [{allow: "*"}]}]
`
	c, err := Parse("gateway.yaml", []byte(strings.ReplaceAll(text, "BUSY", busy.Addr().String())))
	if err != nil {
		t.Fatal(err)
	}
	want := `gateway.yaml:2: listen.https: "192.0.2.1:8443": this machine has no such address; write one of its own, or only :PORT for all of them`
	if err := c.CheckListeners(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	// The listeners that exist are not disturbed.
	conn, err := net.Dial("tcp", busy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestFaultOfAPrivilegedPortNamesTheCures(t *testing.T) {
	problem, cure := listenFault(":443", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)})
	for _, want := range []string{"AmbientCapabilities=CAP_NET_BIND_SERVICE", "setcap cap_net_bind_service=+ep", "ListenStream=443", "ip_unprivileged_port_start=443", "public_https: 443"} {
		if !strings.Contains(cure, want) {
			t.Errorf("the cure lacks %s: %s", want, cure)
		}
	}
	if !strings.Contains(problem, "may not listen there") {
		t.Errorf("got %s", problem)
	}
	for _, err := range []error{nil, syscall.EADDRINUSE} {
		if problem, _ := listenFault(":443", err); problem != "" {
			t.Errorf("%v: %s", err, problem)
		}
	}
	if problem, _ := listenFault(":443", errors.New("out of descriptors")); !strings.Contains(problem, "out of descriptors") {
		t.Errorf("got %s", problem)
	}
}

// A socket unit opens ports that the gateway's own user may not open, and check sees that they are open.
func TestOpenPortsAreSeen(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says who may listen on a port")
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Logf("no address %s here: %v", addr, err)
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if !listening(port) {
			t.Errorf("nobody is said to listen at %s", l.Addr())
		}
		l.Close()
	}
	if listening(0) {
		t.Error("somebody is said to listen on port 0")
	}
}

// A port in use is no fault, but whoever runs check before the first start wants to know of it.
func TestPortsInUseAreNamedInWarnings(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	text := `
listen: {https: "` + busy.Addr().String() + `", http: "127.0.0.1:0", health: off}
tls: {local: {}}
routes: [{host: a.example, upstream: "http://a:1", callers: anonymous, rules: [{allow: "*"}]}]
`
	c, err := Parse("gateway.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := `gateway.yaml:2: listen.https: "` + busy.Addr().String() + `": a program listens there already, and no gateway with this file answers; ` + CureBusy + "; or systemd holds it for the gateway, which is right"
	if got := c.BusyListeners(); runtime.GOOS == "linux" && got.Error() != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
}
