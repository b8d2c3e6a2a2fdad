package audit

import (
	"net/netip"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// Record is the audit log's record of one request. A zero field does not apply or was not
// reached; most are then left out of the line. A record never contains a token, a body or the
// value of a header.
type Record struct {
	Time      time.Time  // when the head was read
	RequestID string     // ours, as returned to the client
	Client    netip.Addr // the client, seen through trusted proxies
	Protocol  string     // "HTTP/1.1", "HTTP/2"
	Host      string
	Method    string
	Path      string // canonical, without the query: queries carry secrets
	Route     string // name of the route; "" for none
	Upstream  string // the endpoint that answered or was tried last
	// UpstreamName is the name of its upstream in the configuration. The metrics tell it.
	UpstreamName string

	Principal  string // qualified, such as "issuer/corp:alice"
	Credential string // kind of credential, such as "bearer"
	KeyID      string // the key that verified the credential
	// CredentialID is what revokes the credential: the jti of a token, or the serial number and the
	// issuer of a certificate; "" for none.
	CredentialID string

	// Login is the name of the login of a session, and SID the id that the issuer gave the session.
	Login, SID string
	// ACR and AuthTime are how and when, in seconds since 1970, the issuer says that the caller was
	// authenticated: where the route has step_up, and of sessions that begin. "" and 0 if it does not say.
	// ACRClaim is the claim that has ACR; "" if that is acr.
	ACR, ACRClaim string
	AuthTime      int64
	// LoginEvent is what became of a login, such as [LoginDone]; "" for all other requests.
	LoginEvent string

	// Scopes and Groups are those of the credential that Principal proved. The record shares them.
	Scopes, Groups []string
	// GroupsElsewhere means that the credential left the groups out, so that deny rules about any cover
	// the caller.
	GroupsElsewhere bool

	// Dialect, Verb, Model, Version and Signature are what the request asks for, as the dialect of the
	// upstream reads it. Version may be a label, such as "label:stable", or "latest".
	Dialect, Verb, Model, Version, Signature string
	// AskedVersion is what the caller asked for if the route chose Version, which is then sent; "" if
	// they are the same.
	AskedVersion string

	// ServedModel and ServedVersion are what the answer says of the model that gave it: the server may have
	// chosen the version. ServedModel is "" if it is Model. Nobody has checked what they say.
	ServedModel, ServedVersion string

	// Candidate is what candidate_rules would have decided, [CandidateAllow] or [CandidateDeny]; "" if
	// the route has none, or the request was refused before its rules were asked.
	Candidate string
	// CandidateRule is the place of the rule that would have decided; "" if no rule allows the call.
	CandidateRule string
	// RefusedByRules says that the rules of the route refused the request. Reason tells the log.
	RefusedByRules bool

	Dropped string // parts of the request that were not forwarded, such as "upgrade trailers"; "" for none

	Signed string // where the answer's signature is, such as "header"; "" for none

	Reason string // why it was refused; "" if it was forwarded and answered
	Cause  string // details of the reason, cut after 300 bytes; for the operator only
	Status int    // of the final answer, 0 for none; for a refused gRPC call, the status that other clients get
	GRPC   string // the gRPC status as a number; "" for none

	BytesIn  int64 // content received from the client
	BytesOut int64 // content sent to the client

	Duration         time.Duration // from the head to the end of the answer
	UpstreamDuration time.Duration // part of Duration that waited for the upstream
	Own              time.Duration // part of Duration spent in the gateway itself

	// Reserved says that [Log.Reserve] reserved space for this record. [Log.Write] ends the
	// reservation.
	Reserved bool
}

// These are the events of logins.
const (
	LoginBegun     = "begun"
	LoginDone      = "signed_in"
	LoginSignedOut = "signed_out" // by the person
	LoginNoSession = "no_session" // signed out without a session: Cause says why it did not count
	LoginEnded     = "ended"      // by the issuer
	LoginRefused   = "refused"
)

// These are the decisions of candidate rules.
const (
	CandidateAllow = "allow"
	CandidateDeny  = "deny"
)

// Maximum lengths of a string in a line, in bytes as written. Longer strings are cut and end
// with an ellipsis, so that clients cannot choose how much disk a request costs.
const (
	maxPath   = 1024
	maxCause  = 300
	maxString = 256
	// maxList limits a list, with quotes and commas.
	maxList = 512
	// maxLine allows for two long strings, two lists, twenty-eight other strings, and 690 bytes of our own.
	maxLine = maxPath + maxCause + 2*maxList + 28*maxString + 690
)

const hexDigits = "0123456789abcdef"

// appendLine appends the record as one line of JSON with its newline.
func (r *Record) appendLine(b []byte, s *stamp) []byte {
	b = append(b, `{"time":"`...)
	b = s.append(b, r.Time)
	b = append(b, '"')
	b = appendField(b, `,"id":"`, r.RequestID, maxString)
	if r.Client.IsValid() {
		b = append(b, `,"client":"`...)
		// Omit the zone: it is needless and may contain arbitrary text.
		b = r.Client.WithZone("").AppendTo(b)
		b = append(b, '"')
	}
	b = appendField(b, `,"protocol":"`, r.Protocol, maxString)
	b = appendField(b, `,"host":"`, r.Host, maxString)
	b = appendField(b, `,"method":"`, r.Method, maxString)
	b = appendField(b, `,"path":"`, r.Path, maxPath)
	b = appendField(b, `,"route":"`, r.Route, maxString)
	b = appendField(b, `,"upstream":"`, r.Upstream, maxString)
	b = appendField(b, `,"principal":"`, r.Principal, maxString)
	b = appendField(b, `,"credential":"`, r.Credential, maxString)
	b = appendField(b, `,"key_id":"`, r.KeyID, maxString)
	b = appendField(b, `,"credential_id":"`, r.CredentialID, maxString)
	b = appendField(b, `,"login":"`, r.Login, maxString)
	b = appendField(b, `,"sid":"`, r.SID, maxString)
	b = appendField(b, `,"acr":"`, r.ACR, maxString)
	b = appendField(b, `,"acr_claim":"`, r.ACRClaim, maxString)
	if r.AuthTime != 0 {
		b = appendNumber(b, `,"auth_time":`, r.AuthTime)
	}
	b = appendField(b, `,"login_event":"`, r.LoginEvent, maxString)
	b = appendList(b, `,"scopes":[`, r.Scopes)
	b = appendList(b, `,"groups":[`, r.Groups)
	if r.GroupsElsewhere {
		b = append(b, `,"groups_elsewhere":true`...)
	}
	b = appendField(b, `,"dialect":"`, r.Dialect, maxString)
	b = appendField(b, `,"verb":"`, r.Verb, maxString)
	b = appendField(b, `,"model":"`, r.Model, maxString)
	b = appendField(b, `,"version":"`, r.Version, maxString)
	b = appendField(b, `,"asked_version":"`, r.AskedVersion, maxString)
	b = appendField(b, `,"signature":"`, r.Signature, maxString)
	b = appendField(b, `,"served_model":"`, r.ServedModel, maxString)
	b = appendField(b, `,"served_version":"`, r.ServedVersion, maxString)
	b = appendField(b, `,"candidate":"`, r.Candidate, maxString)
	b = appendField(b, `,"candidate_rule":"`, r.CandidateRule, maxString)
	b = appendField(b, `,"dropped":"`, r.Dropped, maxString)
	b = appendField(b, `,"signed":"`, r.Signed, maxString)
	b = appendField(b, `,"reason":"`, r.Reason, maxString)
	b = appendField(b, `,"cause":"`, r.Cause, maxCause)
	b = appendNumber(b, `,"status":`, int64(r.Status))
	b = appendField(b, `,"grpc_status":"`, r.GRPC, maxString)
	b = appendNumber(b, `,"bytes_in":`, r.BytesIn)
	b = appendNumber(b, `,"bytes_out":`, r.BytesOut)
	b = appendNumber(b, `,"duration_us":`, r.Duration.Microseconds())
	b = appendNumber(b, `,"upstream_us":`, r.UpstreamDuration.Microseconds())
	b = appendNumber(b, `,"own_us":`, r.Own.Microseconds())
	return append(b, '}', '\n')
}

// stamp formats times and caches the part down to the second. The zero stamp is ready for use.
type stamp struct {
	second int64 // Unix time of text
	text   [len("2006-01-02T15:04:05.")]byte
}

// append appends t in RFC 3339 format, UTC with microseconds. It is always 27 bytes, so that
// lines sort as text.
func (s *stamp) append(b []byte, t time.Time) []byte {
	if second := t.Unix(); second != s.second || s.text[0] == 0 {
		s.second = second
		t.UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
	}
	b = append(b, s.text[:]...)
	micros := t.Nanosecond() / 1000
	for unit := 100_000; unit > 0; unit /= 10 {
		b = append(b, byte('0'+micros/unit%10))
	}
	return append(b, 'Z')
}

// appendNumber appends name, which is preformatted, and a number.
func appendNumber(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(b, name...), n, 10)
}

