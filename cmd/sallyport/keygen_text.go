package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"sallyport/auth/httpsig"
)

// handedOver is the result of keygen and its JSON output. The output has no secret.
type handedOver struct {
	KeyID     string       `json:"key_id"`
	Algorithm string       `json:"algorithm"`
	Principal string       `json:"principal"`
	Route     string       `json:"route"`
	URL       string       `json:"url"`
	NotBefore time.Time    `json:"not_before"`
	NotAfter  time.Time    `json:"not_after"`
	Dir       string       `json:"dir"`
	Files     []handedFile `json:"files"`
	Gateway   string       `json:"gateway_yaml"`          // the lines to add there
	InRoute   string       `json:"route_yaml"`            // the lines of the route
	InPolicy  string       `json:"policy_yaml,omitempty"` // the rule for the policy that the route names
	Nonces    string       `json:"nonces,omitempty"`      // the file to make before the first start
	Authority string       `json:"authority,omitempty"`   // the root certificate that the partner must trust
}

// run makes the key and writes everything.
func (k *keygen) run(out io.Writer, now time.Time) error {
	h := &handedOver{KeyID: k.id, Algorithm: k.alg, Principal: "key:" + k.partner, Route: k.route, URL: k.target, Dir: k.out}
	h.NotBefore = now.UTC().Truncate(time.Hour)
	h.NotAfter = h.NotBefore.AddDate(0, 0, k.days)
	key, files, err := newKey(h.KeyID, httpsig.Algorithm(k.alg))
	if err != nil {
		return err
	}
	v, err := newVector(key, k.target)
	if err != nil {
		return err
	}
	vectors, err := vectorFile(v)
	if err != nil {
		return err
	}
	p := k.paste(h, files)
	h.Gateway, h.InRoute, h.InPolicy, h.Nonces, h.Authority = p.Top, p.Route, p.Policy, p.Nonce, p.Root
	needs := "requests>=2.31\n"
	if h.Algorithm == string(httpsig.Ed25519) {
		needs += "cryptography>=42\n"
	}
	h.Files = append(files,
		newFile("signing-key.yaml", 0o644, "gateway: lines for gateway.yaml", []byte(p.file(h.Route))),
		newFile("README.txt", 0o644, "partner", []byte(h.readme(files[0].Name, p.Root != ""))),
		newFile("call.py", 0o644, "partner: a program that calls", []byte(h.program(files[0].Name))),
		newFile("requirements.txt", 0o644, "partner: what that needs", []byte(needs)),
		newFile("sallyport_client.py", 0o644, "partner", []byte(pythonClient)),
		vectors)
	if p.rooted {
		root, err := os.ReadFile(p.Root)
		if err != nil {
			return err
		}
		h.Files = append(h.Files, newFile("root.pem", 0o644, "partner: the authority of the gateway's certificate, for development", root))
	}
	if err := writeNew(k.out, h.Files); err != nil {
		return err
	}
	if k.output == "table" || k.output == "" && terminal(out) {
		return h.summarize(out, p.instructions(h, k.known != nil && k.known.config.Integrity.Publish != ""))
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(h); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// readme returns the instructions for the partner. secret is the name of their key file. rooted
// means that the partner needs root.pem to verify the gateway's certificate.
func (h *handedOver) readme(secret string, rooted bool) string {
	needs, response, trust := "nothing but Python", "", ""
	if h.Algorithm == string(httpsig.Ed25519) {
		needs = `Python and its package "cryptography"`
		response = " --response-key gateway-keys.json"
	}
	if rooted {
		trust = " --cacert root.pem"
	}
	flags := fmt.Sprintf("--key-id %s --secret %s", h.KeyID, secret)
	target := shellQuote(h.URL)
	text := fmt.Sprintf(`Signed requests to %s

Key      %s (%s)
Good     from %s until %s; ask for the next one in time
Secret   %s: keep it where only your program can read it; never send it

Every request is signed (RFC 9421, tag "sallyport-req") over @method, @authority,
@path, @query and Content-Digest, and over Content-Type and Content-Encoding where
they are sent. A signature is good once, for one minute: the clock must be right,
and each attempt must be signed anew.

`, h.URL, h.KeyID, h.Algorithm, day(h.NotBefore), day(h.NotAfter)+" UTC", secret)
	if rooted {
		text += "The gateway's certificate comes from an authority of its own: root.pem, which you got with this.\n\n"
	}
	if response != "" {
		text += fmt.Sprintf("Answers are signed with the gateway's own key. Get it once, and keep it:\n\n    curl -o gateway-keys.json%s %s\n\n",
			trust, shellQuote(keysURL(h.URL)))
	}
	text += fmt.Sprintf(`Does your side sign right? This needs %s, and no network:

    python3 sallyport_client.py check test-vector.json %s

A call from Python, with requests. call.py is short: begin your own program with it.

    python3 -m venv venv
    venv/bin/pip install -r requirements.txt
    venv/bin/python call.py

Its errors have the gateway's reason in e.code: stale (your clock is wrong),
bad_signature (key or id differ), replayed, forbidden.

sallyport_client.py has the same for httpx (SallyportHTTPXAuth) and for gRPC
(SigningChannel, for a channel of grpcio; @authority is the channel's target, and
@query is "?"): its beginning and its classes say how. In Go, the package
sallyport/auth/httpsig has Transport for net/http and Calls for gRPC.

A call, where the program sallyport is installed; it verifies the answer too:

    sallyport curl %s%s%s \
        -H 'Content-Type: application/json' -d %s \
        %s

The same with curl, which does not verify the answer:

    sallyport sign %s \
        -H 'Content-Type: application/json' -d %s \
        --url %s > headers
    curl -H @headers%s --data-binary %s \
        %s

If the gateway answers bad_signature, this shows what it computes, and where that
differs from what you signed:

    sallyport verify --secret %s --explain < request-as-sent.txt
    sallyport verify --secret %s --vector test-vector.json --explain
`, needs, secret,
		flags, response, trust, shellQuote(vectorContent), target,
		flags, shellQuote(vectorContent), target, trust, shellQuote(vectorContent), target,
		secret, secret)
	return text
}

// program returns the partner's first program.
func (h *handedOver) program(secret string) string {
	return strings.NewReplacer(`"@URL@"`, strconv.QuoteToASCII(h.URL), `"@KEY_ID@"`, strconv.QuoteToASCII(h.KeyID), `"@SECRET@"`, strconv.QuoteToASCII(secret)).Replace(callProgram)
}

// keysURL returns the URL at which the gateway of a target publishes its keys.
func keysURL(target string) string {
	u, err := parseTarget("", target)
	if err != nil {
		return target
	}
	return u.Scheme + "://" + u.Host + "/.well-known/sallyport/keys"
}

// shellQuote quotes a word for a shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// summarize prints the files and the next steps.
func (h *handedOver) summarize(w io.Writer, instructions string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Key %s (%s) of %s, good until %s UTC, to call %s\n\n", h.KeyID, h.Algorithm, h.Principal, day(h.NotAfter), h.URL)
	fmt.Fprintln(t, "FILE\tMODE\tFOR")
	for _, f := range h.Files {
		fmt.Fprintf(t, "%s\t%s\t%s\n", filepath.Join(h.Dir, f.Name), f.Mode, f.For)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if _, err := io.WriteString(w, "\n"+instructions); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
