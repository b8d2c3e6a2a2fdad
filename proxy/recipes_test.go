package proxy_test

import (
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/auth/authtest"
	"sallyport/auth/login"
	"sallyport/proxy"
)

// product is a double of an OpenID provider: it answers as the provider's documents say.
type product struct {
	document string                                // of discovery; AT is where the double is, and OTHER the same under another name
	claims   map[string]any                        // of the ID token, besides those of the protocol
	audience any                                   // aud of the ID token; nil: the client
	lacks    []string                              // claims that authtest has and the product does not
	iss      string                                // of the ID token, if it is not that of the document
	userinfo map[string]any                        // nil: nobody asks for it
	first    map[string]any                        // changes of the answer with tokens; nil values are removed
	later    map[string]any                        // of the answer to a refresh
	afresh   map[string]any                        // changes of the ID token of a refresh
	other    func(claims, userinfo map[string]any) // makes them somebody's without the right

	caller string            // who signs in
	groups []string          // and is in these groups
	asked  map[string]string // of the authorization request
	leaves bool              // it has a page for sign-out
	leave  map[string]string // parameters of the request for it; "*": any
	same   bool              // its refresh token stays the same

	factor func(asked url.Values) map[string]any // further claims of the ID token, by the authorization request
	strong map[string]string                     // parameters of that request for the recipe's page with step_up; nil: it has none
	acr    []string                              // what the session says then
}

// TestRecipesOfLogins signs in with each configuration of deploy/LOGINS.md, at a double of the product.
func TestRecipesOfLogins(t *testing.T) {
	blocks := recipes(t)
	all := products()
	for name := range blocks {
		if _, ok := all[name]; !ok {
			t.Errorf("deploy/LOGINS.md has a recipe for %s, and no double is here", name)
		}
	}
	for name, p := range all {
		t.Run(name, func(t *testing.T) {
			if blocks[name] == "" {
				t.Fatal("deploy/LOGINS.md has no such recipe")
			}
			clock := &shiftedClock{}
			r := openRecipe(t, blocks[name], p, clock)
			r.signsIn()
			r.stepsUp()
			r.refreshes(clock)
			r.staysStrong()
			r.signsOut()
			r.refusesOthers()
			r.refusesWeak(products()[name])
		})
	}
}

// recipes returns the YAML blocks of deploy/LOGINS.md by heading. Each must be a whole configuration.
func recipes(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "LOGINS.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		name, _, _ := strings.Cut(section, "\n")
		for _, block := range yamlBlocks(section) {
			if blocks[name] != "" {
				t.Fatalf("%s has two configurations", name)
			}
			blocks[name] = block
		}
	}
	return blocks
}

