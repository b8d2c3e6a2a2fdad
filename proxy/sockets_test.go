package proxy_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/proxy"
)

// handed opens a socket as a service manager does, and returns it with its address.
func handed(t *testing.T, name string) (proxy.Socket, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return proxy.Socket{Name: name, File: f}, l.Addr().String()
}

// onlyFree opens listeners on any free port, as a process without rights to the others does.
func onlyFree(network, addr string) (net.Listener, error) {
	if !strings.HasSuffix(addr, ":0") {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", syscall.EACCES)}
	}
	return net.Listen(network, addr)
}

// A socket of the service manager serves the configured address that equals its own. It serves
// again when a reload has removed that address and another brings it back.
func TestHandedSocketServesItsAddressOverReloads(t *testing.T) {
	s, addr := handed(t, "sallyport.socket")
	h := build(t, plan{more: unwatched, https: addr, options: proxy.Options{Sockets: []proxy.Socket{s}, Listen: onlyFree}})
	serves := func() {
		t.Helper()
		if got := h.addrs.HTTPS[0].String(); got != addr {
			t.Fatalf("https is at %s, want %s", got, addr)
		}
		if r := h.do("GET", "/", "", nil); r.StatusCode != 200 {
			t.Errorf("status %d, want 200", r.StatusCode)
		}
	}
	serves()
	h.edit("https: '"+addr+"'", "https: '127.0.0.1:0'")
	h.reload("changed")
	if got := h.addrs.HTTPS[0].String(); got == addr {
		t.Fatalf("https is still at %s", got)
	}
	h.edit("https: '127.0.0.1:0'", "https: '"+addr+"'")
	h.reload("changed")
	serves()
}

// A socket with the name of a key serves this key. Two sockets, such as those of two families, may
// serve one, and both continue over a reload.
func TestNamedSocketsServeTheirKey(t *testing.T) {
	one, first := handed(t, "https")
	two, second := handed(t, "https")
	health, third := handed(t, "health")
	h := build(t, plan{more: unwatched, https: "127.0.0.1:443", options: proxy.Options{Sockets: []proxy.Socket{one, two, health}, Listen: onlyFree}})
	for range 2 {
		var got []string
		for _, a := range h.addrs.HTTPS {
			got = append(got, a.String())
		}
		if want := []string{first, second}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("https is at %v, want %v", got, want)
		}
		if got := h.addrs.Health.String(); got != third {
			t.Errorf("health is at %s, want %s", got, third)
		}
		for i := range got {
			h.addrs.HTTPS[0], h.addrs.HTTPS[i] = h.addrs.HTTPS[i], h.addrs.HTTPS[0]
			if r := h.do("GET", "/", "", nil); r.StatusCode != 200 {
				t.Errorf("status %d at %s, want 200", r.StatusCode, h.addrs.HTTPS[0])
			}
		}
		h.edit("reload: {watch: false}", "limits: {fields: 90}\nreload: {watch: false}")
		h.reload("changed")
		h.edit("limits: {fields: 90}\n", "")
		h.reload("changed")
	}
}

// A socket that no address of the configuration takes is a warning: its clients would hang.
func TestUnusedSocketIsReported(t *testing.T) {
	s, addr := handed(t, "sallyport.socket")
	log := &lines{}
	build(t, plan{options: proxy.Options{Sockets: []proxy.Socket{s}, Log: slog.New(slog.NewJSONHandler(log, nil))}})
	for _, r := range log.records(t) {
		if r["addr"] == addr && r["level"] == "WARN" && strings.Contains(r["msg"].(string), "is not used") {
			return
		}
	}
	t.Errorf("no warning names %s:\n%v", addr, log.records(t))
}

// Only listening TCP sockets are taken.
func TestForeignSocketsAreRefused(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	unix, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h := build(t, plan{})
	for want, f := range map[string]*os.File{"ListenStream=": unix, "from the service manager": file} {
		cfg, err := proxy.LoadConfig(h.file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = proxy.New(cfg, proxy.Options{Sockets: []proxy.Socket{{Name: "https", File: f}}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// A port that the process may not use is refused with what gives it the right.
func TestForbiddenPortNamesTheCures(t *testing.T) {
	h := build(t, plan{})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	h.edit("https: '127.0.0.1:0'", "https: '127.0.0.1:443'")
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := proxy.New(cfg, proxy.Options{Listen: onlyFree})
	if err != nil {
		t.Fatal(err)
	}
	err = g.Run(t.Context())
	if !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("got %v, want permission denied", err)
	}
	for _, want := range []string{"listen.https", "AmbientCapabilities=CAP_NET_BIND_SERVICE", "setcap cap_net_bind_service=+ep", "sallyport.socket", "ListenStream=443", "ip_unprivileged_port_start=443", "from 1024 on"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
}

// A port on which another program listens is refused with what the operator can do.
func TestBusyPortNamesTheCures(t *testing.T) {
	h := build(t, plan{})
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	h.edit("https: '127.0.0.1:0'", "https: '"+other.Addr().String()+"'")
	cfg, err := proxy.LoadConfig(h.file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := proxy.New(cfg, proxy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = g.Run(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("got %v, want address already in use", err)
	}
	for _, want := range []string{"listen.https", "write another port", "ss -ltnp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
}
