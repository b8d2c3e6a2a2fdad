package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// tokenRequestSize bounds the body of a token request in bytes. A usual request is far
// smaller.
const tokenRequestSize = 16 << 10

// IssuerConfig configures an [Issuer].
type IssuerConfig struct {
	// URL is the issuer's identifier and the address of its handler. It has no trailing
	// slash.
	URL string
	// Audience is the aud claim of every token.
	Audience string
	// Clients are the clients that may request tokens, by client id.
	Clients map[string]Client
	// Lifetime of a token; five minutes if zero.
	Lifetime time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Client is a client of an [Issuer].
type Client struct {
	Secret string
	// Scopes are the scopes that the client may request. It gets all of them if it
	// requests none.
	Scopes []string
}

// Issuer is a small OpenID issuer for demonstrations and tests: discovery, a key
// set, and a token endpoint for the client credentials grant (RFC 6749, section
// 4.4) that issues JWT access tokens (RFC 9068), signed with an ES256 key of its
// own. It stores no tokens, so they cannot be revoked.
//
// It is an [http.Handler], safe for concurrent use.
type Issuer struct {
	config  IssuerConfig
	key     *ecdsa.PrivateKey
	kid     string
	keySet  []byte
	handler http.Handler
}

// NewIssuer returns an issuer with a new key. It opens no listener.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	base, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("reading the issuer's URL: %w", err)
	}
	if c.Lifetime == 0 {
		c.Lifetime = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's key: %w", err)
	}
	i := &Issuer{config: c, key: key}
	if err := i.publish(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+base.Path+"/.well-known/openid-configuration", i.serveDiscovery)
	mux.HandleFunc("GET "+base.Path+"/jwks", i.serveKeySet)
	mux.HandleFunc("POST "+base.Path+"/token", i.serveToken)
	i.handler = mux
	return i, nil
}

// publish prepares the key set, with the key's thumbprint (RFC 7638) as its id.
func (i *Issuer) publish() error {
	point, err := i.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return fmt.Errorf("encoding the issuer's key: %w", err)
	}
	x, y := encode(point[1:33]), encode(point[33:])
	thumbprint := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, x, y))
	i.kid = encode(thumbprint[:])
	i.keySet, err = json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "x": x, "y": y,
		"kid": i.kid, "use": "sig", "alg": "ES256",
	}}})
	return err
}

// TokenURL returns the URL of the token endpoint.
func (i *Issuer) TokenURL() string { return i.config.URL + "/token" }

// Claims returns the claims of a token that the endpoint would issue to a client now. The
// caller owns the map.
func (i *Issuer) Claims(client string, scopes ...string) map[string]any {
	now := i.config.Now()
	return map[string]any{
		"iss":       i.config.URL,
		"sub":       client,
		"aud":       i.config.Audience,
		"client_id": client,
		"scope":     strings.Join(scopes, " "),
		"iat":       now.Unix(),
		"exp":       now.Add(i.config.Lifetime).Unix(),
		"jti":       rand.Text(),
	}
}

// Sign returns an access token with these claims. Tests use it for tokens that the
// endpoint would never issue.
func (i *Issuer) Sign(claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]string{"typ": "at+jwt", "alg": "ES256", "kid": i.kid})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encoding claims: %w", err)
	}
	token := encode(header) + "." + encode(payload)
	digest := sha256.Sum256([]byte(token))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	signature := make([]byte, 64) // RFC 7518, section 3.4: r and s, 32 bytes each
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return token + "." + encode(signature), nil
}

// ServeHTTP implements [http.Handler].
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { i.handler.ServeHTTP(w, r) }

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                i.config.URL,
		"jwks_uri":                              i.config.URL + "/jwks",
		"token_endpoint":                        i.TokenURL(),
		"grant_types_supported":                 []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
		"response_types_supported":              []string{},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	})
}

func (i *Issuer) serveKeySet(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Write(i.keySet)
}

// oauthError is an error answer of RFC 6749, section 5.2.
type oauthError struct {
	status      int
	code        string
	description string
	basic       bool // the client tried HTTP Basic, so the answer names it
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	id, scopes, fault := i.readTokenRequest(w, r)
	if fault != nil {
		if fault.basic {
			w.Header().Set("WWW-Authenticate", `Basic realm="token", charset="UTF-8"`)
		}
		writeJSON(w, fault.status, map[string]string{"error": fault.code, "error_description": fault.description})
		return
	}
	token, err := i.Sign(i.Claims(id, scopes...))
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token,
		"token_type":   "Bearer",
		"expires_in":   int64(i.config.Lifetime / time.Second),
		"scope":        strings.Join(scopes, " "),
	})
}

// readTokenRequest authenticates the client and returns the requested scopes.
func (i *Issuer) readTokenRequest(w http.ResponseWriter, r *http.Request) (id string, scopes []string, fault *oauthError) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", nil, invalidRequest("the request must be a form")
	}
	r.Body = http.MaxBytesReader(w, r.Body, tokenRequestSize)
	if err := r.ParseForm(); err != nil {
		return "", nil, invalidRequest("the form cannot be read")
	}
	for _, values := range r.PostForm {
		if len(values) > 1 { // RFC 6749, section 3.2
			return "", nil, invalidRequest("a parameter is repeated")
		}
	}
	id, client, fault := i.authenticate(r)
	if fault != nil {
		return "", nil, fault
	}
	switch r.PostForm.Get("grant_type") {
	case "client_credentials":
	case "":
		return "", nil, invalidRequest("grant_type is missing")
	default:
		return "", nil, &oauthError{status: 400, code: "unsupported_grant_type", description: "only client_credentials is served"}
	}
	scopes = strings.Fields(r.PostForm.Get("scope"))
	if len(scopes) == 0 {
		return id, client.Scopes, nil
	}
	for _, scope := range scopes {
		if !slices.Contains(client.Scopes, scope) {
			return "", nil, &oauthError{status: 400, code: "invalid_scope", description: "the client may not ask for this scope"}
		}
	}
	return id, scopes, nil
}

// authenticate finds the client by HTTP Basic or by the form's parameters, and
// refuses both at once (RFC 6749, section 2.3).
func (i *Issuer) authenticate(r *http.Request) (id string, client Client, fault *oauthError) {
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	byBasic := r.Header.Get("Authorization") != ""
	if byBasic {
		if secret != "" {
			return "", Client{}, invalidRequest("two ways of client authentication at once")
		}
		user, password, ok := r.BasicAuth()
		name, errName := url.QueryUnescape(user) // RFC 6749, section 2.3.1: form encoding comes first
		value, errValue := url.QueryUnescape(password)
		if !ok || errName != nil || errValue != nil || id != "" && id != name {
			return "", Client{}, invalidClient(byBasic)
		}
		id, secret = name, value
	}
	client, known := i.config.Clients[id]
	if !known || client.Secret == "" || !hmac.Equal([]byte(client.Secret), []byte(secret)) {
		return "", Client{}, invalidClient(byBasic)
	}
	return id, client, nil
}

func invalidRequest(description string) *oauthError {
	return &oauthError{status: http.StatusBadRequest, code: "invalid_request", description: description}
}

func invalidClient(basic bool) *oauthError {
	return &oauthError{
		status: http.StatusUnauthorized, code: "invalid_client",
		description: "unknown client or wrong secret", basic: basic,
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
