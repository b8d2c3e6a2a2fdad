package edge

import (
	"maps"
	"slices"
)

// retarget cares for these names from now on, and for no others. An order under way for a
// name that is gone is finished and stored, and served to nobody.
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

// inherit takes over the certificates of another source, for names for which this one has
// none, so that a change of the authority leaves no host without one. They are renewed at
// once, by the authorities of this source. The caller is alone with s.
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

// authorizes says whether the authority with a key is one of the source's.
func (s *acmeSource) authorizes(issuer string) bool {
	return slices.ContainsFunc(s.authorized, func(a *authorityClient) bool { return a.key == issuer })
}
