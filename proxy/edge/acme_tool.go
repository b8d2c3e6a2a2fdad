package edge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Obtain obtains by ACME what is missing of the named certificates, of all if none
// is named; with force also what there is, as renewals. Listeners must be open. It
// returns the failures of all names, in words with what would do. It is for
// commands, whose Edge does not run: [Edge.Run] does the same by itself.
func (e *Edge) Obtain(ctx context.Context, names []string, force bool) error {
	if e.acme == nil {
		return errors.New("there is no tls.acme in the configuration")
	}
	if len(names) == 0 {
		names = e.acme.names
	}
	var wg sync.WaitGroup
	faults := make([]error, len(names))
	places := make(chan struct{}, workers)
	for i, name := range names {
		st := e.acme.state[name]
		if st == nil {
			faults[i] = fmt.Errorf("%s is not among the names that tls.acme is for: %v", name, e.acme.names)
			continue
		}
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			faults[i] = e.acme.obtain(ctx, st, force)
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

func (s *acmeSource) obtain(ctx context.Context, st *acmeState, force bool) error {
	s.mu.Lock()
	_ = s.adopt(st) // what cannot be used is replaced
	have := st.stored != nil
	s.mu.Unlock()
	if have && !force {
		return nil
	}
	err := s.renew(ctx, st, force)
	if err == nil || ctx.Err() != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%s: %s", st.name, st.lastError)
}

// Export returns the certificate that a host is served with by ACME, with its
// chain, and its private key, both in PEM; an error if there is none.
func (e *Edge) Export(host string) (chain, key []byte, err error) {
	if e.acme == nil {
		return nil, nil, errors.New("there is no tls.acme in the configuration")
	}
	e.acme.mu.Lock()
	defer e.acme.mu.Unlock()
	for _, name := range []string{host, wildcard(host)} {
		if st := e.acme.state[name]; st != nil && st.stored != nil {
			return slices.Clone(st.stored.pem), slices.Clone(st.stored.key), nil
		}
	}
	return nil, nil, fmt.Errorf("there is no certificate by ACME for %s", host)
}
