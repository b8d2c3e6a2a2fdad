package ca

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// inventory is the JSON output of `ca list`.
type inventory struct {
	Authority    string       `json:"authority"`
	NotAfter     time.Time    `json:"not_after"`
	CRL          crlState     `json:"crl"`
	Certificates []listedCert `json:"certificates"`
}

// listedCert is a certificate with its state.
type listedCert struct {
	*entry
	State string `json:"state"` // valid, expired or revoked
}

func (k *command) newList() *cobra.Command {
	within := &span{}
	c := &cobra.Command{
		Use:   "list",
		Short: "Show the certificates, those that end first before the others",
		Long: `Show the certificates with their names, states and ends, and the ends of the authority
and of its list of revoked certificates. Certificates are shown until 90 days after
their end. With --expiring only valid ones that end within that time are shown.`,
		Example: `  sallyport ca list
  sallyport ca list --expiring 7d
  sallyport ca list | jq '.certificates[] | select(.state == "valid") | .names'`,
		Args: k.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			form, err := k.Output(w, k.output)
			if err != nil {
				return err
			}
			only := c.Flags().Changed("expiring")
			if only {
				if err := within.check("expiring", time.Second, 20*365*day); err != nil {
					return k.Usage(err)
				}
			}
			a, err := k.open()
			if err != nil {
				return err
			}
			x, err := readIndex(a.dir)
			if err != nil {
				return err
			}
			now := time.Now()
			all := inventoryOf(a, x, now)
			if only {
				all.Certificates = slices.DeleteFunc(all.Certificates, func(l listedCert) bool {
					return l.State != "valid" || l.NotAfter.Sub(now) > within.Duration
				})
			}
			if form == "json" {
				return k.JSON(w, all)
			}
			_, err = io.WriteString(w, all.text(func(rows [][]string) string { return k.Table(w, rows) }))
			return wrote(err)
		},
	}
	c.Flags().Var(within, "expiring", "show only valid certificates that end within this time")
	return c
}

func inventoryOf(a *authority, x *index, now time.Time) *inventory {
	all := &inventory{Authority: a.cert.Subject.String(), NotAfter: a.cert.NotAfter, CRL: x.CRL, Certificates: []listedCert{}}
	for _, e := range x.Certificates {
		all.Certificates = append(all.Certificates, listedCert{e, e.state(now)})
	}
	slices.SortStableFunc(all.Certificates, func(a, b listedCert) int { return a.NotAfter.Compare(b.NotAfter) })
	return all
}

func (all *inventory) text(table func([][]string) string) string {
	text := fmt.Sprintf("authority %s, until %s\nlist %d of revoked certificates, until %s\n", all.Authority, stamp(all.NotAfter), all.CRL.Number, stamp(all.CRL.NextUpdate))
	rows := [][]string{{"NAMES", "FOR", "STATE", "NOT AFTER", "SERIAL"}}
	for _, l := range all.Certificates {
		state := l.State
		if state == "revoked" {
			state += " " + stamp(l.Revoked)
		}
		rows = append(rows, []string{cmp.Or(strings.Join(l.Names, " "), l.Subject), l.For, state, stamp(l.NotAfter), l.Serial})
	}
	if len(rows) > 1 {
		text += "\n" + table(rows)
	}
	return text
}
