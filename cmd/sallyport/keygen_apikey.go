package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/auth/apikey"
	"sallyport/proxy"
)

// apiKeygen makes an API key.
type apiKeygen struct {
	name, config, output string
	notAfter             time.Time // zero: never
	oldUntil             time.Time // when the secret so far ends; zero: as it does
}

// madeAPIKey is the result of keygen --api-key and its JSON output. It is the only place where the
// key is ever shown.
type madeAPIKey struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Hash     string `json:"hash"`
	Caller   string `json:"caller"`         // as routes list it
	Gateway  string `json:"gateway_yaml"`   // the lines to add there
	Line     string `json:"file_line"`      // the line for the file of keys
	Replaces string `json:"replaces"`       // hash of the secret that counts until it is removed; "" for none
	Note     string `json:"note,omitempty"` // why the configuration was not read

	inFile string // the file that has the key's line; "" if gateway.yaml has it, or nothing
	known  bool   // the configuration has a section api_keys
}

// newAPIKeygen reads the flags that keygen --api-key shares with keygen.
func (k *keygen) newAPIKeygen(c *cobra.Command, now time.Time) (*apiKeygen, error) {
	for _, flag := range []string{"partner", "route", "out", "url", "alg", "id"} {
		if c.Flags().Changed(flag) {
			return nil, usageError{fmt.Errorf("--%s is for signing keys, and --api-key makes an API key", flag)}
		}
	}
	a := &apiKeygen{name: k.apiKey, config: k.config, output: k.output}
	switch {
	case !plainName(k.apiKey):
		return nil, usageError{fmt.Errorf("--api-key: want a name of letters, digits, and between them . _ -, at most 64")}
	case k.output != "" && k.output != "table" && k.output != "json":
		return nil, usageError{fmt.Errorf("--output %q: want table or json", k.output)}
	case k.overlap < 0 || k.overlap > 3650:
		return nil, usageError{fmt.Errorf("--overlap %d: want 1 to 3650", k.overlap)}
	}
	if k.overlap > 0 {
		a.oldUntil = now.UTC().Truncate(time.Hour).AddDate(0, 0, k.overlap)
	}
	if c.Flags().Changed("days") {
		if k.days < 1 || k.days > 3650 {
			return nil, usageError{fmt.Errorf("--days %d: want 1 to 3650", k.days)}
		}
		a.notAfter = now.UTC().Truncate(time.Hour).AddDate(0, 0, k.days)
	}
	return a, nil
}

// run makes the key and prints it. It writes no file. needConfig means that the configuration must
// be readable.
func (a *apiKeygen) run(out io.Writer, needConfig bool) error {
	key := apikey.New()
	m := &madeAPIKey{Name: a.name, Key: key, Hash: apikey.HashText(key), Caller: "apikey/" + a.name}
	var old proxy.APIKeyConfig
	config, err := proxy.LoadConfig(a.config)
	switch {
	case err == nil:
		m.known = len(config.APIKeys) > 0
		if old, m.inFile, err = config.APIKey(a.name); err != nil {
			return err
		}
	case needConfig:
		return err
	case exists(a.config):
		// The fault may be a key in the clear, which this command cures.
		m.Note = a.config + " has faults, so that it was not seen whether it has the key; sallyport check lists them"
	}
	a.lines(m, old)
	if a.output == "table" || a.output == "" && terminal(out) {
		_, err = io.WriteString(out, m.text())
	} else {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		err = e.Encode(m)
	}
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	return nil
}

// lines writes the lines for gateway.yaml and for a file of keys. The newest secret of the key so
// far counts on beside the new one.
func (a *apiKeygen) lines(m *madeAPIKey, old proxy.APIKeyConfig) {
	hashes := []string{m.Hash}
	if n := len(old.Hash); n > 0 {
		if m.Replaces = old.Hash[n-1]; !a.oldUntil.IsZero() {
			hash, _, _ := strings.Cut(m.Replaces, "@")
			m.Replaces = hash + "@" + a.oldUntil.Format(time.RFC3339)
		}
		hashes = []string{m.Replaces, m.Hash}
	}
	m.Caller = "apikey/" + old.PrincipalOr(a.name)
	until := a.notAfter
	if until.IsZero() {
		until = old.NotAfter.Time
	}
	yaml, line := []string{"hash: [" + strings.Join(hashes, ", ") + "]"}, append([]string{a.name}, hashes...)
	if len(hashes) == 1 {
		yaml[0] = "hash: " + hashes[0]
	}
	if old.Principal != "" {
		yaml, line = append(yaml, "principal: "+plainYAML(old.Principal)), append(line, "principal="+old.Principal)
	}
	if len(old.Groups) > 0 {
		var quoted []string
		for _, g := range old.Groups {
			quoted = append(quoted, plainYAML(g))
		}
		yaml, line = append(yaml, "groups: ["+strings.Join(quoted, ", ")+"]"), append(line, "groups="+strings.Join(old.Groups, ","))
	}
	if limit := old.Rate.Limit; !limit.IsZero() {
		rate := "limit: " + limit.String()
		line = append(line, "rate="+limit.String())
		if burst := old.Rate.Burst; burst > 0 {
			rate, line = rate+fmt.Sprintf(", burst: %d", burst), append(line, fmt.Sprintf("burst=%d", burst))
		}
		yaml = append(yaml, "rate: {"+rate+"}")
	}
	if n := old.InFlight; n > 0 {
		yaml, line = append(yaml, fmt.Sprintf("in_flight: %d", n)), append(line, fmt.Sprintf("in_flight=%d", n))
	}
	if !until.IsZero() {
		at := until.Format(time.RFC3339)
		yaml, line = append(yaml, "not_after: "+at), append(line, "not_after="+at)
	}
	m.Gateway = "  " + plainYAML(a.name) + ": {" + strings.Join(yaml, ", ") + "}\n"
	if !m.known {
		m.Gateway = "api_keys:\n" + m.Gateway
	}
	m.Line = strings.Join(line, " ") + "\n"
}

// text returns the key and the next steps, for people.
func (m *madeAPIKey) text() string {
	text := "API key " + m.Name + ". It is shown only now. Give it to its user alone:\n\n    " + m.Key + "\n\n"
	switch {
	case m.Replaces == "":
		where := "Add to gateway.yaml"
		if m.known {
			where += ", under the api_keys that it has"
		}
		text += where + ":\n\n" + m.Gateway + "\nor to the file that api_key_file names:\n\n" + m.Line +
			"\nand to a route:\n\n    callers: [" + m.Caller + "]   # beside those that it has\n" +
			"    rules: [{allow: \"*\", who: {principal: \"" + strings.Replace(m.Caller, "/", ":", 1) + "\"}}]   # beside those that it has\n"
	case m.inFile != "":
		text += "Put this in place of the line of " + m.Name + " in " + m.inFile + ":\n\n" + m.Line
	default:
		text += "Put this in place of " + m.Name + " under api_keys:\n\n" + m.Gateway
	}
	if m.Replaces != "" {
		hash, until, ends := strings.Cut(m.Replaces, "@")
		text += "\nBoth secrets count now. Records say in key_id which one was used: " + m.Name + ":" + strings.TrimPrefix(hash, apikey.HashPrefix)[:8] + " is the old one. "
		if ends {
			text += "It ends at " + until + ".\n"
		} else {
			text += "Remove its hash,\n" + hash + ", once no record names it.\n"
		}
	}
	if m.Note != "" {
		text += "\n" + m.Note + "\n"
	}
	return text
}
