package route

import (
	"errors"
	"strings"

	"sallyport/proxy/message"
)

// Why [Guard.Check] and [CheckSpelling] refuse a field.
var (
	ErrOwnField       = errors.New("field folds onto a name that is the gateway's")
	ErrMethodOverride = errors.New("field overrides the method")
	ErrFoldedField    = errors.New("field folds onto a name that decides how a message is read, or that is signed")
)

// Guard knows the fields of a request that are the gateway's own to write or
// that change what other fields mean. It is immutable.
type Guard struct {
	own    map[string]bool // bare names of the identity fields of all routes
	signed map[string]bool // bare names of the fields that signatures must cover
}

// NewGuard protects the identity names of every route on every route: two
// routes may share an upstream, and only one of them may set the name. What
// signatures must cover it protects from other spellings, which would not be covered.
func NewGuard(identityNames, signedNames []string) Guard {
	g := Guard{own: map[string]bool{}, signed: map[string]bool{}}
	for _, n := range identityNames {
		g.own[bare(n)] = true
	}
	for _, n := range signedNames {
		g.signed[bare(n)] = true
	}
	return g
}

// bare is the folded form of a name without separators at its ends and with one
// where several stand: some readers trim and join those too.
func bare(name string) string {
	folded := strings.Trim(message.Fold(name), "-")
	for strings.Contains(folded, "--") {
		folded = strings.ReplaceAll(folded, "--", "-")
	}
	return folded
}

// Check refuses fields whose names fold onto the gateway's own, in any spelling,
// and fields that would override the method.
func (g *Guard) Check(fields message.Fields) error {
	for i := range fields {
		name := fields[i].Name
		folded := bare(name)
		switch {
		case strings.HasPrefix(folded, "x-sallyport-"), g.own[folded]:
			return &message.FieldError{Err: ErrOwnField, Name: name[:min(len(name), 64)], Cure: "the client must not send it"}
		case overridesMethod(folded):
			return &message.FieldError{Err: ErrMethodOverride, Name: name, Cure: "the client must send the request with the method that is meant"}
		case folded != name && (weighty(folded) || Replaced(folded) || g.signed[folded]):
			return foldedField(name, folded)
		}
	}
	return nil
}

// CheckSpelling refuses fields that some server takes for one that a signature
// covers: what such a server reads, nobody signed.
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

// Trailers picks those of a client's trailers that may go on: none that would be
// refused, removed or acted on in the head.
func (g *Guard) Trailers(fields message.Fields) message.Fields {
	var kept message.Fields
	for i := range fields {
		folded := bare(fields[i].Name)
		if g.Check(fields[i:i+1]) == nil && !Replaced(folded) && !weighty(folded) {
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

// weighty says whether a field, under its own name, decides how the rest of the
// message is read: another spelling of it is an attempt to be read twice.
func weighty(folded string) bool {
	switch folded {
	case "authorization", "cookie", "content-type", "content-encoding", "content-digest", "signature", "signature-input", "dpop", "x-api-key":
		return true
	}
	return message.OfConnection(folded)
}

// Replaced says whether the gateway removes a client's field of this name and,
// where upstreams need it, writes its own: what tells the client's address, what
// servers take for their own variables, and what sends a request elsewhere.
func Replaced(folded string) bool {
	switch folded {
	case "forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip",
		"script-name", "remote-user", "remote-addr", "proxy",
		"x-original-url", "x-original-uri", "x-original-host", "x-original-method", "x-rewrite-url", "x-host",
		"x-envoy-original-path", "x-envoy-original-host",
		"x-vertex-ai-triton-redirect", "x-amzn-sagemaker-target-model", "x-amzn-sagemaker-custom-attributes":
		return true
	}
	return strings.HasPrefix(folded, "x-forwarded-")
}
