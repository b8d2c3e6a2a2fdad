package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"

	"sallyport/proxy"
)

// authorities checks what ACME needs, up to an order: directories, and the ports at which
// authorities connect. It orders nothing.
func (p *patient) authorities() []check {
	if p.config.TLS.ACME == nil {
		return nil
	}
	all := []check{func(ctx context.Context) (found []Finding) {
		for _, r := range p.exam.Directories(ctx) {
			found = append(found, directoryFinding(&r))
		}
		return found
	}}
	for _, host := range p.hosts() {
		for _, port := range p.exam.ChallengePorts(host) {
			all = append(all, func(ctx context.Context) []Finding { return p.port(ctx, host, port) })
		}
	}
	return all
}

// revocationLists checks the lists of revoked client certificates that are fetched.
func (p *patient) revocationLists() []check {
	return []check{func(ctx context.Context) (found []Finding) {
		for _, l := range p.exam.RevocationLists(ctx) {
			found = append(found, listFinding(&l))
		}
		return found
	}}
}

func listFinding(l *proxy.ListStatus) Finding {
	if l.LastError != "" {
		text, cure := parted(l.LastError, "")
		return Finding{"crl", l.URL, Fail, text, cmp.Or(cure, "let this machine fetch it: without a list that is in force, certificates of its CA are refused")}
	}
	return Finding{"crl", l.URL, OK, fmt.Sprintf("of %q, with %s, until %s", l.Issuer, counted(l.Revoked, "certificate"), l.NextUpdate.UTC().Format("2006-01-02 15:04Z")), ""}
}

func directoryFinding(r *proxy.DirectoryReport) Finding {
	if r.Problem != "" {
		return Finding{"acme", r.URL, Fail, r.Problem, r.Cure}
	}
	text := "answers; an account is registered there"
	if !r.Account {
		text = "answers; the first order registers an account there"
		if r.Terms != "" {
			text += " and agrees to " + r.Terms
		}
	}
	return Finding{"acme", r.URL, OK, text, ""}
}

// port checks that the gateway answers at the addresses of a host where authorities connect to prove
// the name. This machine may see less, or more, than the internet does.
func (p *patient) port(ctx context.Context, host, port string) []Finding {
	at := net.JoinHostPort(host, port)
	if p.status == nil {
		return []Finding{{"acme", at, Skipped, "nothing can answer there while no gateway runs", "start it and run doctor again, or try an order: sallyport cert obtain --dry-run"}}
	}
	found, err := p.Lookup(ctx, host)
	if err != nil {
		return nil // the check of DNS says so
	}
	var open, closed []string
	for _, a := range found {
		conn, err := p.Dial(ctx, "tcp", net.JoinHostPort(a.Unmap().String(), port))
		if err != nil {
			closed = append(closed, a.Unmap().String())
			continue
		}
		_ = conn.Close() // nothing was asked
		open = append(open, a.Unmap().String())
	}
	if len(closed) > 0 {
		return []Finding{{"acme", at, Warn, fmt.Sprintf("%s does not accept connections at port %s, as seen from here", strings.Join(closed, ", "), port),
			"let the port through to the gateway (firewall, port forwarding); a router that does not lead back inside shows this too, and sallyport cert obtain --dry-run tells"}}
	}
	return []Finding{{"acme", at, OK, "accepts connections, as seen from here: " + strings.Join(open, ", "), ""}}
}
