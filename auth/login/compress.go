package login

import (
	"sync"

	"github.com/klauspost/compress/s2"
)

// maxShared bounds the texts of one session, in bytes: claims, and what tokens say in JSON.
const maxShared = 1 << 20

// commonText has names and values that claims of issuers share. Changing it needs another version of the record.
const commonText = `{"alg":"HS512","typ" : "JWT","kid" : "{"alg":"ES256","kid":"","typ":"JWT"}` +
	`https://accounts.google.com.okta.com/oauth2/default.auth0.com/https://login.microsoftonline.com//v2.0/realms/` +
	`","idp":"","ver":"2.0"}","ver":1,"amr":["pwd","mfa"],"oid":"","tid":"","uti":"","rh":"0.A","aio":"","upn":"","hd":""` +
	`,"locale":"en","picture":"https://lh3.googleusercontent.com/a/","nickname":"","updated_at":"2026-` +
	`,"roles":["admin","offline_access","uma_authorization","default-roles-]},"realm_access":{"resource_access":{"account":{` +
	`"scope":"openid web-origins acr roles profile email basic groups","typ":"Refresh","session_state":"` +
	`{"exp":17,"iat":17,"nbf":17,"auth_time":17,"jti":"","iss":"https://","aud":["","aud":"","sub":"","typ":"ID","azp":"","nonce":"` +
	`","sid":"","at_hash":"","c_hash":"","acr":"1","email_verified":true,"email_verified":false,"name":"","groups":["/` +
	`"],"preferred_username":"","given_name":"","family_name":"","email":"@example.com"}`

// commonTexts is the dictionary of compress and decompress. It does not change.
var commonTexts = sync.OnceValue(func() *s2.Dict { return s2.MakeDictManual([]byte(commonText), 0) })

// compress replaces what occurred before, or occurs in the common text, by where it did: claims of the ID
// token stand in a refresh token that is a JWT too, and in fields of the session. S2 opens in about a
// microsecond, which DEFLATE does not.
func compress(text []byte) []byte { return commonTexts().EncodeBetter(nil, text) }

// decompress returns the text of a compressed one.
func decompress(packed []byte) (text []byte, ok bool) {
	if n, err := s2.DecodedLen(packed); err != nil || n > maxShared {
		return nil, false
	}
	text, err := commonTexts().Decode(nil, packed)
	return text, err == nil
}
