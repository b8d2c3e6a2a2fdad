package doctor

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// endpoint is a server behind the gateway.
type endpoint struct {
	upstream string // its name, or its URL where it stands in a route
	text     string // the URL as the configuration has it
	url      *url.URL
	serves   string
}

// port returns the endpoint's TCP port.
func (e *endpoint) port() string {
	switch {
	case e.url.Port() != "":
		return e.url.Port()
	case e.secure():
		return "443"
	}
	return "80"
}

func (e *endpoint) secure() bool { return e.url.Scheme == "https" || e.url.Scheme == "h2" }

// endpoints returns every endpoint of a route once, in the order of the routes.
func (p *patient) endpoints() []endpoint {
	var all []endpoint
	add := func(upstream, serves string, text string) {
		u, err := url.Parse(text)
		if err == nil && !slices.ContainsFunc(all, func(e endpoint) bool { return e.upstream == upstream && e.text == text }) {
			all = append(all, endpoint{upstream, text, u, serves})
		}
	}
	for _, r := range p.config.Table() {
		for _, text := range r.Endpoints {
			add(r.Upstream, r.Serves, text)
		}
		for _, u := range p.config.Upstreams[r.Upstream].GRPC {
			add(r.Upstream, r.Serves, u.String())
		}
		for _, name := range r.Splits {
			u := p.config.Upstreams[name]
			for _, at := range slices.Concat(u.Rest, u.GRPC) {
				add(name, r.Serves, at.String())
			}
		}
	}
	return all
}

// upstreams checks that endpoints accept connections, that nobody else can make them, and that the
// tokens for them can be fetched.
func (p *patient) upstreams() []check {
	var all []check
	var named []string
	for _, e := range p.endpoints() {
		if !slices.Contains(named, e.upstream) {
			named = append(named, e.upstream)
			all = append(all, func(ctx context.Context) []Finding { return p.credential(ctx, e.upstream) })
		}
		all = append(all,
			func(ctx context.Context) []Finding { return []Finding{p.reach(ctx, &e)} },
			func(ctx context.Context) []Finding { return p.exposed(ctx, &e) })
	}
	return all
}

// credential checks that the token for an upstream can be fetched; none if it needs none.
func (p *patient) credential(ctx context.Context, upstream string) []Finding {
	at := "upstreams." + upstream + ".credentials"
	fetched, cure, err := p.exam.Credential(ctx, upstream)
	switch {
	case err != nil:
		return []Finding{{"credential", at, Fail, "no token: " + err.Error(), cure}}
	case fetched:
		return []Finding{{"credential", at, OK, "the issuer gives the gateway a token", ""}}
	}
	return nil
}

func (p *patient) reach(ctx context.Context, e *endpoint) Finding {
	err := p.exam.Reach(ctx, e.upstream, e.text)
	if err == nil {
		return Finding{"upstream", e.text, OK, "accepts connections of the gateway", ""}
	}
	text, cure := parted(err.Error(), "")
	switch {
	case cure != "":
	case errors.As(err, new(*net.DNSError)):
		cure = "correct the name in the URL, or add it to DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		cure = "start the server, or correct the URL"
		if loopback(e.url.Hostname()) {
			cure += "; in a container 127.0.0.1 is the container itself: name the server's container"
		}
	case ctx.Err() != nil, errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		cure = "is the machine up, and does a firewall let this one through?"
	}
	return Finding{"upstream", e.text, Fail, text, cure}
}

// parted returns a text and its cure. An error may have the cure at its end.
func parted(text, cure string) (string, string) {
	if cure != "" || strings.HasPrefix(text, "write ") {
		return text, cure
	}
	for _, mark := range []string{"; ", ": write ", ": correct "} {
		if i := strings.Index(text, mark); i >= 0 {
			return text[:i], strings.TrimSpace(strings.TrimLeft(text[i:], ":;"))
		}
	}
	return text, ""
}

func loopback(host string) bool { return reserved(host) || address(host).IsLoopback() }
