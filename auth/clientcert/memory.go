package clientcert

import (
	"context"
)

// Memory is the state that outlives configurations. A process has one. It is safe for concurrent
// use.
type Memory struct{}

// NewMemory returns an empty Memory. It starts no goroutine.
func NewMemory() *Memory { return &Memory{} }

// Run keeps the state current until ctx ends. Its error is nil.
func (m *Memory) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
