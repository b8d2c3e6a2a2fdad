package ca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// list makes the next list of revoked certificates, in PEM, and notes it in the index.
func (a *authority) list(x *index, now time.Time, life time.Duration) ([]byte, error) {
	var revoked []x509.RevocationListEntry
	for _, e := range x.Certificates {
		if x.listed(e) {
			revoked = append(revoked, x509.RevocationListEntry{SerialNumber: e.number(), RevocationTime: e.Revoked})
		}
	}
	next := crlState{Number: x.CRL.Number + 1, ThisUpdate: now.Add(-backdated).UTC().Truncate(time.Second), NextUpdate: now.Add(life).UTC().Truncate(time.Second)}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    big.NewInt(next.Number),
		ThisUpdate:                next.ThisUpdate,
		NextUpdate:                next.NextUpdate,
		RevokedCertificateEntries: revoked,
	}, a.cert, a.key)
	if err != nil {
		return nil, fmt.Errorf("signing the list of revoked certificates: %w", err)
	}
	x.CRL = next
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// due reports whether the list needs to be written: more than half of its time is over, or the
// file is not the one that the index tells of, as after a crash.
func (a *authority) due(x *index, now time.Time) bool {
	if half := x.CRL.NextUpdate.Sub(x.CRL.ThisUpdate) / 2; x.CRL.NextUpdate.Sub(now) < half {
		return true
	}
	text, err := os.ReadFile(filepath.Join(a.dir, crlFile))
	if err != nil {
		return true
	}
	b, _ := pem.Decode(text)
	if b == nil {
		return true
	}
	list, err := x509.ParseRevocationList(b.Bytes)
	return err != nil || list.Number == nil || list.Number.Cmp(big.NewInt(x.CRL.Number)) != 0
}

// record lets change work on the index, and writes it unless change fails. It writes the list of
// revoked certificates too, if change asks for it or if it is due. The list counts for life, or
// for as long as the last one if life is 0. Of two commands at once one waits.
func (a *authority) record(ctx context.Context, now time.Time, life time.Duration, change func(*index) (relist bool, err error)) (crlState, error) {
	unlock, err := lock(ctx, a.dir)
	if err != nil {
		return crlState{}, err
	}
	defer unlock()
	x, err := readIndex(a.dir)
	if err != nil {
		return crlState{}, err
	}
	relist, err := change(x)
	if err != nil {
		return crlState{}, err
	}
	var list []byte
	if relist || a.due(x, now) {
		if life == 0 {
			life = x.CRL.NextUpdate.Sub(x.CRL.ThisUpdate) - backdated
		}
		if list, err = a.list(x, now, life); err != nil {
			return crlState{}, err
		}
	}
	x.forget(now)
	text, err := x.text()
	if err != nil {
		return crlState{}, err
	}
	if err := replaceFile(filepath.Join(a.dir, indexFile), text, 0o600); err != nil {
		return crlState{}, fmt.Errorf("writing the index: %w", err)
	}
	if list != nil {
		if err := replaceFile(filepath.Join(a.dir, crlFile), list, 0o644); err != nil {
			return crlState{}, fmt.Errorf("the index is written, the list of revoked certificates is not: %w; run sallyport ca crl", err)
		}
	}
	return x.CRL, nil
}

// listing is the result of `ca crl` and its JSON output.
type listing struct {
	File string `json:"file"`
	crlState
	Revoked int `json:"revoked"`
}

func (k *command) newCRL() *cobra.Command {
	life := &span{}
	c := &cobra.Command{
		Use:   "crl",
		Short: "Write the list of revoked certificates anew",
		Long: `Write the list of revoked certificates (CRL) anew, before the last one ends: a gateway
trusts no certificate of an authority whose list has ended. "revoke" writes it each
time, and "issue" when half of its time is over, so that this is needed only where
nobody calls these for weeks.

--for says how long it counts; later lists count as long. The first one counts for 30
days.`,
		Example: `  sallyport ca crl
  sallyport ca crl --for 7d`,
		Args: k.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			form, err := k.Output(c.OutOrStdout(), k.output)
			if err != nil {
				return err
			}
			if c.Flags().Changed("for") {
				if err := life.check("for", time.Second, 366*day); err != nil {
					return k.Usage(err)
				}
			}
			result, err := k.relist(c, life.Duration, time.Now())
			if err != nil {
				return err
			}
			if form == "json" {
				return k.JSON(c.OutOrStdout(), result)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: list %d of %d revoked certificates, until %s\n", result.File, result.Number, result.Revoked, stamp(result.NextUpdate))
			return wrote(err)
		},
	}
	c.Flags().Var(life, "for", "how long the list counts (default: as long as the last one)")
	k.passphraseFlag(c, "file with the passphrase of a sealed key (default: you are asked)")
	return c
}

// relist writes the list of revoked certificates anew.
func (k *command) relist(c *cobra.Command, life time.Duration, now time.Time) (*listing, error) {
	a, err := k.open()
	if err != nil {
		return nil, err
	}
	if err := k.unlock(c, a, now); err != nil {
		return nil, err
	}
	result := &listing{File: filepath.Join(a.dir, crlFile)}
	result.crlState, err = a.record(c.Context(), now, life, func(x *index) (bool, error) {
		for _, e := range x.Certificates {
			if x.listed(e) {
				result.Revoked++
			}
		}
		return true, nil
	})
	return result, err
}
