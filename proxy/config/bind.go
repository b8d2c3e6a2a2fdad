package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"sallyport/proxy/setting"
)

// CheckListeners checks that this user may listen on the addresses of the configuration, and
// that this machine has them. It accepts no connections. An address in use is no fault,
// because the gateway itself may be running. The error, if any, is [Faults].
func (c *Config) CheckListeners() error {
	return c.tryListeners(func(addr string, to *net.TCPAddr, err error) (problem, cure string) {
		if errors.Is(err, fs.ErrPermission) && listening(to.Port) {
			return "", "" // by a gateway with the right, or by systemd in its place
		}
		return listenFault(addr, err)
	}).Err()
}

// BusyListeners returns a warning for each address of the configuration on which a process
// listens already. The caller knows whether that is this gateway.
func (c *Config) BusyListeners() Faults {
	return c.tryListeners(func(_ string, to *net.TCPAddr, err error) (problem, cure string) {
		if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, fs.ErrPermission) && listening(to.Port) {
			return "a program listens there already, and no gateway with this file answers", CureBusy + "; or systemd holds it for the gateway, which is right"
		}
		return "", ""
	})
}

// tryListeners binds each address of the configuration for a moment. describe says what is wrong
// with one; "" if nothing is.
func (c *Config) tryListeners(describe func(addr string, to *net.TCPAddr, err error) (problem, cure string)) Faults {
	var f setting.Faults
	for _, l := range []struct {
		path  string
		addrs []string
	}{
		{"listen.https", c.Listen.HTTPSAddrs()},
		{"listen.http", c.Listen.HTTPAddrs()},
		{"listen.insecure_plain.addr", c.Listen.PlainAddr()},
		{"listen.forward_auth.addr", c.Listen.ForwardAuthAddr()},
		{"listen.health", []string{c.Listen.HealthAddr()}},
	} {
		for _, addr := range l.addrs {
			if addr == "" {
				continue
			}
			to, err := net.ResolveTCPAddr("tcp", addr)
			if err == nil {
				err = bind(to)
			}
			if problem, cure := describe(addr, to, err); problem != "" {
				f.Add(l.path, addr, problem, cure)
			}
		}
	}
	return c.Place(f)
}

// CureBusy says what to do about an address on which another program listens.
const CureBusy = "stop that program or write another port; ss -ltnp names the program"

// listenFault returns what an error from binding an address means, and how to correct it. It
// returns "" if the gateway could start all the same.
func listenFault(addr string, err error) (problem, cure string) {
	switch {
	case err == nil, errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EAFNOSUPPORT):
		return "", ""
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "user " + setting.Myself() + " may not listen there: ports below 1024 need a privilege",
			CureForbidden(addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address", "write one of its own, or only :PORT for all of them"
	}
	return fmt.Sprintf("cannot be listened on: %v", err), ""
}

// CureForbidden returns what lets a process listen on an address whose port needs a privilege.
func CureForbidden(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return "grant it by AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit or setcap cap_net_bind_service=+ep on the program; " +
		"or let systemd open the port by ListenStream=" + port + " in deploy/systemd/sallyport.socket; " +
		"or allow the port to all users by sysctl net.ipv4.ip_unprivileged_port_start=" + port + "; " +
		"or use a port from 1024 on, and set public_https: 443 if port 443 is forwarded to it"
}

// listening reports whether a process of this machine listens on a TCP port. It reads Linux's
// /proc, because a connection would start a service that waits for one. It is false on other
// systems.
func listening(port int) bool {
	const state, listen = 3, "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > state && f[state] == listen && strings.HasSuffix(f[1], suffix) {
				return true
			}
		}
	}
	return false
}
