package config

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"sallyport/proxy/setting"
)

// CheckListeners sees that this user may listen on the addresses of the configuration, and
// that this machine has them. Nothing can connect meanwhile. That an address is in use is no
// fault: the gateway itself may run. The error, if any, is [Faults].
func (c *Config) CheckListeners() error {
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
			if problem, cure := listenFault(err); problem != "" {
				f.Add(l.path, addr, problem, cure)
			}
		}
	}
	return c.Place(f).Err()
}

// listenFault says what an error of binding an address means, and what would do; "" if it
// is none that will be there when the gateway starts.
func listenFault(err error) (problem, cure string) {
	switch {
	case err == nil, errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EAFNOSUPPORT):
		return "", ""
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "user " + setting.Myself() + " may not listen there: ports below 1024 take a right",
			"give the service AmbientCapabilities=CAP_NET_BIND_SERVICE, or the program setcap cap_net_bind_service=+ep, or write a port from 1024 on and public_https: 443"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address", "write one of its own, or nothing before the colon for all of them"
	}
	return fmt.Sprintf("cannot be listened on: %v", err), ""
}
