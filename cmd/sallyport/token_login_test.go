package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/oauth2"
)

// peopleIssuer is an issuer where people sign in: RFC 6749, 7009, 7636, 8628 and 9207, strictly. The
// client id chooses what goes wrong.
type peopleIssuer struct {
	url string

	mu      sync.Mutex
	codes   map[string]url.Values // of requests at /authorize
	devices map[string]*device    // by device code
	refresh map[string]bool       // tokens that are good
	issued  int
}

// device is a device code: the challenge that it was asked for with, and requests for its token.
type device struct {
	challenge string
	tries     int
}

// startPeople serves an issuer for people until the script ends.
func startPeople(ts *testscript.TestScript, _ bool, _ []string) {
	i := &peopleIssuer{codes: map[string]url.Values{}, devices: map[string]*device{}, refresh: map[string]bool{}}
	s := httptest.NewUnstartedServer(i)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	ts.Defer(s.Close)
	i.url = s.URL
	ts.Setenv("ISSUER", s.URL)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), ca, 0o600))
	ts.Setenv("PERSON_CA", ts.MkAbs("ca.pem"))
	ts.Setenv("XDG_CACHE_HOME", ts.MkAbs("cache"))
}

func (i *peopleIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	_ = r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	switch path := strings.TrimPrefix(r.URL.Path, "/plain"); path {
	case "/.well-known/openid-configuration":
		m := map[string]any{
			"issuer": i.url, "authorization_endpoint": i.url + "/authorize?tenant=a", "token_endpoint": i.url + "/token",
			"device_authorization_endpoint": i.url + "/device", "revocation_endpoint": i.url + "/revoke",
			"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true,
			"grant_types_supported": []grant{authorizationCode, refreshToken, deviceCode},
		}
		if path != r.URL.Path { // an issuer with little
			m = map[string]any{"issuer": i.url + "/plain", "authorization_endpoint": i.url + "/authorize", "token_endpoint": i.url + "/token",
				"code_challenge_methods_supported": []string{"plain"}}
		}
		_ = json.NewEncoder(w).Encode(m)
	case "/authorize":
		i.authorize(w, r)
	case "/device":
		i.deviceCode(w, r)
	case "/token":
		i.token(w, r)
	case "/revoke":
		if r.Form.Get("token_type_hint") != "refresh_token" || !strings.HasPrefix(r.Form.Get("token"), "refresh-") || r.Form.Get("client_id") == "down" {
			fail(w, "invalid_request", r.Form.Get("token"))
			return
		}
		delete(i.refresh, r.Form.Get("token")) // an unknown one is no error (RFC 7009, section 2.2)
	case "/end-sessions": // for scripts
		clear(i.refresh)
	default:
		http.NotFound(w, r)
	}
}

// fail refuses, and repeats a secret as badly made issuers do.
func fail(w http.ResponseWriter, code, secret string) {
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "not " + secret + "\x1b[31m for you"})
}

// authorize stands for the page where people sign in.
func (i *peopleIssuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.Form
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Scheme != "http" || redirect.Hostname() != "127.0.0.1" || redirect.Path != "/callback" ||
		q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("state") == "" {
		http.Error(w, "bad request: "+q.Encode(), http.StatusBadRequest)
		return
	}
	code := rand.Text()
	i.codes[code] = q
	answer := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {i.url}}
	switch q.Get("client_id") {
	case "refused":
		answer = url.Values{"error": {"access_denied"}, "error_description": {"go \x1b[31maway"}, "state": {q.Get("state")}, "iss": {i.url}}
	case "mixed":
		answer.Set("iss", "https://evil.example")
	case "nameless":
		answer.Del("iss")
	case "silent":
		http.Error(w, "the redirect URI is not registered", http.StatusBadRequest)
		return
	}
	redirect.RawQuery = answer.Encode()
	w.Header().Set("Location", redirect.String())
	w.WriteHeader(http.StatusFound)
}

func (i *peopleIssuer) deviceCode(w http.ResponseWriter, r *http.Request) {
	if r.Form.Get("scope") == "" || r.Form.Get("client_secret") != "" {
		fail(w, "invalid_request", "")
		return
	}
	switch r.Form.Get("client_id") {
	case "null":
		fmt.Fprint(w, "null")
		return
	case "huge":
		flood(w)
		return
	case "undevice":
		fail(w, "unauthorized_client", "")
		return
	case "escape":
		fmt.Fprintf(w, `{"device_code": "d", "user_code": "\u001b[2J", "verification_uri": %q}`, i.url)
		return
	}
	code := r.Form.Get("client_id") + "." + rand.Text()
	i.devices[code] = &device{challenge: r.Form.Get("code_challenge")}
	fmt.Fprintf(w, `{"device_code": %q, "user_code": "ABCD-EFGH", "verification_uri": %q, "verification_uri_complete": %q, "expires_in": 600, "interval": 1}`,
		code, i.url+"/enter", i.url+"/enter?user_code=ABCD-EFGH")
}

