package credential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
	"sallyport/proxy/upstream"
)

const secret = "the-client's secret"

// client returns a configuration for an authorization server.
func client(t *testing.T, handler http.HandlerFunc) *upstream.OAuth2Config {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	return &upstream.OAuth2Config{TokenURL: urlOf(t, srv.URL+"/token"), ClientID: "gateway", ClientSecret: setting.Literal([]byte(secret)), Scopes: []string{"a", "b"}, Audience: "models"}
}

func urlOf(t *testing.T, text string) setting.URL {
	t.Helper()
	u, err := setting.ParseURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func fetched(t *testing.T, c *upstream.OAuth2Config) (string, time.Duration, error) {
	t.Helper()
	fetch, err := newFetcher(c)
	if err != nil {
		t.Fatal(err)
	}
	return fetch(t.Context())
}

func TestTokenRequestIsAsConfigured(t *testing.T) {
	for _, style := range []string{"", upstream.SecretBasic, upstream.SecretPost} {
		var asked url.Values
		var user, password string
		c := client(t, func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			asked = r.PostForm
			user, password, _ = r.BasicAuth()
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token": "t1", "token_type": "bearer", "expires_in": 600}`)
		})
		c.AuthStyle = style
		value, life, err := fetched(t, c)
		if err != nil || value != "Bearer t1" || life < 9*time.Minute || life > 10*time.Minute {
			t.Errorf("%q: got %q, %v, %v", style, value, life, err)
		}
		if asked.Get("grant_type") != "client_credentials" || asked.Get("scope") != "a b" || asked.Get("audience") != "models" {
			t.Errorf("%q: asked %v", style, asked)
		}
		if style == upstream.SecretPost {
			user, password = asked.Get("client_id"), asked.Get("client_secret")
		} else {
			password, _ = url.QueryUnescape(password)
		}
		if user != "gateway" || password != secret {
			t.Errorf("%q: asked as %q with %q", style, user, password)
		}
	}
}

// Bad answers are errors in few words, without what the server wrote and without the secret.
func TestBadAnswersOfTokenEndpoints(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"an error":            {says(401, `{"error": "invalid_client", "error_description": "`+secret+`"}`), "the token endpoint answered 401 invalid_client"},
		"an error of its own": {says(400, `{"error": "`+secret+`"}`), "the token endpoint answered 400"},
		"a page":              {says(200, "<html>"+secret), "the token endpoint's answer holds no bearer token"},
		"a page as an error":  {says(502, "<html>"+secret), "the token endpoint answered 502"},
		"no token":            {says(200, `{"token_type": "Bearer"}`), "the token endpoint's answer holds no bearer token"},
		"another type":        {says(200, `{"access_token": "t", "token_type": "mac"}`), "the token endpoint's answer holds no bearer token"},
		"a bad token":         {says(200, `{"access_token": "t\r\nX-Evil: 1"}`), "the token endpoint's answer holds no bearer token"},
		"a long token":        {says(200, `{"access_token": "`+strings.Repeat("t", 20_000)+`"}`), "the token endpoint's answer holds no bearer token"},
		"a redirect":          {func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(307) }, "the token endpoint answered 307"},
		"endless": {func(w http.ResponseWriter) {
			_, _ = io.Copy(w, io.LimitReader(endless{}, 1<<30))
		}, "too large"},
	} {
		_, _, err := fetched(t, client(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/token" {
				t.Errorf("%s: asked for %s", name, r.URL)
			}
			c.answer(w)
		}))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v; want %s", name, err, c.want)
		}
		if cure := Cure(err); strings.Contains(cure, secret) || strings.HasPrefix(c.want, "the token endpoint answered") && cure == "" {
			t.Errorf("%s: the cure is %q", name, cure)
		}
	}
	gone := &upstream.OAuth2Config{TokenURL: urlOf(t, "http://127.0.0.1:1/token"), ClientID: "gateway", ClientSecret: setting.Literal([]byte(secret))}
	if _, _, err := fetched(t, gone); err == nil || err.Error() != "unreachable: connection refused" {
		t.Errorf("an endpoint that is gone: %v", err)
	}
	if err := Try(t.Context(), gone); err == nil || Cure(err) != "is the issuer running, and may this machine reach it?" {
		t.Errorf("trying an endpoint that is gone: %v, cured by %q", err, Cure(err))
	}
}

func says(status int, text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestTokenEndpointIsDiscovered(t *testing.T) {
	self := ""
	named := &self
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/realm/.well-known/openid-configuration":
			_, _ = fmt.Fprintf(w, `{"issuer": %q, "token_endpoint": "http://%s/realm/token"}`, *named, r.Host)
		case "/realm/token":
			says(200, `{"access_token": "t1"}`)(w)
		}
	})
	self = strings.TrimSuffix(c.TokenURL.String(), "/token") + "/realm"
	c.Issuer, c.TokenURL = urlOf(t, self), setting.URL{}
	if value, life, err := fetched(t, c); value != "Bearer t1" || life != assumedLife || err != nil {
		t.Errorf("got %q, %v, %v", value, life, err)
	}
	other := "https://other.example"
	named = &other
	if _, _, err := fetched(t, c); err == nil || !strings.Contains(err.Error(), "another issuer") {
		t.Errorf("a document of another issuer: %v", err)
	}
}

// A configuration that is not in use fetches nothing. Users of equal ones share the token, and one
// with a new secret begins with the token of the old.
func TestMemorySharesTokens(t *testing.T) {
	fetches := make(chan string, 10)
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		fetches <- password
		says(200, `{"access_token": "t-`+fmt.Sprint(len(password))+`", "expires_in": 3600}`)(w)
	})
	m := NewMemory(MemoryOptions{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	open := func(c *upstream.OAuth2Config) *Credential {
		t.Helper()
		x, err := Open("tf", &upstream.CredentialsConfig{OAuth2: c}, nil, m)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	first, second := open(c), open(c)
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := first.Ready(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("not active: %v", err)
	}
	first.Activate()
	second.Activate()
	for _, x := range []*Credential{first, second} {
		if err := x.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := x.Attempt(nil)(nil); err != nil || len(got) != 1 || !strings.HasPrefix(got[0].Value, "Bearer t-") {
			t.Errorf("got %v, %v", got, err)
		}
	}
	if len(fetches) != 1 {
		t.Errorf("%d fetches", len(fetches))
	}
	rotated := *c
	rotated.ClientSecret = setting.Literal([]byte("another"))
	third := open(&rotated)
	if err := third.Ready(gone); err != nil {
		t.Errorf("with a new secret: %v", err)
	}
	third.Close()
	first.Close()
	if err := second.Ready(gone); err != nil {
		t.Errorf("after the other user has left: %v", err)
	}
	if err := second.Accepted(&message.Response{Status: 401}); err == nil {
		t.Error("401 is taken")
	}
	second.Close()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(m.sources) != 0 {
		t.Errorf("%d sources are left", len(m.sources))
	}
}
