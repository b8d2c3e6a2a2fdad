package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/auth/login"
	"sallyport/proxy"
)

// first holds the flags of `init`, from which it makes a first gateway.yaml.
type first struct {
	host, issuer, audience, upstream, email string
	// For people with a browser.
	login                bool
	clientID, secretFile string
}

func newInit() *cobra.Command {
	var f first
	c := &cobra.Command{
		Use:   "init --host HOST --issuer URL --upstream URL",
		Short: "Print a first gateway.yaml for your own server",
		Long: `Print a first gateway.yaml: one route to one server, for all callers with a token of
one issuer. With --email its certificate comes from Let's Encrypt, which connects to
this machine to verify that the host is yours; otherwise from a local authority for
development. Its comments explain how to extend it.

With --login people sign in with a browser at the issuer, as --client-id, to see the
pages of the server; programs go on to send tokens. The comments say what to register
at the issuer.`,
		Example: `  sallyport init --host models.example.com \
      --issuer https://login.example.com/realms/ml \
      --upstream http://127.0.0.1:8000 > gateway.yaml
  sallyport init --host mlflow.example.com --upstream http://127.0.0.1:5000 \
      --issuer https://login.example.com/realms/ml --login --client-id mlflow > gateway.yaml`,
		RunE: func(c *cobra.Command, _ []string) error { return f.print(c.OutOrStdout()) },
	}
	c.Flags().StringVar(&f.host, "host", "", "the name that clients call (required)")
	c.Flags().StringVar(&f.issuer, "issuer", "", "the issuer of the tokens: what they have as iss (required)")
	c.Flags().StringVar(&f.upstream, "upstream", "", "the URL of the server to stand in front of (required)")
	c.Flags().StringVar(&f.audience, "audience", "models", "what tokens for this gateway have as aud")
	c.Flags().StringVar(&f.email, "email", "", "where Let's Encrypt writes to; obtains a certificate from there")
	c.Flags().BoolVar(&f.login, "login", false, "people sign in with a browser, to see the pages of the server")
	c.Flags().StringVar(&f.clientID, "client-id", "", "the gateway's name as a client of the issuer (required with --login)")
	c.Flags().StringVar(&f.secretFile, "secret-file", "", "the file with the secret of that client (default: none, for a public client)")
	return c
}