// appendField appends name, which is preformatted, and an untrusted value; nothing if the value
// is empty.
func appendField(b []byte, name, value string, limit int) []byte {
	if value == "" {
		return b
	}
	return append(appendString(append(b, name...), value, limit), '"')
}

// appendList appends name, which is preformatted, and untrusted values; nothing if there are none. A
// value that does not fit is replaced by an ellipsis, with all that follow it.
func appendList(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(b, name...)
	begin := len(b)
	for i, v := range values {
		before := len(b)
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(append(b, '"'), v, maxString), '"')
		if len(b)-begin > maxList-len(`,"…"]`) {
			b = b[:before]
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `"…"`...)
			break
		}
	}
	return append(b, ']')
}

// plain reports whether s needs no escapes in a JSON string.
func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendString appends s as the inside of a JSON string of at most limit bytes. It escapes
// everything unprintable, such as control characters and marks that change the text direction. So
// a line stays one line, and a terminal shows what it contains.
func appendString(b []byte, s string, limit int) []byte {
	if len(s) <= limit && plain(s) {
		return append(b, s...)
	}
	end := len(b) + limit
	cut := len(b) // the last position where an ellipsis still fits
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ' || c == 0x7f:
				b = appendEscape(b, rune(c))
			default:
				b = append(b, c)
			}
		} else {
			r, size := utf8.DecodeRuneInString(s[i:])
			i += size
			switch {
			case r == utf8.RuneError && size == 1:
				b = append(b, `\ufffd`...)
			case !unicode.IsPrint(r):
				b = appendEscape(b, r)
			default:
				b = utf8.AppendRune(b, r)
			}
		}
		if len(b) > end {
			return append(b[:cut], "…"...)
		}
		if len(b) <= end-len("…") {
			cut = len(b)
		}
	}
	return b
}

// appendEscape appends r as one JSON escape, or as a surrogate pair.
func appendEscape(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		b = appendEscape(b, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
