package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// caLife, listLife: the authority ends before people forget it, and the list outlives a holiday.
const (
	caLife   = 5 * 365 * day
	listLife = 30 * day
)

// founding holds the flags of `ca init`.
type founding struct {
	name                              string
	life                              span
	seal                              bool
	permitDNS, permitURI, permitEmail []string
}

// founded is the result of `ca init` and its JSON output.
type founded struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	Sealed   bool      `json:"sealed"`
	Files    outputs   `json:"files"`
	Gateway  string    `json:"gateway_yaml"` // lines to add there
}

func (k *command) newInit() *cobra.Command {
	f := &founding{life: span{caLife}}
	c := &cobra.Command{
		Use:   "init",
		Short: "Make an authority in a new folder",
		Long: `Make an authority: a key (ECDSA P-256, readable by you alone), a certificate for five
years, an empty list of revoked certificates, and an index. It can sign certificates of
clients and servers, and no other authorities.

With --seal a passphrase encrypts the key (scrypt, AES-256-GCM); each later command that
signs asks for it. With --permit-... the certificate says for which names the authority
counts, and that it counts for no other kind of name. The gateway then takes neither
callers nor groups from subjects, which no constraint binds.

A backup of the folder is the only way back if it is lost.`,
		Example: `  sallyport ca init
  sallyport ca init --seal --permit-uri lab
  sallyport ca init --dir servers-ca --permit-dns internal.example.com`,
		Args: k.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return k.found(c, f, time.Now()) },
	}
	c.Flags().StringVar(&f.name, "name", "", "the authority's common name (default: one with the month and a random part)")
	c.Flags().Var(&f.life, "for", "how long it counts")
	c.Flags().BoolVar(&f.seal, "seal", false, "encrypt the key with a passphrase")
	k.passphraseFlag(c, "file with the passphrase for --seal (default: you are asked)")
	c.Flags().StringArrayVar(&f.permitDNS, "permit-dns", nil, "domain whose names, and those below it, it may certify; repeatable")
	c.Flags().StringArrayVar(&f.permitURI, "permit-uri", nil, "SPIFFE trust domain that it may certify; repeatable")
	c.Flags().StringArrayVar(&f.permitEmail, "permit-email", nil, "domain whose email addresses it may certify; repeatable")
	return c
}

// found makes an authority. The folder appears with all files, or not at all.
func (k *command) found(c *cobra.Command, f *founding, now time.Time) error {
	form, err := k.Output(c.OutOrStdout(), k.output)
	if err != nil {
		return err
	}
	template, err := f.template(now)
	if err != nil {
		return k.Usage(err)
	}
	if k.passphraseFile != "" && !f.seal {
		return k.usagef("--passphrase-file is for --seal")
	}
	if entries, err := os.ReadDir(k.dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s exists and is not empty; nothing was written", k.dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var passphrase string
	if f.seal {
		if passphrase, err = k.newPassphrase(c); err != nil {
			return err
		}
	}
	a, key, err := newAuthority(template, passphrase)
	if err != nil {
		return err
	}
	x := &index{Version: indexVersion, Certificates: []*entry{}}
	list, err := a.list(x, now, listLife)
	if err != nil {
		return err
	}
	text, err := x.text()
	if err != nil {
		return err
	}
	made := outputs{
		newOutput(certFile, 0o644, "gateway", pemOf(a.cert)),
		newOutput(crlFile, 0o644, "gateway, which reads it again when it changes", list),
		newOutput(keyFile, 0o600, "nobody else", key),
		newOutput(indexFile, 0o600, "sallyport ca", text),
	}
	if err := made.inNewFolder(k.dir); err != nil {
		return err
	}
	result := &founded{
		Subject: a.cert.Subject.String(), NotAfter: a.cert.NotAfter, Sealed: f.seal, Files: made,
		Gateway: fmt.Sprintf("client_certificates:\n  - {ca: %s, crl: %s}\n", filepath.Join(k.dir, certFile), filepath.Join(k.dir, crlFile)),
	}
	if form == "json" {
		return k.JSON(c.OutOrStdout(), result)
	}
	_, err = io.WriteString(c.OutOrStdout(), result.text(func(rows [][]string) string { return k.Table(c.OutOrStdout(), rows) }))
	return wrote(err)
}

// newPassphrase returns the passphrase for a new key.
func (k *command) newPassphrase(c *cobra.Command) (string, error) {
	if k.passphraseFile != "" {
		return readSecret(k.passphraseFile)
	}
	text, err := ask(c, "passphrase for the authority's key", true)
	if errors.Is(err, errNoTerminal) {
		return "", k.usagef("--seal: %w; name a file with the passphrase by --passphrase-file", err)
	}
	return text, err
}

// template returns the authority's certificate before it is signed.
func (f *founding) template(now time.Time) (*x509.Certificate, error) {
	if err := f.life.check("for", day, 20*365*day); err != nil {
		return nil, err
	}
	if f.name == "" {
		// Two authorities of one name would confuse verifiers that look lists up by it.
		f.name = fmt.Sprintf("sallyport client CA %s %s", now.UTC().Format("2006-01"), rand.Text()[:6])
	}
	if err := checkText(f.name); err != nil {
		return nil, fmt.Errorf("--name %q: %w", f.name, err)
	}
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: f.name},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(f.life.Duration),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return t, f.constrain(t)
}

