package auth

import (
	"encoding/base64"
	"errors"
	"iter"
	"slices"
	"strings"

	"sallyport/auth/apikey"
	"sallyport/proxy/message"
)

// SubprotocolField is the lower-case name of the field in which a WebSocket handshake offers
// subprotocols (RFC 6455, section 11.3.4). Scripts of pages can set no other field of a handshake.
const SubprotocolField = "sec-websocket-protocol"

// SubprotocolForms is a set of forms in which a subprotocol carries a token or an API key. The zero
// set has none.
type SubprotocolForms uint8

const (
	// KubernetesForm is base64url.bearer.authorization.k8s.io. and the token in base64url without padding,
	// as the API server of Kubernetes takes it.
	KubernetesForm SubprotocolForms = 1 << iota
	// OpenAIForm is openai-insecure-api-key. and the token, as OpenAI's Realtime API takes it.
	OpenAIForm
)

const (
	kubernetesPrefix = "base64url.bearer.authorization.k8s.io."
	openAIPrefix     = "openai-insecure-api-key."
	// realtime is the subprotocol that clients of OpenAI's form offer beside the token.
	realtime = "realtime"
)

// SubprotocolForm returns the form that the configuration calls by this name; zero for none.
func SubprotocolForm(name string) SubprotocolForms {
	switch name {
	case "kubernetes":
		return KubernetesForm
	case "openai":
		return OpenAIForm
	}
	return 0
}

// name is how the configuration calls a form.
func (f SubprotocolForms) name() string {
	if f == KubernetesForm {
		return "kubernetes"
	}
	return "openai"
}

// formOfSubprotocol returns the form of a subprotocol with a token, and what follows its prefix; zero
// for any other subprotocol. It ignores the case of the prefix, and finds one behind other text too, with
// nothing after it: some server may split or trim the list otherwise, and no spelling is sent on.
func formOfSubprotocol(s string) (form SubprotocolForms, rest string) {
	switch {
	case len(s) >= len(kubernetesPrefix) && strings.EqualFold(s[:len(kubernetesPrefix)], kubernetesPrefix):
		return KubernetesForm, s[len(kubernetesPrefix):]
	case len(s) >= len(openAIPrefix) && strings.EqualFold(s[:len(openAIPrefix)], openAIPrefix):
		return OpenAIForm, s[len(openAIPrefix):]
	case len(s) <= len(openAIPrefix):
		return 0, ""
	}
	switch lower := strings.ToLower(s); {
	case strings.Contains(lower, kubernetesPrefix):
		return KubernetesForm, ""
	case strings.Contains(lower, openAIPrefix):
		return OpenAIForm, ""
	}
	return 0, ""
}

// offeredIn yields the subprotocols that a request offers, in their order.
func offeredIn(head *message.Head) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range head.Fields {
			if head.Fields[i].Name != SubprotocolField {
				continue
			}
			for element := range strings.SplitSeq(head.Fields[i].Value, ",") {
				if s := trimmed(element); s != "" && !yield(s) {
					return
				}
			}
		}
	}
}

// trimmed returns an element of a list without the white space around it (RFC 9110, section 5.6.1).
func trimmed(element string) string { return strings.Trim(element, " \t") }

// HasSubprotocolToken reports whether a value of [SubprotocolField] has a token of any form, good or
// bad.
func HasSubprotocolToken(value string) bool {
	for element := range strings.SplitSeq(value, ",") {
		if form, _ := formOfSubprotocol(trimmed(element)); form != 0 {
			return true
		}
	}
	return false
}

// WithoutSubprotocolToken returns a value of [SubprotocolField] without its tokens; "" if nothing else
// is offered. The other subprotocols keep their bytes and their order.
func WithoutSubprotocolToken(value string) string {
	if !HasSubprotocolToken(value) {
		return value
	}
	var rest []string
	offered := false
	for element := range strings.SplitSeq(value, ",") {
		if form, _ := formOfSubprotocol(trimmed(element)); form == 0 {
			rest = append(rest, element)
			offered = offered || trimmed(element) != ""
		}
	}
	if !offered {
		return ""
	}
	return trimmed(strings.Join(rest, ","))
}

// OffersOnlyToken reports whether a request offers a subprotocol with a token and no other. Its client
// could take no answer: the token must not be repeated to it, and browsers want one of those that
// they offered.
func OffersOnlyToken(head *message.Head) bool {
	token := false
	for s := range offeredIn(head) {
		if form, _ := formOfSubprotocol(s); form == 0 {
			return false
		}
		token = true
	}
	return token
}

