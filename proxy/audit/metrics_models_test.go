package audit

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/proxy/setting"
)

func TestOnlyListedModelsAreCounted(t *testing.T) {
	m := newTestMetrics()
	m.SetModels([]string{"churn", "gone"})
	for range 2 {
		m.Observe(&Record{Dialect: "tensorflow", Verb: "predict", Model: "churn", ServedVersion: "3", Status: 200})
	}
	m.Observe(&Record{Dialect: "tensorflow", Verb: "predict", Model: "churn", Status: 403, Reason: "forbidden"})
	m.Observe(&Record{Dialect: "made up", Verb: "predict", ServedModel: "churn", Status: 200}) // the request was not read
	m.Observe(&Record{Dialect: "tensorflow", Verb: "predict", Model: "of a client", Status: 200})
	m.Observe(&Record{Dialect: "tensorflow", Verb: "predict", Model: "gone", Status: 0})
	m.Observe(&Record{Status: 404})
	m.SetModels([]string{"churn", "new"})
	m.Observe(&Record{Dialect: "tensorflow", Verb: "predict", Model: "gone", Status: 200})
	m.Observe(&Record{Dialect: "tensorflow", Verb: "predict", Model: "churn", ServedVersion: "3", Status: 200})
	want := `
# HELP sallyport_model_requests_total Requests for the models of metrics.models, by class of the status code; version is the one that the answer names, if it names one.
# TYPE sallyport_model_requests_total counter
sallyport_model_requests_total{code="2xx",dialect="other",model="churn",verb="predict",version=""} 1
sallyport_model_requests_total{code="2xx",dialect="tensorflow",model="churn",verb="predict",version="3"} 3
sallyport_model_requests_total{code="4xx",dialect="tensorflow",model="churn",verb="predict",version=""} 1
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "sallyport_model_requests_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(m); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// Clients choose the models that they ask for, and upstreams the versions that they name.
func TestModelsAndVersionsCannotAddTimeSeries(t *testing.T) {
	m := newTestMetrics()
	m.SetModels([]string{"churn"})
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 2000 {
				m.Observe(&Record{Model: fmt.Sprint("m", i), ServedModel: fmt.Sprint("m", i), Dialect: "raw", Verb: "get", Status: 200})
				m.Observe(&Record{Model: "churn", ServedVersion: fmt.Sprint(g, "-", i), Dialect: "raw", Verb: fmt.Sprint("v", i), Status: 200 + i%900})
				if i%100 == 0 {
					m.SetModels([]string{"churn", fmt.Sprint("listed", i)})
				}
			}
		})
	}
	all.Wait()
	// 16 versions and other; five classes and other.
	if n := testutil.CollectAndCount(m, "sallyport_model_requests_total"); n > (maxCountedVersions+1)*6 {
		t.Errorf("%d series of the model", n)
	}
}

func TestMetricsOfModelsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		models []string
		want   string
	}{
		"good":     {[]string{"churn", "org/model:tag"}, ""},
		"empty":    {[]string{""}, "metrics.models[0]"},
		"pattern":  {[]string{"a", "churn-*"}, "metrics.models[1]"},
		"twice":    {[]string{"a", "b", "a"}, "metrics.models[2]"},
		"too long": {[]string{strings.Repeat("x", maxString+1)}, "metrics.models[0]"},
		"too many": {make([]string, maxCountedModels+1), "metrics.models"},
	} {
		var f setting.Faults
		(&MetricsConfig{Models: c.models}).Check("metrics", &f)
		if got := fmt.Sprint(f.Err()); (c.want == "") != (f.Err() == nil) || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s; want a fault of %q", name, got, c.want)
		}
	}
}
