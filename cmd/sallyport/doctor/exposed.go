package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// askTime bounds the question whether something answers at one address.
const askTime = 2 * time.Second

// exposed checks whether others can ask an upstream without the gateway. A server on this machine must
// not answer at another address than loopback: not at those of the machine, nor at those to which the
// names of the routes lead. A server elsewhere must at least have a private address.
func (p *patient) exposed(ctx context.Context, e *endpoint) []Finding {
	if e.url.Scheme == "unix" {
		return nil
	}
	at := []netip.Addr{address(e.url.Hostname())}
	if !at[0].IsValid() {
		if reserved(e.url.Hostname()) {
			at = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		} else if found, err := p.Lookup(ctx, e.url.Hostname()); err == nil {
			at = found
		} else {
			return nil // the check of DNS says so
		}
	}
	ours := func(a netip.Addr) bool {
		return a.Unmap().IsLoopback() || a.IsUnspecified() || slices.Contains(p.own, a.Unmap())
	}
	if !slices.ContainsFunc(at, ours) {
		return p.exposedElsewhere(e, at)
	}
	candidates := slices.Concat(p.own, at)
	for _, host := range p.hosts() {
		if a := address(host); a.IsValid() {
			candidates = append(candidates, a)
		} else if !reserved(host) && !strings.HasPrefix(host, "*.") {
			found, _ := p.Lookup(ctx, host) // the check of DNS reports a failure
			candidates = append(candidates, found...)
		}
	}
	var open []string
	for _, a := range candidates {
		a = a.Unmap()
		if a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || p.listensAt(a, e.port()) {
			continue
		}
		text := net.JoinHostPort(a.String(), e.port())
		if slices.ContainsFunc(open, func(s string) bool { return strings.HasPrefix(s, text+" ") }) {
			continue
		}
		if answer := p.answer(ctx, text, e.secure()); answer != "" {
			open = append(open, text+" "+answer)
		}
	}
	if len(open) == 0 && ctx.Err() != nil {
		return []Finding{{"exposed", e.text, Skipped, "not all addresses could be asked in time", "run doctor again"}}
	}
	if len(open) == 0 {
		return []Finding{{"exposed", e.text, OK, "answers nobody at the other addresses of this machine", ""}}
	}
	return []Finding{{"exposed", e.text, Fail, "the server can be asked without the gateway, and so without a credential: " + strings.Join(open, ", "), e.cureExposed()}}
}

// exposedElsewhere checks the addresses of a server on another machine.
func (p *patient) exposedElsewhere(e *endpoint, at []netip.Addr) []Finding {
	for _, a := range at {
		if a = a.Unmap(); a.IsGlobalUnicast() && !a.IsPrivate() && !carrier.Contains(a) {
			if e.secure() {
				return []Finding{{"exposed", e.text, Warn, a.String() + " is a public address: the server must ask for a credential of its own", "else give it a private address, or let a firewall pass this machine alone"}}
			}
			return []Finding{{"exposed", e.text, Fail, a.String() + " is a public address, so the internet may ask the server without the gateway",
				"give the server a private address, or let a firewall pass this machine alone"}}
		}
	}
	return []Finding{{"exposed", e.text, OK, listed(at) + " is private; whoever reaches that network can ask the server without the gateway", ""}}
}

// carrier is the shared address space of RFC 6598, which the internet does not route.
var carrier = netip.MustParsePrefix("100.64.0.0/10")

// listensAt reports whether the gateway itself listens at an address: it may do so on the port that
// a server has on loopback.
func (p *patient) listensAt(a netip.Addr, port string) bool {
	c := &p.config.Listen
	all := slices.Concat(c.HTTPSAddrs(), c.HTTPAddrs(), c.PlainAddr(), c.ForwardAuthAddr(), []string{c.HealthAddr()})
	if p.status != nil {
		for _, l := range p.status.Listeners {
			all = append(all, l.Addr)
		}
	}
	for _, addr := range all {
		host, at, err := net.SplitHostPort(addr)
		if err != nil || at != port {
			continue
		}
		if listens := address(host); host == "" || listens.IsUnspecified() || listens == a {
			return true
		}
	}
	return false
}

// answer returns how a server answers at an address, such as "answers 200"; "" if nothing accepts
// connections there.
func (p *patient) answer(ctx context.Context, at string, secure bool) string {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	conn, err := p.Dial(ctx, "tcp", at)
	if err != nil {
		return ""
	}
	defer conn.Close()
	const accepts = "accepts connections"
	if deadline, ok := ctx.Deadline(); ok && conn.SetDeadline(deadline) != nil {
		return accepts
	}
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // nothing secret is sent
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+at+"\r\nConnection: close\r\n\r\n"); err != nil {
		return accepts
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 1<<10)).ReadString('\n')
	if status, ok := strings.CutPrefix(line, "HTTP/1."); err == nil && ok && len(status) >= 5 && strings.Trim(status[2:5], "0123456789") == "" {
		return "answers " + status[2:5]
	}
	return accepts
}

// cureExposed says how to let only the gateway reach a server on this machine.
func (e *endpoint) cureExposed() string {
	bind := map[string]string{
		"ollama": "OLLAMA_HOST=127.0.0.1:" + e.port(), "openai": "--host 127.0.0.1", "flask": "gunicorn --bind 127.0.0.1:" + e.port(),
		"triton": "--http-address=127.0.0.1 --grpc-address=127.0.0.1",
	}[e.serves]
	first := "let the server listen on 127.0.0.1 alone"
	if bind != "" {
		first += fmt.Sprintf(" (%s)", bind)
	}
	return first + "; in compose remove its ports:, so that only the gateway's network reaches it; else let a firewall drop port " + e.port() + " from other machines"
}
