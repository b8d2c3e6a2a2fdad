package model

import (
	"strings"
	"time"
)

// Dialect describes one family of model servers. Only [New], [ByName] and [Raw] return dialects.
// The last two return the same pointer for the same dialect, so dialects can be compared with ==.
// A Dialect is immutable and safe for concurrent use.
type Dialect struct {
	name        string
	verbs       []string                          // nil: the HTTP methods
	rest        func(r *Request) (Reading, error) // reads all requests but gRPC; Read sets Call.Dialect
	calls       map[string]*method                // the gRPC methods by their path; nil: rest reads gRPC too
	refusal     func(status int, text, reason, requestID string) (contentType string, body []byte)
	namesModels bool
	modelInBody bool                                     // of requests without gRPC
	one         func(name string, calls []call) *Dialect // for servers with one model, or certain calls; nil: see [New]
	canonical   func(name string) (string, error)        // nil: names are compared as they are
	actsOnWhole bool
	slashedIDs  bool // see KeepsSlashes
	localhost   bool
	versions    versionKind
	served      servedIn                  // over REST
	lists       bool                      // FilterList knows how the servers list their models
	drops       []string                  // see Dropped
	plan        func(r *Reading) jsonPlan // says what of a body [Most] limits; nil: nothing is known of it
	tensors     bool                      // what it limits has inputs, and not only texts
	head, idle  time.Duration
}

// dialects lists all dialects, raw first, in the order in which they are shown to users.
var dialects = [...]*Dialect{raw(), flask(), tensorFlow(), v2(), triton(), torchServe(), mlflow(), sageMaker(), openAI(), ollama()}

// ByName returns the dialect with this name, a value of the key `serves`, and whether
// there is one. "" means raw; letter case counts.
func ByName(name string) (*Dialect, bool) {
	if name == "" {
		return Raw(), true
	}
	for _, d := range dialects {
		if d.name == name {
			return d, true
		}
	}
	return nil, false
}

// Names lists the names that [ByName] knows, without "".
func Names() []string {
	var all []string
	for _, d := range dialects {
		all = append(all, d.name)
	}
	return all
}

// Raw returns the dialect of unknown servers.
func Raw() *Dialect { return dialects[0] }

// Name is the dialect's name in the configuration and in the audit log.
func (d *Dialect) Name() string { return d.name }

// Read reads the head of a request. The error is an [*Unread] for a request that the dialect does
// not know: such a request must not be forwarded. Read does not allocate for requests whose model is
// named without escapes.
func (d *Dialect) Read(r *Request) (Reading, error) {
	read := d.rest
	if r.GRPC && d.calls != nil {
		read = d.readCall
	}
	got, err := read(r)
	if err != nil {
		return Reading{}, err
	}
	got.Call.Dialect = d
	got.fields = r.Fields
	return got, nil
}

// NamesModels reports whether requests to these servers name a model, so that rules may be
// about models.
func (d *Dialect) NamesModels() bool { return d.namesModels }

// HasVersions reports whether requests to these servers may name a version of the model, so that rules
// may be about versions.
func (d *Dialect) HasVersions() bool { return d.versions != noVersions }

// CheckVersion checks a version of a rule: one that a server writes, Label and a pattern of labels, or
// Latest. If no request to these servers can have it, it returns the problem and what to write instead;
// otherwise both are "".
func (d *Dialect) CheckVersion(version string) (problem, cure string) {
	labelled := strings.HasPrefix(version, Label)
	switch {
	case d.versions == noVersions:
		return "requests to " + d.name + " servers name no version of a model", "remove versions"
	case version == Latest || labelled && d.versions == numbersAndLabels:
		return "", ""
	case labelled:
		return d.name + " servers have no labels of versions", "write the version, such as 3, or latest"
	case d.versions == words || strings.Trim(version, "0123456789") == "":
		return "", ""
	}
	cure = "write a number such as 3, or latest"
	if d.versions == numbersAndLabels {
		cure = `write a number such as 3, "label:` + version + `" if it is a label, or latest`
	}
	return "versions of " + d.name + " servers are numbers", cure
}

// versionKind says which versions requests to servers may name.
type versionKind uint8

const (
	noVersions versionKind = iota
	words                  // any
	numbers                // in digits
	numbersAndLabels
)

// CanonicalModel returns the canonical form of a model's name, which [Call.Model] has, or
// of a pattern in which stars stand for parts of a name. It returns an error for what no
// model of these servers can be called.
func (d *Dialect) CanonicalModel(name string) (string, error) {
	if d.canonical == nil {
		return name, nil
	}
	return d.canonical(name)
}

// HasBatches reports whether the gateway knows what makes a batch in requests to these servers.
func (d *Dialect) HasBatches() bool { return d.plan != nil }

// HasTensors reports whether requests to these servers have inputs whose bytes can be limited.
func (d *Dialect) HasTensors() bool { return d.tensors }

// ModelInBody reports whether the body of a request other than gRPC can name the model.
func (d *Dialect) ModelInBody() bool { return d.modelInBody }

// ActsOnWhole reports whether these servers act on a request only once its whole body
// has arrived, so that a request cut short has no effect. Other servers may act on the
// head alone or read the body piece by piece, as WSGI and ASGI applications do.
func (d *Dialect) ActsOnWhole() bool { return d.actsOnWhole }

// Refusal writes the body of the gateway's own refusal, in the shape in which clients
// of these servers expect errors, and returns its media type. The texts are put
// between quotes as they are: they must come from the gateway, never from a request.
func (d *Dialect) Refusal(status int, text, reason, requestID string) (contentType string, body []byte) {
	return d.refusal(status, text, reason, requestID)
}

// Timeouts are how long these servers may take before an answer begins, and how long
// they may pause within one, where the configuration does not say. Zero means that
// the dialect has no need of its own, and the gateway's default applies.
func (d *Dialect) Timeouts() (head, idle time.Duration) { return d.head, d.idle }

// NeedsLocalhost reports whether these servers, while bound to a loopback address, refuse
// requests whose Host is not localhost.
func (d *Dialect) NeedsLocalhost() bool { return d.localhost }

// KeepsSlashes reports whether these servers take every encoded slash (%2F) of a canonical
// path, as they are asked for it, for a slash in the id of a model: each of them stands
// behind /v1/models/.
func (d *Dialect) KeepsSlashes(path string) bool {
	return d.slashedIDs && strings.HasPrefix(path, modelsPrefix)
}
