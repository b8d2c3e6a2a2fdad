package admin

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// stateCollector computes metrics from the state at each scrape. Its labels are names from the
// configuration.
type stateCollector struct {
	detail bool // endpoints are named by URL, not by position
	state  func() State
	counts func() Counts
	replay func() Replay
	now    func() time.Time

	ready, build             *prometheus.Desc
	config, configSuccessful *prometheus.Desc
	configSuccess, snapshots *prometheus.Desc
	reloads                  *prometheus.Desc
	notAfter, certRenewal    *prometheus.Desc
	certFault                *prometheus.Desc
	keys, keysAge, keysFault *prometheus.Desc
	lookUps, lookUpsSpared   *prometheus.Desc
	lookUpsFault             *prometheus.Desc
	sessions, unrevoked      *prometheus.Desc
	endsLines, endsUnsaved   *prometheus.Desc
	endsFailed, endsFault    *prometheus.Desc
	healthy, active, idle    *prometheus.Desc
	inFlight, connections    *prometheus.Desc
	written, dropped, failed *prometheus.Desc
	pending                  *prometheus.Desc
	handshakes               *prometheus.Desc
	claims, claimsMax        *prometheus.Desc
	claimsRefused            *prometheus.Desc
}

func newStateCollector(o Options, detail bool) *stateCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
	}
	return &stateCollector{
		detail: detail,
		state:  o.State,
		counts: o.Counts,
		replay: o.Replay,
		now:    o.Now,

		ready: desc("ready", "1 while the gateway accepts requests, 0 before and while it drains."),
		build: desc("build_info", "Always 1; the label is the version.", "version"),

		config:           desc("config_info", "Always 1; the label is a short digest of the active configuration.", "hash"),
		configSuccessful: desc("config_last_reload_successful", "1 if the last attempt to load a configuration succeeded, 0 if it failed and the previous one stays active."),
		configSuccess:    desc("config_last_reload_success_timestamp_seconds", "Time of the last successful attempt to load a configuration, in Unix time."),
		snapshots:        desc("config_snapshots", "Configurations in memory: the active one, and earlier ones with requests in flight."),
		reloads:          desc("config_reloads_total", "Attempts to load another configuration, by result: changed, unchanged or failed.", "result"),

		notAfter:    desc("not_after_timestamp_seconds", "When a key or certificate ends, in Unix time; 0 if it does not exist yet.", "kind", "name"),
		certRenewal: desc("certificate_next_renewal_timestamp_seconds", "When the certificate for a host is due for renewal, in Unix time.", "host", "source"),
		certFault:   desc("certificate_fault", "1 while a newer certificate for a host cannot be loaded.", "host", "source"),
		keys:        desc("issuer_keys", "Known keys of a token issuer.", "issuer"),
		keysAge:     desc("issuer_keys_age_seconds", "Time since the keys of an issuer were last fetched.", "issuer"),
		keysFault:   desc("issuer_fault", "1 while the keys of an issuer cannot be fetched.", "issuer"),

		lookUps:       desc("introspection_lookups_total", "Look-ups of tokens at an issuer by outcome: active, inactive, refused for its claims, failed, or skipped because too many waited or the issuer had just failed.", "issuer", "outcome"),
		lookUpsSpared: desc("introspection_cached_total", "Requests whose token needed no look-up, because it was known as active or as refused.", "issuer", "outcome"),
		lookUpsFault:  desc("introspection_fault", "1 while an issuer does not answer about tokens.", "issuer"),

		sessions: desc("login_sessions", "Sessions of people in memory, and of those in cookies the ones that were used lately.", "login"),

		unrevoked:   desc("login_unrevoked_total", "Refresh tokens that could not be revoked at the issuer when their person signed out."),
		endsLines:   desc("session_file_lines", "Ends of sessions in the files that keep them over restarts."),
		endsUnsaved: desc("session_file_unsaved", "Ends of sessions that could not be stored yet: a restart would bring these sessions back."),
		endsFailed:  desc("session_file_write_failures_total", "Failed writes of ends of sessions."),
		endsFault:   desc("session_file_fault", "1 while a file with ends of sessions cannot be used."),

		healthy:     desc("upstream_healthy", "1 if the last connect to an endpoint succeeded or there was none, 0 if it failed.", "upstream", "endpoint"),
		active:      desc("upstream_requests_in_flight", "Requests in flight at an endpoint.", "upstream", "endpoint"),
		idle:        desc("upstream_connections_idle", "Connections to an endpoint kept open for reuse.", "upstream", "endpoint"),
		inFlight:    desc("requests_in_flight", "Requests in flight."),
		connections: desc("connections", "Connections of clients."),
		written:     desc("audit_records_total", "Audit records accepted."),
		dropped:     desc("audit_records_dropped_total", "Audit records of refused requests dropped because the log's buffer was full."),
		failed:      desc("audit_write_failures_total", "Failed writes to the audit log."),
		pending:     desc("audit_pending_bytes", "Bytes of audit records waiting to be written."),
		handshakes:  desc("tls_handshake_failures_total", "TLS handshakes of clients that failed, by reason.", "reason"),

		claims:        desc("replay_live", "Signatures remembered to detect replays."),
		claimsMax:     desc("replay_capacity", "Signatures that can be remembered at once."),
		claimsRefused: desc("replay_refused_total", "Signatures refused by the replay store, by cause.", "cause"),
	}
}

