package proxy

import (
	"sallyport/auth"
	"sallyport/proxy/config"
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

// LoadConfig reads and checks a gateway.yaml and the files it includes; see [config.Load].
func LoadConfig(path string) (*Config, error) { return config.Load(path) }

// ParseConfig is [LoadConfig] for a text without includes; see [config.Parse].
func ParseConfig(name string, text []byte) (*Config, error) { return config.Parse(name, text) }
