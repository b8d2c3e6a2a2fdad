package ca

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// revocation is the result of `ca revoke` and its JSON output.
type revocation struct {
	Revoked []*entry  `json:"revoked"`
	Next    time.Time `json:"crl_next_update"`
}

func (k *command) newRevoke() *cobra.Command {
	c := &cobra.Command{
		Use:   "revoke {SERIAL | NAME | FILE}...",
		Short: "Revoke certificates and write the list of revoked ones",
		Long: `Revoke certificates by serial number, by file, or by name: all valid ones with that
alternative name or subject. The command writes the list of revoked certificates, and
the gateway that reads it refuses them from then on, also on open connections.`,
		Example: `  sallyport ca revoke spiffe://lab/batch
  sallyport ca revoke batch.pem
  sallyport ca revoke 3f9a5c1e0d7b42668f10a2b3c4d5e6f7`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return k.usagef("say what to revoke: a serial number, a name or a file; sallyport ca list shows them")
			}
			return nil
		},
		ValidArgsFunction: k.completeRevoke,
		RunE:              func(c *cobra.Command, args []string) error { return k.revoke(c, args, time.Now()) },
	}
	k.passphraseFlag(c, "file with the passphrase of a sealed key (default: you are asked)")
	return c
}

// completeRevoke offers the names and serial numbers of valid certificates, and files.
func (k *command) completeRevoke(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	x, err := readIndex(k.dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var all []string
	for _, e := range x.Certificates {
		if e.state(time.Now()) == "valid" {
			all = append(all, e.label(), e.Serial)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), cobra.ShellCompDirectiveDefault
}

func (k *command) revoke(c *cobra.Command, args []string, now time.Time) error {
	form, err := k.Output(c.OutOrStdout(), k.output)
	if err != nil {
		return err
	}
	a, err := k.open()
	if err != nil {
		return err
	}
	if err := k.unlock(c, a, now); err != nil {
		return err
	}
	result := &revocation{}
	state, err := a.record(c.Context(), now, 0, func(x *index) (bool, error) {
		for _, arg := range args {
			found, err := a.find(x, arg, now)
			if err != nil {
				return false, err
			}
			result.Revoked = append(result.Revoked, found...)
		}
		for _, e := range result.Revoked {
			if e.Revoked.IsZero() {
				e.Revoked = now.UTC().Truncate(time.Second)
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	result.Next = state.NextUpdate
	if form == "json" {
		return k.JSON(c.OutOrStdout(), result)
	}
	var b strings.Builder
	for _, e := range result.Revoked {
		fmt.Fprintf(&b, "revoked %s of %s at %s\n", e.Serial, e.label(), stamp(e.Revoked))
	}
	_, err = io.WriteString(c.OutOrStdout(), b.String())
	return wrote(err)
}

// find returns the certificates that an argument names. A file's certificate that the index does
// not know, as after a backup was restored, enters it.
func (a *authority) find(x *index, arg string, now time.Time) ([]*entry, error) {
	if serial := strings.ToLower(strings.ReplaceAll(arg, ":", "")); serialForm.MatchString(serial) {
		if e := x.bySerial(serial); e != nil {
			return []*entry{e}, nil
		}
		return nil, fmt.Errorf("%s: no such serial number in %s; if you have the certificate, name its file", arg, indexFile)
	}
	named := slices.DeleteFunc(slices.Clone(x.Certificates), func(e *entry) bool { return !e.is(arg) })
	valid := slices.DeleteFunc(slices.Clone(named), func(e *entry) bool { return e.state(now) != "valid" })
	_, err := os.Stat(arg)
	switch isFile := err == nil; {
	case isFile && len(named) > 0:
		return nil, fmt.Errorf("%s is both a name and a file; write ./%[1]s for the file, or the serial number", arg)
	case isFile:
		return a.findFile(x, arg)
	case len(valid) > 0:
		return valid, nil
	case len(named) > 0:
		return nil, fmt.Errorf("%s: all %d certificates of this name are revoked or have ended", arg, len(named))
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return nil, fmt.Errorf("%s is no serial number, no name in %s and no file; sallyport ca list shows what there is", arg, indexFile)
}

// findFile returns the certificate of a file.
func (a *authority) findFile(x *index, name string) ([]*entry, error) {
	cert, err := readCertificate(name)
	if err != nil {
		return nil, err
	}
	if err := cert.CheckSignatureFrom(a.cert); err != nil {
		return nil, fmt.Errorf("%s is not from the authority in %s", name, a.dir)
	}
	e := newEntry(cert)
	if cert.IsCA {
		return nil, fmt.Errorf("%s is the authority itself; remove it from gateway.yaml instead", name)
	}
	if known := x.bySerial(e.Serial); known != nil {
		return []*entry{known}, nil
	}
	x.Certificates = append(x.Certificates, e)
	return []*entry{e}, nil
}
