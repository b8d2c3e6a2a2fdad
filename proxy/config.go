package proxy

import "sallyport/proxy/config"

// Config is the whole gateway.yaml. [LoadConfig] makes one that holds together; after
// that it must not be modified.
type Config = config.Config

// Faults are all faults of a configuration: what the errors of [LoadConfig] and
// [Config.CheckFiles] are.
type Faults = config.Faults

// RouteInfo is one route as it was understood, with every default filled in.
type RouteInfo = config.RouteInfo

// StatePlace is where the gateway keeps something that must outlive a restart.
type StatePlace = config.StatePlace

// LoadConfig reads and checks a gateway.yaml and what it includes; see [config.Load].
func LoadConfig(path string) (*Config, error) { return config.Load(path) }

// ParseConfig is [LoadConfig] for a text that stands alone; see [config.Parse].
func ParseConfig(name string, text []byte) (*Config, error) { return config.Parse(name, text) }