// nowhere is a domain that nobody has (RFC 2606).
const nowhere = "invalid"

// constrain sets the name constraints. By RFC 5280 a constraint binds only names of its own kind,
// so if there are any, the other kinds are permitted nowhere. An excluded subtree of all names
// would say the same, but Java refuses to read it.
func (f *founding) constrain(t *x509.Certificate) error {
	for i, domain := range f.permitURI {
		f.permitURI[i] = strings.TrimSuffix(strings.TrimPrefix(domain, "spiffe://"), "/")
		if !trustDomain.MatchString(f.permitURI[i]) {
			return fmt.Errorf("--permit-uri %q: want a SPIFFE trust domain such as lab", domain)
		}
	}
	for flag, domains := range map[string][]string{"permit-dns": f.permitDNS, "permit-email": f.permitEmail} {
		for _, domain := range domains {
			if err := checkHost(domain); err != nil {
				return fmt.Errorf("--%s %q: want a domain in lower case, such as example.com", flag, domain)
			}
		}
	}
	if len(f.permitDNS)+len(f.permitURI)+len(f.permitEmail) == 0 {
		return nil
	}
	t.PermittedDNSDomainsCritical = true // of all name constraints
	t.PermittedDNSDomains, t.PermittedURIDomains, t.PermittedEmailAddresses = f.permitDNS, f.permitURI, f.permitEmail
	for _, permitted := range []*[]string{&t.PermittedDNSDomains, &t.PermittedURIDomains, &t.PermittedEmailAddresses} {
		if len(*permitted) == 0 {
			*permitted = []string{nowhere}
		}
	}
	t.ExcludedIPRanges = []*net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
	return nil
}

// constrained reports whether an authority counts only for some names.
func constrained(c *x509.Certificate) bool {
	return len(c.PermittedDNSDomains)+len(c.PermittedURIDomains)+len(c.PermittedEmailAddresses) > 0
}

// newAuthority makes a key and signs its certificate. It returns the text of the file of the key,
// sealed if there is a passphrase.
func newAuthority(template *x509.Certificate, passphrase string) (*authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("signing the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the authority's certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the key: %w", err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: secret}
	if passphrase != "" {
		if block, err = seal(secret, passphrase); err != nil {
			return nil, nil, fmt.Errorf("sealing the key: %w", err)
		}
	}
	return &authority{cert: cert, key: key}, pem.EncodeToMemory(block), nil
}

// inNewFolder writes the files to a folder that it makes, and renames their names to those there.
// The folder may be there if it is empty. The gateway's user may read it, and nobody else write.
func (all outputs) inNewFolder(dir string) error {
	parent := filepath.Dir(filepath.Clean(dir))
	scratch, err := os.MkdirTemp(parent, ".new-*")
	if err != nil {
		return fmt.Errorf("making the folder: %w", err)
	}
	defer os.RemoveAll(scratch) // fails once it is renamed
	for _, o := range all {
		f, err := os.OpenFile(filepath.Join(scratch, o.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, o.mode)
		if err == nil {
			err = writeSynced(f, o.text)
		}
		if err != nil {
			return err
		}
	}
	if err := os.Chmod(scratch, 0o755); err != nil {
		return err
	}
	if err := syncFolder(scratch); err != nil {
		return err
	}
	if err := os.Rename(scratch, dir); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is not empty; nothing was written", dir)
	} else if err != nil {
		return err
	}
	for _, o := range all {
		o.Name = filepath.Join(dir, o.Name)
	}
	return syncFolder(parent)
}

func (f *founded) text(table func([][]string) string) string {
	seal := "not sealed: whoever can read ca.key can make certificates"
	if f.Sealed {
		seal = "sealed by your passphrase"
	}
	return fmt.Sprintf("Authority %s, until %s; its key is %s\n\n%s\nAdd to gateway.yaml:\n\n%s",
		f.Subject, stamp(f.NotAfter), seal, table(f.Files.rows()), f.Gateway)
}

// rows lists the files for a table.
func (all outputs) rows() [][]string {
	rows := [][]string{{"FILE", "MODE", "FOR"}}
	for _, o := range all {
		rows = append(rows, []string{o.Name, o.Mode, o.For})
	}
	return rows
}

// wrote describes an error of writing to standard output.
func wrote(err error) error {
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// usagef returns an error that marks the command line as invalid.
func (k *command) usagef(format string, args ...any) error {
	return k.Usage(fmt.Errorf(format, args...))
}
