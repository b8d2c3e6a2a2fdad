package clientcert

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Fetch fetches the lists of all active Hosts once, waits for them until ctx ends, and returns their
// states. It is for tools, which do not call [Memory.Run].
func (m *Memory) Fetch(ctx context.Context) []ListStatus {
	m.mu.Lock()
	feeds := slices.Collect(maps.Values(m.feeds))
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, f := range feeds {
		wg.Go(func() {
			stop := context.AfterFunc(ctx, f.stop)
			defer stop()
			f.fetch()
		})
	}
	wg.Wait()
	all := m.Status()
	for i := range all {
		if s := &all[i]; s.LastError == "" && s.ThisUpdate.IsZero() {
			s.LastError = "not fetched in time"
		}
	}
	return all
}
