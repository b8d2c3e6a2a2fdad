package proxy

import "sallyport/proxy/wire"

// Serve is the handler of the listeners for HTTPS, for benchmarks without one.
func (g *Gateway) Serve(s wire.Stream) { g.server.Serve(s) }
