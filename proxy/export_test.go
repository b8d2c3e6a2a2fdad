package proxy

import (
	"context"

	"sallyport/proxy/wire"
)

// Revisit does at once what Run does every few seconds.
func (g *Gateway) Revisit(ctx context.Context) int { return g.server.Revisit(ctx) }

// RevisitSessions does so too.
func (g *Gateway) RevisitSessions(ctx context.Context) int { return g.server.RevisitSessions(ctx) }

// Serve handles a stream like the HTTPS listeners, for benchmarks without an engine.
func (g *Gateway) Serve(s wire.Stream) { g.server.Serve(s) }
