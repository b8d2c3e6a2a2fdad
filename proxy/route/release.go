package route

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/setting"
)

// RewriteConfig is the section `rewrite` of a route: which version of a model, or which upstream,
// requests get that leave it open. Rules, limits and records see the version that is chosen. Who names
// a version gets that one, if the rules allow it.
type RewriteConfig struct {
	// Latest is the version for requests that name none, such as 3 or "label:stable".
	Latest policy.Version `yaml:"latest"`
	// Split shares requests out by weight. The first entry with versions and the first with upstreams
	// that are about the model apply.
	Split setting.List[SplitConfig] `yaml:"split"`
}

// SplitConfig is one entry of `split`. A caller keeps its version of a model, and its upstream, until
// the weights change; then only the share moves that must. Callers go by principal, those with an alias
// by that, anonymous ones by client address (IPv6: by /64).
type SplitConfig struct {
	// Models are patterns of the models that the entry is about; "*" alone is all of them.
	Models setting.List[setting.Glob] `yaml:"models"`
	// Versions are versions by their weights, for requests that name none.
	Versions map[policy.Version]int `yaml:"versions"`
	// Upstreams are names under upstreams by their weights. All must serve the same kind of model server.
	// With models: "*" the choice is by caller alone, for requests about the server and streams too;
	// other patterns apply only to requests that name their model before anything is sent on.
	Upstreams map[string]int `yaml:"upstreams"`
}

// maxWeight keeps sums of weights exact.
const maxWeight = 1_000_000

// Upstreams lists the names of the upstreams of all splits, sorted.
func (c *RewriteConfig) Upstreams() []string {
	var all []string
	if c != nil {
		for i := range c.Split {
			all = slices.AppendSeq(all, maps.Keys(c.Split[i].Upstreams))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ByModel reports whether an upstream is chosen by the model.
func (c *RewriteConfig) ByModel() bool {
	return c != nil && slices.ContainsFunc(c.Split, func(s SplitConfig) bool { return len(s.Upstreams) > 0 && !s.everyModel() })
}

// ChoosesVersions reports whether a version may be chosen.
func (c *RewriteConfig) ChoosesVersions() bool {
	return c != nil && (c.Latest != "" || slices.ContainsFunc(c.Split, func(s SplitConfig) bool { return len(s.Versions) > 0 }))
}

func (s *SplitConfig) everyModel() bool {
	return slices.ContainsFunc(s.Models, func(g setting.Glob) bool { return g.String() == "*" })
}

// Words describes each choice, such as "versions 3 (90) and 4 (10) of churn".
func (c *RewriteConfig) Words() []string {
	all := []string{}
	if c == nil {
		return all
	}
	for i := range c.Split {
		s := &c.Split[i]
		var models []string
		for _, m := range s.Models {
			models = append(models, m.String())
		}
		of := " of " + strings.Join(models, " or ")
		if s.everyModel() {
			of = ""
		}
		if len(s.Versions) > 0 {
			all = append(all, "versions "+inShares(s.Versions)+of)
		}
		if len(s.Upstreams) > 0 {
			all = append(all, "upstreams "+inShares(s.Upstreams)+of)
		}
	}
	if c.Latest != "" {
		all = append(all, "latest is "+string(c.Latest))
	}
	return all
}

func inShares[K ~string](weights map[K]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		all = append(all, string(name)+" ("+strconv.Itoa(weights[name])+")")
	}
	return strings.Join(all, " and ")
}

// CheckRewrite records the faults of `rewrite` on a route to servers of a dialect.
func (r *Config) CheckRewrite(at string, d *model.Dialect, f *setting.Faults) {
	c := r.Rewrite
	if c == nil {
		return
	}
	at += ".rewrite"
	if r.Respond != nil {
		f.Add(at, "", "the route answers by itself, so nothing is sent on", "remove it")
		return
	}
	if c.Latest == "" && len(c.Split) == 0 {
		f.Add(at, "", "says nothing", `write latest: "label:stable", or a split`)
	}
	if r.Integrity.ForwardClientSignature && c.ChoosesVersions() {
		f.Add(at, "", "the upstream verifies the caller's signature (integrity.forward_client_signature), which would not fit a request with a version written into it",
			"remove the one or the other")
	}
	if c.Latest != "" {
		if problem, cure := d.CheckChoice(string(c.Latest)); problem != "" {
			f.Add(at+".latest", string(c.Latest), problem, cure)
		}
	}
	for i := range c.Split {
		c.Split[i].check(setting.Index(at+".split", i), d, f)
	}
}

func (s *SplitConfig) check(at string, d *model.Dialect, f *setting.Faults) {
	switch {
	case len(s.Models) == 0:
		f.Add(at+".models", "", "the entry does not say which models it is about", `write models: "*" for all, or patterns such as [churn, "team-*"]`)
	case !d.NamesModels() && !s.everyModel():
		f.Add(at+".models", "", "requests to this server do not say which model they ask for", `write models: "*"`)
	}
	for i, m := range s.Models {
		if name, err := d.CanonicalModel(m.String()); err != nil || name != m.String() {
			f.Add(setting.Index(at+".models", i), m.String(), "no model of this server has such a name", "write the name as the server lists it, with stars for parts of it")
		}
	}
	if (len(s.Versions) == 0) == (len(s.Upstreams) == 0) {
		f.Add(at, "", "an entry splits either versions or upstreams", `write one of them, such as versions: {"3": 90, "4": 10}`)
	}
	for _, v := range slices.Sorted(maps.Keys(s.Versions)) {
		if problem, cure := d.CheckChoice(string(v)); problem != "" {
			f.Add(setting.Join(at+".versions", string(v)), string(v), problem, cure)
		}
	}
	checkWeights(at+".versions", s.Versions, f)
	checkWeights(at+".upstreams", s.Upstreams, f)
}

func checkWeights[K ~string](at string, weights map[K]int, f *setting.Faults) {
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		w := weights[name]
		if w < 0 || w > maxWeight {
			f.Add(setting.Join(at, string(name)), strconv.Itoa(w), "not a weight", "write a number from 0, which gets nothing, to 1000000")
		}
		sum += max(w, 0)
	}
	if len(weights) > 0 && sum == 0 {
		f.Add(at, "", "all weights are 0, so nothing can be chosen", "give one of them a weight such as 100")
	}
}

// Release chooses versions and upstreams for requests that leave them open. It is immutable and keeps no
// state: a choice is a function of the caller, the model and the weights. A nil Release chooses nothing.
type Release struct {
	latest              string
	versions, upstreams []split
}

// split is a compiled [SplitConfig].
type split struct {
	at      string // its place below the route
	models  []setting.Glob
	every   bool // it is about all models
	choices []choice
}

type choice struct {
	name   string
	weight float64
}

// NewRelease compiles a checked section; nil for none.
func NewRelease(c *RewriteConfig) *Release {
	if c == nil {
		return nil
	}
	r := &Release{latest: string(c.Latest)}
	for i := range c.Split {
		s := &c.Split[i]
		compiled := split{at: setting.Index("rewrite.split", i), models: slices.Clone(s.Models), every: s.everyModel()}
		if len(s.Upstreams) > 0 {
			compiled.choices = choicesOf(s.Upstreams)
			r.upstreams = append(r.upstreams, compiled)
			continue
		}
		compiled.choices = choicesOf(s.Versions)
		r.versions = append(r.versions, compiled)
	}
	return r
}

func choicesOf[K ~string](weights map[K]int) (all []choice) {
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		if w := weights[name]; w > 0 {
			all = append(all, choice{string(name), float64(w)})
		}
	}
	return all
}

