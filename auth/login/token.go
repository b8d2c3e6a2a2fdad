package login

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/oauth2"

	"sallyport/auth/fetch"
	"sallyport/proxy/setting"
)

// identification is an ID token that was verified.
type identification struct {
	raw, key             string
	claims               []byte
	issuer, subject, sid string
	issued, expires      int64
	authentication       Authentication
}

// keySet is the issuer's key set as go-oidc uses it. It notes the key and the claims.
type keySet struct {
	issuer Issuer
	types  []string
	key    string
	claims []byte
	err    error // go-oidc drops the cause
}

// VerifySignature implements [oidc.KeySet].
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	k.claims, k.key, k.err = k.issuer.Verify(ctx, jwt, k.types...)
	if k.err == nil {
		k.err = checkNames(k.claims)
	}
	return k.claims, k.err
}

// checkNames refuses claims whose names differ in letter case alone from those that go-oidc reads, because it
// would take them for these. [Issuer.Verify] checks the names that every token has.
func checkNames(claims []byte) error {
	var all map[string]jsontext.Value
	if err := json.Unmarshal(claims, &all); err != nil {
		return errors.New("the claims are no JSON object")
	}
	for name := range all {
		for _, known := range [...]string{"nonce", "azp", "sid", "at_hash", "events", "jti"} {
			if name != known && strings.EqualFold(name, known) {
				return errors.New(known + " in another letter case")
			}
		}
	}
	return nil
}

// verifier returns go-oidc's verifier for tokens of a client, over the issuer's keys; "" leaves the audience to
// the caller. The issuer is compared by the caller, because an issuer of tenants has several names.
func (l *Login) verifier(client string, types ...string) (*oidc.IDTokenVerifier, *keySet) {
	keys := &keySet{issuer: l.issuer, types: types}
	return oidc.NewVerifier("", keys, &oidc.Config{
		ClientID: client, SkipClientIDCheck: client == "", SupportedSigningAlgs: l.issuer.Algorithms(), SkipIssuerCheck: true,
		Now: func() time.Time { return l.memory.now().Add(-l.issuer.Skew()) },
	}), keys
}

// tokenError returns the refusal of a token that go-oidc did not take.
func (k *keySet) tokenError(reason string, err error) error {
	switch {
	case errors.Is(k.err, ErrUnavailable):
		return refuse(Unavailable, k.err)
	case k.err != nil:
		err = k.err
	}
	var expired *oidc.TokenExpiredError
	if errors.As(err, &expired) {
		err = Untimely(err)
	}
	return refuse(reason, err)
}

// identify verifies the ID token of an answer. A nonce of "" means that the answer is to a refresh.
func (l *Login) identify(ctx context.Context, t *oauth2.Token, nonce string) (*identification, error) {
	raw, _ := t.Extra("id_token").(string)
	if raw == "" {
		return nil, refuse(BadTokens, errors.New("the answer has no ID token: is openid among the scopes of the client?"))
	}
	verifier, keys := l.verifier(l.config.ClientID, "JWT")
	token, err := verifier.Verify(ctx, raw)
	if err != nil {
		return nil, keys.tokenError(BadTokens, err)
	}
	id := &identification{raw: raw, key: keys.key, claims: keys.claims, issuer: token.Issuer, subject: token.Subject, issued: token.IssuedAt.Unix(), expires: token.Expiry.Unix()}
	var more struct {
		AZP      string  `json:"azp"`
		SID      string  `json:"sid"`
		AuthTime float64 `json:"auth_time"`
	}
	if err := json.Unmarshal(keys.claims, &more); err != nil {
		return nil, refuse(BadTokens, errors.New("azp, sid or auth_time of the ID token has another type"))
	}
	if id.authentication, err = l.issuer.Authentication(keys.claims); err != nil {
		return nil, refuse(BadTokens, err)
	}
	id.sid = more.SID
	refused := ""
	switch {
	case !l.issuer.Issues(token.Issuer):
		refused = "iss of the ID token is " + setting.Quoted(token.Issuer, 128)
	case token.Subject == "":
		refused = "sub of the ID token is absent"
	case nonce != "" && token.Nonce != nonce:
		refused = "the ID token has another nonce: it is of another login"
	case more.AZP != "" && more.AZP != l.config.ClientID, more.AZP == "" && len(token.Audience) > 1:
		refused = "azp of the ID token is not this client"
	case token.IssuedAt.IsZero() || id.issued <= 0:
		refused = "iat of the ID token is absent"
	case more.AuthTime < 0 || more.AuthTime > maxTime || len(more.SID) > maxName || len(id.authentication.Values) > maxName || len(token.Subject) > maxName:
		refused = "sub, sid, " + id.authentication.Claim + " or auth_time of the ID token is too large"
	case token.AccessTokenHash != "" && token.VerifyAccessToken(t.AccessToken) != nil:
		refused = "at_hash of the ID token is of another access token"
	case token.IssuedAt.After(l.memory.now().Add(l.issuer.Skew())):
		return nil, refuse(BadTokens, Untimely(fmt.Errorf("the ID token was issued %d s in the future, skew is %s", id.issued-l.memory.now().Unix(), setting.Duration(l.issuer.Skew()))))
	default:
		return id, nil
	}
	return nil, refuse(BadTokens, errors.New(refused))
}

