package demo_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"sallyport/cmd/sallyport/demo"
)

// startIssuer runs an issuer whose URL has a path, as with large providers.
func startIssuer(t *testing.T) *demo.Issuer {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	issuer, err := demo.NewIssuer(demo.IssuerConfig{
		URL:      "http://" + server.Listener.Addr().String() + "/realms/ml",
		Audience: "models",
		Clients: map[string]demo.Client{
			"svc-batch":   {Secret: "s3cret", Scopes: []string{"models.predict", "models.status"}},
			"odd:name é%": {Secret: "p+ss w:rd/é%41", Scopes: []string{"models.predict"}},
			"no-secret":   {},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = issuer
	server.Start()
	t.Cleanup(server.Close)
	return issuer
}

// TestIssuerTokens requests tokens like an OAuth2 client, and verifies them like a
// resource server, with discovery.
func TestIssuerTokens(t *testing.T) {
	issuer := startIssuer(t)
	base := strings.TrimSuffix(issuer.TokenURL(), "/token")
	provider, err := oidc.NewProvider(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "models"})
	for _, c := range []struct {
		name, id, secret string
		style            oauth2.AuthStyle
		scopes           []string
		want             string
	}{
		{"basic, all scopes", "svc-batch", "s3cret", oauth2.AuthStyleInHeader, nil, "models.predict models.status"},
		{"form, one scope", "svc-batch", "s3cret", oauth2.AuthStyleInParams, []string{"models.status"}, "models.status"},
		{"basic, characters that must be encoded", "odd:name é%", "p+ss w:rd/é%41", oauth2.AuthStyleInHeader, nil, "models.predict"},
		{"form, characters that must be encoded", "odd:name é%", "p+ss w:rd/é%41", oauth2.AuthStyleInParams, nil, "models.predict"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := clientcredentials.Config{
				ClientID: c.id, ClientSecret: c.secret, Scopes: c.scopes,
				TokenURL: provider.Endpoint().TokenURL, AuthStyle: c.style,
			}
			token, err := config.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(token.Expiry); left <= 4*time.Minute || left > 5*time.Minute {
				t.Errorf("token expires in %v, want five minutes", left)
			}
			verified, err := verifier.Verify(t.Context(), token.AccessToken)
			if err != nil {
				t.Fatalf("the token does not verify: %v", err)
			}
			var claims struct {
				Sub, Scope, Jti string
				ClientID        string `json:"client_id"`
				Iat             int64
			}
			if err := verified.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			if claims.Sub != c.id || claims.ClientID != c.id || claims.Scope != c.want || claims.Jti == "" || claims.Iat == 0 {
				t.Errorf("claims: got %+v, want sub and client_id %q, scope %q", claims, c.id, c.want)
			}
		})
	}
}

// TestIssuersHaveDifferentKeys checks that tokens of one issuer are not valid for another
// one with the same URL.
func TestIssuersHaveDifferentKeys(t *testing.T) {
	issuer := startIssuer(t)
	base := strings.TrimSuffix(issuer.TokenURL(), "/token")
	provider, err := oidc.NewProvider(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	other, err := demo.NewIssuer(demo.IssuerConfig{URL: base, Audience: "models"})
	if err != nil {
		t.Fatal(err)
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: "models"})
	for _, c := range []struct {
		name   string
		signer *demo.Issuer
		holds  bool
	}{{"own key", issuer, true}, {"another key", other, false}} {
		token, err := c.signer.Sign(issuer.Claims("svc-batch", "models.predict"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifier.Verify(t.Context(), token); (err == nil) != c.holds {
			t.Errorf("%s: verified: %v, want %v", c.name, err, c.holds)
		}
	}
}

func TestIssuerRefuses(t *testing.T) {
	issuer := startIssuer(t)
	const form = "application/x-www-form-urlencoded"
	const good = "grant_type=client_credentials&client_id=svc-batch&client_secret=s3cret"
	for _, c := range []struct {
		name, method, kind, basic, body string
		status                          int
		code                            string
		challenge                       bool
	}{
		{"GET", "GET", form, "", "", 405, "", false},
		{"JSON", "POST", "application/json", "", `{"grant_type":"client_credentials"}`, 400, "invalid_request", false},
		{"a broken form", "POST", form, "", "grant_type=%zz", 400, "invalid_request", false},
		{"a form too large", "POST", form, "", good + "&x=" + strings.Repeat("x", 17<<10), 400, "invalid_request", false},
		{"no grant type", "POST", form, "", "client_id=svc-batch&client_secret=s3cret", 400, "invalid_request", false},
		{"a repeated parameter", "POST", form, "", good + "&scope=models.predict&scope=models.status", 400, "invalid_request", false},
		{"another grant", "POST", form, "", "grant_type=password&client_id=svc-batch&client_secret=s3cret", 400, "unsupported_grant_type", false},
		{"another scope", "POST", form, "", good + "&scope=models.admin", 400, "invalid_scope", false},
		{"no client", "POST", form, "", "grant_type=client_credentials", 401, "invalid_client", false},
		{"an unknown client", "POST", form, "", "grant_type=client_credentials&client_id=x&client_secret=s3cret", 401, "invalid_client", false},
		{"the wrong secret", "POST", form, "", "grant_type=client_credentials&client_id=svc-batch&client_secret=x", 401, "invalid_client", false},
		{"a client without a secret", "POST", form, "", "grant_type=client_credentials&client_id=no-secret", 401, "invalid_client", false},
		{"the wrong secret by basic", "POST", form, "svc-batch:x", "grant_type=client_credentials", 401, "invalid_client", true},
		{"another client in the form", "POST", form, "svc-batch:s3cret", "grant_type=client_credentials&client_id=x", 401, "invalid_client", true},
		{"basic and form", "POST", form, "svc-batch:s3cret", good, 400, "invalid_request", false},
		{"credentials in the query", "POST", form, "?" + good, "", 401, "invalid_client", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := issuer.TokenURL()
			if strings.HasPrefix(c.basic, "?") {
				target += c.basic
			}
			r, err := http.NewRequestWithContext(t.Context(), c.method, target, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", c.kind)
			if user, password, ok := strings.Cut(c.basic, ":"); ok {
				r.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(password))
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Error string }
			if c.code != "" {
				if err := json.Unmarshal(body, &got); err != nil {
					t.Fatal(err)
				}
				if answer.Header.Get("Cache-Control") != "no-store" {
					t.Error("the answer may be cached")
				}
			}
			if answer.StatusCode != c.status || got.Error != c.code {
				t.Errorf("got %d %s, want %d %s", answer.StatusCode, got.Error, c.status, c.code)
			}
			if challenge := answer.Header.Get("WWW-Authenticate") != ""; challenge != c.challenge {
				t.Errorf("challenged: %v, want %v", challenge, c.challenge)
			}
		})
	}
}

// TestIssuerClock checks that tokens use the issuer's clock and lifetime.
func TestIssuerClock(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	issuer, err := demo.NewIssuer(demo.IssuerConfig{
		URL: "http://127.0.0.1", Audience: "models", Lifetime: time.Hour, Now: func() time.Time { return at },
	})
	if err != nil {
		t.Fatal(err)
	}
	claims := issuer.Claims("svc-batch", "a", "b")
	if claims["iat"] != at.Unix() || claims["exp"] != at.Add(time.Hour).Unix() || claims["scope"] != "a b" {
		t.Errorf("got %v, want an hour from %v with both scopes", claims, at)
	}
	token, err := issuer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	keys := &oidc.StaticKeySet{}
	verifier := oidc.NewVerifier("http://127.0.0.1", keys, &oidc.Config{
		ClientID: "models", SupportedSigningAlgs: []string{"ES256"}, Now: func() time.Time { return at },
	})
	if _, err := verifier.Verify(context.Background(), token); err == nil {
		t.Error("a token verified without a key")
	}
}
