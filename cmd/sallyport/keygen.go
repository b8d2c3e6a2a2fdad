package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/auth/httpsig"
	"sallyport/proxy"
)

// keygen holds the flags of `keygen`: a key for one partner on one route.
type keygen struct {
	partner, route, out, url, config, alg, id, output string
	apiKey                                            string // the name of an API key, to make one instead
	session                                           bool   // make a key for sessions instead
	days, overlap                                     int

	known  *known // facts from the configuration; nil if it was not read
	target string // the URL that the partner calls
}

func newKeygen() *cobra.Command {
	var k keygen
	c := &cobra.Command{
		Use:   "keygen {--partner NAME --route NAME --out DIR | --api-key NAME | --session}",
		Short: "Make a signing key for a partner, an API key, or a key for sessions",
		Long: `Make a key with which a partner signs its requests. The command writes to a new
folder: the key, the lines for gateway.yaml, a Python client in one file, a program
that uses it, a test vector, and a README for the partner with commands to paste. Rules
and audit records call the partner key:NAME.

By default the key is a shared secret (hmac-sha256). With --alg ed25519 the gateway
gets only a public key and cannot sign in the partner's name.

The command does not print the key and overwrites nothing. It prints a summary on a
terminal and JSON on a pipe.

With --api-key it makes an API key instead and writes no file: it prints the key, once,
and the lines for gateway.yaml, which have only its hash. For a name that the
configuration has, the lines keep the newest secret beside the new one, so that both
count until all callers have the new one, or for --overlap days. --days sets not_after;
default: never.

With --session it prints a key that seals the sessions of people who sign in: a line for
the file under session.keys of a login. Append a new key below the one in use, and move
it to the top once all gateways have it; remove the old one after session.absolute.`,
		Example: `  sallyport keygen --partner acme --route models --out acme
  sallyport keygen --partner acme --route models --out acme \
      --url https://models.example.com/v1/models/half:predict --alg ed25519 --days 30
  sallyport keygen --api-key notebook
  (umask 077; sallyport keygen --session >> session-keys)`,
		RunE: func(c *cobra.Command, _ []string) error {
			now := time.Now()
			if k.session {
				return printSessionKey(c)
			}
			if c.Flags().Changed("api-key") {
				a, err := k.newAPIKeygen(c, now)
				if err != nil {
					return err
				}
				return a.run(c.OutOrStdout(), c.Flags().Changed("config"))
			}
			if err := k.check(c.Flags().Changed("config"), now); err != nil {
				return err
			}
			return k.run(c.OutOrStdout(), now)
		},
	}
	f := c.Flags()
	f.StringVar(&k.apiKey, "api-key", "", "make an API key of this name instead of a signing key")
	f.BoolVar(&k.session, "session", false, "print a key for sessions of logins instead of a signing key")
	f.StringVar(&k.partner, "partner", "", "who gets the key (required for a signing key)")
	f.StringVar(&k.route, "route", "", "the route that they may call, by its name (required for a signing key)")
	f.StringVar(&k.out, "out", "", "the folder to write to; it is made (required for a signing key)")
	f.StringVar(&k.url, "url", "", "what they call (default: looked up in the configuration)")
	configFlag(c, &k.config)
	f.StringVar(&k.alg, "alg", string(httpsig.HMACSHA256), "hmac-sha256 or ed25519")
	f.StringVar(&k.id, "id", "", "the id of the key (default: PARTNER-YYYY-MM)")
	f.IntVar(&k.days, "days", 90, "how long the key is good for; an API key has no end unless this is given")
	f.IntVar(&k.overlap, "overlap", 0, "with --api-key: for how many more days the old secret counts (default: until its hash is removed)")
	f.StringVarP(&k.output, "output", "o", "", "table or json (default: table on a terminal, else json)")
	return c
}

// check refuses invalid flags before anything is written.
func (k *keygen) check(configGiven bool, now time.Time) error {
	for _, flag := range []struct{ name, value string }{{"partner", k.partner}, {"route", k.route}, {"out", k.out}} {
		if flag.value == "" {
			return usageError{fmt.Errorf("--%s is required", flag.name)}
		}
	}
	for _, flag := range []struct{ name, value string }{{"partner", k.partner}, {"id", cmp.Or(k.id, "x")}} {
		if !plainName(flag.value) {
			return usageError{fmt.Errorf("--%s %q: want letters, digits, and between them . _ -, at most 64", flag.name, flag.value)}
		}
	}
	if k.id == "" {
		k.id = k.partner + now.UTC().Format("-2006-01")
	}
	switch {
	case k.overlap != 0:
		return usageError{errors.New("--overlap is for --api-key")}
	case k.alg != string(httpsig.HMACSHA256) && k.alg != string(httpsig.Ed25519):
		return usageError{fmt.Errorf("--alg %q: want hmac-sha256 or ed25519", k.alg)}
	case k.days < 1 || k.days > 3650:
		return usageError{fmt.Errorf("--days %d: want 1 to 3650", k.days)}
	case k.output != "" && k.output != "table" && k.output != "json":
		return usageError{fmt.Errorf("--output %q: want table or json", k.output)}
	}
	if k.url == "" || configGiven {
		if err := k.lookUp(); err != nil {
			return err
		}
	}
	if k.url == "" {
		return nil
	}
	k.target = k.url
	if _, err := parseTarget("--url", k.url); err != nil {
		return usageError{err}
	}
	return nil
}

// plainName reports whether a text is valid in a file name, an id and a principal.
func plainName(s string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$`).MatchString(s)
}

// lookUp finds the route in the configuration and reads its callers and, without --url,
// its URL.
func (k *keygen) lookUp() error {
	if _, err := os.Stat(k.config); k.url == "" && errors.Is(err, fs.ErrNotExist) {
		return usageError{fmt.Errorf("there is no %s to find the route's host in; say with --url what the partner calls", k.config)}
	}
	config, err := proxy.LoadConfig(k.config)
	if err != nil {
		return err
	}
	routes := config.Table()
	i := slices.IndexFunc(routes, func(r proxy.RouteInfo) bool { return r.Name == k.route })
	if i < 0 {
		var names []string
		for _, r := range routes {
			names = append(names, strconv.Quote(r.Name))
		}
		return usageError{fmt.Errorf("--route %q: %s has no such route, but %s", k.route, k.config, strings.Join(names, ", "))}
	}
	if _, taken := config.SigningKeys[k.id]; taken {
		return usageError{fmt.Errorf("%s has a key with the id %q; name another with --id, and keep both until the partner uses the new one", k.config, k.id)}
	}
	r := routes[i]
	k.known = &known{config: config, route: r}
	if err := k.known.read(k.config); err != nil {
		return err
	}
	if k.url != "" {
		return nil
	}
	i = slices.IndexFunc(r.Host, func(h string) bool { return !strings.HasPrefix(h, "*") })
	if i < 0 {
		return usageError{fmt.Errorf("--route %q: its hosts are patterns; say with --url what the partner calls", k.route)}
	}
	path, _, _ := strings.Cut(r.Path, "*")
	k.target = "https://" + r.Host[i] + publicPort(config) + path
	return nil
}

// publicPort returns ":" and the HTTPS port that clients use, "" for the default port.
func publicPort(c *proxy.Config) string {
	port := strconv.Itoa(c.PublicHTTPS)
	if c.PublicHTTPS == 0 {
		port = "443"
		if all := c.Listen.HTTPSAddrs(); len(all) > 0 {
			if _, p, err := net.SplitHostPort(all[0]); err == nil && p != "0" {
				port = p
			}
		}
	}
	if port == "443" {
		return ""
	}
	return ":" + port
}
