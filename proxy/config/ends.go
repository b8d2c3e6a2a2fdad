package config

import (
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sallyport/auth"
	"sallyport/proxy/edge"
	"sallyport/proxy/expiry"
	"sallyport/proxy/setting"
)

// Ends returns when the signing keys, API keys and passwords of the configuration itself end and, if files
// is set, when the authorities in ca files, the lists in crl files, the certificates for issuers and upstreams
// and the tokens for upstreams end. It leaves out files that cannot be read, which
// CheckFiles reports, and the gateway's own certificates, which package edge knows.
func (c *Config) Ends(files bool, now time.Time) []expiry.End {
	var all []expiry.End
	for _, id := range slices.Sorted(maps.Keys(c.SigningKeys)) {
		k := c.SigningKeys[id]
		if k.NotAfter.IsZero() {
			continue
		}
		all = append(all, expiry.End{
			Kind: expiry.SigningKey, Name: id, NotBefore: k.NotBefore.Time, NotAfter: k.NotAfter.Time, At: "signing_keys." + id + ".not_after",
			Cure: "make a new key with sallyport keygen, list it beside this one, and let the partner switch to it before the end",
		})
	}
	for _, name := range slices.Sorted(maps.Keys(c.APIKeys)) {
		k := c.APIKeys[name]
		cure := "make the next key with sallyport keygen --api-key " + name + ", or remove this one"
		if !k.NotAfter.IsZero() {
			all = append(all, expiry.End{Kind: expiry.APIKey, Name: name, NotAfter: k.NotAfter.Time, At: "api_keys." + name + ".not_after", Cure: cure})
		}
		for i, at := range k.Ends() {
			if at.IsZero() || at.Equal(k.NotAfter.Time) {
				continue
			}
			all = append(all, expiry.End{Kind: expiry.APIKey, Name: k.SecretID(name, i), NotAfter: at, At: setting.Index("api_keys."+name+".hash", i), Cure: cure})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Basic)) {
		all = append(all, expiry.End{
			Kind: expiry.Passwords, Name: name, NotAfter: c.Basic[name].Until.Time, At: "basic." + name + ".until",
			Cure: "move the callers that sallyport_basic_requests_total names to tokens or API keys, and remove the entry",
		})
	}
	if !files {
		return all
	}
	all = append(all, c.certificateEnds(now)...)
	end := func(kind, at string, file setting.Path, cure string) {
		if file == "" {
			return
		}
		info, err := os.Stat(string(file))
		if err != nil || info.Size() > setting.MaxFile || !info.Mode().IsRegular() {
			return
		}
		text, err := os.ReadFile(string(file))
		if err != nil {
			return
		}
		if block, _ := pem.Decode(text); block != nil && kind == expiry.Certificate {
			text = pem.EncodeToMemory(block) // the first is the certificate itself
		}
		if from, to, ok := expiry.Bundle(text, now); ok {
			all = append(all, expiry.End{Kind: kind, Name: at, NotBefore: from, NotAfter: to, At: at, Cure: cure})
		}
	}
	bundle := func(at string, file setting.Path, cure string) { end(expiry.CA, at, file, cure) }
	const cure = "ask for the authority's next certificate, and add it to the file beside this one"
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		bundle("issuers."+name+".ca", c.Issuers[name].CA, cure)
		if i := c.Issuers[name].Introspection; i != nil && i.Certificate != nil {
			end(expiry.Certificate, "issuers."+name+".introspection.certificate.cert", i.Certificate.Cert, "put the gateway's next certificate and its key into the two files")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		bundle("upstreams."+name+".ca", c.Upstreams[name].CA, cure)
		if o := c.Upstreams[name].Credentials.OAuth2; o != nil {
			bundle("upstreams."+name+".credentials.oauth2.ca", o.CA, cure)
		}
		shown := c.Upstreams[name].Credentials
		if from, to, ok := shown.Validity(); ok {
			token := "upstreams." + name + ".credentials.bearer"
			all = append(all, expiry.End{
				Kind: expiry.Token, Name: token, NotBefore: from, NotAfter: to, At: token, Renewing: true, // by whoever writes the file
				Cure: "see why the file gets no new token: the gateway reads it within seconds",
			})
		}
		at := "upstreams." + name + ".client_certificate"
		if own := c.Upstreams[name].ClientCertificate; own != nil {
			if from, to, ok := own.Validity(); ok {
				all = append(all, expiry.End{
					Kind: expiry.Certificate, Name: at, NotBefore: from, NotAfter: to, At: at,
					Cure: "put the renewed certificate and its key in the place of the files; the gateway loads them within seconds",
				})
			}
		}
	}
	if acme := c.TLS.ACME; acme != nil {
		bundle("tls.acme.ca", acme.CA, cure)
		for i := range acme.Issuers {
			bundle(setting.Index("tls.acme.issuers", i)+".ca", acme.Issuers[i].CA, cure)
		}
	}
	if local := c.TLS.Local; local != nil && local.Dir != "" {
		bundle("tls.local", setting.Path(filepath.Join(string(local.Dir), edge.RootFile)), "remove the folder while the gateway is stopped: the next start makes a new root, which every client must then trust")
	}
	return all
}

// keysTogether is the time within which ends of API keys in a file are announced together.
const keysTogether = 30 * 24 * time.Hour

// APIKeyFileEnd returns when the next key of the file of keys ends; ok is false if none does. One end
// stands for all, since the file may have thousands.
func (c *Config) APIKeyFileEnd(keys *auth.APIKeys, now time.Time) (end expiry.End, ok bool) {
	name, at, count, ok := keys.FileEnd(now, keysTogether)
	if !ok {
		return end, false
	}
	cure := "the first is " + name
	if count > 1 {
		cure += fmt.Sprintf(", and %d more secrets of the file end within 30 days of it", count-1)
	}
	return expiry.End{Kind: expiry.APIKey, Name: "api_key_file", NotAfter: at, At: "api_key_file",
		Cure: cure + ": make the next key with sallyport keygen --api-key " + name}, true
}

// EndWarnings returns a warning for each key or certificate that has ended, or of whose lifetime
// less than a tenth is left.
func (c *Config) EndWarnings(ends []expiry.End, now time.Time) Faults {
	var f setting.Faults
	for _, e := range ends {
		when := e.NotAfter.UTC().Format(time.RFC3339)
		switch e.Left(now) {
		case expiry.None:
			f.Add(e.At, when, e.Kind+" "+e.Name+" has ended", e.Cure)
		case expiry.Tenth:
			f.Add(e.At, when, e.Kind+" "+e.Name+" ends in "+e.NotAfter.Sub(now).Truncate(time.Second).String()+", less than a tenth of its lifetime", e.Cure)
		}
	}
	f = c.Place(f)
	f.Sort()
	return f
}
