package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"

	"sallyport/proxy/config"
)

// Socket is a listening TCP socket that a service manager has opened, as systemd does for a socket
// unit. The process that opens it needs the right to use its port; the gateway does not.
type Socket struct {
	// Name may be a key under `listen`, such as "https". The socket then serves that key, whatever
	// its address. With any other name it serves the configured address that equals its own.
	Name string
	// File is the socket. The gateway keeps it open: if a reload removes its address, a later reload
	// can bring the address back.
	File *os.File
}

// handedSocket is a [Socket] with its bound address.
type handedSocket struct {
	Socket
	addr netip.AddrPort
}

// checkSockets returns the sockets with their addresses. Anything but a listening TCP socket is an
// error.
func checkSockets(all []Socket) ([]*handedSocket, error) {
	var checked []*handedSocket
	for _, s := range all {
		l, err := net.FileListener(s.File)
		if err != nil {
			return nil, fmt.Errorf("the socket %q from the service manager: %w", s.Name, err)
		}
		addr, ok := l.Addr().(*net.TCPAddr)
		if err := l.Close(); err != nil { // closes a copy; the socket stays open
			return nil, fmt.Errorf("the socket %q from the service manager: %w", s.Name, err)
		}
		if !ok {
			return nil, fmt.Errorf("the socket %q from the service manager is not one of TCP: its unit must have ListenStream= with a port", s.Name)
		}
		checked = append(checked, &handedSocket{s, addr.AddrPort()})
	}
	return checked, nil
}

// placeOf returns the place that a socket serves among those of a configuration.
func (s *handedSocket) placeOf(places []place) (place, bool) {
	named := listenerUse(s.Name).takesSockets()
	mine := slices.DeleteFunc(slices.Clone(places), func(p place) bool {
		return !p.use.takesSockets() || named && p.use != listenerUse(s.Name)
	})
	i := slices.IndexFunc(mine, func(p place) bool { return s.boundTo(p.addr) })
	switch {
	case i >= 0:
		return mine[i], true
	case named && len(mine) > 0:
		return mine[0], true
	}
	return place{}, false
}

// takesSockets reports whether a handed socket may serve a use: any key under `listen` but that of
// the control socket.
func (u listenerUse) takesSockets() bool {
	switch u {
	case useHTTPS, useHTTP, usePlain, useForwardAuth, useHealth:
		return true
	}
	return false
}

// boundTo reports whether package net would bind a configured address to the address of s. An address
// without a host, or with an unspecified one, stands for all addresses of both families.
func (s *handedSocket) boundTo(configured string) bool {
	host, port, err := net.SplitHostPort(configured)
	if err != nil || port != strconv.Itoa(int(s.addr.Port())) {
		return false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	own := s.addr.Addr().Unmap()
	addr, err := netip.ParseAddr(host)
	if host == "" || err == nil && addr.IsUnspecified() {
		return own.IsUnspecified()
	}
	return err == nil && addr.Unmap() == own
}

// bind returns the listeners of a place, where places are all those of the configuration. It takes the
// sockets that the service manager opened for the place, or opens one if there are none. handed
// reports that they came from the service manager.
func (g *Gateway) bind(p place, places []place) (all []net.Listener, handed bool, err error) {
	for _, s := range g.memory.sockets {
		if served, ok := s.placeOf(places); !ok || served != p {
			continue
		}
		l, err := net.FileListener(s.File)
		if err != nil {
			for _, l := range all {
				_ = l.Close() // no connection was accepted
			}
			return nil, false, fmt.Errorf("the socket %q from the service manager: %w", s.Name, err)
		}
		all = append(all, l)
	}
	if len(all) > 0 {
		return all, true, nil
	}
	l, err := g.memory.options.Listen("tcp", p.addr)
	if errors.Is(err, fs.ErrPermission) {
		return nil, false, fmt.Errorf("%w: ports below 1024 need a privilege; %s", err, config.CureForbidden(p.addr))
	}
	if own := g.ownAt(p.addr); own != nil && errors.Is(err, syscall.EADDRINUSE) {
		return nil, false, fmt.Errorf("%w: the gateway itself listens there, for listen.%s on %s; restart it to change that, or write another port", err, own.use, own.addr)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, false, fmt.Errorf("%w: a program listens there already; %s", err, config.CureBusy)
	}
	if err != nil {
		return nil, false, err
	}
	return []net.Listener{l}, false, nil
}

// ownAt returns an open listener whose address excludes a configured one; nil if there is none.
func (g *Gateway) ownAt(configured string) *openListener {
	wanted, err := net.ResolveTCPAddr("tcp", configured)
	if err != nil {
		return nil
	}
	i := slices.IndexFunc(g.open, func(l *openListener) bool {
		at, ok := l.Addr().(*net.TCPAddr)
		return ok && at.Port == wanted.Port && (at.IP.IsUnspecified() || wanted.IP == nil || wanted.IP.IsUnspecified() || at.IP.Equal(wanted.IP))
	})
	if i < 0 {
		return nil
	}
	return g.open[i]
}

// announceUnused logs a warning for each handed socket that no address of the configuration uses. The
// kernel accepts connections for any open socket, so clients could connect but get no answer.
func (g *Gateway) announceUnused(cfg *Config) {
	for _, s := range g.memory.sockets {
		if _, ok := s.placeOf(placesOf(cfg)); !ok {
			g.memory.Log.Warn("a socket from the service manager is not used: its clients get no answer", "name", s.Name, "addr", s.addr.String(),
				"cure", "write this address under listen, name the socket by a key of listen (FileDescriptorName=https), or remove it from the socket unit")
		}
	}
}
