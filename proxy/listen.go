package proxy

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"sallyport/proxy/edge"
	"sallyport/proxy/wire/socket"
)

// listeners are those of one run.
type listeners struct {
	https, http []net.Listener
	plain, auth net.Listener // nil: off
	health      net.Listener
}

func (l *listeners) close() error {
	var errs []error
	for _, x := range slices.Concat(l.https, l.http, []net.Listener{l.plain, l.auth, l.health}) {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	return errors.Join(errs...)
}

// listen opens every listener. After an error those that are open are in l.
func (g *Gateway) listen() (l *listeners, err error) {
	l = &listeners{}
	limits := g.current.config.Limits.WithDefaults()
	open := func(what, addr string) (net.Listener, error) {
		x, err := g.memory.options.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen.%s: %w", what, err)
		}
		return socket.Listen(x), nil
	}
	bounds := edge.Limits{Conns: g.memory.conns, HandshakeTime: limits.HeadTime.D(), Log: g.memory.Log}
	for _, addr := range g.current.config.Listen.HTTPSAddrs() {
		x, err := open("https", addr)
		if err != nil {
			return l, err
		}
		g.addrs.HTTPS = append(g.addrs.HTTPS, x.Addr())
		l.https = append(l.https, g.memory.edge.Listen(g.readProxyHeader(x), bounds))
	}
	for _, addr := range g.current.config.Listen.HTTPAddrs() {
		x, err := open("http", addr)
		if err != nil {
			return l, err
		}
		g.addrs.HTTP = append(g.addrs.HTTP, x.Addr())
		l.http = append(l.http, edge.Plain(g.readProxyHeader(x), bounds))
	}
	if err := g.listenBehind(l, open, bounds); err != nil {
		return l, err
	}
	if addr := g.current.config.Listen.HealthAddr(); addr != "" {
		if l.health, err = open("health", addr); err != nil {
			return l, err
		}
		g.addrs.Health = l.health.Addr()
	}
	return l, nil
}

// readProxyHeader reads the PROXY protocol in front of a listener where it is configured.
func (g *Gateway) readProxyHeader(l net.Listener) net.Listener {
	c := g.current.config.Listen.ProxyProtocol
	if c == nil {
		return l
	}
	return edge.Told(l, edge.Balancers{From: prefixesOf(c.From), Optional: c.Optional, HeaderTime: g.current.config.Limits.WithDefaults().HeadTime.D(), Log: g.memory.Log})
}

// listenBehind opens the listeners that serve listed peers only.
func (g *Gateway) listenBehind(l *listeners, open func(what, addr string) (net.Listener, error), bounds edge.Limits) error {
	if c := g.current.config.Listen.InsecurePlain; c != nil {
		x, err := open("insecure_plain", c.Addr)
		if err != nil {
			return err
		}
		g.addrs.Plain = x.Addr()
		l.plain = edge.Plain(g.readProxyHeader(edge.Only(x, prefixesOf(c.From), g.memory.Log)), bounds)
	}
	if c := g.current.config.Listen.ForwardAuth; c != nil {
		x, err := open("forward_auth", c.Addr)
		if err != nil {
			return err
		}
		g.addrs.ForwardAuth = x.Addr()
		l.auth = edge.Plain(edge.Only(x, prefixesOf(c.From), g.memory.Log), bounds)
	}
	return nil
}
