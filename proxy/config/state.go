package config

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/proxy/setting"
)

// systemState is the folder for state in installations from a system's package.
const systemState = "/var/lib/sallyport"

// Names of files and folders in the folder for state.
const (
	localName  = "sallyport-ca"
	acmeName   = "sallyport-acme"
	noncesName = "sallyport-nonces"
	endsName   = "sallyport-sessions"
)

// StatePlace is where the gateway keeps something that must outlive a restart.
type StatePlace struct {
	Setting string `json:"setting"` // the setting that names another place, such as "integrity.state"
	What    string `json:"what"`
	Path    string `json:"path"`
}

// StatePlaces returns the places of all state that the gateway keeps under this configuration. It
// is not nil.
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
	seen := map[string]bool{} // logins may share the file
	for _, name := range slices.Sorted(maps.Keys(c.Logins)) {
		l := c.Logins[name]
		if file := l.Session.StateFile(); file != "" && !seen[file] {
			seen[file] = true
			all = append(all, StatePlace{"logins." + name + ".session.state", "ends of people's sessions", file})
		}
	}
	return all
}

// fillPlaces sets the places of state that the configuration does not name.
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
	for name, l := range c.Logins {
		if l.Session.Outlives() {
			fill(&l.Session.State, endsName)
			c.Logins[name] = l
		}
	}
}

// statePlace returns the default place of a file or folder of state. In this order, that is
//   - the folder that systemd made for the service (StateDirectory=);
//   - beside the main file, if it exists there already;
//   - the system's folder for state, if that exists;
//   - beside the main file.
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
