package route

import (
	"errors"
	"slices"
	"strings"

	"sallyport/auth"
	"sallyport/proxy/message"
)

// These errors of [Guard.Check] and [CheckSpelling] say why a field is refused.
var (
	ErrOwnField       = errors.New("field folds onto a name that is the gateway's")
	ErrMethodOverride = errors.New("field overrides the method")
	ErrSpoofed        = errors.New("field tells servers behind other proxies who calls")
	ErrFoldedField    = errors.New("field folds onto a name that decides how a message is read, or that is signed")
)

// Guard knows the request fields that only the gateway may write, or that change the meaning of
// other fields. It is immutable.
type Guard struct {
	own    map[string]bool // bare names of the identity fields of all routes
	tokens []string        // lower-case names of the fields in which proxies add tokens
	signed map[string]bool // bare names of the fields that signatures must cover
}

// NewGuard protects the identity names of all routes on every route: two routes may share an
// upstream, and only one of them may set the name. It also protects signed names from other
// spellings, which no signature would cover. The same holds for the names of fields in which
// proxies add tokens; no route forwards those.
func NewGuard(identityNames, signedNames, tokenNames []string) Guard {
	g := Guard{own: map[string]bool{}, signed: map[string]bool{}, tokens: tokenNames}
	for _, n := range tokenNames {
		g.signed[bare(n)] = true
	}
	for _, n := range identityNames {
		g.own[bare(n)] = true
	}
	for _, n := range signedNames {
		g.signed[bare(n)] = true
	}
	return g
}

// bare is the folded form of a name without separators at its ends and with runs of separators
// joined: some servers trim and join those too.
func bare(name string) string {
	if isBare(name) {
		return name
	}
	folded := strings.Trim(message.Fold(name), "-")
	for strings.Contains(folded, "--") {
		folded = strings.ReplaceAll(folded, "--", "-")
	}
	return folded
}

// isBare reports whether bare changes nothing: the names of most fields.
func isBare(name string) bool {
	separated := true // at the beginning, and after a separator
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			separated = false
		case c != '-' || separated:
			return false
		default:
			separated = true
		}
	}
	return !separated
}

// Check refuses fields that fold onto the gateway's own names, in any spelling, and fields that
// override the method.
func (g *Guard) Check(fields message.Fields) error {
	for i := range fields {
		name := fields[i].Name
		folded := bare(name)
		switch {
		case strings.HasPrefix(folded, "x-sallyport-"), g.own[folded]:
			return &message.FieldError{Err: ErrOwnField, Name: name, Cure: "the client must not send it"}
		case overridesMethod(folded):
			return &message.FieldError{Err: ErrMethodOverride, Name: name, Cure: "the client must send the request with the method that is meant"}
		case folded != name && (weighty(folded) || Replaced(folded) || g.signed[folded]):
			return foldedField(name, folded)
		}
	}
	return nil
}

// CheckSpelling refuses alternative spellings of signed fields: a server might read the unsigned
// one.
func CheckSpelling(fields message.Fields, covers func(name string) bool) error {
	for i := range fields {
		name := fields[i].Name
		if folded := bare(name); folded != name && covers(folded) {
			return foldedField(name, folded)
		}
	}
	return nil
}

func foldedField(name, folded string) error {
	return &message.FieldError{Err: ErrFoldedField, Name: name, Why: "some servers take it for " + folded, Cure: "the client must write it so, or leave it out"}
}

// IsToken reports whether a proxy adds tokens in the field of this lower-case name.
func (g *Guard) IsToken(name string) bool { return slices.Contains(g.tokens, name) }

// Trailers returns the client trailers that may be forwarded. It drops those that a head check
// would refuse, remove or interpret.
func (g *Guard) Trailers(fields message.Fields) message.Fields {
	var kept message.Fields
	for i := range fields {
		folded := bare(fields[i].Name)
		if g.Check(fields[i:i+1]) == nil && !Replaced(folded) && !weighty(folded) && !Spoofable(folded) && !g.IsToken(fields[i].Name) {
			kept = append(kept, fields[i])
		}
	}
	return kept
}

func overridesMethod(folded string) bool {
	switch folded {
	case "x-http-method-override", "x-http-method", "x-method-override":
		return true
	}
	return false
}

// weighty reports whether a field decides how the rest of the message is parsed, or may have a
// credential. Another spelling of it is an attempt to have the message parsed in two ways.
func weighty(folded string) bool {
	switch folded {
	case "authorization", "cookie", "content-type", "content-encoding", "content-digest", "signature", "signature-input", "dpop", "x-api-key", "api-key",
		auth.SubprotocolField:
		return true
	}
	return message.OfConnection(folded)
}

// Replaced reports whether the gateway removes a client's field of this name. That holds for client
// addresses, server variables and fields that redirect a request. If upstreams need the field, the
// gateway writes its own. [Spoofable] fields are not among them, since a route may send those on.
func Replaced(folded string) bool {
	switch folded {
	case "forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "remote-addr":
		return true
	}
	return Redirects(folded) || strings.HasPrefix(folded, "x-forwarded-") && !Spoofable(folded)
}

// Redirects reports whether some servers take a field of this name for another target, method, host or model of the
// request, or for a variable of CGI.
func Redirects(folded string) bool {
	switch folded {
	case "script-name", "proxy",
		"x-original-url", "x-original-uri", "x-original-host", "x-original-method", "x-rewrite-url", "x-host",
		"x-envoy-original-path", "x-envoy-original-host",
		"x-vertex-ai-triton-redirect", "x-amzn-sagemaker-target-model", "x-amzn-sagemaker-custom-attributes":
		return true
	}
	return false
}