const (
	maxName = 512
	maxTime = 253402300799 // the end of the year 9999
)

// note stores the ID token of an answer and its claims.
func (r *record) note(id *identification) {
	head, rest, _ := strings.Cut(id.raw, ".")
	_, signature, _ := strings.Cut(rest, ".")
	r.key, r.claims, r.hint = id.key, string(id.claims), pack(head+".."+signature)
}

// idToken returns the ID token; "" if the session was too large for it.
func (r *record) idToken() string {
	return strings.Replace(r.hint.text(), "..", "."+base64.RawURLEncoding.EncodeToString([]byte(r.claims))+".", 1)
}

// claims stores in a record the claims from where the configuration says. id is nil if a refresh gave
// no ID token.
func (l *Login) claims(ctx context.Context, e *Endpoints, t *oauth2.Token, id *identification, r *record) error {
	if id != nil {
		r.note(id)
	}
	switch l.config.Claims {
	case ClaimsAccessToken:
		claims, key, err := l.issuer.Access(ctx, t.AccessToken)
		switch {
		case errors.Is(err, ErrUnavailable):
			return refuse(Unavailable, err)
		case err != nil:
			return refuse(BadTokens, fmt.Errorf("access token: %w", err))
		case id == nil && !r.isOf(claims):
			return refuse(BadTokens, errors.New("the refreshed access token is of another person"))
		}
		r.claims, r.key, r.hint = string(claims), key, id.token(r)
	case ClaimsUserinfo:
		own, err := r.ownClaims(id)
		if err != nil {
			return err
		}
		claims, err := l.userinfo(ctx, e, t, own, r.subject)
		if err != nil {
			return err
		}
		r.claims, r.hint = string(claims), id.token(r)
	}
	return nil
}

// isOf reports whether refreshed claims of an access token are of the person of the record. If the record's own are of
// an ID token, nothing can be said: an issuer may call the person otherwise there (OpenID Connect Core, section 8.1).
func (r *record) isOf(claims []byte) bool {
	var was, is struct {
		Subject string `json:"sub"`
	}
	if strings.Contains(r.hint.text(), "..") {
		return true
	}
	return json.Unmarshal([]byte(r.claims), &was) == nil && json.Unmarshal(claims, &is) == nil && was == is
}

// token returns the ID token to store in a record with other claims: the new one, or the former if
// there is none.
func (id *identification) token(r *record) packed {
	if id == nil {
		return r.hint
	}
	return pack(id.raw)
}

const maxUserinfo = 64 << 10 // bytes of the claims

