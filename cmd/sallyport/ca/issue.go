package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"software.sslmate.com/src/go-pkcs12"
)

// leafLife is how long certificates count by default: as long as a nightly job needs to fetch the
// next one. What ends tomorrow hardly needs to be revoked.
const leafLife = 24 * time.Hour

// issuing holds the flags of `ca issue`.
type issuing struct {
	names
	server       bool
	life         span
	out, csr     string
	pkcs12       string
	passwordFile string
	askPassword  bool
}

// issued is the result of `ca issue` and its JSON output.
type issued struct {
	*entry
	Files    outputs `json:"files"`
	Caller   string  `json:"caller,omitempty"`          // as routes list it
	Password string  `json:"pkcs12_password,omitempty"` // one that was generated; shown once
}

func (k *command) newIssue() *cobra.Command {
	i := &issuing{life: span{leafLife}}
	c := &cobra.Command{
		Use:   "issue {--spiffe ID | --dns HOST | --email ADDRESS | --subject NAME} {--out NAME | --pkcs12 FILE}",
		Short: "Certify a client or a server",
		Long: `Make a key and a certificate. --out batch writes batch.pem (the certificate, then the
authority's) and batch.key, which only you can read. --pkcs12 writes both to one file
for Java and browsers, encrypted with a password; without --password-file or
--ask-password the command generates one and prints it, once.

A client's certificate counts for 24 hours unless --for says otherwise. Its names are
for you to choose: the gateway takes the first of SPIFFE ID, DNS name, email address
and subject for the caller, cert:NAME. --subject takes a common name, or a list such as
CN=batch,OU=ml,O=lab, whose OU or O can be the caller's groups.

With --csr the key stays where it was made: the certificate is for the key of that
request, and has the names of the flags, never those that the request asks for.

With --server the certificate is for a server that the gateway calls, and for no client.
Existing files are never overwritten.`,
		Example: `  sallyport ca issue --spiffe spiffe://lab/batch --out batch
  sallyport ca issue --subject CN=bob,OU=ml --pkcs12 bob.p12 --for 30d
  sallyport ca issue --spiffe spiffe://lab/edge --csr edge.csr --out edge
  sallyport ca issue --server --dns tf.internal --ip 10.0.0.7 --out tf`,
		Args: k.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return k.issue(c, i, time.Now()) },
	}
	f := c.Flags()
	f.StringVar(&i.spiffe, "spiffe", "", "SPIFFE ID, such as spiffe://lab/batch")
	f.StringArrayVar(&i.dns, "dns", nil, "host name; repeatable for a server")
	f.StringArrayVar(&i.email, "email", nil, "email address")
	f.StringVar(&i.subject, "subject", "", "common name, or CN=...,OU=...,O=...")
	f.StringArrayVar(&i.ip, "ip", nil, "address of a server; repeatable")
	f.BoolVar(&i.server, "server", false, "certify a server instead of a client")
	f.Var(&i.life, "for", "how long it counts")
	f.StringVar(&i.out, "out", "", "write NAME.pem and NAME.key")
	f.StringVar(&i.csr, "csr", "", "certify the key of this request (PEM), instead of a new one")
	f.StringVar(&i.pkcs12, "pkcs12", "", "write key and certificates to this file")
	f.StringVar(&i.passwordFile, "password-file", "", "file with the password for --pkcs12")
	f.BoolVar(&i.askPassword, "ask-password", false, "ask for the password for --pkcs12")
	k.passphraseFlag(c, "file with the passphrase of a sealed key (default: you are asked)")
	return c
}

// check refuses flags that contradict each other, and returns the certificate before it is signed.
func (i *issuing) check(now time.Time) (*x509.Certificate, error) {
	usage := x509.ExtKeyUsageClientAuth
	if i.server {
		usage = x509.ExtKeyUsageServerAuth
	}
	switch {
	case i.csr != "" && i.pkcs12 != "":
		return nil, errors.New("--pkcs12: the key of a request is not here; its owner makes the file")
	case i.csr != "" && i.out == "", i.out == "" && i.pkcs12 == "":
		return nil, errors.New("--out is required: batch for batch.pem and batch.key")
	case i.pkcs12 == "" && (i.passwordFile != "" || i.askPassword):
		return nil, errors.New("--password-file and --ask-password are for --pkcs12")
	case i.passwordFile != "" && i.askPassword:
		return nil, errors.New("--password-file or --ask-password, not both")
	case strings.HasSuffix(i.out, "/"):
		return nil, fmt.Errorf("--out %q: want the beginning of a file's name, such as %[1]qbatch", i.out)
	}
	if err := i.life.check("for", time.Second, 825*day); err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(i.life.Duration),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage},
		BasicConstraintsValid: true,
	}
	return t, i.fill(t, i.server)
}

