package login

import "strings"

// Claims are JSON in which names and values repeat: those of the ID token stand in a refresh token
// that is a JWT too, and in fields of the session. compress replaces what occurred before by where it
// did. It is a form of LZ77 that opens in about a microsecond, which DEFLATE does not.
//
// A byte below matchFlag is followed by that many literal bytes, plus one. From matchFlag on, it is
// the first of two bytes of a match: four bits of its length less minMatch, and eleven of its distance
// less one.
const (
	matchFlag   = 0x80
	minMatch    = 3
	maxMatch    = minMatch + 15
	maxLiteral  = matchFlag
	matchWindow = 1 << 11
	maxSearches = 64 // places where one match is looked for
)

// commonText stands before each compressed text. Changing it needs another version of the record.
const commonText = `{"alg":"HS512","typ" : "JWT","kid" : "{"alg":"ES256","kid":"","typ":"JWT"}` +
	`https://accounts.google.com.okta.com/oauth2/default.auth0.com/https://login.microsoftonline.com//v2.0/realms/` +
	`","idp":"","ver":"2.0"}","ver":1,"amr":["pwd","mfa"],"oid":"","tid":"","uti":"","rh":"0.A","aio":"","upn":"","hd":""` +
	`,"locale":"en","picture":"https://lh3.googleusercontent.com/a/","nickname":"","updated_at":"2026-` +
	`,"roles":["admin","offline_access","uma_authorization","default-roles-]},"realm_access":{"resource_access":{"account":{` +
	`"scope":"openid web-origins acr roles profile email basic groups","typ":"Refresh","session_state":"` +
	`{"exp":17,"iat":17,"nbf":17,"auth_time":17,"jti":"","iss":"https://","aud":["","aud":"","sub":"","typ":"ID","azp":"","nonce":"` +
	`","sid":"","at_hash":"","c_hash":"","acr":"1","email_verified":true,"email_verified":false,"name":"","groups":["/` +
	`"],"preferred_username":"","given_name":"","family_name":"","email":"@example.com"}`

// matcher finds where text occurred before.
type matcher struct {
	all     []byte         // commonText and the text
	latest  [1 << 12]int32 // one more than the last place with a hash of minMatch bytes; 0: none
	earlier []int32        // for each place, the one before it with the same hash, in the same form
}

// note adds a place.
func (m *matcher) note(at int) {
	if at+minMatch <= len(m.all) {
		h := (uint32(m.all[at])<<16 | uint32(m.all[at+1])<<8 | uint32(m.all[at+2])) * 0x9e3779b1 >> 20
		m.earlier[at], m.latest[h] = m.latest[h], int32(at+1)
	}
}

// longest adds a place, and returns the longest match there.
func (m *matcher) longest(at int) (length, distance int) {
	m.note(at)
	most := min(maxMatch, len(m.all)-at)
	place := int(m.earlier[at]) - 1
	for n := 0; place >= 0 && at-place <= matchWindow && length < most && n < maxSearches; n++ {
		same := 0
		for same < most && m.all[place+same] == m.all[at+same] {
			same++
		}
		if same > length {
			length, distance = same, at-place
		}
		place = int(m.earlier[place]) - 1
	}
	return length, distance
}

// compress appends the compressed text to dst.
func compress(dst, text []byte) []byte {
	m := matcher{all: append([]byte(commonText), text...)}
	m.earlier = make([]int32, len(m.all))
	for at := range len(commonText) {
		m.note(at)
	}
	literal := len(commonText) // from here to the next match
	for at := literal; at < len(m.all); {
		length, distance := m.longest(at)
		if length < minMatch {
			at++
			continue
		}
		dst = appendLiteral(dst, m.all[literal:at])
		dst = append(dst, matchFlag|byte(length-minMatch)<<3|byte((distance-1)>>8), byte(distance-1))
		for i := 1; i < length; i++ {
			m.note(at + i)
		}
		at += length
		literal = at
	}
	return appendLiteral(dst, m.all[literal:])
}

func appendLiteral(dst, text []byte) []byte {
	for len(text) > 0 {
		n := min(maxLiteral, len(text))
		dst = append(append(dst, byte(n-1)), text[:n]...)
		text = text[n:]
	}
	return dst
}

// decompress returns the text of a compressed one, if it has this length.
func decompress(packed string, length int64) (text string, ok bool) {
	if length < 0 || length > int64(len(packed))*maxMatch {
		return "", false
	}
	var out strings.Builder
	out.Grow(int(length))
	for packed != "" {
		c := int(packed[0])
		left := int(length) - out.Len()
		if c < matchFlag {
			n := c + 1
			if n > left || n >= len(packed) {
				return "", false
			}
			out.WriteString(packed[1 : n+1])
			packed = packed[n+1:]
			continue
		}
		n := c>>3&15 + minMatch
		if n > left || len(packed) < 2 {
			return "", false
		}
		distance := (c&7<<8 | int(packed[1])) + 1
		packed = packed[2:]
		for n > 0 { // several times if the match overlaps its own copy
			from := commonText
			at := out.Len() - distance
			if at < 0 {
				at += len(commonText)
			} else {
				from = out.String()
			}
			if at < 0 {
				return "", false
			}
			same := from[at:min(at+n, len(from))]
			out.WriteString(same)
			n -= len(same)
		}
	}
	return out.String(), int64(out.Len()) == length
}
