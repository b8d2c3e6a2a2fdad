package story

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Provider is a running OpenID provider: examples/openid-provider.
type Provider struct {
	URL     string // the issuer
	CA      string // file with its certificate
	Secret  string // of the client "batch"
	process *Process
	client  *http.Client
}

// providerPatience is how long a provider may take to start before it is started
// a second time.
const providerPatience = time.Minute

// StartProvider starts the provider with the given environment, such as
// "TOKEN_ALG=ES256", beside its defaults.
func StartProvider(t testing.TB, env ...string) *Provider {
	t.Helper()
	Need(t, "node", "openssl")
	installed := Installed(t, "openid-provider", "openid-provider/package-lock.json")
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join("..", "openid-provider", "provider.js"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"provider.js": string(program), "package.json": `{"type": "module"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	address := FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	p := &Provider{URL: "https://localhost:" + port, CA: filepath.Join(dir, "provider.crt"), Secret: "a-secret-of-this-test"}
	cmd := exec.Command("node", "provider.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"PORT=" + port, "CLIENT_SECRET=" + p.Secret, "TLS_DIR=" + dir}, env...)...)
	p.process = Start(t, "openid-provider", cmd)
	if !p.process.up(address, providerPatience) {
		// Node.js 20 has been seen to hang while it starts.
		t.Logf("the provider does not listen after %v; once more", providerPatience)
		p.process.Stop(t)
		again := exec.Command(cmd.Path, cmd.Args[1:]...)
		again.Dir, again.Env = cmd.Dir, cmd.Env
		p.process = Start(t, "openid-provider", again)
		p.process.Listens(t, address)
	}
	p.client = Client(t, p.CA)
	return p
}

// Stop ends the provider before the test does.
func (p *Provider) Stop(t testing.TB) {
	t.Helper()
	p.process.Stop(t)
}

// Token gets an access token by client credentials. The resource names the
// audience; empty is that of the models.
func (p *Provider) Token(t testing.TB, scope, resource string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
	if resource != "" {
		form.Set("resource", resource)
	}
	req, err := http.NewRequest("POST", p.URL+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("batch", p.Secret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatalf("asking for a token: %v", err)
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
		Error string `json:"error_description"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("asking for a token: status %d, %s, %v", res.StatusCode, answer.Error, err)
	}
	return answer.Token
}

// Revoke revokes an access token.
func (p *Provider) Revoke(t testing.TB, token string) {
	t.Helper()
	req, err := http.NewRequest("POST", p.URL+"/token/revocation", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("batch", p.Secret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatalf("revoking a token: %v", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("revoking a token: status %d", res.StatusCode)
	}
}

// Client is an HTTP client that believes in the certificates of the file, only.
func Client(t testing.TB, ca string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", ca)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}
