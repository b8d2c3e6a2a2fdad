package config

import (
	"fmt"
	"net/http"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/route"
)

// RoutesAt returns the routes that at means: the name of a route, or a URL or host and path that one
// serves; "" means all.
func (c *Config) RoutesAt(at string) ([]*route.Config, error) {
	var all, named []*route.Config
	var names []string
	table := &route.Table{}
	for i := range c.Routes {
		r := &c.Routes[i]
		all, names = append(all, r), append(names, r.Name)
		if r.Name == at {
			named = append(named, r)
		}
		for _, h := range r.Host {
			table.Add(h, r.Path, &route.Route{Name: r.Name, Dialect: c.DialectOf(r)})
		}
	}
	switch {
	case at == "":
		return all, nil
	case len(named) > 0:
		return named, nil
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(at, "https://"), "/")
	head := &message.Head{Method: http.MethodGet, Scheme: "https", Host: strings.ToLower(host), Path: "/" + path}
	found, err := table.Match(head)
	if err != nil {
		return nil, fmt.Errorf("no route %q; there are: %s", at, strings.Join(names, ", "))
	}
	for _, r := range all {
		if r.Name == found.Name {
			return []*route.Config{r}, nil
		}
	}
	return nil, fmt.Errorf("no route %q", at)
}