// Version returns the version for a caller's calls that name none of this model, and the place of the
// setting that chooses it; both are "" if the servers choose.
func (r *Release) Version(caller, name string) (version, at string) {
	if r == nil || name == "" {
		return "", ""
	}
	for i := range r.versions {
		if s := &r.versions[i]; s.covers(name) {
			return s.choose(caller, name), s.at
		}
	}
	if r.latest == "" {
		return "", ""
	}
	return r.latest, "rewrite.latest"
}

// ChoosesVersions reports whether a version may be chosen.
func (r *Release) ChoosesVersions() bool { return r != nil && (r.latest != "" || len(r.versions) > 0) }

// SplitsUpstreams reports whether an upstream may be chosen.
func (r *Release) SplitsUpstreams() bool { return r != nil && len(r.upstreams) > 0 }

// NeedsModel reports whether a choice depends on the model, so that it must be read from the body where
// the head does not name it.
func (r *Release) NeedsModel() bool {
	return r.ChoosesVersions() || r != nil && slices.ContainsFunc(r.upstreams, func(s split) bool { return !s.every })
}

// Upstream returns the name of the upstream for a caller's requests about a model, and the place of the
// setting that chooses it; both are "" for that of the route. The model is "" if it is not known.
func (r *Release) Upstream(caller, name string) (upstream, at string) {
	if r == nil {
		return "", ""
	}
	for i := range r.upstreams {
		switch s := &r.upstreams[i]; {
		case s.every:
			return s.choose(caller, ""), s.at
		case name != "" && s.covers(name):
			return s.choose(caller, name), s.at
		}
	}
	return "", ""
}

func (s *split) covers(name string) bool {
	return s.every || slices.ContainsFunc(s.models, func(g setting.Glob) bool { return g.Match(name) })
}

// choose is weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables",
// logarithmic method): each choice draws a number for the caller and the model, and the least wins. As a
// draw does not depend on other choices, a new weight moves callers only to or from its own choice.
func (s *split) choose(caller, name string) string {
	best, least := "", math.Inf(1)
	for i := range s.choices {
		c := &s.choices[i]
		if score := -math.Log(draw(caller, name, c.name)) / c.weight; score < least {
			best, least = c.name, score
		}
	}
	return best
}

// draw returns a number between 0 and 1 that is fixed for its arguments in every process.
func draw(of ...string) float64 {
	const prime = 1099511628211
	h := uint64(14695981039346656037) // FNV-1a, with the length of each text before it
	for _, text := range of {
		for shift := 0; shift < 32; shift += 8 {
			h = (h ^ uint64(len(text)>>shift&0xff)) * prime
		}
		for i := range len(text) {
			h = (h ^ uint64(text[i])) * prime
		}
	}
	// The finalizer of MurmurHash3: FNV alone leaves the upper bits of short texts alike.
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return (float64(h>>11) + 0.5) / (1 << 53)
}
