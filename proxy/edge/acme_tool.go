package edge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// Obtain obtains missing certificates by ACME: the named ones, or all if names is empty.
// With force it also renews existing ones. The listeners must be open. It returns the failures of
// all names, each with a remedy. It serves commands that do not call [Edge.Run].
func (e *Edge) Obtain(ctx context.Context, names []string, force bool) error {
	a := e.view.Load().acme
	if a == nil {
		return errors.New("there is no tls.acme in the configuration")
	}
	if len(names) == 0 {
		names = a.names
	}
	var wg sync.WaitGroup
	faults := make([]error, len(names))
	slots := make(chan struct{}, workers)
	for i, name := range names {
		st := a.state[name]
		if st == nil {
			faults[i] = fmt.Errorf("%s is not one of the names of tls.acme: %v", name, a.names)
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			faults[i] = a.obtain(ctx, st, force)
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

func (s *acmeSource) obtain(ctx context.Context, st *acmeState, force bool) error {
	s.mu.Lock()
	_ = s.adopt(st) // unusable certificates are replaced
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

// Export returns the ACME certificate of a host with its chain, and the private key, both
// in PEM.
func (e *Edge) Export(host string) (chain, key []byte, err error) {
	a := e.view.Load().acme
	if a == nil {
		return nil, nil, errors.New("there is no tls.acme in the configuration")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range []string{host, wildcard(host)} {
		if st := a.state[name]; st != nil && st.stored != nil {
			return slices.Clone(st.stored.pem), slices.Clone(st.stored.key), nil
		}
	}
	return nil, nil, fmt.Errorf("there is no certificate by ACME for %s", host)
}