// issue certifies. The index has the certificate before its file exists.
func (k *command) issue(c *cobra.Command, i *issuing, now time.Time) error {
	form, err := k.Output(c.OutOrStdout(), k.output)
	if err != nil {
		return err
	}
	template, err := i.check(now)
	if err != nil {
		if asked := i.requested(); asked != "" {
			err = fmt.Errorf("%w; %s asks for %s", err, i.csr, asked)
		}
		return k.Usage(err)
	}
	a, err := k.open()
	if err != nil {
		return err
	}
	if err := a.limits(template, i.life); err != nil {
		return k.Usage(err)
	}
	if _, err := readIndex(a.dir); err != nil {
		return err
	}
	if err := k.unlock(c, a, now); err != nil {
		return err
	}
	result := &issued{}
	cert, err := k.certify(c, i, a, template, result, now)
	if err != nil {
		return err
	}
	result.entry = newEntry(cert)
	if !i.server {
		result.Caller = "cert/" + result.label()
	}
	if err := result.Files.reserve(); err != nil {
		return err
	}
	_, err = a.record(c.Context(), now, 0, func(x *index) (bool, error) {
		x.Certificates = append(x.Certificates, result.entry)
		return false, nil
	})
	if err != nil {
		return errors.Join(err, result.Files.remove())
	}
	if err := result.Files.fill(); err != nil {
		return fmt.Errorf("the index has certificate %s, whose files could not be written: %w", result.Serial, err)
	}
	if form == "json" {
		return k.JSON(c.OutOrStdout(), result)
	}
	_, err = io.WriteString(c.OutOrStdout(), result.text(i, func(rows [][]string) string { return k.Table(c.OutOrStdout(), rows) }))
	return wrote(err)
}

// limits refuses what this authority cannot certify.
func (a *authority) limits(template *x509.Certificate, life span) error {
	if template.NotAfter.After(a.cert.NotAfter) {
		return fmt.Errorf("--for %s: the authority in %s ends before that, at %s; ask for less, or make another authority", &life, a.dir, stamp(a.cert.NotAfter))
	}
	if template.NotBefore.Before(a.cert.NotBefore) {
		template.NotBefore = a.cert.NotBefore
	}
	if constrained(a.cert) && len(sans(template)) == 0 {
		return errors.New("--subject alone: the authority counts for some names only, and no constraint binds subjects; add --spiffe, --dns or --email")
	}
	for _, kind := range []struct {
		flag      string
		names     int
		permitted []string
	}{
		{"spiffe", len(template.URIs), a.cert.PermittedURIDomains},
		{"dns", len(template.DNSNames), a.cert.PermittedDNSDomains},
		{"email", len(template.EmailAddresses), a.cert.PermittedEmailAddresses},
	} {
		if kind.names > 0 && slices.Equal(kind.permitted, []string{nowhere}) {
			return fmt.Errorf("--%s: the authority in %s may certify other kinds of names only", kind.flag, a.dir)
		}
	}
	for _, id := range template.URIs {
		// Go's verifier also takes names below a constraint without a dot, against RFC 5280.
		if permitted := a.cert.PermittedURIDomains; len(permitted) > 0 && !slices.Contains(permitted, id.Host) {
			return fmt.Errorf("--spiffe %q: the authority counts for the trust domain %s only", id, strings.Join(permitted, ", "))
		}
	}
	return nil
}

