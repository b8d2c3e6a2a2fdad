package config

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"sallyport/proxy/route"
	"sallyport/proxy/setting"
)

// EachUpstream yields the route, and then for each other upstream of its splits a copy of the route that
// has this one as its upstream.
func (c *Config) EachUpstream(r *route.Config) iter.Seq[*route.Config] {
	return func(yield func(*route.Config) bool) {
		if !yield(r) {
			return
		}
		for _, name := range r.Rewrite.Upstreams() {
			if name == r.Upstream {
				continue
			}
			of := *r
			of.Upstream, of.Serves = name, ""
			if !yield(&of) {
				return
			}
		}
	}
}

// checkRelease records the faults of `rewrite` of a route. identity holds the folded names of the identity
// fields of all routes.
func (c *Config) checkRelease(r *route.Config, at string, identity map[string]bool, f *setting.Faults) {
	r.CheckRewrite(at, c.DialectOf(r), f)
	if r.Rewrite == nil {
		return
	}
	if l := &c.Listen; l.ForwardAuth != nil && len(l.HTTPSAddrs()) == 0 && l.InsecurePlain == nil {
		f.Add(at+".rewrite", "", "the gateway only decides for proxies that forward by themselves (listen.forward_auth), so it can rewrite and split nothing",
			"remove it, or let clients come to the gateway itself")
	}
	sound := true
	for i := range r.Rewrite.Split {
		path := setting.Index(at+".rewrite.split", i) + ".upstreams"
		for _, name := range slices.Sorted(maps.Keys(r.Rewrite.Split[i].Upstreams)) {
			if problem, cure := c.badSplit(r, name); problem != "" {
				sound = false
				f.Add(setting.Join(path, name), name, problem, cure)
			}
		}
	}
	if !sound {
		return
	}
	for of := range c.EachUpstream(r) {
		if of != r {
			c.checkCredential(of, at, identity, f)
			c.checkTunnels(of, at, f)
		}
	}
}

// badSplit says why requests of a route cannot go to another upstream as they are.
func (c *Config) badSplit(r *route.Config, name string) (problem, cure string) {
	other, known := c.Upstreams[name]
	_, own, err := c.UpstreamOf(r)
	switch {
	case err != nil || name == r.Upstream:
	case strings.Contains(name, "://"):
		return "a URL where the name of an upstream is meant", "write it under upstreams, with what it serves"
	case !known:
		return "there is no such upstream", cureName("upstreams", name, slices.Sorted(maps.Keys(c.Upstreams)))
	case other.Serves != own.Serves || other.Model != own.Model || !slices.Equal(other.Calls, own.Calls):
		return "its servers are not asked as those of the route's upstream are", "write the same serves, model and calls for both"
	case len(other.Rest) == 0 && len(own.Rest) > 0:
		return "it has no endpoints in rest, and the route's upstream has", "add some, or make a route of its own for gRPC"
	case len(other.GRPC) == 0 && len(own.GRPC) > 0:
		return "it has no endpoints in grpc, and the route's upstream has", "add some, or make a route of its own for gRPC"
	case r.Integrity.ForwardClientSignature && other.Integrity.Sign != "":
		return "it gets the gateway's signature (integrity.sign), and the route sends on the caller's", "remove the one or the other"
	}
	return "", ""
}