// print writes the file if it is valid.
func (f *first) print(w io.Writer) error {
	for _, flag := range []struct{ name, value string }{{"host", f.host}, {"issuer", f.issuer}, {"upstream", f.upstream}, {"audience", f.audience}} {
		if flag.value == "" {
			return usageError{fmt.Errorf("--%s is required", flag.name)}
		}
	}
	switch {
	case f.login && f.clientID == "":
		return usageError{errors.New("--client-id is required with --login: the name of a client that you register at the issuer for the gateway")}
	case !f.login && f.clientID != "":
		return usageError{errors.New("--client-id has no meaning without --login")}
	case !f.login && f.secretFile != "":
		return usageError{errors.New("--secret-file has no meaning without --login")}
	}
	text := f.text()
	_, err := proxy.ParseConfig("gateway.yaml", []byte(text))
	var faults proxy.Faults
	if errors.As(err, &faults) {
		var all []error
		for _, fault := range faults {
			fault.File, fault.Path = "", f.flagOf(fault.Path)
			if fault.Path == "--upstream" && !strings.Contains(f.upstream, "://") {
				fault.Problem, fault.Cure = "not a URL", "write "+urlOf(f.upstream)
			}
			all = append(all, fault)
		}
		return usageError{errors.Join(all...)}
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// urlOf returns the URL that a bare server name or port probably means.
func urlOf(server string) string {
	host, port, found := strings.Cut(server, ":")
	if _, err := strconv.ParseUint(server, 10, 16); err == nil {
		host, port, found = "", server, true
	}
	if !found {
		port = "PORT"
	}
	return "http://" + cmp.Or(host, "127.0.0.1") + ":" + port
}

// flagOf returns the flag that a setting comes from.
func (f *first) flagOf(path string) string {
	switch {
	case strings.HasPrefix(path, "routes[0].host"):
		return "--host"
	case strings.HasPrefix(path, "tls.acme.email"):
		return "--email"
	case strings.HasPrefix(path, "tls.acme"):
		return "--host"
	case strings.HasPrefix(path, "routes[0].upstream"):
		return "--upstream"
	case strings.HasPrefix(path, "logins.main.client_secret"):
		return "--secret-file"
	case strings.HasPrefix(path, "logins."):
		return "--client-id"
	case strings.HasSuffix(path, ".audience"):
		return "--audience"
	case strings.HasPrefix(path, "issuers."):
		return "--issuer"
	}
	return path
}

func (f *first) text() string {
	tls := `# Certificates: a development authority, kept where "sallyport check" says. For the world:
#   tls: {acme: {email: you@example.com}}       from Let's Encrypt, or
#   tls: {files: {cert: fullchain.pem, key: privkey.pem}}
tls: {local: {}}`
	if f.email != "" {
		tls = fmt.Sprintf(`# Certificates: from Let's Encrypt, kept where "sallyport check" says. It calls ports 443
# and 80 of the host. Try first with "sallyport cert obtain --dry-run".
tls: {acme: {email: %s}}`, plainYAML(f.email))
	}
	route := `    callers: issuer/main
    rules: [{allow: "*"}]   # everyone with such a token; fewer: [{allow: post, who: {scope: models.predict}}]
`
	if f.login {
		route = `    callers: [login/main, issuer/main]
    websocket: true         # for pages that use it; Jupyter and Streamlit want a line more: see deploy/PAGES.md
    rules: [{allow: "*"}]   # everyone who can sign in; fewer: [{allow: "*", who: {group: ml-team}}], with
                            # "groups: groups" at the issuer and, if it wants that, "scopes: [groups]" at the login; and
                            # "claims: userinfo" there, if records say that "the caller has no groups"
`
	}
	return fmt.Sprintf(`%s
issuers:
  main: {url: %s, audience: %s}
%sroutes:
  - host: %s
    upstream: %s   # add "serves: tensorflow" (or flask, triton, openai, ollama) if it is one
%s`, tls, plainYAML(f.issuer), plainYAML(f.audience), f.logins(), plainYAML(f.host), plainYAML(f.upstream), route)
}

// logins returns the section of that name, with what to do at the issuer; "" without --login.
func (f *first) logins() string {
	if !f.login {
		return ""
	}
	secret, kind := "", "a public client, so without a secret"
	if f.secretFile != "" {
		secret, kind = " client_secret: {file: "+plainYAML(f.secretFile)+"},", "a confidential client, whose secret is the content of the file"
	}
	base, wildcard := "https://"+f.host, ""
	if strings.HasPrefix(f.host, "*") {
		base, wildcard = "https://HOST", fmt.Sprintf(`# HOST is sign_in_host: issuers register no wildcard such as %s. Write cookie_domain and
# sign_in_host into session, or list each host in the route and register each.
`, f.host)
	}
	return fmt.Sprintf(`# People sign in at the issuer. Register the client there, for the code flow with PKCE, as
# %s, and with these addresses
# (and with the port after the host, if listen.https gets another than 443):
#   redirect URI              %s
#   page after sign-out       %s
#   back-channel logout URL   %s
%s# Sessions end when the gateway restarts. To keep them, write keys: {file: session-keys} in place of
# kind: memory, and make that file: (umask 077; sallyport keygen --session > session-keys)
# Rules and records call people by sub, at Keycloak a UUID. To call them by their names, write
# principal: preferred_username at the issuer, and scopes: [profile] at the login.
logins:
  main: {issuer: main, client_id: %s,%s session: {kind: memory}}
`, kind, base+login.CallbackPath("main"), base+login.SignedOutPath, base+login.BackChannelPath, wildcard, plainYAML(f.clientID), secret)
}

// plainYAML returns a YAML scalar with this text, quoted if necessary.
func plainYAML(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("./:-_", r)
	}
	letter := s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z'
	if letter && !strings.ContainsFunc(s, func(r rune) bool { return !safe(r) }) && !strings.HasSuffix(s, ":") && !reservedYAML(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// reservedYAML reports whether YAML reads a word as something else than text.
func reservedYAML(s string) bool {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return true
	}
	return false
}
