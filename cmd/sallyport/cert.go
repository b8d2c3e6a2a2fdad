package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/proxy"
)

func newCert() *cobra.Command {
	var config string
	c := &cobra.Command{
		Use:   "cert",
		Short: "List, obtain, renew and export certificates",
		Long: `Manage the certificates of the configuration. "serve" obtains and renews
certificates for tls.acme by itself. These commands list them, try the setup, and
export them to other programs. They can run while the gateway runs: it uses a new
certificate within a minute.`,
		Example: `  sallyport cert list
  sallyport cert obtain --dry-run
  sallyport cert renew models.example.com
  sallyport cert export models.example.com --cert out.pem --key out.key`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVarP(&config, "config", "c", "gateway.yaml", "the configuration")
	c.AddCommand(newCertList(&config), newCertObtain(&config), newCertRenew(&config), newCertExport(&config))
	return c
}

// openCerts opens the certificates of the configuration at a path.
func openCerts(path string) (*proxy.Certificates, error) {
	config, err := proxy.LoadConfig(path)
	if err != nil {
		return nil, err
	}
	return proxy.OpenCertificates(config, proxy.Options{Version: version()})
}

func newCertList(config *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "list",
		Short: "Show every certificate: its hosts, source, issuer, end and next renewal",
		Example: `  sallyport cert list
  sallyport cert list -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			if output == "" {
				output = "json"
				if terminal(w) {
					output = "table"
				}
			}
			if output != "json" && output != "table" {
				return usageError{fmt.Errorf("--output %q: want table or json", output)}
			}
			certs, err := openCerts(*config)
			if err != nil {
				return err
			}
			return listCerts(w, certs.List(), output, time.Now())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

// listedCert is an item of the JSON output of `cert list`.
type listedCert struct {
	Hosts       []string  `json:"hosts"`
	Source      string    `json:"source"`
	State       string    `json:"state"` // valid, expired or missing
	Issuer      string    `json:"issuer,omitempty"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	Error       string    `json:"error,omitempty"`
}

func listCerts(w io.Writer, certs []proxy.Certificate, output string, now time.Time) error {
	listed := make([]listedCert, 0, len(certs))
	for _, c := range certs {
		state := "valid"
		switch {
		case c.NotAfter.IsZero():
			state = "missing"
		case now.After(c.NotAfter):
			state = "expired"
		}
		listed = append(listed, listedCert{Hosts: c.Hosts, Source: c.Source, State: state, Issuer: c.Issuer, NotAfter: c.NotAfter, NextRenewal: c.NextRenewal, Error: c.LastError})
	}
	var err error
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(listed)
	} else {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "HOSTS\tSOURCE\tSTATE\tISSUER\tENDS (UTC)\tNEXT RENEWAL (UTC)")
		for _, c := range listed {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", strings.Join(c.Hosts, " "), c.Source, c.State, dash(c.Issuer), day(c.NotAfter), day(c.NextRenewal))
		}
		err = t.Flush()
		for _, c := range listed {
			if err == nil && c.Error != "" {
				_, err = fmt.Fprintf(w, "%s: %s\n", strings.Join(c.Hosts, " "), c.Error)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func newCertObtain(config *string) *cobra.Command {
	var dry bool
	var directory string
	c := &cobra.Command{
		Use:   "obtain [NAME...]",
		Short: "Obtain missing certificates by ACME",
		Long: `Obtain missing certificates by ACME, for the given names or for all. If the gateway
is running, it answers the authority's challenges; otherwise this command listens on
its addresses meanwhile.

With --dry-run the command obtains a certificate for each name from Let's Encrypt's
staging directory (or --directory) and discards it. This shows whether names, DNS and
ports are right without using up the authority's rate limits.`,
		Example: `  sallyport cert obtain --dry-run
  sallyport cert obtain models.example.com`,
		RunE: func(c *cobra.Command, args []string) error {
			if directory != "" && !dry {
				return usageError{fmt.Errorf("--directory works only with --dry-run; without it, tls.acme.directory is used")}
			}
			certs, err := openCerts(*config)
			if err != nil {
				return err
			}
			if dry {
				if err := certs.TryOut(c.Context(), args, directory); err != nil {
					return err
				}
				_, err = fmt.Fprintln(c.OutOrStdout(), "ok: every certificate could be obtained; none was kept")
				return err
			}
			return obtain(c, certs, args, false)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "try with the staging directory, and keep nothing")
	c.Flags().StringVar(&directory, "directory", "", "the directory for --dry-run (default: letsencrypt-staging)")
	return c
}

// obtain obtains certificates and prints those that are valid afterwards.
func obtain(c *cobra.Command, certs *proxy.Certificates, names []string, force bool) error {
	failed := certs.Obtain(c.Context(), names, force)
	for _, cert := range certs.List() {
		host := cert.Hosts[0]
		if cert.Source != "acme" || cert.NotAfter.IsZero() || cert.LastError != "" || len(names) > 0 && !slices.Contains(names, host) {
			continue
		}
		if _, err := fmt.Fprintf(c.OutOrStdout(), "%s: valid until %s UTC, from %s\n", host, day(cert.NotAfter), cert.Issuer); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	return failed
}

func newCertRenew(config *string) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "renew NAME...",
		Short: "Renew certificates by ACME now",
		Long: `Renew certificates by ACME now, even if they are not due, for example after a key has
leaked. A running gateway uses them within a minute.`,
		Example: `  sallyport cert renew models.example.com
  sallyport cert renew --all`,
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 0) != all {
				return usageError{fmt.Errorf("name the certificates to renew, or give --all")}
			}
			certs, err := openCerts(*config)
			if err != nil {
				return err
			}
			return obtain(c, certs, args, true)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "renew every one")
	return c
}

func newCertExport(config *string) *cobra.Command {
	var cert, key string
	c := &cobra.Command{
		Use:   "export HOST [--cert FILE] [--key FILE]",
		Short: "Write a certificate from ACME, and its key, to files",
		Long: `Write the ACME certificate of a host, followed by the intermediate certificates, to a
file or standard output. The private key is written only to a file, which other users
cannot read.`,
		Example: `  sallyport cert export models.example.com --cert out.pem --key out.key
  sallyport cert export models.example.com | openssl x509 -noout -text`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("want one host, found %d", len(args))}
			}
			certs, err := openCerts(*config)
			if err != nil {
				return err
			}
			chain, secret, err := certs.Export(args[0])
			if err != nil {
				return err
			}
			if key != "" {
				if err := replaceFile(key, secret, 0o600); err != nil {
					return err
				}
			}
			if cert != "" {
				return replaceFile(cert, chain, 0o644)
			}
			if _, err := c.OutOrStdout().Write(chain); err != nil {
				return fmt.Errorf("writing: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&cert, "cert", "", "the file for the certificate (default: standard output)")
	c.Flags().StringVar(&key, "key", "", "the file for the private key (default: it is not written)")
	return c
}

// replaceFile replaces a file atomically.
func replaceFile(name string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(text); err == nil {
		err = f.Chmod(mode)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
