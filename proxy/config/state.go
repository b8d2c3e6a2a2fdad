package config

import (
	"os"
	"path/filepath"
	"strings"

	"sallyport/proxy/setting"
)

// systemState is where the packages of a system have the gateway keep its state.
const systemState = "/var/lib/sallyport"

// Names of what the gateway keeps, in the folder for state.
const (
	localName  = "sallyport-ca"
	acmeName   = "sallyport-acme"
	noncesName = "sallyport-nonces"
)

// StatePlace is where the gateway keeps something that must outlive a restart.
type StatePlace struct {
	Setting string `json:"setting"` // by which another place is named, such as "integrity.state"
	What    string `json:"what"`
	Path    string `json:"path"`
}

// StatePlaces are the places of all that the gateway keeps under this configuration.
func (c *Config) StatePlaces() []StatePlace {
	all := []StatePlace{}
	if c.TLS.Local != nil {
		all = append(all, StatePlace{"tls.local.dir", "the local certificate authority", string(c.TLS.Local.Dir)})
	}
	if c.TLS.ACME != nil {
		all = append(all, StatePlace{"tls.acme.storage", "certificates by ACME and their keys", string(c.TLS.ACME.Storage)})
	}
	if c.TakesSignatures() && c.Integrity.State.Word() == "" {
		all = append(all, StatePlace{"integrity.state", "nonces of signed requests", string(c.Integrity.State)})
	}
	return all
}

// fillPlaces gives what the gateway writes its place, where none was named.
func (c *Config) fillPlaces(system string) {
	fill := func(p *setting.Place, name string) {
		if *p == "" {
			*p = setting.Place(statePlace(c.source.main.Beside(name), system))
		}
	}
	if c.TLS.Local != nil {
		fill(&c.TLS.Local.Dir, localName)
	}
	if c.TLS.ACME != nil {
		fill(&c.TLS.ACME.Storage, acmeName)
	}
	fill(&c.Integrity.State, noncesName)
}

// statePlace is the place for what would lie beside the main file: the folder that systemd
// has made for the service (StateDirectory=), else the one of the system, if there is one
// and nothing lies beside the file from before, else beside the file.
func statePlace(beside, system string) string {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		return filepath.Join(dir, filepath.Base(beside))
	}
	if _, err := os.Lstat(beside); err == nil {
		return beside
	}
	if info, err := os.Stat(system); err == nil && info.IsDir() {
		return filepath.Join(system, filepath.Base(beside))
	}
	return beside
}
