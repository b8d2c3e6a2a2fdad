package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/proxy/setting"
)

// MetricsConfig is the section `metrics` of gateway.yaml.
type MetricsConfig struct {
	// Models are the models whose requests are counted in sallyport_model_requests_total, by the
	// names that audit records have. Others are not counted there: clients choose the names that
	// they ask for, and each would be a time series.
	Models setting.List[string] `yaml:"models"`
}

const (
	// maxCountedModels limits the models that are counted.
	maxCountedModels = 200
	// maxCountedVersions limits the versions of one of them that are counted. Servers say them.
	maxCountedVersions = 16
)

// Check records the faults of the section at path.
func (c *MetricsConfig) Check(path string, f *setting.Faults) {
	if n := len(c.Models); n > maxCountedModels {
		f.Add(path+".models", "", fmt.Sprintf("%d models, and at most %d are counted", n, maxCountedModels), "name those that matter most; the audit log has all")
	}
	for i, name := range c.Models {
		at := fmt.Sprintf("%s.models[%d]", path, i)
		switch {
		case name == "" || len(name) > maxString:
			f.Add(at, name, "not the name of a model", "write one as audit records have it")
		case strings.ContainsAny(name, "*"):
			f.Add(at, name, "a pattern, and each model that is counted must be named", "write the names that the pattern stands for")
		case slices.Contains(c.Models[:i], name):
			f.Add(at, name, "the model stands twice", "remove one")
		}
	}
}

// modelMetrics count the requests for the models that the configuration lists.
type modelMetrics struct {
	requests *prometheus.CounterVec
	listed   atomic.Pointer[map[string]string] // the names, to themselves; immutable; replaced as a whole

	mu       sync.Mutex // guards the fields below
	counters map[modelOutcome]prometheus.Counter
	versions map[string][]string // of a model, the versions with a label
}

// modelOutcome describes how a request for a model ended. All its parts but the version come from closed sets.
type modelOutcome struct{ model, version, dialect, verb, code string }

func (m *modelMetrics) init() {
	m.requests = counter("sallyport_model_requests_total", "Requests for the models of metrics.models, by class of the status code; version is the one that the answer names, if it names one.", "model", "version", "dialect", "verb", "code")
	m.set(nil)
}

// set replaces the names of the models. The counts of those that go are forgotten.
func (m *modelMetrics) set(names []string) {
	listed := make(map[string]string, len(names))
	for _, name := range names {
		listed[name] = name
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed.Store(&listed)
	counters, versions := map[modelOutcome]prometheus.Counter{}, map[string][]string{}
	for key, c := range m.counters {
		if _, stays := listed[key.model]; stays {
			counters[key], versions[key.model] = c, m.versions[key.model]
		} else {
			m.requests.DeletePartialMatch(prometheus.Labels{"model": key.model})
		}
	}
	m.counters, m.versions = counters, versions
}

// observe counts a record; dialect and verb are its labels. A request whose model was not read counts for the
// model that the answer names.
func (m *modelMetrics) observe(rec *Record, dialect, verb string) {
	name, found := (*m.listed.Load())[cmp.Or(rec.Model, rec.ServedModel)]
	if !found {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, found := (*m.listed.Load())[name]; !found {
		return // it went meanwhile, with its counts
	}
	key := modelOutcome{name, m.version(name, rec.ServedVersion), dialect, verb, classOf(rec.Status)}
	c := m.counters[key]
	if c == nil {
		c = m.requests.WithLabelValues(key.model, key.version, key.dialect, key.verb, key.code)
		m.counters[key] = c
	}
	c.Inc()
}

// version returns the label of a version, without memory of the record. The caller holds mu.
func (m *modelMetrics) version(model, version string) string {
	known := m.versions[model]
	if i := slices.Index(known, version); i >= 0 {
		return known[i]
	}
	switch {
	case version == "":
		return ""
	case len(known) >= maxCountedVersions:
		return other
	}
	version = strings.Clone(version)
	m.versions[model] = append(known, version)
	return version
}

// classOf returns the class of a status, such as "2xx".
func classOf(status int) string {
	if status < 100 || status > 599 {
		return other
	}
	return [...]string{"1xx", "2xx", "3xx", "4xx", "5xx"}[status/100-1]
}