// TestEveryOptionOfOAuth2ProxyHasARow compares deploy/OAUTH2-PROXY.md with the options that
// oauth2-proxy --help lists.
func TestEveryOptionOfOAuth2ProxyHasARow(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy", "OAUTH2-PROXY.md"))
	if err != nil {
		t.Fatal(err)
	}
	options, err := os.ReadFile(filepath.Join("testdata", "oauth2-proxy-7.15.6.txt"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 2 || !strings.HasPrefix(line, "| `--") {
			continue
		}
		for _, option := range regexp.MustCompile("--[a-z0-9-]+").FindAllString(cells[0], -1) {
			rows[option]++
		}
	}
	for _, option := range strings.Fields(string(options)) {
		if rows[option] != 1 {
			t.Errorf("%s has %d rows", option, rows[option])
		}
		delete(rows, option)
	}
	for option := range rows {
		t.Errorf("oauth2-proxy has no %s", option)
	}
}

// recipe is a house with the configuration of a recipe.
type recipe struct {
	*lobby
	product *product
	url     string // of the issuer, in the configuration
	origin  string // of the gateway's host
	b       *browser
	refresh string     // what authtest has as refresh token for oneToken
	asked   url.Values // the last authorization request
}

var (
	recipeURL    = regexp.MustCompile(`(?m)^    url: (\S+)`)
	recipeClient = regexp.MustCompile(`(?m)^    client_id: "?([^"\s]+)`)
)

func openRecipe(t *testing.T, block string, p *product, clock *shiftedClock) *recipe {
	t.Helper()
	h := &house{t: t, audit: &lines{}, model: newModelServer(t, nil), options: proxy.Options{Now: clock.now}}
	r := &recipe{lobby: &lobby{house: h}, product: p, url: recipeURL.FindStringSubmatch(block)[1], origin: "https://mlflow.example.com"}
	client := recipeClient.FindStringSubmatch(block)[1]
	s := httptest.NewServer(http.HandlerFunc(r.answer))
	t.Cleanup(s.Close)
	var err error
	if h.issuer, err = authtest.NewIssuer(authtest.IssuerConfig{URL: s.URL, Audience: client, Lifetime: time.Hour, Now: clock.now}); err != nil {
		t.Fatal(err)
	}
	r.provider = h.issuer.Provide(client, "s3cret-of-the-client")
	r.person()

	dir := t.TempDir()
	h.file = filepath.Join(dir, "gateway.yaml")
	block = recipeURL.ReplaceAllString(block, "$0\n    discovery: "+s.URL)
	block = strings.ReplaceAll(block, "http://127.0.0.1:5000", h.model.URL)
	block = strings.Replace(block, "tls: {local: {}}", fmt.Sprintf("listen: {https: '127.0.0.1:0', http: off, health: '127.0.0.1:0'}\ntls: {local: {dir: %q}}", filepath.Join(dir, "ca")), 1)
	for name, text := range map[string]string{"gateway.yaml": block, "login-secret": "s3cret-of-the-client", "session-keys": login.NewKey() + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.restart()
	r.b = r.browser(true)
	return r
}

const oneToken = "the-refresh-token"

// person makes the provider's answers those of the product.
func (r *recipe) person() {
	p := r.product
	sub, _ := p.claims["sub"].(string)
	r.provider.Person(sub, p.claims)
	r.provider.Authenticate(func(asked url.Values, claims map[string]any) {
		r.asked = asked
		if p.factor != nil {
			maps.Copy(claims, p.factor(asked))
		}
	})
	r.provider.Change(func(claims map[string]any) {
		claims["iss"] = r.url
		if p.iss != "" {
			claims["iss"] = p.iss
		}
		if p.audience != nil {
			claims["aud"] = p.audience
		}
		for _, name := range p.lacks {
			delete(claims, name)
		}
		if r.provider.Refreshes() > 0 {
			maps.Copy(claims, p.afresh)
		}
	}, func(answer map[string]any) {
		change := p.first
		if r.provider.Refreshes() > 0 {
			change = p.later
		}
		if p.same {
			r.refresh, _ = answer["refresh_token"].(string)
			answer["refresh_token"] = oneToken
		}
		maps.Copy(answer, change)
		maps.DeleteFunc(answer, func(_ string, v any) bool { return v == nil })
	})
}

// answer answers as the product.
func (r *recipe) answer(w http.ResponseWriter, q *http.Request) {
	switch {
	case strings.HasSuffix(q.URL.Path, "/.well-known/openid-configuration"):
		w.Header().Set("Content-Type", "application/json")
		at := "http://" + q.Host
		fmt.Fprint(w, strings.NewReplacer("AT", at, "OTHER", strings.Replace(at, "127.0.0.1", "localhost", 1)).Replace(r.product.document))
	case strings.HasSuffix(q.URL.Path, "/userinfo"):
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.product.userinfo)
	case strings.HasSuffix(q.URL.Path, "/token") && q.FormValue("refresh_token") == oneToken:
		q.Form.Set("refresh_token", r.refresh)
		r.issuer.ServeHTTP(w, q)
	case strings.HasSuffix(q.URL.Path, "/authorize"):
		to := httptest.NewRecorder()
		r.issuer.ServeHTTP(to, q)
		back, err := url.Parse(to.Header().Get("Location"))
		if err != nil || to.Code != http.StatusFound {
			w.WriteHeader(to.Code)
			return
		}
		query := back.Query()
		query.Del("iss")
		if strings.Contains(r.product.document, `"authorization_response_iss_parameter_supported":true`) {
			query.Set("iss", r.url)
		}
		back.RawQuery = query.Encode()
		http.Redirect(w, q, back.String(), http.StatusFound)
	default:
		r.issuer.ServeHTTP(w, q)
	}
}

// signedIn is what the session page says.
type signedIn struct {
	Principal string
	Groups    []string
	ACR       []string
}

// session returns the answer of the session page.
func (r *recipe) session() (s signedIn, status int) {
	r.t.Helper()
	a := r.b.request("GET", r.origin+login.SessionPath, "", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"})
	if a.StatusCode == http.StatusOK {
		if err := json.Unmarshal([]byte(a.body), &s); err != nil {
			r.t.Fatal(err)
		}
	}
	return s, a.StatusCode
}

func (r *recipe) signsIn() {
	r.t.Helper()
	begin := r.b.request("GET", r.origin+login.SignInPath, "", nil)
	to, err := url.Parse(begin.Header.Get("Location"))
	if err != nil || begin.StatusCode != http.StatusSeeOther {
		r.t.Fatalf("sign-in: %d %s", begin.StatusCode, begin.body)
	}
	asked := to.Query()
	for name, want := range r.product.asked {
		if got := asked.Get(name); got != want {
			r.t.Errorf("the provider is asked with %s=%q, want %q", name, got, want)
		}
	}
	if a := r.b.visit(r.origin + "/"); a.StatusCode != http.StatusOK {
		_ = r.stop()
		r.t.Fatalf("after sign-in: %d %s\n%s", a.StatusCode, a.body, r.audit.buf.String())
	}
	if seen, _ := r.model.seen(); seen.Header.Get("X-Sallyport-Principal") != r.product.caller {
		r.t.Errorf("the server learned of %q, want %q", seen.Header.Get("X-Sallyport-Principal"), r.product.caller)
	}
	if s, status := r.session(); status != 200 || s.Principal != r.product.caller || !slices.Equal(s.Groups, r.product.groups) {
		r.t.Errorf("the session is %d %s %q, want %s %q", status, s.Principal, s.Groups, r.product.caller, r.product.groups)
	}
}

// refreshes lets the access token come to its end, twice.
func (r *recipe) refreshes(clock *shiftedClock) {
	r.t.Helper()
	for n := int64(1); n <= 2; n++ {
		clock.ahead.Add(int64(50 * time.Minute))
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			if a := r.b.request("GET", r.origin+"/", "", nil); a.StatusCode != http.StatusOK { // asking for the session does not count as use
				r.t.Fatalf("before refresh %d: %d %s", n, a.StatusCode, a.body)
			}
			s, status := r.session()
			if status != 200 || s.Principal != r.product.caller || !slices.Equal(s.Groups, r.product.groups) {
				r.t.Fatalf("at refresh %d the session is %d %s %q", n, status, s.Principal, s.Groups)
			}
			if r.provider.Refreshes() == n {
				break
			}
			if time.Now().After(end) {
				r.t.Fatalf("%d refreshes, want %d", r.provider.Refreshes(), n)
			}
		}
		if a := r.b.request("GET", r.origin+"/", "", nil); a.StatusCode != http.StatusOK {
			r.t.Errorf("after refresh %d: %d %s", n, a.StatusCode, a.body)
		}
	}
}

func (r *recipe) signsOut() {
	r.t.Helper()
	at, _ := url.Parse(r.origin + "/")
	cookies := r.b.jar.Cookies(at)
	a := r.b.request("POST", r.origin+login.SignOutPath, "", map[string]string{"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Accept": "text/html"})
	next := regexp.MustCompile(`href="(/.sallyport/leave[^"]*)"`).FindStringSubmatch(a.body)
	done := a.StatusCode == http.StatusSeeOther && a.Header.Get("Location") == login.SignedOutPath || next != nil
	if !done || (next != nil) != r.product.leaves {
		r.t.Fatalf("signing out: %d %s", a.StatusCode, a.body)
	}
	if next != nil {
		to, err := url.Parse(r.b.request("GET", r.origin+html.UnescapeString(next[1]), "", nil).Header.Get("Location"))
		if err != nil {
			r.t.Fatal(err)
		}
		for name, want := range r.product.leave {
			if got := to.Query().Get(name); got != want && (want != "*" || got == "") {
				r.t.Errorf("sign-out has %s=%q, want %q", name, got, want)
			}
		}
	}
	hits := r.model.hits.Load()
	r.b.jar.SetCookies(at, cookies)
	if _, status := r.session(); status != 401 {
		r.t.Errorf("the cookies of before sign-out: %d", status)
	}
	if n := r.model.hits.Load(); n != hits {
		r.t.Error("a session that ended reached the server")
	}
}

// stepsUp opens the page that demands more than the login.
func (r *recipe) stepsUp() {
	r.t.Helper()
	p := r.product
	if p.strong == nil {
		return
	}
	if a := r.b.visit(r.origin + "/admin"); a.StatusCode != http.StatusOK {
		_ = r.stop()
		r.t.Fatalf("the page with step_up: %d %s\n%s", a.StatusCode, a.body, r.audit.buf.String())
	}
	for _, name := range []string{"acr_values", "claims"} {
		if got := r.asked.Get(name); got != p.strong[name] {
			r.t.Errorf("for step_up the provider is asked with %s=%q, want %q", name, got, p.strong[name])
		}
	}
	if s, status := r.session(); status != 200 || !slices.Equal(s.ACR, p.acr) {
		r.t.Errorf("the session is %d with acr %q, want %q", status, s.ACR, p.acr)
	}
}

// staysStrong opens that page after refreshes, whatever their ID tokens say: nobody is asked again.
func (r *recipe) staysStrong() {
	r.t.Helper()
	if r.product.strong == nil {
		return
	}
	exchanges := r.provider.Exchanges()
	if a := r.b.visit(r.origin + "/admin"); a.StatusCode != http.StatusOK || r.provider.Exchanges() != exchanges {
		r.t.Errorf("the page with step_up after refreshes: %d, and %d sign-ins more", a.StatusCode, r.provider.Exchanges()-exchanges)
	}
}

// refusesWeak lets the provider ignore what it is asked for. People who may see the page otherwise are refused
// once, and not sent to and fro.
func (r *recipe) refusesWeak(p *product) {
	r.t.Helper()
	if p.strong == nil {
		return
	}
	r.product = p
	factor := p.factor
	p.factor = func(url.Values) map[string]any { return factor(url.Values{}) }
	r.person()
	r.b = r.browser(false)
	if a := r.b.visit(r.origin + "/"); a.StatusCode != http.StatusOK {
		r.t.Errorf("without the factor: %d %s", a.StatusCode, a.body)
	}
	hits, exchanges := r.model.hits.Load(), r.provider.Exchanges()
	if a := r.b.visit(r.origin + "/admin"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, login.WeakerThanAsked) {
		r.t.Errorf("the page with step_up, without the factor: %d %s", a.StatusCode, a.body)
	}
	if n, m := r.model.hits.Load()-hits, r.provider.Exchanges()-exchanges; n != 0 || m != 1 {
		r.t.Errorf("the server saw %d requests without the factor, and there were %d sign-ins, want 1", n, m)
	}
}

// refusesOthers lets somebody sign in whom the recipe does not mean.
func (r *recipe) refusesOthers() {
	r.t.Helper()
	p := r.product
	p.other(p.claims, p.userinfo)
	r.person()
	r.b = r.browser(false)
	hits := r.model.hits.Load()
	if a := r.b.visit(r.origin + "/"); a.StatusCode != http.StatusForbidden {
		r.t.Errorf("somebody else gets %d %s", a.StatusCode, a.body)
	}
	if n := r.model.hits.Load(); n != hits {
		r.t.Errorf("the server saw %d requests of somebody else", n-hits)
	}
}
