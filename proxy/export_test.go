package proxy

import "sallyport/proxy/wire"

// Serve handles a stream like the HTTPS listeners, for benchmarks without an engine.
func (g *Gateway) Serve(s wire.Stream) { g.server.Serve(s) }
