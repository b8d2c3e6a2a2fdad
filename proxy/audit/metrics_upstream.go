package audit

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"
)

// maxUpstreams is how many upstreams a route has time series for. Reloads could give it ever new ones;
// those beyond count as other.
const maxUpstreams = 64

// observeUpstream adds how long a request waited for its upstream.
func (r *routeMetrics) observeUpstream(of *prometheus.HistogramVec, rec *Record) {
	o := (*r.upstream.Load())[rec.UpstreamName]
	if o == nil {
		if o = r.addUpstream(of, rec.UpstreamName); o == nil {
			return // the route was dropped concurrently, with its counts
		}
	}
	o.Observe(rec.UpstreamDuration.Seconds())
}

// addUpstream makes the histogram of an upstream; nil if the route was dropped.
func (r *routeMetrics) addUpstream(of *prometheus.HistogramVec, name string) prometheus.Observer {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := *r.upstream.Load()
	switch {
	case r.dropped:
		return nil
	case len(known) >= maxUpstreams:
		return of.WithLabelValues(r.name, other)
	}
	o := of.WithLabelValues(r.name, name)
	next := maps.Clone(known)
	next[name] = o
	r.upstream.Store(&next)
	return o
}
