package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/auth/login"
)

// printSessionKey prints a line for the file of keys that seal sessions. No other flag of keygen has a
// meaning for it.
func printSessionKey(c *cobra.Command) error {
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Name != "session" {
			err = usageError{errors.New("--" + f.Name + " has no meaning with --session, which prints a key for sessions")}
		}
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.OutOrStdout(), login.NewKey())
	return err
}
