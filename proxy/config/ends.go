package config

import (
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/clientcert"
	"sallyport/proxy/edge"
	"sallyport/proxy/expiry"
	"sallyport/proxy/setting"
)

// Ends returns when the signing keys, API keys and passwords of the configuration itself end and, if files
// is set, when the authorities in ca files, the lists in crl files, the certificates for issuers and upstreams
// and the tokens for upstreams end. It leaves out files that cannot be read, which
// CheckFiles reports, and the gateway's own certificates, which package edge knows.
func (c *Config) Ends(files bool, now time.Time) []expiry.End {
	all := slices.Concat(c.signingKeyEnds(), c.apiKeyEnds(), c.passwordEnds())
	if !files {
		return all
	}
	return slices.Concat(all, c.certificateEnds(now), c.issuerEnds(now), c.upstreamEnds(now), c.authorityEnds(now))
}

func (c *Config) signingKeyEnds() (all []expiry.End) {
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
	return all
}

// apiKeyEnds returns the ends of the API keys in the configuration, and of their single secrets.
func (c *Config) apiKeyEnds() (all []expiry.End) {
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
			end := expiry.End{Kind: expiry.APIKey, Name: k.SecretID(name, i), NotAfter: at, At: setting.Index("api_keys."+name+".hash", i), Cure: cure}
			if succeeded(at, k.Ends()) {
				// The next secret exists already, so only callers that still use this one are late.
				end.Renewing = true
				end.Cure = "move the callers whose records have the key_id " + end.Name + " to the other secret, or remove this one"
			}
			all = append(all, end)
		}
	}
	return all
}

// succeeded reports whether a secret that ends at a time has another of its key beside it that lasts
// longer. ends are those of all secrets of the key; zero is never.
func succeeded(at time.Time, ends []time.Time) bool {
	return slices.ContainsFunc(ends, func(other time.Time) bool { return other.IsZero() || other.After(at) })
}

func (c *Config) passwordEnds() (all []expiry.End) {
	for _, name := range slices.Sorted(maps.Keys(c.Basic)) {
		all = append(all, expiry.End{
			Kind: expiry.Passwords, Name: name, NotAfter: c.Basic[name].Until.Time, At: "basic." + name + ".until",
			Cure: "move the callers that sallyport_basic_requests_total names to tokens or API keys, and remove the entry",
		})
	}
	return all
}

// issuerEnds returns the ends of what the gateway trusts and shows when it asks issuers.
func (c *Config) issuerEnds(now time.Time) (all []expiry.End) {
	for _, name := range slices.Sorted(maps.Keys(c.Issuers)) {
		all = append(all, certificateFile{expiry.CA, "issuers." + name + ".ca", c.Issuers[name].CA, cureBundle}.end(now)...)
		if i := c.Issuers[name].Introspection; i != nil && i.Certificate != nil {
			at := "issuers." + name + ".introspection.certificate.cert"
			all = append(all, certificateFile{expiry.Certificate, at, i.Certificate.Cert, "put the gateway's next certificate and its key into the two files"}.end(now)...)
		}
	}
	return all
}

// upstreamEnds returns the ends of what the gateway trusts and shows when it sends to upstreams.
func (c *Config) upstreamEnds(now time.Time) (all []expiry.End) {
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u, at := c.Upstreams[name], "upstreams."+name
		all = append(all, certificateFile{expiry.CA, at + ".ca", u.CA, cureBundle}.end(now)...)
		if o := u.Credentials.OAuth2; o != nil {
			all = append(all, certificateFile{expiry.CA, at + ".credentials.oauth2.ca", o.CA, cureBundle}.end(now)...)
		}
		if from, to, ok := u.Credentials.Validity(); ok {
			token := at + ".credentials.bearer"
			all = append(all, expiry.End{
				Kind: expiry.Token, Name: token, NotBefore: from, NotAfter: to, At: token, Renewing: true, // by whoever writes the file
				Cure: "see why the file gets no new token: the gateway reads it within seconds",
			})
		}
		if u.ClientCertificate == nil {
			continue
		}
		if from, to, ok := u.ClientCertificate.Validity(); ok {
			own := at + ".client_certificate"
			all = append(all, expiry.End{
				Kind: expiry.Certificate, Name: own, NotBefore: from, NotAfter: to, At: own,
				Cure: "put the renewed certificate and its key in the place of the files; the gateway loads them within seconds",
			})
		}
	}
	return all
}