// ownClaims returns the claims of the ID token alone. A session that was too large to keep its token has
// those that userinfo cannot give: the others could be older than userinfo.
func (r *record) ownClaims(id *identification) (own map[string]jsontext.Value, err error) {
	text, complete := []byte(r.claims), id != nil
	if _, rest, kept := strings.Cut(r.hint.text(), "."); !complete && kept {
		payload, _, _ := strings.Cut(rest, ".")
		text, err = base64.RawURLEncoding.DecodeString(payload)
		complete = true
	}
	if err != nil || json.Unmarshal(text, &own) != nil {
		return nil, refuse(BadTokens, errors.New("the claims of the ID token are no JSON object"))
	}
	if !complete {
		maps.DeleteFunc(own, func(name string, _ jsontext.Value) bool { return !ofProtocol(name) })
	}
	return own, nil
}

// ofProtocol reports whether a claim is one about the login, and not about the person.
func ofProtocol(name string) bool {
	switch name {
	case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "acr", "amr", "acrs", "auth_time", "sid", "at_hash", "tid":
		return true
	}
	return false
}

// userinfo returns the claims of the ID token, and those of userinfo that it lacks.
func (l *Login) userinfo(ctx context.Context, e *Endpoints, t *oauth2.Token, own map[string]jsontext.Value, subject string) ([]byte, error) {
	if e.Userinfo == "" {
		return nil, refuse(Unavailable, errors.New("the discovery document has no userinfo_endpoint"))
	}
	text, err := l.issuer.Client().Authorized(ctx, e.Userinfo, t.AccessToken)
	if err != nil {
		return nil, refuse(Unavailable, fmt.Errorf("userinfo: %w", err))
	}
	if text, err = l.openUserinfo(ctx, text); err != nil {
		return nil, err
	}
	var more map[string]jsontext.Value
	if len(text) > maxUserinfo || json.Unmarshal(text, &more) != nil {
		return nil, refuse(Unavailable, fmt.Errorf("userinfo: not a JSON object of at most %d bytes", maxUserinfo))
	}
	var sub string
	if json.Unmarshal(more["sub"], &sub) != nil || sub != subject {
		return nil, refuse(BadTokens, errors.New("userinfo is of another subject than the ID token"))
	}
	maps.DeleteFunc(more, func(name string, _ jsontext.Value) bool { return ofProtocol(name) })
	maps.Copy(more, own)
	merged, err := json.Marshal(more, json.Deterministic(true))
	if err != nil {
		return nil, refuse(Unavailable, errors.New("userinfo: not well-formed JSON"))
	}
	return merged, nil
}

// exchangeError returns the refusal of a code or a refresh token, or the failure to redeem it.
func (l *Login) exchangeError(err error) error {
	code := faultOf(err)
	switch {
	case code == "invalid_grant":
		return refuse(StateMismatch, errors.New("the issuer does not take the code: it was used before, or is of another login"))
	case code == "invalid_client" || code == "unauthorized_client":
		return refuse(Unavailable, fmt.Errorf("the token endpoint says %q: client_id, client_secret or client_auth of the login is not what the issuer has", code))
	case code != "":
		return refuse(Unavailable, errors.New("the token endpoint says "+shownCode(code)))
	}
	var failed *fetch.Error
	if errors.As(err, &failed) {
		return refuse(Unavailable, fmt.Errorf("token endpoint: %w", failed))
	}
	return refuse(Unavailable, errors.New("token endpoint: not an answer of OAuth"))
}

// faultOf returns the error code of OAuth in the failure to redeem a code or a refresh token; "" if
// there is none.
func faultOf(err error) string {
	var failed *fetch.Error
	var said *oauth2.RetrieveError
	switch {
	case errors.As(err, &failed):
		return failed.Code
	case errors.As(err, &said):
		return said.ErrorCode
	}
	return ""
}

// shownCode returns an error code of a token endpoint as records may show it. An endpoint could repeat in it
// what it was sent: the code, the refresh token or the secret. Those of OAuth are words in small letters.
func shownCode(code string) string {
	const most = 40
	if len(code) > most || strings.ContainsFunc(code, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
		return "an error code that is no word of OAuth"
	}
	return code
}