// certify signs the certificate, for a new key or that of a request, and prepares the files.
func (k *command) certify(c *cobra.Command, i *issuing, a *authority, template *x509.Certificate, result *issued, now time.Time) (*x509.Certificate, error) {
	if i.csr != "" {
		request, err := readRequest(i.csr)
		if err != nil {
			return nil, err
		}
		cert, err := a.sign(template, request.PublicKey, now)
		if err == nil {
			result.Files = outputs{newOutput(i.out+".pem", 0o644, "the owner of the key", pemOf(cert, a.cert))}
		}
		return cert, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key: %w", err)
	}
	cert, err := a.sign(template, key.Public(), now)
	if err != nil {
		return nil, err
	}
	owner := template.Subject.CommonName
	if owner == "" {
		owner = "its owner"
	}
	if i.out != "" {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("writing the key: %w", err)
		}
		result.Files = append(result.Files,
			newOutput(i.out+".pem", 0o644, owner, pemOf(cert, a.cert)),
			newOutput(i.out+".key", 0o600, owner+", and nobody else", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	}
	if i.pkcs12 != "" {
		password, err := k.password(c, i, result)
		if err != nil {
			return nil, err
		}
		bag, err := pkcs12.Modern2023.WithIterations(pkcs12Iterations).Encode(key, cert, []*x509.Certificate{a.cert}, password)
		if err != nil {
			return nil, fmt.Errorf("--pkcs12: %w", err)
		}
		result.Files = append(result.Files, newOutput(i.pkcs12, 0o600, owner+", and nobody else", bag))
	}
	return cert, nil
}

// pkcs12Iterations is how often PBKDF2 hashes the password, for each of three keys. The module's
// default is 2048. Java needs a second for this number.
const pkcs12Iterations = 100_000

// password returns the password of a PKCS#12 file, and notes one that it generates.
func (k *command) password(c *cobra.Command, i *issuing, result *issued) (string, error) {
	switch {
	case i.passwordFile != "":
		return readSecret(i.passwordFile)
	case i.askPassword:
		text, err := ask(c, "password for "+i.pkcs12, true)
		if errors.Is(err, errNoTerminal) {
			return "", k.usagef("--ask-password: %w; name a file with the password by --password-file", err)
		}
		return text, err
	}
	result.Password = rand.Text()
	return result.Password, nil
}

// requested returns what the names of a request would be as flags; "" if there are none or the
// flags name no request.
func (i *issuing) requested() string {
	if i.csr == "" {
		return ""
	}
	r, err := readRequest(i.csr)
	if err != nil {
		return ""
	}
	var all []string
	for _, u := range r.URIs {
		all = append(all, fmt.Sprintf("--spiffe %q", u))
	}
	for _, name := range r.DNSNames {
		all = append(all, fmt.Sprintf("--dns %q", name))
	}
	for _, address := range r.EmailAddresses {
		all = append(all, fmt.Sprintf("--email %q", address))
	}
	if subject := r.Subject.String(); subject != "" {
		all = append(all, fmt.Sprintf("--subject %q", subject))
	}
	return strings.Join(all, " ")
}

// maxRequest bounds the file of a request.
const maxRequest = 64 << 10

// readRequest reads a request for a certificate whose signature proves that its sender has the key.
func readRequest(name string) (*x509.CertificateRequest, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--csr: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRequest))
	if err != nil {
		return nil, fmt.Errorf("--csr: reading %s: %w", name, err)
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "CERTIFICATE REQUEST" && b.Type != "NEW CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("--csr: %s is no certificate request in PEM", name)
	}
	r, err := x509.ParseCertificateRequest(b.Bytes)
	if err == nil {
		err = r.CheckSignature()
	}
	if err == nil {
		err = checkPublic(r.PublicKey)
	}
	if err != nil {
		return nil, fmt.Errorf("--csr: %s: %w", name, err)
	}
	return r, nil
}

// checkPublic refuses weak keys and kinds that TLS 1.3 does not have.
func checkPublic(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits >= 2048 && bits <= 8192 {
			return nil
		}
	}
	return errors.New("want a key of ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits")
}

func (r *issued) text(i *issuing, table func([][]string) string) string {
	text := fmt.Sprintf("Certificate %s for the %s %s, until %s\n\n%s", r.Serial, r.For, r.label(), stamp(r.NotAfter), table(r.Files.rows()))
	if r.Caller != "" {
		text += fmt.Sprintf("\nIn gateway.yaml:\n\n    callers: [%q]   # beside those that it has\n    rules: [{allow: \"*\", who: {principal: %q}}]   # beside those that it has\n",
			r.Caller, strings.Replace(r.Caller, "/", ":", 1))
	}
	if r.Password != "" {
		text += fmt.Sprintf("\nThe password of %s. It is shown only now:\n\n    %s\n", i.pkcs12, r.Password)
	}
	return text
}