// Describe sends nothing, which makes the collector unchecked: the set of metrics depends on the
// state.
func (s *stateCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of the current state.
func (s *stateCollector) Collect(c chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		// An invalid label, such as a name that is not UTF-8, only loses its own metric.
		if m, err := prometheus.NewConstMetric(d, t, v, labels...); err == nil {
			c <- m
		}
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	st := s.state()
	gauge(s.ready, number(st.Ready && !st.Draining))
	gauge(s.build, 1, st.Version)
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	if c := &st.Configuration; *c != (Configuration{}) {
		gauge(s.config, 1, c.Hash)
		gauge(s.configSuccessful, number(c.LastError == ""))
		gauge(s.configSuccess, float64(c.LastSuccess.Unix()))
		gauge(s.snapshots, float64(c.Snapshots))
		count(s.reloads, c.Reloads.Changed, "changed")
		count(s.reloads, c.Reloads.Unchanged, "unchanged")
		count(s.reloads, c.Reloads.Failed, "failed")
	}
	for _, e := range st.Ends {
		end := float64(0) // a missing key or certificate is as bad as an ended one
		if !e.NotAfter.IsZero() {
			end = float64(e.NotAfter.Unix())
		}
		gauge(s.notAfter, end, e.Kind, e.Name)
	}
	s.certificates(st.Certificates, gauge)
	for _, i := range st.Issuers {
		gauge(s.keys, float64(i.Keys), i.Name)
		if !i.Fetched.IsZero() {
			gauge(s.keysAge, s.now().Sub(i.Fetched).Seconds(), i.Name)
		}
		gauge(s.keysFault, number(i.LastError != ""), i.Name)
		if n := i.Introspection; n != nil {
			gauge(s.lookUpsFault, number(n.LastError != ""), i.Name)
			count(s.lookUps, n.Active, i.Name, "active")
			count(s.lookUps, n.Inactive, i.Name, "inactive")
			count(s.lookUps, n.Refused, i.Name, "refused")
			count(s.lookUps, n.Failed, i.Name, "failed")
			count(s.lookUps, n.Skipped, i.Name, "skipped")
			count(s.lookUpsSpared, n.CachedActive, i.Name, "active")
			count(s.lookUpsSpared, n.CachedRefused, i.Name, "refused")
		}
	}
	for _, l := range st.Logins {
		gauge(s.sessions, float64(l.Sessions), l.Name)
	}
	s.sessionFiles(st.SessionFiles, gauge, count)
	s.upstreams(st.Upstreams, gauge)
	if s.counts != nil {
		n := s.counts()
		gauge(s.inFlight, float64(n.InFlight))
		gauge(s.connections, float64(n.Connections))
		count(s.written, n.AuditWritten)
		count(s.dropped, n.AuditDropped)
		count(s.failed, n.AuditFailed)
		gauge(s.pending, float64(n.AuditPending))
		count(s.unrevoked, n.Unrevoked)
		for reason, failed := range n.HandshakesFailed {
			count(s.handshakes, failed, reason)
		}
	}
	if s.replay != nil {
		n := s.replay()
		gauge(s.claims, float64(n.Live))
		gauge(s.claimsMax, float64(n.Capacity))
		count(s.claimsRefused, n.Replayed, "replayed")
		count(s.claimsRefused, n.Full, "full")
		count(s.claimsRefused, n.KeyFull, "key_full")
		count(s.claimsRefused, n.Window, "window")
	}
}

// sessionFiles sends the sums over the files with ends of sessions; nothing if there are none.
func (s *stateCollector) sessionFiles(all []SessionFile, gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	if len(all) == 0 {
		return
	}
	sum, fault := SessionFile{}, false
	for i := range all {
		sum.Lines += all[i].Lines
		sum.Unsaved += all[i].Unsaved
		sum.Failures += all[i].Failures
		fault = fault || all[i].LastError != ""
	}
	gauge(s.endsLines, float64(sum.Lines))
	gauge(s.endsUnsaved, float64(sum.Unsaved))
	count(s.endsFailed, sum.Failures)
	gauge(s.endsFault, number(fault))
}

// upstreams sends the metrics of endpoints. Without detail it replaces the URLs of endpoints, and
// the names of upstreams that are URLs, by their position.
func (s *stateCollector) upstreams(all []Upstream, gauge func(*prometheus.Desc, float64, ...string)) {
	for i, u := range all {
		name := u.Name
		if !s.detail && strings.Contains(name, "://") {
			name = "unnamed-" + strconv.Itoa(i+1)
		}
		for j, e := range u.Endpoints {
			endpoint := e.URL
			if !s.detail {
				endpoint = strconv.Itoa(j + 1)
			}
			gauge(s.healthy, number(e.Healthy), name, endpoint)
			gauge(s.active, float64(e.Active), name, endpoint)
			gauge(s.idle, float64(e.Idle), name, endpoint)
		}
	}
}

// certificates sends the metrics of renewal, one for each host and source. Of several certificates,
// it reports the earliest renewal.
func (s *stateCollector) certificates(all []Certificate, gauge func(*prometheus.Desc, float64, ...string)) {
	type place struct{ host, source string }
	type worst struct {
		renewal time.Time // the earliest
		fault   bool
	}
	found := map[place]worst{}
	for _, cert := range all {
		for _, host := range cert.Hosts {
			at := place{host, cert.Source}
			w := found[at]
			if r := cert.NextRenewal; w.renewal.IsZero() || r.Before(w.renewal) && !r.IsZero() {
				w.renewal = r
			}
			w.fault = w.fault || cert.LastError != ""
			found[at] = w
		}
	}
	for at, w := range found {
		if !w.renewal.IsZero() {
			gauge(s.certRenewal, float64(w.renewal.Unix()), at.host, at.source)
		}
		gauge(s.certFault, number(w.fault), at.host, at.source)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
