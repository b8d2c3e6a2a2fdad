package edge

import (
	"maps"
	"slices"
)

// retarget replaces the managed names. A pending order for a removed name is completed and
// stored, but not served.
func (s *acmeSource) retarget(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(names, s.names) {
		return
	}
	s.names = names
	s.challenges.setNames(names)
	for _, name := range names {
		if s.state[name] == nil {
			s.add(name)
		}
	}
	maps.DeleteFunc(s.state, func(name string, _ *acmeState) bool { return !slices.Contains(names, name) })
	s.publishAll()
	s.wake()
}

// inherit takes certificates from another source for names that have none here, so that a
// change of authority leaves no host without a certificate. They are renewed at once. The caller
// has sole access to s.
func (s *acmeSource) inherit(from *acmeSource) {
	from.mu.Lock()
	defer from.mu.Unlock()
	for _, name := range s.names {
		old := from.state[name]
		if st := s.state[name]; st.stored == nil && old != nil && old.stored != nil {
			st.stored, st.lastError = old.stored, ""
			st.renewal = s.renewalOf(st)
		}
	}
	s.publishAll()
}

// authorizes reports whether one of the source's authorities has this storage key.
func (s *acmeSource) authorizes(issuer string) bool {
	return slices.ContainsFunc(s.authorized, func(a *authorityClient) bool { return a.key == issuer })
}
