package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// pinned maps host:port to the addresses given by --resolve. The host may be *.
type pinned map[string][]string

// parseResolve reads --resolve as curl does: HOST:PORT:ADDRESS[,ADDRESS...].
func parseResolve(all []string) (pinned, error) {
	p := pinned{}
	for _, text := range all {
		wrong := usageError{fmt.Errorf("--resolve %q: want HOST:PORT:ADDRESS, such as models.example.com:443:127.0.0.1", text)}
		host, rest, _ := strings.Cut(strings.TrimPrefix(text, "+"), ":")
		port, addresses, ok := strings.Cut(rest, ":")
		if _, err := strconv.ParseUint(port, 10, 16); err != nil || !ok || host == "" {
			return nil, wrong
		}
		at := net.JoinHostPort(strings.ToLower(host), port)
		for _, a := range strings.Split(addresses, ",") {
			addr, err := netip.ParseAddr(strings.Trim(a, "[]"))
			if err != nil {
				return nil, wrong
			}
			p[at] = append(p[at], net.JoinHostPort(addr.String(), port))
		}
	}
	return p, nil
}

// dial connects to the first pinned address that accepts. It connects to hosts without one as usual.
func (p pinned) dial(ctx context.Context, network, at string) (conn net.Conn, err error) {
	d := new(net.Dialer)
	host, port, _ := net.SplitHostPort(at)
	addresses := p[net.JoinHostPort(strings.ToLower(host), port)]
	if addresses == nil {
		addresses = p[net.JoinHostPort("*", port)]
	}
	if addresses == nil {
		return d.DialContext(ctx, network, at)
	}
	for _, a := range addresses {
		if conn, err = d.DialContext(ctx, network, a); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
