package main

import (
	"encoding/base64"
	"testing"
)

// What a gateway says becomes a command that people copy, so nothing in it may be one of its own.
func TestFlagsOfChallenges(t *testing.T) {
	const rfc = `Bearer realm="models", error="insufficient_user_authentication", acr_values=`
	claims := func(text string) string {
		return `Bearer realm="models", error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(text)) + `", `
	}
	for name, c := range map[string]struct{ challenge, want string }{
		"none":                 {"", "--login"},
		"RFC 9470":             {rfc + `"urn:x hwk", max_age="600"`, "--login --acr-values 'urn:x' --acr-values 'hwk' --max-age 600s"},
		"Entra ID":             {claims(`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`) + rfc + `"c1", max_age="60"`, `--login --claims '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}' --max-age 60s`},
		"claims are no object": {claims(`["c1"]`) + rfc + `"c1"`, "--login --acr-values 'c1'"},
		"claims with a quote":  {claims(`{"a":"'; reboot; '"}`) + rfc + `"c1"`, "--login --acr-values 'c1'"},
		"claims on two lines":  {claims("{\n}") + rfc + `"c1"`, "--login --acr-values 'c1'"},
		"a command":            {rfc + `"$(reboot) mfa"`, "--login --acr-values '$(reboot)' --acr-values 'mfa'"},
		"the end of a word":    {rfc + `"x';reboot;' mfa"`, "--login --acr-values 'mfa'"},
	} {
		if got := stepUpFlags(c.challenge); got != c.want {
			t.Errorf("%s: got %s; want %s", name, got, c.want)
		}
	}
}
