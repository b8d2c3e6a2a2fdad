package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"sallyport/auth"
	"sallyport/proxy/route"
	"sallyport/proxy/setting"
	"sallyport/proxy/shared/local"
)

// CheckFiles opens the files that the configuration names, as `serve` will, checks that the
// gateway may write its own files, and reports every fault. It leaves the disk as it was and
// does not use the network. The error, if any, is [Faults].
func (c *Config) CheckFiles() error {
	var f setting.Faults
	c.TLS.CheckFiles("tls", c.TLSHosts(), len(c.Listen.HTTPAddrs()) > 0, &f)
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		iss := c.Issuers[name]
		checkCAFile("issuers."+name+".ca", iss.CA, &f)
		iss.CheckFiles("issuers."+name, &f)
		if i := iss.Introspection; i != nil {
			i.CheckFiles("issuers."+name+".introspection", &f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u := c.Upstreams[name]
		checkCAFile("upstreams."+name+".ca", u.CA, &f)
		if u.ClientCertificate != nil {
			u.ClientCertificate.CheckFiles("upstreams."+name+".client_certificate", &f)
		}
		if o := u.Credentials.OAuth2; o != nil {
			checkCAFile("upstreams."+name+".credentials.oauth2.ca", o.CA, &f)
		}
		u.Credentials.CheckFiles("upstreams."+name+".credentials", &f)
	}
	for i := range c.ClientCertificates {
		c.ClientCertificates[i].CheckFiles(setting.Index("client_certificates", i), &f)
	}
	c.checkKeyFiles(&f)
	c.checkAPIKeyFile(&f)
	c.checkRevoked(&f)
	c.checkPasswordFiles(&f)
	c.checkLoginFiles(&f)
	c.checkState(&f)
	if file := string(c.Audit.File); file != "" && c.Audit.File.Word() == "" {
		if problem, cure := setting.FileFault(file); problem != "" {
			f.Add("audit.file", file, problem, cure)
		}
	}
	c.checkSocketPlace(&f)
	f = c.Place(f)
	f.Sort()
	return f.Err()
}

// checkCAFile records why a file holds no roots. An empty name means that none is configured.
func checkCAFile(path string, name setting.Path, f *setting.Faults) {
	if name == "" {
		return
	}
	text, err := os.ReadFile(string(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Add(path, string(name), "there is no such file", "name a file with certificates in PEM")
	case err != nil:
		f.Add(path, string(name), "cannot be read: "+err.Error(), setting.CureUnreadable(err, "name a file with certificates in PEM"))
	case len(text) > setting.MaxFile:
		f.Add(path, string(name), "is larger than 1MiB", "keep in it only the roots of the servers' certificates")
	case !x509.NewCertPool().AppendCertsFromPEM(text):
		f.Add(path, string(name), "holds no certificate", "name a file with certificates in PEM")
	}
}

// checkKeyFiles records why signing keys cannot be read.
func (c *Config) checkKeyFiles(f *setting.Faults) {
	_, err := auth.ReadSigningKeys(c.SigningKeys)
	var broken interface{ Unwrap() []error }
	if !errors.As(err, &broken) {
		return
	}
	for _, err := range broken.Unwrap() {
		var key *auth.KeyError
		if errors.As(err, &key) {
			f.Add("signing_keys."+key.ID, "", key.Err.Error(), setting.CureUnreadable(err, "correct the path or the content; sallyport keygen makes a new key"))
		}
	}
}

// checkAPIKeyFile records why API keys cannot be used.
func (c *Config) checkAPIKeyFile(f *setting.Faults) {
	_, err := auth.ReadAPIKeys(c.APIKeys, c.APIKeyFile)
	var broken interface{ Unwrap() []error }
	if !errors.As(err, &broken) {
		return
	}
	for _, err := range broken.Unwrap() {
		var key *auth.APIKeyError
		switch {
		case !errors.As(err, &key):
		case key.Name != "":
			f.Add("api_keys."+key.Name+".hash", "", key.Err.Error(), "")
		case key.Line > 0:
			f.Add("api_key_file", fmt.Sprintf("%s:%d", c.APIKeyFile, key.Line), key.Err.Error(), "")
		default:
			f.Add("api_key_file", string(c.APIKeyFile), key.Err.Error(), setting.CureUnreadable(key.Err, ""))
		}
	}
}

// checkRevoked records why the file of revocations cannot be used.
func (c *Config) checkRevoked(f *setting.Faults) {
	_, err := auth.ReadRevocations(c.Revoked)
	addLines("revoked", c.Revoked, err, "sallyport revoke makes the file and adds to it", f)
}

// checkPasswordFiles records why passwords cannot be used.
func (c *Config) checkPasswordFiles(f *setting.Faults) {
	for _, name := range slices.Sorted(maps.Keys(c.Basic)) {
		b := c.Basic[name]
		_, err := auth.ReadPasswords(name, &b)
		addLines("basic."+name+".htpasswd.file", b.HTPasswd.File, err, "htpasswd -B -c FILE USER makes one", f)
	}
}

// addLines adds the faults of the lines of a file, which are joined in err. cure is for a file that is
// missing.
func addLines(at string, file setting.Path, err error, cure string, f *setting.Faults) {
	var broken interface{ Unwrap() []error }
	if !errors.As(err, &broken) {
		return
	}
	for _, err := range broken.Unwrap() {
		var line *auth.LineError
		switch {
		case !errors.As(err, &line):
		case line.Line > 0:
			f.Add(at, fmt.Sprintf("%s:%d", file, line.Line), line.Err.Error(), "")
		case errors.Is(err, fs.ErrNotExist):
			f.Add(at, string(file), "there is no such file", cure)
		default:
			f.Add(at, string(file), line.Err.Error(), setting.CureUnreadable(line.Err, ""))
		}
	}
}

// TakesSignatures reports whether any route verifies signatures, so that the gateway needs the
// file of nonces.
func (c *Config) TakesSignatures() bool {
	return slices.ContainsFunc(c.Routes, func(r route.Config) bool { return r.TakesSignatures() })
}

// checkState records why the file of nonces could not be read at the start or written at the end.
func (c *Config) checkState(f *setting.Faults) {
	file := string(c.Integrity.State)
	if !c.TakesSignatures() || c.Integrity.State.Word() != "" {
		return
	}
	if problem, cure := setting.FolderFault(filepath.Dir(file), false); problem != "" {
		f.Add("integrity.state", file, problem, cure)
		return
	}
	if problem, cure := setting.NameFault(file, local.LockEnding, local.MarkEnding); problem != "" {
		f.Add("integrity.state", file, problem, cure)
		return
	}
	if problem, cure := setting.FileFault(file + local.LockEnding); problem != "" {
		f.Add("integrity.state", file, "its lock, "+file+local.LockEnding+": "+problem, cure)
	}
	if err := local.CheckFile(file); err != nil {
		f.Add("integrity.state", file, err.Error(), setting.CureUnreadable(err, ""))
	}
}

// checkSocketPlace records why the control socket could not be made where the configuration
// names it. It does not check the default place: the gateway also serves without that socket.
func (c *Config) checkSocketPlace(f *setting.Faults) {
	path, written := c.ControlSocket()
	if path == "" || !written {
		return
	}
	if problem, cure := setting.FolderFault(filepath.Dir(path), false); problem != "" {
		f.Add("listen.control", path, problem, cure)
	} else if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		f.Add("listen.control", path, "the file exists and is not a socket", "remove it, or name another path")
	}
}