// ImpliedSubprotocol returns the subprotocol that a server speaks which accepts a handshake without
// choosing one; "" for none. Beside a token in OpenAI's form it is realtime: servers of that API
// need not say so, but browsers fail a connection without it.
func ImpliedSubprotocol(head *message.Head) string {
	openAI, offered := false, false
	for s := range offeredIn(head) {
		form, _ := formOfSubprotocol(s)
		openAI = openAI || form == OpenAIForm
		offered = offered || s == realtime
	}
	if openAI && offered {
		return realtime
	}
	return ""
}

// subprotocolToken is the token in the subprotocols of a handshake.
type subprotocolToken struct {
	raw string
	err *Error // why it does not count; nil if it does
}

var (
	errTwoTokens      = errors.New("more than one token in Sec-WebSocket-Protocol")
	errAuthorization  = errors.New("a token in Sec-WebSocket-Protocol beside an Authorization field")
	errEmptyToken     = errors.New("a subprotocol in Sec-WebSocket-Protocol has the prefix of a token, but no token behind it, or other text before it")
	errPaddedToken    = errors.New("the token in Sec-WebSocket-Protocol is base64url with padding")
	errNotBase64Token = errors.New("the token in Sec-WebSocket-Protocol is not base64url")
	errTokenBytes     = errors.New("the token in Sec-WebSocket-Protocol has a byte that no token has in Authorization")
)

// read returns the token that a handshake has in one of these forms; nil if it has none, or is no
// handshake.
func (f SubprotocolForms) read(head *message.Head) *subprotocolToken {
	if f == 0 || head.Upgrade != "websocket" {
		return nil
	}
	tokens, found, rest := 0, SubprotocolForms(0), ""
	for s := range offeredIn(head) {
		if form, after := formOfSubprotocol(s); form != 0 {
			tokens++
			found, rest = found|form, after
		}
	}
	if found&f == 0 {
		return nil
	}
	t := &subprotocolToken{}
	var err error
	switch {
	case tokens > 1:
		err = errTwoTokens
	case head.Fields.Has("authorization"):
		err = errAuthorization
	case tokenInQuery(head.Query):
		err = errors.New("a second token in the query")
	default:
		t.raw, err = found.decode(rest)
	}
	if err != nil {
		t.err = bad(err)
	}
	return t
}

// decode returns the token that follows the prefix of a form. Its errors do not repeat it.
func (f SubprotocolForms) decode(text string) (string, error) {
	token := text
	switch {
	case text == "":
		return "", errEmptyToken
	case len(text) > base64.RawURLEncoding.EncodedLen(maxToken):
		return "", errors.New("token is too long")
	case f == KubernetesForm && strings.HasSuffix(text, "="):
		return "", errPaddedToken
	case f == KubernetesForm:
		decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || strings.ContainsAny(text, "\r\n") { // which the decoder skips
			return "", errNotBase64Token
		}
		token = string(decoded)
	}
	switch {
	case len(token) > maxToken:
		return "", errors.New("token is too long")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errTokenBytes
	}
	return token, nil
}

// isAPIKey reports whether the token has the form of the gateway's API keys, or tries to.
func (t *subprotocolToken) isAPIKey() bool { return strings.HasPrefix(t.raw, apikey.Prefix) }

// holdsAPIKeyInSubprotocol reports whether a value of [SubprotocolField] has an API key of the gateway, or
// may have one in another spelling.
func holdsAPIKeyInSubprotocol(value string) bool {
	return slices.ContainsFunc(strings.Split(value, ","), func(element string) bool {
		form, rest := formOfSubprotocol(trimmed(element))
		if form == 0 {
			return false
		}
		token, err := form.decode(rest)
		return rest == "" || err == nil && strings.HasPrefix(token, apikey.Prefix)
	})
}

// unread says why a token in [SubprotocolField] does not count on a route that takes these forms; "" if
// there is none.
func (f SubprotocolForms) unread(head *message.Head) string {
	for s := range offeredIn(head) {
		switch form, _ := formOfSubprotocol(s); {
		case form == 0:
		case form&f == 0:
			return "Sec-WebSocket-Protocol has a token, which counts with websocket_token: " + form.name() + " alone"
		default:
			return "Sec-WebSocket-Protocol has a token, which counts in a WebSocket handshake with the gateway alone"
		}
	}
	return ""
}

// SubprotocolToken returns the bearer token that a handshake has in a subprotocol where the chain takes
// one; "" if there is none, or an API key.
func (c *Chain) SubprotocolToken(head *message.Head) string {
	if t := c.forms.read(head); t != nil && t.err == nil && !t.isAPIKey() {
		return t.raw
	}
	return ""
}
