package auth

import (
	"errors"
	"time"
)

// IssuerStatus is the state of an issuer's keys, for the status page and metrics.
type IssuerStatus struct {
	Name    string
	URL     string
	Keys    int       // usable keys: 0 if none were fetched, or if they are stale
	Fetched time.Time // when the fetch of those keys began; zero if never
	// LastError says why the last fetch failed, such as "discovery: unreachable"; "" if it
	// succeeded. If the document names another issuer than the configuration, it has both.
	LastError string
	Failures  int // failed fetches since the last success
	// Skipped lists the keys of the last fetch that cannot be used, each with the reason.
	Skipped []string
	// Introspection is nil if the issuer is not asked about tokens.
	Introspection *IntrospectionStatus
}

func (s *keySet) status() IssuerStatus {
	st := IssuerStatus{}
	if set := s.current.Load(); set != nil {
		st.Fetched, st.Skipped = set.fetched, set.skipped
		if s.usable(set, s.now()) {
			st.Keys = len(set.list)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Failures = s.failures
	if s.failed != nil {
		st.LastError = s.failed.words()
		if unusable := (noKeyError)(nil); errors.As(s.failed, &unusable) {
			st.Skipped = unusable
		}
		var other *anotherIssuer
		if errors.As(s.failed, &other) {
			st.LastError += ": " + other.Error()
		}
	}
	return st
}
