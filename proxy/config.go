package proxy

import (
	"errors"
	"time"

	"sallyport/auth"
	"sallyport/proxy/config"
	"sallyport/proxy/explain"
	"sallyport/proxy/revocation"
)

// Config is the whole gateway.yaml. [LoadConfig] returns a checked one, which must not be modified.
type Config = config.Config

// Faults lists all faults of a configuration. The errors of [LoadConfig] and [Config.CheckFiles]
// are Faults.
type Faults = config.Faults

// RouteInfo describes one route with all defaults filled in.
type RouteInfo = config.RouteInfo

// APIKeyConfig is an API key of a configuration.
type APIKeyConfig = auth.APIKeyConfig

// StatePlace is where the gateway keeps something that must outlive a restart.
type StatePlace = config.StatePlace

// Registration is what the issuer of a login must know of the gateway.
type Registration = config.Registration

// LoadConfig reads and checks a gateway.yaml and the files it includes; see [config.Load].
func LoadConfig(path string) (*Config, error) { return config.Load(path) }

// ParseConfig is [LoadConfig] for a text without includes; see [config.Parse].
func ParseConfig(name string, text []byte) (*Config, error) { return config.Parse(name, text) }

// Explainer says what the gateway decides on requests.
type Explainer = explain.Explainer

// Question is a request about which an [Explainer] is asked.
type Question = explain.Question

// Decision is what the gateway decides on a [Question].
type Decision = explain.Decision

// Difference is a kind of requests on which two configurations decide differently.
type Difference = explain.Difference

// NewExplainer returns an explainer for a checked configuration; see [explain.New].
func NewExplainer(cfg *Config) (*Explainer, error) { return explain.New(cfg) }

// DependsOnBody reports whether an error of an [Explainer] means that the decision depends on the body,
// which the question does not have.
func DependsOnBody(err error) bool { return errors.Is(err, explain.ErrUntold) }

// Revocation is one line of the file of revocations.
type Revocation = auth.Revocation

// ParseRevocation reads a line of the file of revocations.
func ParseRevocation(line string) (Revocation, error) { return auth.ParseRevocation(line) }

// Revocations lists the file of revocations; see [revocation.List].
func Revocations(file string) ([]Revocation, error) { return revocation.List(file) }

// Revoke appends a revocation to the file; see [revocation.Add].
func Revoke(file string, r Revocation) (added bool, err error) { return revocation.Add(file, r) }

// PruneRevocations removes the lines that have ended; see [revocation.Prune].
func PruneRevocations(file string, now time.Time) (removed int, err error) {
	return revocation.Prune(file, now)
}
