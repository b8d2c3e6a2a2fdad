package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/sallyport/login"
	"sallyport/proxy"
)

// tokenTime bounds discovery and the request for a token together.
const tokenTime = 15 * time.Second

// maxClientSecret bounds the file with a client's secret, in bytes.
const maxClientSecret = 64 << 10

func newToken() *cobra.Command {
	t := &tokenCommand{}
	command := &cobra.Command{
		Use:   "token [--issuer NAME | --url URL] --client-id ID {--secret-file FILE | --cert FILE --key FILE | --login | --logout} [--exec COMMAND [ARGUMENT...]]",
		Short: "Get an access token of a program, or of a person who signs in",
		Long: `Get an access token for a program from its issuer (OAuth 2.0 client credentials,
RFC 6749, section 4.4) and print it, or run a command with it. The issuer is one of the
configuration (--issuer, with its discovery, ca and insecure_http) or any other (--url).

The client authenticates with the secret in --secret-file, or with a certificate
(RFC 8705). The secret is in no argument and in no error. With --exec all that follows
is a command; it gets the token in an environment variable and not as an argument, which
every user of the machine could read. Its exit status becomes that of this command.

With --login a person signs in at the issuer and the token is theirs; the client needs no
secret. The issuer's page is printed on standard error, and opened where standard output is
a terminal and a browser is there. The answer comes to 127.0.0.1 (RFC 8252, with PKCE).
Without a browser, or with --device, the person signs in on any other machine by a code
(RFC 8628). The token is cached below the user's cache folder, in a file that nobody else
can read, and refreshed while the issuer allows it. --logout removes and revokes it.
Where a route has step_up, --acr-values and --max-age ask for what its challenge names, or
--claims and --max-age if that has claims.`,
		Example: `  sallyport token --issuer corp --client-id batch --secret-file batch.secret
  curl -H "Authorization: Bearer $(sallyport token --issuer corp --client-id batch --secret-file batch.secret)" ...
  sallyport token --url https://login.example.com/realms/ml --client-id batch --cert batch.pem --key batch.key --json
  sallyport token --issuer corp --client-id batch --secret-file batch.secret --env OPENAI_API_KEY --exec python3 client.py
  sallyport token --login --url https://login.example.com/realms/ml --client-id terminal`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case t.exec && len(args) == 0:
				return usageError{errors.New("--exec wants a command after it")}
			case !t.exec && len(args) > 0:
				return usageError{fmt.Errorf("token takes no argument, found %q; --exec runs a command", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			t.given = func(flag string) bool { return c.Flags().Changed(flag) }
			return t.run(c.Context(), c, args)
		},
	}
	f := command.Flags()
	f.SetInterspersed(false) // what follows the command of --exec belongs to it
	configFlag(command, &t.config)
	f.StringVar(&t.issuer, "issuer", "", "the issuer's name in the configuration (default: the only one)")
	f.StringVar(&t.url, "url", "", "the issuer's URL, without a configuration")
	f.StringVar(&t.ca, "ca", "", "the file with the authorities to trust for the issuer (default: the configuration's, else the system's)")
	f.BoolVar(&t.insecureHTTP, "insecure-http", false, "let the secret go over http to another machine")
	f.StringVar(&t.clientID, "client-id", "", "the client's id at the issuer (required)")
	f.StringVar(&t.secretFile, "secret-file", "", "the file that holds the client's secret")
	f.StringVar(&t.auth, "auth", "", "how the secret is sent: basic or post (default: as the issuer says, basic first)")
	f.StringVar(&t.cert, "cert", "", "the file with the client's certificate")
	f.StringVar(&t.key, "key", "", "the file with its private key")
	f.StringArrayVar(&t.scopes, "scope", nil, "a scope to ask for")
	f.StringArrayVar(&t.audiences, "audience", nil, "an audience to ask for, where the issuer has such a parameter")
	f.StringArrayVar(&t.resources, "resource", nil, "the URL of a resource to ask for (RFC 8707)")
	f.StringArrayVar(&t.acrValues, "acr-values", nil, "an authentication context to ask for with --login, the preferred one first, such as mfa")
	f.StringVar(&t.claims, "claims", "", "a JSON object of claims to ask for with --login, for Entra ID instead of --acr-values")
	f.DurationVar(&t.maxAge, "max-age", 0, "how long ago the person may have proved themselves; else they sign in again")
	f.BoolVar(&t.login, "login", false, "let a person sign in; the token is cached")
	f.BoolVar(&t.logout, "logout", false, "remove the cached token of --login with the same flags, and revoke it")
	f.BoolVar(&t.device, "device", false, "sign in on another machine, by a code (default: where no browser is here and the issuer offers it)")
	f.BoolVar(&t.browser, "browser", false, "open a browser (default: where standard output is a terminal)")
	f.StringVar(&t.redirect, "redirect", login.DefaultRedirect, "the redirect URI that the client has at the issuer; a port only if it is always the same")
	f.DurationVar(&t.wait, "wait", 5*time.Minute, "how long the person may take")
	f.BoolVar(&t.json, "json", false, "print the token as JSON, with its end")
	f.BoolVar(&t.exec, "exec", false, "run the command that follows with the token in its environment")
	f.StringVar(&t.env, "env", "TOKEN", "the environment variable for the command of --exec")
	return command
}

// tokenCommand is one run of `sallyport token`.
type tokenCommand struct {
	config, issuer, url, ca string
	insecureHTTP            bool

	clientID, secretFile, auth   string
	cert, key                    string
	scopes, audiences, resources []string

	login, logout, device, browser bool
	redirect                       string
	acrValues                      []string
	claims                         string
	maxAge                         time.Duration
	wait                           time.Duration

	json, exec bool
	env        string

	given func(flag string) bool
}

// issuedToken is the JSON output of `token`.
type issuedToken struct {
	AccessToken string    `json:"access_token"`
	TokenType   string    `json:"token_type"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	ExpiresIn   int64     `json:"expires_in,omitempty"` // seconds
	Scope       string    `json:"scope,omitempty"`
}

func (t *tokenCommand) run(ctx context.Context, c *cobra.Command, args []string) error {
	if err := t.check(); err != nil {
		return err
	}
	var issued *issuedToken
	var err error
	switch {
	case t.logout:
		return t.forget(ctx, c)
	case t.login:
		issued, err = t.signIn(ctx, c)
	default:
		issued, err = t.obtain(ctx)
	}
	if err != nil {
		return err
	}
	switch {
	case t.exec:
		return t.execute(ctx, c, args, issued.AccessToken)
	case t.json:
		return writeJSON(c.OutOrStdout(), issued)
	}
	if _, err := fmt.Fprintln(c.OutOrStdout(), issued.AccessToken); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

func (t *tokenCommand) check() error {
	wrong := ""
	switch {
	case t.clientID == "":
		wrong = "--client-id is required"
	case t.url != "" && (t.issuer != "" || t.given("config")):
		wrong = "--url is an issuer without a configuration: give it, or --issuer"
	case (t.cert == "") != (t.key == ""):
		wrong = "--cert and --key belong together"
	case t.secretFile == "" && t.cert == "" && !t.login && !t.logout:
		wrong = "--secret-file is required, or --cert and --key; or --login, for a person"
	case !slices.Contains([]string{"", "basic", "post"}, t.auth):
		wrong = fmt.Sprintf("--auth %q: want basic or post", t.auth)
	case t.auth != "" && t.secretFile == "":
		wrong = "--auth says how a secret is sent: give --secret-file"
	case t.json && t.exec:
		wrong = "--json prints the token and --exec does not: give one of them"
	case t.given("env") && !t.exec:
		wrong = "--env names the variable for --exec"
	case t.env == "" || strings.ContainsAny(t.env, "=\x00"):
		wrong = fmt.Sprintf("--env %q: want the name of a variable", t.env)
	}
	if wrong == "" {
		wrong = t.checkLogin()
	}
	if wrong == "" {
		return nil
	}
	return usageError{errors.New(wrong)}
}

// secret reads the client's secret; "" if a certificate is to prove the client alone.
func (t *tokenCommand) secret() (string, error) {
	if t.secretFile == "" {
		return "", nil
	}
	f, err := os.Open(t.secretFile)
	if err != nil {
		return "", fmt.Errorf("reading the secret: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxClientSecret+1))
	secret := strings.TrimRight(string(text), "\r\n")
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the secret: %w", err)
	case secret == "":
		return "", fmt.Errorf("reading the secret: %s is empty", t.secretFile)
	case len(text) > maxClientSecret:
		return "", fmt.Errorf("reading the secret: %s is larger than %d bytes", t.secretFile, maxClientSecret)
	case strings.ContainsAny(secret, "\r\n"):
		return "", fmt.Errorf("reading the secret: %s has several lines; it must hold the secret alone", t.secretFile)
	}
	return secret, nil
}

// whom returns the issuer that the flags name.
func (t *tokenCommand) whom() (*tokenIssuer, error) {
	if t.url != "" {
		return &tokenIssuer{url: t.url, base: t.url, ca: t.ca, insecure: t.insecureHTTP, flags: true}, nil
	}
	if _, err := os.Stat(t.config); errors.Is(err, fs.ErrNotExist) {
		return nil, usageError{fmt.Errorf("--url is required, or -c with a configuration that has the issuer: there is no file %s", t.config)}
	}
	config, err := proxy.LoadConfig(t.config)
	if err != nil {
		return nil, err
	}
	name := t.issuer
	if name == "" {
		if len(config.Issuers) != 1 {
			return nil, usageError{fmt.Errorf("--issuer is required: %s has %s", t.config, issuersOf(config))}
		}
		name = issuerNames(config)[0]
	}
	c, ok := config.Issuers[name]
	if !ok {
		return nil, fmt.Errorf("%s has no issuer %q; it has %s; --url names an issuer without a configuration", t.config, name, issuersOf(config))
	}
	at := &tokenIssuer{url: c.URL, base: c.URL, ca: string(c.CA), insecure: c.InsecureHTTP || t.insecureHTTP, setting: "issuers." + name}
	if !c.Discovery.IsZero() {
		at.base = c.Discovery.String()
	}
	if t.ca != "" {
		at.ca = t.ca
	}
	return at, nil
}
