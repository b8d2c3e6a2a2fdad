package route

import (
	"net/netip"
	"slices"

	"sallyport/auth"
)

// Door is where people sign in on a host, for all of its routes that list a login. It is immutable.
type Door struct {
	Logins []string // their names, in the order of the routes
	// Chain admits sessions of all of these logins, and nothing else.
	Chain *auth.Chain
	// Security holds the fields for the pages of the door.
	Security Security
	access   []Access
}

// Admits reports whether a client of this address may sign in: a route behind the door admits it.
func (d *Door) Admits(client netip.Addr) bool {
	return slices.ContainsFunc(d.access, func(a Access) bool { return a.Admits(client) })
}

// addDoor adds a route to the door of its host.
func (h *hostRoutes) addDoor(r *Route) {
	if len(r.Logins) == 0 {
		return
	}
	if h.door == nil {
		h.door = &Door{Security: r.Security}
	}
	h.door.access = append(h.door.access, r.Access)
	for _, name := range r.Logins {
		if !slices.Contains(h.door.Logins, name) {
			h.door.Logins = append(h.door.Logins, name)
		}
	}
}

// Door returns the door of a host; nil if nobody signs in there.
func (t *Table) Door(host string) *Door {
	if h := t.host(host); h != nil {
		return h.door
	}
	return nil
}

// Doors calls f with each door, once all routes have been added.
func (t *Table) Doors(f func(*Door) error) error {
	for _, all := range []map[string]*hostRoutes{t.exact, t.wildcard} {
		for _, h := range all {
			if h.door == nil {
				continue
			}
			if err := f(h.door); err != nil {
				return err
			}
		}
	}
	return nil
}
