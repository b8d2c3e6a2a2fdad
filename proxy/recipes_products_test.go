package proxy_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// discovery returns a discovery document.
func discovery(issuer string, more map[string]any) string {
	d := map[string]any{
		"issuer": issuer, "authorization_endpoint": "AT/authorize", "token_endpoint": "AT/token", "userinfo_endpoint": "AT/userinfo", "jwks_uri": "AT/jwks",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"ES256", "RS256"},
		"code_challenge_methods_supported": []string{"S256", "plain"},
	}
	maps.Copy(d, more)
	text, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// products are doubles, as the documents say that deploy/LOGINS.md names. Where one has an access token of
// its own form, nobody reads it.
func products() map[string]*product {
	return map[string]*product{
		"Keycloak": {
			document: discovery("https://login.example.com/realms/ml", map[string]any{
				"end_session_endpoint": "AT/logout", "revocation_endpoint": "AT/revoke", "frontchannel_logout_supported": true, "backchannel_logout_supported": true,
				"authorization_response_iss_parameter_supported": true, "acr_values_supported": []string{"0", "1"},
			}),
			claims: map[string]any{
				"sub": "0b3c44e1-7a5e-4c8f-9d55-cf7a0d2d7d31", "jti": "0a5b", "typ": "ID", "azp": "pages", "sid": "6f1c", "preferred_username": "alice",
				"name": "Alice Doe", "email_verified": false, "groups": []string{"ml-team", "everybody"},
			},
			first: map[string]any{"refresh_expires_in": 1800, "not-before-policy": 0, "session_state": "6f1c", "scope": "openid profile"},
			later: map[string]any{"refresh_expires_in": 1800, "not-before-policy": 0, "session_state": "6f1c", "scope": "openid profile"},
			other: func(claims, _ map[string]any) { claims["groups"] = []string{"everybody"} },

			caller: "issuer/main:alice", groups: []string{"ml-team", "everybody"}, asked: map[string]string{"scope": "openid profile"},
			factor: func(asked url.Values) map[string]any {
				if asked.Get("acr_values") == "gold" {
					return map[string]any{"acr": "gold"}
				}
				return map[string]any{"acr": "1"}
			},
			strong: map[string]string{"acr_values": "gold"}, acr: []string{"gold"},
			leaves: true, leave: map[string]string{"id_token_hint": "*", "client_id": "pages", "post_logout_redirect_uri": "https://mlflow.example.com/.sallyport/signed-out"},
		},
		"Dex": {
			document: discovery("https://dex.example.com/dex", map[string]any{
				"device_authorization_endpoint": "AT/device/code", "scopes_supported": []string{"openid", "email", "groups", "profile", "offline_access"},
			}),
			lacks:  []string{"sid", "auth_time"},
			claims: map[string]any{"sub": "Cg0wLTM4NS0yODA4OS0wEgRtb2Nr", "email": "kilgore@kilgore.trout", "email_verified": true, "groups": []string{"authors"}, "name": "Kilgore Trout"},
			first:  map[string]any{"token_type": "bearer"},
			later:  map[string]any{"token_type": "bearer"},
			other:  func(claims, _ map[string]any) { delete(claims, "groups") },

			caller: "issuer/main:kilgore@kilgore.trout", groups: []string{"authors"}, asked: map[string]string{"scope": "openid email groups offline_access"},
		},
		"Entra ID": {
			document: discovery("https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0", map[string]any{
				"end_session_endpoint": "AT/logout", "userinfo_endpoint": "OTHER/oidc/userinfo", "http_logout_supported": true, "frontchannel_logout_supported": true,
				"subject_types_supported": []string{"pairwise"}, "request_uri_parameter_supported": false, "tenant_region_scope": "WW",
			}),
			lacks: []string{"sid", "auth_time"},
			claims: map[string]any{
				"sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47", "ver": "2.0",
				"name": "Alice Doe", "preferred_username": "alice@example.com", "email": "alice@example.com", "aio": "Df2UVXL1ix", "rh": "0.ARoA", "uti": "fqiBqXLPj0eQa82S-IYFAA",
				"groups": []string{"3f2d5b61-7c1e-4f61-9b3a-0f2c1a7c9d10", "b0c6d2f4-05f1-4a34-a9f9-8f5ad8e2a3ce"},
			},
			first: map[string]any{"ext_expires_in": 3599, "scope": "openid profile email", "expires_in": "3600"},
			later: map[string]any{"ext_expires_in": 3599, "scope": "openid profile email", "expires_in": "3600"},
			other: func(claims, _ map[string]any) { // in more than 200 groups
				delete(claims, "groups")
				claims["_claim_names"] = map[string]any{"groups": "src1"}
				claims["_claim_sources"] = map[string]any{"src1": map[string]any{"endpoint": "https://graph.microsoft.com/v1.0/users/690222be/getMemberObjects"}}
			},

			caller: "issuer/main:690222be-ff1a-4d56-abd1-7e4f7d38e474", groups: []string{"3f2d5b61-7c1e-4f61-9b3a-0f2c1a7c9d10", "b0c6d2f4-05f1-4a34-a9f9-8f5ad8e2a3ce"},
			asked: map[string]string{"scope": "openid profile email offline_access", "domain_hint": "example.com"},
			factor: func(asked url.Values) map[string]any { // an authentication context that was asked for; acr_values do nothing
				if strings.Contains(asked.Get("claims"), `"id_token":{"acrs":{"essential":true,"value":"c1"}}`) {
					return map[string]any{"acrs": []string{"c1"}}
				}
				return nil
			},
			afresh: map[string]any{"acrs": nil}, // the documents do not say whether a refreshed one has it
			strong: map[string]string{"claims": `{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`}, acr: []string{"c1"},
			leaves: true, leave: map[string]string{"id_token_hint": "*", "post_logout_redirect_uri": "https://mlflow.example.com/.sallyport/signed-out"},
		},
		"Okta": {
			document: discovery("https://acme.okta.com", map[string]any{"end_session_endpoint": "AT/logout", "revocation_endpoint": "AT/revoke", "registration_endpoint": "AT/clients"}),
			lacks:    []string{"sid"},
			claims: map[string]any{ // without those of profile: an access token goes with it
				"sub": "00uid4BxXw6I6TV4m0g3", "ver": 1, "jti": "ID.4eAWJOCMB3SX8XewDfVR", "idp": "00oigpTeBgc6R2fC90g3",
			},
			userinfo: map[string]any{
				"sub": "00uid4BxXw6I6TV4m0g3", "name": "Alice Doe", "preferred_username": "alice@example.com", "email": "alice@example.com", "email_verified": true,
				"zoneinfo": "Europe/Berlin", "updated_at": 1700000000, "groups": []string{"Everyone", "ml-team"},
			},
			first: map[string]any{"scope": "openid profile email groups offline_access"},
			later: map[string]any{"scope": "openid profile email groups offline_access"},
			other: func(_, userinfo map[string]any) { userinfo["groups"] = []string{"Everyone"} },

			caller: "issuer/main:alice@example.com", groups: []string{"Everyone", "ml-team"}, asked: map[string]string{"scope": "openid profile email groups offline_access"},
			factor: func(asked url.Values) map[string]any { // it ignores values that it does not know
				if strings.HasPrefix(asked.Get("acr_values"), "urn:okta:loa:2fa:any") {
					return map[string]any{"acr": asked.Get("acr_values"), "amr": []string{"mfa", "otp", "pwd"}}
				}
				return map[string]any{"amr": []string{"pwd"}}
			},
			strong: map[string]string{"acr_values": "urn:okta:loa:2fa:any"}, acr: []string{"urn:okta:loa:2fa:any"},
			leaves: true, leave: map[string]string{"id_token_hint": "*"},
		},
		"Auth0": {
			document: discovery("https://acme.eu.auth0.com/", map[string]any{
				"end_session_endpoint": "AT/oidc/logout", "revocation_endpoint": "AT/oauth/revoke", "mfa_challenge_endpoint": "AT/mfa/challenge", "backchannel_logout_supported": true,
				"backchannel_logout_session_supported": true,
			}),
			lacks: []string{"auth_time"},
			claims: map[string]any{
				"sub": "auth0|5f7c8ec7c33c6c004bbafe82", "nickname": "alice", "name": "alice@example.com", "email": "alice@example.com", "email_verified": true,
				"updated_at": "2026-11-29T10:00:00.000Z", "https://example.com/roles": []string{"analyst"},
			},
			afresh: map[string]any{"amr": nil},
			first:  map[string]any{"scope": "openid profile email offline_access"},
			later:  map[string]any{"scope": "openid profile email offline_access"},
			other:  func(claims, _ map[string]any) { claims["https://example.com/roles"] = []string{} },

			caller: "issuer/main:alice@example.com", groups: []string{"analyst"}, asked: map[string]string{"scope": "openid profile email offline_access"},
			factor: func(asked url.Values) map[string]any { // by the Action of the recipe
				if slices.Contains(strings.Fields(asked.Get("acr_values")), "http://schemas.openid.net/pape/policies/2007/06/multi-factor") {
					return map[string]any{"amr": []string{"mfa"}}
				}
				return nil // no amr after a password
			},
			strong: map[string]string{"acr_values": "http://schemas.openid.net/pape/policies/2007/06/multi-factor"}, acr: []string{"mfa"},
			leaves: true, leave: map[string]string{"id_token_hint": "*", "client_id": "Kx3b5Jq0Zs8YwQm1"},
		},
		"Google": {
			document: discovery("https://accounts.google.com", map[string]any{
				"token_endpoint": "OTHER/token", "userinfo_endpoint": "OTHER/v1/userinfo", "revocation_endpoint": "OTHER/revoke",
				"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
			}),
			iss: "accounts.google.com", lacks: []string{"sid", "auth_time"},
			claims: map[string]any{
				"sub": "10769150350006150715113082367", "azp": "1234567890-abc.apps.googleusercontent.com", "hd": "example.com", "email": "jane@example.com", "email_verified": true,
			},
			same:   true, // the first time that a person consents
			first:  map[string]any{"scope": "openid https://www.googleapis.com/auth/userinfo.email"},
			later:  map[string]any{"refresh_token": nil, "scope": "openid https://www.googleapis.com/auth/userinfo.email"},
			afresh: map[string]any{"iss": "https://accounts.google.com"},
			other: func(claims, _ map[string]any) {
				delete(claims, "hd")
				claims["sub"], claims["email"] = "2076", "jane@gmail.com"
			},

			caller: "issuer/main:jane@example.com",
			asked:  map[string]string{"scope": "openid email", "hd": "example.com", "access_type": "offline", "prompt": "select_account"},
		},
		"GitLab": {
			document: discovery("https://gitlab.com", map[string]any{"introspection_endpoint": "AT/oauth/introspect", "revocation_endpoint": "AT/oauth/revoke", "scopes_supported": []string{"openid", "profile", "email"}}),
			lacks:    []string{"sid"},
			claims:   map[string]any{"sub": "4711", "sub_legacy": "9d8f", "email": "alice@example.com", "email_verified": true, "groups_direct": []string{"acme/ml/models"}},
			userinfo: map[string]any{
				"sub": "4711", "sub_legacy": "9d8f", "name": "Alice", "nickname": "alice", "preferred_username": "alice", "email": "alice@example.com", "email_verified": true,
				"profile": "https://gitlab.com/alice", "picture": "https://gitlab.com/a.png", "groups": []string{"acme", "acme/ml", "acme/ml/models"},
				"https://gitlab.org/claims/groups/developer": []string{"acme/ml/models"},
			},
			first: map[string]any{"scope": "openid profile email", "created_at": 1700000000},
			later: map[string]any{"scope": "openid profile email", "created_at": 1700000000, "id_token": nil}, // it need not send one
			other: func(_, userinfo map[string]any) { userinfo["groups"] = []string{"others"} },

			caller: "issuer/main:alice", groups: []string{"acme", "acme/ml", "acme/ml/models"}, asked: map[string]string{"scope": "openid profile email"},
		},
		"Amazon Cognito": {
			document: discovery("https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example", map[string]any{
				"authorization_endpoint": "OTHER/oauth2/authorize", "token_endpoint": "OTHER/oauth2/token", "userinfo_endpoint": "OTHER/oauth2/userInfo", "end_session_endpoint": "OTHER/logout",
				"revocation_endpoint": "OTHER/oauth2/revoke",
			}),
			lacks: []string{"sid"},
			claims: map[string]any{
				"sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:username": "alice", "cognito:groups": []string{"ml-team"}, "cognito:roles": []string{"arn:aws:iam::111122223333:role/ml"},
				"email": "alice@example.com", "email_verified": true, "token_use": "id", "event_id": "64f5", "origin_jti": "o", "jti": "j",
			},
			same:  true,
			later: map[string]any{"refresh_token": nil},
			other: func(claims, _ map[string]any) { delete(claims, "cognito:groups") },

			caller: "issuer/main:alice", groups: []string{"ml-team"}, asked: map[string]string{"scope": "openid email"},
			leaves: true, leave: map[string]string{"client_id": "3n4b5urk1ft4fl3mg5e62d9ado", "logout_uri": "https://mlflow.example.com/.sallyport/signed-out"},
		},
		"authentik": {
			document: discovery("https://auth.example.com/application/o/models/", map[string]any{"end_session_endpoint": "AT/application/o/models/end-session", "backchannel_logout_supported": true, "backchannel_logout_session_supported": true}),
			claims: map[string]any{
				"sub": "a7f0d9c1", "azp": "Wq7YkH2mB5", "uid": "K2", "acr": "goauthentik.io/providers/oauth2/default", "amr": []string{"pwd"}, "email": "alice@example.com",
				"email_verified": false, "preferred_username": "alice", "nickname": "alice", "name": "Alice", "given_name": "Alice", "groups": []string{"ml-team"},
			},
			other: func(claims, _ map[string]any) { claims["groups"] = []string{} },

			caller: "issuer/main:alice", groups: []string{"ml-team"}, asked: map[string]string{"scope": "openid profile email offline_access"},
			leaves: true, leave: map[string]string{"id_token_hint": "*"},
		},
		"ZITADEL": {
			document: discovery("https://acme.zitadel.cloud", map[string]any{"end_session_endpoint": "AT/oidc/v1/end_session", "backchannel_logout_supported": true}),
			audience: []string{"69234237810729019", "69234237810729234"},
			claims: map[string]any{
				"sub": "77776025198584418", "azp": "69234237810729019", "client_id": "69234237810729019", "amr": []string{"pwd", "mfa", "otp"}, "preferred_username": "alice@acme.example",
				"name": "Alice", "email": "alice@example.com", "email_verified": true,
				"urn:zitadel:iam:org:project:roles": map[string]any{"ml": map[string]any{"34567890123456789": "acme.zitadel.cloud"}},
			},
			other: func(claims, _ map[string]any) {
				claims["urn:zitadel:iam:org:project:roles"] = map[string]any{"ml": map[string]any{"99999999999999999": "other.zitadel.cloud"}}
			},

			caller: "issuer/main:alice@acme.example", asked: map[string]string{"scope": "openid profile email offline_access urn:zitadel:iam:org:projects:roles"},
			leaves: true, leave: map[string]string{"id_token_hint": "*"},
		},
	}
}
