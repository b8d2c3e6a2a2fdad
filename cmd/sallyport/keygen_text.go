package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
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
	Gateway   string       `json:"gateway_yaml"` // the lines to add there
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
	h.Gateway = k.gatewayLines(h, files)
	h.Files = append(files,
		newFile("signing-key.yaml", 0o644, "gateway: lines for gateway.yaml", []byte(h.Gateway)),
		newFile("README.txt", 0o644, "partner", []byte(h.readme(files[0].Name))),
		newFile("sallyport_client.py", 0o644, "partner", []byte(pythonClient)),
		vectors)
	if err := writeNew(k.out, h.Files); err != nil {
		return err
	}
	if k.output == "table" || k.output == "" && terminal(out) {
		return h.summarize(out)
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(h); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// gatewayLines returns the lines for gateway.yaml.
func (k *keygen) gatewayLines(h *handedOver, files []handedFile) string {
	holds := fmt.Sprintf("secret: {file: /run/secrets/%s}   # where you put it", files[0].Name)
	if len(files) > 1 {
		holds = fmt.Sprintf("public_key: %s   # where you put it; answers are signed with the key of integrity.publish", files[1].Name)
	}
	caller := "key/" + k.partner
	callers := slices.DeleteFunc(slices.Clone(k.callers), func(c string) bool { return c == "anonymous" })
	if !slices.Contains(callers, caller) && !slices.Contains(callers, "key") {
		callers = append(callers, caller)
	}
	others := "   # beside those that it has"
	if k.callers != nil {
		others = ""
	}
	return fmt.Sprintf(`signing_keys:
  %s:
    principal: %s
    %s
    not_before: %s
    not_after: %s
# and in the route %s:
#   callers: [%s]%s
`, plainYAML(h.KeyID), plainYAML(k.partner), holds, h.NotBefore.Format(time.RFC3339), h.NotAfter.Format(time.RFC3339),
		h.Route, strings.Join(callers, ", "), others)
}

// readme returns the instructions for the partner. secret is the name of their key file.
func (h *handedOver) readme(secret string) string {
	python, needs, response := "", "nothing but Python", ""
	if h.Algorithm == string(httpsig.Ed25519) {
		needs = `Python and its package "cryptography"`
		response = " --response-key gateway-keys.json"
		python = `, response_key=open("gateway-keys.json").read()`
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
	if response != "" {
		text += fmt.Sprintf("Answers are signed with the gateway's own key. Get it once, and keep it:\n\n    curl -o gateway-keys.json %s\n\n",
			shellQuote(keysURL(h.URL)))
	}
	text += fmt.Sprintf(`Does your side sign right? This needs %s, and no network:

    python3 sallyport_client.py check test-vector.json %s

A call, where the program sallyport is installed; it verifies the answer too:

    sallyport curl %s%s \
        -H 'Content-Type: application/json' -d %s \
        %s

The same with curl, which does not verify the answer:

    sallyport sign %s \
        -H 'Content-Type: application/json' -d %s \
        --url %s > headers
    curl -H @headers --data-binary %s \
        %s

From Python, with requests:

    import requests
    from sallyport_client import SallyportAuth

    auth = SallyportAuth.from_file("%s", "%s"%s)
    url = "%s"
    answer = requests.post(url, json={"instances": [1.0, 2.0, 5.0]}, auth=auth)
    auth.verify_response(answer)  # raises NotVerified unless the gateway signed this

If the gateway answers bad_signature, this shows what it computes, and where that
parts from what you signed:

    sallyport verify --secret %s --explain < request-as-sent.txt
    sallyport verify --secret %s --vector test-vector.json --explain
`, needs, secret,
		flags, response, shellQuote(vectorContent), target,
		flags, shellQuote(vectorContent), target, shellQuote(vectorContent), target,
		h.KeyID, secret, python, strings.ReplaceAll(h.URL, `"`, "%22"), secret, secret)
	return text
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

// summarize prints the files and the next step.
func (h *handedOver) summarize(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "Key %s (%s) of %s, good until %s UTC, to call %s\n\n", h.KeyID, h.Algorithm, h.Principal, day(h.NotAfter), h.URL)
	fmt.Fprintln(t, "FILE\tMODE\tFOR")
	for _, f := range h.Files {
		fmt.Fprintf(t, "%s\t%s\t%s\n", filepath.Join(h.Dir, f.Name), f.Mode, f.For)
	}
	fmt.Fprintf(t, "\nAdd to gateway.yaml:\n\n%s", h.Gateway)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}
