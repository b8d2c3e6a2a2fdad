package edge

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/proxy/setting"
)

// Config is the section `tls` of gateway.yaml: the sources of certificates. Several may be
// given. A host uses the first file that names it. The local authority takes the hosts that it
// lists, addresses and localhost. ACME takes the rest.
type Config struct {
	// Files are certificates with their keys.
	Files setting.List[FileConfig] `yaml:"files"`
	// Local is a certificate authority of our own, for development.
	Local *LocalConfig `yaml:"local"`
	// ACME obtains certificates from authorities such as Let's Encrypt.
	ACME *ACMEConfig `yaml:"acme"`
	// MinVersion is "1.3", the default, or "1.2".
	MinVersion string `yaml:"min_version"`
}

// FileConfig is a certificate and its key, in PEM. Both files are read again
// when they change.
type FileConfig struct {
	// Cert is the file with the certificate and, after it, the intermediate ones.
	Cert setting.Path `yaml:"cert"`
	// Key is the file with the private key. Others must not be able to write it.
	Key setting.Path `yaml:"key"`
}

// LocalConfig is a certificate authority on disk. It signs certificates for the configured
// hosts. Clients must trust its root.
type LocalConfig struct {
	// Dir is the authority's folder, created if missing. Default: sallyport-ca in the folder for
	// state, which is $STATE_DIRECTORY or /var/lib/sallyport if one exists, else the folder of
	// gateway.yaml. sallyport check shows it.
	Dir setting.Place `yaml:"dir"`
	// Hosts use the local authority even if ACME is configured. Without ACME, all hosts use it.
	Hosts setting.List[string] `yaml:"hosts"`
}

// missing reports whether the authority has not been created yet.
func (c *LocalConfig) missing() bool {
	_, err := os.Stat(filepath.Join(c.dir(), authorityFile))
	return errors.Is(err, fs.ErrNotExist)
}

// takes reports whether a host uses the local authority even if ACME is configured.
func (c *LocalConfig) takes(host string) bool {
	return hostAddress(host) != nil || host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(c.Hosts, host)
}

func (c *LocalConfig) dir() string {
	if c.Dir == "" {
		return "sallyport-ca"
	}
	return string(c.Dir)
}

// Check records the faults of the section at path. It reads no files.
func (c *Config) Check(path string, f *setting.Faults) {
	if c.ACME != nil {
		c.ACME.check(path+".acme", f)
	}
	if c.Local != nil {
		c.Local.Dir.Check(path+".local.dir", "name a folder, or remove the line for the default", f)
	}
	if len(c.Files) == 0 && c.Local == nil && c.ACME == nil {
		f.Add(path, "", "no source of certificates", "write tls: {acme: {email: ...}}, tls: {files: {cert: ..., key: ...}}, or for development tls: {local: {}}")
	}
	for i, p := range c.Files {
		at := setting.Index(path+".files", i)
		if p.Cert == "" {
			f.Add(at+".cert", "", "missing", "name the PEM file with the certificate and its intermediates")
		}
		if p.Key == "" {
			f.Add(at+".key", "", "missing", "name the PEM file with the private key")
		}
	}
	if _, ok := c.minVersion(); !ok {
		f.Add(path+".min_version", c.MinVersion, "is not a version that is served", `write "1.3", or "1.2" for old clients`)
	}
}

// CheckFiles records faults that only the files show: unreadable files, keys that do not
// match, hosts without a certificate. It writes nothing. plain says that there is a listener for
// plain HTTP. Call it after Check found no faults.
func (c *Config) CheckFiles(path string, hosts []string, plain bool, f *setting.Faults) {
	var pairs []*pair
	for i, p := range c.Files {
		at := setting.Index(path+".files", i)
		_, certErr := readPEM(string(p.Cert), false)
		if certErr != nil {
			f.Add(at+".cert", string(p.Cert), certErr.Error(), setting.CureUnreadable(certErr, ""))
		}
		_, keyErr := readPEM(string(p.Key), true)
		if keyErr != nil {
			f.Add(at+".key", string(p.Key), keyErr.Error(), setting.CureUnreadable(keyErr, ""))
		}
		if certErr != nil || keyErr != nil {
			continue
		}
		pair, err := loadPair(p)
		if err != nil {
			f.Add(at+".cert", string(p.Cert), err.Error(), "name a certificate of the routes' hosts, and the key that belongs to it")
			continue
		}
		pairs = append(pairs, pair)
	}
	if a := c.ACME; a != nil {
		c.checkACMEFiles(path+".acme", f)
	}
	if c.Local != nil {
		c.Local.checkFolder(path+".local.dir", f)
	}
	if len(pairs) < len(c.Files) {
		return // it is unknown which hosts the broken files would cover
	}
	index := newFileIndex(pairs)
	for _, host := range hosts {
		if !index.covers(host) {
			c.checkUncovered(path, host, plain, f)
		}
	}
}

// checkUncovered records a host, not covered by the files, for which no other source can provide a
// certificate.
func (c *Config) checkUncovered(path, host string, plain bool, f *setting.Faults) {
	switch {
	case c.ACME != nil && len(c.Files) > 0: // without files, CheckHosts reports it
		if problem, cure := c.cannotProve(host, plain); problem != "" {
			f.Add(path+".acme", host, problem, cure)
		}
	case c.ACME == nil && c.Local == nil:
		f.Add(path+".files", "", "no certificate for host "+host, cureUncovered)
	}
}

const cureUncovered = "add one whose subjectAltName names it, or tls: {local: {}} for development"

// minVersion returns the TLS version for MinVersion.
func (c *Config) minVersion() (version uint16, ok bool) {
	switch c.MinVersion {
	case "", "1.3":
		return tls.VersionTLS13, true
	case "1.2":
		return tls.VersionTLS12, true
	}
	return 0, false
}