// flood answers until the client has had enough.
func flood(w io.Writer) {
	for piece := []byte(strings.Repeat(" ", 64<<10)); ; {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

func (i *peopleIssuer) token(w http.ResponseWriter, r *http.Request) {
	f := r.Form
	client := f.Get("client_id")
	switch grant(f.Get("grant_type")) {
	case authorizationCode:
		asked, ok := i.codes[f.Get("code")]
		delete(i.codes, f.Get("code")) // once
		if !ok || asked.Get("client_id") != client || asked.Get("redirect_uri") != f.Get("redirect_uri") ||
			asked.Get("code_challenge") != oauth2.S256ChallengeFromVerifier(f.Get("code_verifier")) || asked.Get("resource") != f.Get("resource") {
			fail(w, "invalid_grant", "")
			return
		}
		f.Set("scope", asked.Get("scope"))
	case deviceCode:
		d, ok := i.devices[f.Get("device_code")]
		if !ok || !strings.HasPrefix(f.Get("device_code"), client+".") || d.challenge != oauth2.S256ChallengeFromVerifier(f.Get("code_verifier")) {
			fail(w, "invalid_grant", "")
			return
		}
		d.tries++
		switch {
		case d.tries == 1 && client == "terminal":
			fail(w, "authorization_pending", "")
			return
		case client == "denied":
			fail(w, "access_denied", f.Get("device_code"))
			return
		case client == "late":
			fail(w, "expired_token", "")
			return
		}
		delete(i.devices, f.Get("device_code"))
	case refreshToken:
		if token := f.Get("refresh_token"); !i.refresh[token] {
			clear(i.refresh) // a token that was used before is stolen (RFC 9700, section 4.14)
			fail(w, "invalid_grant", token)
			return
		} else if delete(i.refresh, token); client == "down" {
			fail(w, "server_error", token)
			return
		}
	default:
		fail(w, "unsupported_grant_type", "")
		return
	}
	switch client {
	case "huge":
		flood(w)
		return
	case "stolen":
		fail(w, "invalid_grant", f.Get("code")+" "+f.Get("code_verifier"))
		return
	case "garbage":
		fmt.Fprint(w, `<html>secret.in.page`)
		return
	}
	i.issued++
	token := map[string]any{"access_token": fmt.Sprintf("%s.%d.%s", client, i.issued, strings.ReplaceAll(f.Get("scope"), " ", "+")), "token_type": "Bearer", "expires_in": 300}
	if client == "short" || client == "down" || client == "once" {
		token["expires_in"] = -1 // so that nobody need wait for the end
	}
	if client != "once" {
		next := "refresh-" + rand.Text()
		i.refresh[next] = true
		token["refresh_token"] = next
	}
	if client == "before" { // the person has a session at the issuer since an hour ago
		claims := fmt.Sprintf(`{"auth_time":%d}`, time.Now().Add(-time.Hour).Unix())
		token["id_token"] = "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AA"
	}
	_ = json.NewEncoder(w).Encode(token)
}

// openAsPerson is the browser of the scripts: it follows the page to the answer on loopback, and
// leaves in seen.txt what it was opened with, its last page and its fields.
func openAsPerson(page string) int {
	ca, err := os.ReadFile(os.Getenv("PERSON_CA"))
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		return 1
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	get := func(page string) (string, *http.Response) {
		r, err := client.Get(page)
		if err != nil {
			return err.Error(), nil
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return fmt.Sprintf("%d %s", r.StatusCode, text), r
	}
	seen, r := get(page)
	lines := []string{"opened " + page, seen}
	if r != nil {
		for name, values := range r.Header {
			lines = append(lines, name+": "+strings.Join(values, ", "))
		}
	}
	slices.Sort(lines[2:])
	if os.WriteFile("seen.new", []byte(strings.Join(lines, "\n")+"\n"), 0o600) != nil || os.Rename("seen.new", "seen.txt") != nil {
		return 1
	}
	return 0
}

// seen waits for what the browser of the script has seen, which may end after sallyport, and prints it.
func seen(ts *testscript.TestScript, _ bool, _ []string) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs("seen.txt"))
		if err == nil {
			_, _ = ts.Stdout().Write(text)
			ts.Check(os.Remove(ts.MkAbs("seen.txt")))
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("the browser was not opened: %v", err)
		}
	}
}

// endSessions makes the issuer forget all refresh tokens.
func endSessions(ts *testscript.TestScript, _ bool, _ []string) {
	ca, err := os.ReadFile(ts.MkAbs("ca.pem"))
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	r, err := client.Get(ts.Getenv("ISSUER") + "/end-sessions")
	ts.Check(err)
	ts.Check(r.Body.Close())
}

func TestBrowserIsOpenedAtATerminalOrWhenAsked(t *testing.T) {
	device, err := os.Open(os.DevNull) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, c := range []struct {
		stdout              io.Writer
		given, browser, may bool
	}{
		{&strings.Builder{}, false, false, false},
		{&strings.Builder{}, true, true, true},
		{device, false, false, true},
		{device, true, false, false},
	} {
		command := &tokenCommand{browser: c.browser, given: func(flag string) bool { return c.given && flag == "browser" }}
		if got := command.mayOpen(c.stdout); got != c.may {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
