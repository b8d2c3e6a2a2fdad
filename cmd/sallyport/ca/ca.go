// Package ca is the command `sallyport ca`, a small certificate authority in a folder.
//
// It certifies clients that call the gateway, and servers that the gateway calls. The gateway only
// reads its files: the authority's certificate and the list of revoked certificates.
package ca

import (
	"io"

	"github.com/spf13/cobra"
)

// Shell is what these commands share with all others of the binary.
type Shell struct {
	Usage  func(error) error                               // marks an error as an invalid command line
	NoArgs cobra.PositionalArgs                            // refuses arguments
	Output func(w io.Writer, asked string) (string, error) // chooses between table and json
	JSON   func(w io.Writer, v any) error                  // writes JSON
	Table  func(w io.Writer, rows [][]string) string       // aligns rows; the first has the headings
}

// command is the state that the subcommands share.
type command struct {
	Shell
	dir, passphraseFile, output string
}

// Command returns `sallyport ca`.
func Command(shell Shell) *cobra.Command {
	k := &command{Shell: shell}
	c := &cobra.Command{
		Use:   "ca",
		Short: "A small authority for client certificates",
		Long: `A certificate authority in a folder, for clients that call the gateway and for servers
that the gateway calls. Certificates are short-lived by default, and the gateway knows
revoked ones by a list that it reads from the folder.

It is no authority for the public: browsers do not trust it for websites, and the
gateway's own certificates come from ACME or files. There is no OCSP and no enrolment
over the network.`,
		Example: `  sallyport ca init
  sallyport ca issue --spiffe spiffe://lab/batch --out batch
  sallyport ca revoke spiffe://lab/batch
  sallyport ca list --expiring 7d`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVar(&k.dir, "dir", "clients-ca", "the folder of the authority")
	c.AddCommand(k.newInit(), k.newIssue(), k.newRevoke(), k.newCRL(), k.newList())
	for _, sub := range c.Commands() {
		sub.Flags().StringVarP(&k.output, "output", "o", "", "table or json (default: table on a terminal, else json)")
		k.complete(sub)
	}
	return c
}

// passphraseFlag adds the flag for commands that use the authority's key.
func (k *command) passphraseFlag(c *cobra.Command, usage string) {
	c.Flags().StringVar(&k.passphraseFile, "passphrase-file", "", usage)
}

// complete sets what a shell offers for flags and arguments.
func (k *command) complete(c *cobra.Command) {
	spans := map[string]string{"init": "1825d", "issue": "24h", "crl": "30d", "list": "7d"}
	for name, offer := range map[string]cobra.CompletionFunc{
		"output":          cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp),
		"for":             cobra.FixedCompletions([]string{spans[c.Name()]}, cobra.ShellCompDirectiveNoFileComp),
		"expiring":        cobra.FixedCompletions([]string{spans[c.Name()]}, cobra.ShellCompDirectiveNoFileComp),
		"csr":             cobra.FixedCompletions([]string{"csr", "pem"}, cobra.ShellCompDirectiveFilterFileExt),
		"pkcs12":          cobra.FixedCompletions([]string{"p12", "pfx"}, cobra.ShellCompDirectiveFilterFileExt),
		"spiffe":          cobra.NoFileCompletions,
		"dns":             cobra.NoFileCompletions,
		"ip":              cobra.NoFileCompletions,
		"email":           cobra.NoFileCompletions,
		"subject":         cobra.NoFileCompletions,
		"name":            cobra.NoFileCompletions,
		"permit-dns":      cobra.NoFileCompletions,
		"permit-uri":      cobra.NoFileCompletions,
		"permit-email":    cobra.NoFileCompletions,
		"out":             anyFile,
		"passphrase-file": anyFile,
		"password-file":   anyFile,
	} {
		if c.Flags().Lookup(name) != nil {
			_ = c.RegisterFlagCompletionFunc(name, offer) // fails for a flag that has one
		}
	}
}

func anyFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