// authorityEnds returns the ends of the authorities that issue the gateway's own certificates, or that
// vouch for those that do.
func (c *Config) authorityEnds(now time.Time) (all []expiry.End) {
	if acme := c.TLS.ACME; acme != nil {
		all = certificateFile{expiry.CA, "tls.acme.ca", acme.CA, cureBundle}.end(now)
		for i := range acme.Issuers {
			all = append(all, certificateFile{expiry.CA, setting.Index("tls.acme.issuers", i) + ".ca", acme.Issuers[i].CA, cureBundle}.end(now)...)
		}
	}
	if local := c.TLS.Local; local != nil && local.Dir != "" {
		root := setting.Path(filepath.Join(string(local.Dir), edge.RootFile))
		all = append(all, certificateFile{expiry.CA, "tls.local", root, "remove the folder while the gateway is stopped: the next start makes a new root, which every client must then trust"}.end(now)...)
	}
	return all
}

const cureBundle = "ask for the authority's next certificate, and add it to the file beside this one"

// certificateFile is a file with certificates, and what to do about their end.
type certificateFile struct {
	kind string // of the end
	at   string // the setting that names it
	file setting.Path
	cure string
}

// end returns the end of the certificates in the file; none if it cannot be read, or no file is named.
func (f certificateFile) end(now time.Time) []expiry.End {
	if f.file == "" {
		return nil
	}
	info, err := os.Stat(string(f.file))
	if err != nil || info.Size() > setting.MaxFile || !info.Mode().IsRegular() {
		return nil
	}
	text, err := os.ReadFile(string(f.file))
	if err != nil {
		return nil
	}
	if block, _ := pem.Decode(text); block != nil && f.kind == expiry.Certificate {
		text = pem.EncodeToMemory(block) // the first is the certificate itself
	}
	from, to, ok := expiry.Bundle(text, now)
	if !ok {
		return nil
	}
	return []expiry.End{{Kind: f.kind, Name: f.at, NotBefore: from, NotAfter: to, At: f.at, Cure: f.cure}}
}

// ListEnds returns when the revocation lists that were fetched end.
func ListEnds(all []clientcert.ListStatus) []expiry.End {
	ends := make([]expiry.End, 0, len(all))
	for _, l := range all {
		ends = append(ends, expiry.End{
			Kind: expiry.CRL, Name: l.URL, NotBefore: l.ThisUpdate, NotAfter: l.NextUpdate, At: "client_certificates.crl",
			Renewing: l.LastError == "",
			Cure:     "the gateway fetches the next one itself, and logs what hinders it; crl_grace lets an ended one count for longer",
		})
	}
	return ends
}

// CertificateEnds returns when the gateway's own certificates expire.
func CertificateEnds(all []edge.CertificateStatus) []expiry.End {
	ends := make([]expiry.End, 0, len(all))
	for _, c := range all {
		e := expiry.End{
			Kind: expiry.Certificate, Name: strings.Join(c.Hosts, ","), NotBefore: c.NotBefore, NotAfter: c.NotAfter, At: "tls." + c.Source,
			Renewing: c.Source != "files" && c.LastError == "",
		}
		switch c.Source {
		case "files":
			e.Cure = "put the renewed certificate and its key in the place of the files; the gateway loads them within seconds"
		default:
			e.Cure = "the gateway renews it itself; sallyport status and sallyport cert list say what hinders it"
		}
		ends = append(ends, e)
	}
	return ends
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
