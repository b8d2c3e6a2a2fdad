package clients

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// quirks sees that foreign libraries still do what the README says of them, and what
// the gateway says of what they do by default.
func (h *house) quirks(t *testing.T) {
	for _, p := range []struct {
		name, dir string
		args      []string
		want      []string
	}{
		{"npm http-message-signatures", installed(t, "node", "interop/quirks.mjs"), []string{"node", "quirks.mjs", "http-message-signatures"}, []string{
			`parameters: sig=();keyid="ID";alg="hmac-sha256";created=N;expires=N`,
			`expires after: 300`,
			`defaults: signature_missing`,
			`with tag: coverage`,
			`with content-type: malformed`,
			`with nonce: taken`,
			`method post is signed as: POST`,
			`verifies @status alone: true`,
			`requires content-digest, is given "content-digest";req: true`,
			`takes the header for "content-digest";tr: true`,
		}},
		{"npm http-message-sig", installed(t, "interop", "interop/quirks.mjs"), []string{"node", "quirks.mjs", "http-message-sig"}, []string{
			`with created and keyid: signature_missing`,
			`with tag and nonce: taken`,
			`tr: UnsupportedFeature`,
			`one signature, no label asked for: sig`,
			`two signatures, no label asked for: LabelRequired`,
			`two signatures, a label asked for: sig`,
			`a label twice: DuplicateLabel`,
			`no policy: refused`,
		}},
		{"PyPI", "interop", []string{h.python, "quirks.py"}, []string{
			`parameters: pyhms=();created=N;keyid="ID";alg="hmac-sha256";expires=N;nonce="n";tag="t"`,
			`default components: "@method" "@authority" "@target-uri" "content-digest"`,
			`method post: HTTP request method must be an uppercase string`,
			`tr: Parameter(s) ['tr'] on covered field "content-type" are not supported`,
			`default port: h.example`,
			`clock skew: 0:00:05`,
			`verifies a signature of 23 hours ago: taken`,
			`requests defaults: signature_missing`,
			`requests default components: "@method" "@authority" "@target-uri" "date" "content-digest"`,
			`requests with tag: coverage`,
			`requests with content-type: malformed`,
			`requests with nonce: taken`,
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			cmd := exec.Command(p.args[0], append(p.args[1:], h.gateway.URL("/predict"), "interop-2026-11", h.key("interop"))...)
			cmd.Dir = p.dir
			cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+h.gateway.CA, "REQUESTS_CA_BUNDLE="+h.gateway.CA)
			out, err := cmd.CombinedOutput()
			if got, want := strings.TrimSpace(string(out)), strings.Join(p.want, "\n"); got != want || err != nil {
				t.Errorf("%v; got\n%s\nwant\n%s", err, got, want)
			}
		})
	}
}
