package exchange

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/httpsig"
	"sallyport/policy"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/upstream"
)

// Reasons of refusals that are made here. Those of authentication and policy
// stand in their packages; every one of them has its row in outcomes.
const (
	reasonBadVersion     = "bad_version"
	reasonBadMethod      = "bad_method"
	reasonBadTarget      = "bad_target"
	reasonBadAuthority   = "bad_authority"
	reasonBadField       = "bad_field"
	reasonBadSyntax      = "bad_syntax"
	reasonBadFraming     = "bad_framing"
	reasonUnknownCoding  = "unknown_transfer_coding"
	reasonTargetTooLong  = "target_too_long"
	reasonHeadTooLarge   = "head_too_large"
	reasonHeadTimeout    = "head_timeout"
	reasonExpectation    = "bad_expectation"
	reasonAmbiguousPath  = "ambiguous_path"
	reasonProtectedField = "protected_field"
	reasonNoRoute        = "no_route"
	reasonAddress        = "address_not_allowed"
	reasonOrigin         = "origin_not_allowed"
	reasonUntold         = "request_not_told"
	reasonUndecided      = "not_for_another_proxy"
	reasonUpgrade        = "upgrade_not_allowed"
	reasonMethod         = "method_not_allowed"
	reasonBodyTooLarge   = "body_too_large"
	reasonBadBody        = "bad_body"
	reasonBodyTimeout    = "body_timeout"
	reasonRate           = "rate_limited"
	reasonBusy           = "too_many_in_flight"
	reasonOverloaded     = "overloaded"
	reasonAudit          = "audit_unavailable"
	reasonReplayed       = string(httpsig.Replayed)
	reasonReplayFull     = "replay_full"
	reasonReplayWindow   = "replay_window"
	reasonBodyMemory     = "body_memory"
	reasonDigestMissing  = string(httpsig.DigestMissing)
	reasonDigestMismatch = string(httpsig.DigestMismatch)
	reasonRefused        = "upstream_refused"
	reasonReset          = "upstream_reset"
	reasonGarbage        = "upstream_garbage"
	reasonTimeout        = "upstream_timeout"
	reasonNoneHealthy    = "no_healthy_upstream"
	reasonUnserved       = "protocol_not_served"
	reasonBadCall        = "bad_grpc_call"

	reasonUpstreamSignature = "upstream_signature"

	reasonPlainHTTP = "plain_http"
	reasonInternal  = "internal"

	// These end an exchange after its answer has begun, or without one.
	reasonClientGone = "client_gone"
	reasonExpired    = "credential_expired_in_stream"
	reasonWithdrawn  = "withdrawn_in_stream"
	reasonReplaced   = "configuration_replaced"
	reasonShutdown   = "shutdown"
)

// outcome is what a caller learns: a status and a fixed text, and the status of gRPC
// if that is what it speaks.
type outcome struct {
	status int
	text   string
	grpc   grpcCode
}

type words struct {
	status int
	text   string
}

// outcomes is the one table of refusals. Those of authentication have their words
// in package auth, because challenges repeat them. What callers of gRPC learn follows
// from the status, but where codes has it.
var outcomes = func(table map[string]words, codes map[string]grpcCode) map[string]outcome {
	for _, reason := range auth.Reasons() {
		e := auth.Error{Reason: reason}
		table[reason] = words{e.Status(), e.Text()}
	}
	all := map[string]outcome{}
	for reason, w := range table {
		all[reason] = outcome{w.status, w.text, cmp.Or(codes[reason], codeOf(w.status))}
	}
	return all
}(map[string]words{
	reasonBadVersion:     {505, "This version of HTTP is not served."},
	reasonBadMethod:      {501, "This method is not served."},
	reasonBadTarget:      {400, "The request target is not acceptable."},
	reasonBadAuthority:   {400, "The Host is not acceptable."},
	reasonBadField:       {400, "A header field is not acceptable."},
	reasonBadSyntax:      {400, "This is not a well-formed HTTP request."},
	reasonBadFraming:     {400, "The end of the request body is not announced in one clear way."},
	reasonUnknownCoding:  {501, "The transfer coding is not known here."},
	reasonTargetTooLong:  {414, "The request target is too long."},
	reasonHeadTooLarge:   {431, "The request head is too large."},
	reasonHeadTimeout:    {408, "The request head did not arrive in time."},
	reasonExpectation:    {417, "The expectation cannot be met."},
	reasonAmbiguousPath:  {400, "The path can be read in more than one way."},
	reasonProtectedField: {400, "A header field that only the gateway may set was sent."},
	reasonBadBody:        {400, "The request body is malformed."},
	reasonBadCall:        {400, "This is not a gRPC call as it must be."},
	reasonNoRoute:        {404, "Nothing is served here."},
	reasonMethod:         {405, "The method is not allowed here."},
	reasonBodyTimeout:    {408, "The request body did not arrive in time."},
	reasonBodyTooLarge:   {413, "The request body is too large."},
	reasonPlainHTTP:      {403, "Credentials were sent without encryption. Use https, and replace the credentials."},

	reasonAddress:   {403, "Requests from this address are not taken here."},
	reasonUntold:    {400, "The proxy in front did not tell what it was asked."},
	reasonUndecided: {403, "This can be answered here only, and not for another proxy."},
	reasonUpgrade:   {403, "No change of protocol is allowed here."},
	reasonOrigin:    {403, "Pages of this origin may not call."},

	policy.ReasonForbidden:         {403, "This caller may not do this."},
	policy.ReasonInsufficientScope: {403, "The token lacks a scope that this needs."},

	reasonReplayed:       {401, sentence(httpsig.Replayed.Text())},
	reasonReplayFull:     {503, "No more signed requests can be remembered now."},
	reasonReplayWindow:   {503, "The gateway has just started and cannot tell this request from a replay yet. Sign it anew, later."},
	reasonBodyMemory:     {503, "There is no memory for the content now."},
	reasonDigestMissing:  {400, sentence(httpsig.DigestMissing.Text())},
	reasonDigestMismatch: {400, sentence(httpsig.DigestMismatch.Text())},

	reasonRate:       {429, "Too many requests."},
	reasonBusy:       {429, "Too many requests are under way."},
	reasonOverloaded: {503, "The gateway has no memory left for more requests now."},
	reasonAudit:      {503, "The audit log cannot take a record."},

	reasonRefused:     {502, "The model server cannot be reached."},
	reasonReset:       {502, "The model server closed the connection."},
	reasonGarbage:     {502, "The model server's answer is malformed."},
	reasonTimeout:     {504, "The model server did not answer in time."},
	reasonNoneHealthy: {503, "No model server is available."},
	reasonUnserved:    {503, "No model server for this protocol is here."},
	reasonInternal:    {500, "The gateway failed."},

	reasonUpstreamSignature: {502, "The model server's answer is not signed as it must be."},

	reasonClientGone: {499, ""}, // nobody is there to read an answer
	reasonExpired:    {401, "The credential expired."},
	reasonWithdrawn:  {403, "The right to this was withdrawn."},
	reasonReplaced:   {503, "The gateway's configuration was replaced."},
	reasonShutdown:   {503, "The gateway is stopping."},
}, map[string]grpcCode{
	reasonUnserved: grpcUnimplemented, // others learn that it is not there now
})

// refusal is the error of a step that ends an exchange.
type refusal struct {
	reason     string
	cause      error         // for the audit record only
	allow      string        // with reasonMethod: the methods that are
	retryAfter time.Duration // with 429 and 503; zero: not said
}

func (r *refusal) Error() string { return r.reason }

func (r *refusal) Unwrap() error { return r.cause }

// checkRetry is the Retry-After when a credential cannot be checked now.
const checkRetry = 5 * time.Second

// Causes that have no error of their own.
var (
	errTooLarge    = errors.New("body exceeds the limit")
	errTooSlow     = errors.New("body comes more slowly than limits.body_rate")
	errCallVersion = errors.New("gRPC over another version than HTTP/2")
	errCallForm    = errors.New("not POST, with trailers taken, to /package.Service/Method")
	errUntold      = errors.New("a field that tells the request is missing, or is there twice")
	errNoSwitch    = errors.New("the upstream did not switch protocols, and did not refuse to")
	errEarly       = errors.New("the server answered before it had the end of the request")
	errNoGrant     = errors.New("no valid grant")
)

// asRefusal finds the reason in an error of any step. What it does not know is an
// internal fault: the request is refused, and the answer says nothing of the cause.
func asRefusal(err error) *refusal {
	var (
		own     *refusal
		authErr *auth.Error
		denied  *policy.Refusal
		upErr   *upstream.Error
		method  *route.MethodError
		leg     *seal.UnsignedAnswerError
		signed  *httpsig.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &authErr):
		r := &refusal{reason: authErr.Reason, cause: authErr.Err}
		if authErr.Status() != http.StatusUnauthorized {
			r.retryAfter = checkRetry
		}
		return r
	case errors.As(err, &denied):
		return &refusal{reason: denied.Reason}
	case errors.As(err, &leg): // before the signature's own fault, which is in it
		return &refusal{reason: reasonUpstreamSignature, cause: leg.Err}
	case errors.As(err, &signed):
		return &refusal{reason: string(signed.Code.Public()), cause: signed}
	case errors.As(err, &upErr):
		return &refusal{reason: upstreamReasons[upErr.Kind], cause: upErr.Err}
	case errors.As(err, &method):
		return &refusal{reason: reasonMethod, allow: method.Allow}
	case errors.Is(err, route.ErrNotFound):
		return &refusal{reason: reasonNoRoute}
	case errors.Is(err, seal.ErrMemory):
		return &refusal{reason: reasonBodyMemory, cause: err, retryAfter: busyRetry}
	}
	for _, m := range errorReasons {
		if errors.Is(err, m.err) {
			return &refusal{reason: m.reason, cause: err}
		}
	}
	return &refusal{reason: reasonInternal, cause: err}
}

var upstreamReasons = map[upstream.Kind]string{
	upstream.Refused:     reasonRefused,
	upstream.Reset:       reasonReset,
	upstream.Garbage:     reasonGarbage,
	upstream.Timeout:     reasonTimeout,
	upstream.NoneHealthy: reasonNoneHealthy,
	upstream.Unserved:    reasonUnserved,
}

// errorReasons are the reasons of errors without facts of their own.
var errorReasons = []struct {
	err    error
	reason string
}{
	{message.ErrBadVersion, reasonBadVersion},
	{message.ErrBadMethod, reasonBadMethod},
	{message.ErrBadTarget, reasonBadTarget},
	{message.ErrAmbiguousPath, reasonAmbiguousPath},
	{message.ErrBadAuthority, reasonBadAuthority},
	{message.ErrBadField, reasonBadField},
	{message.ErrDuplicate, reasonBadField},
	{message.ErrLength, reasonBadField},
	{message.ErrConnection, reasonBadField},
	{message.ErrTooManyLines, reasonHeadTooLarge},
	{message.ErrSyntax, reasonBadSyntax},
	{message.ErrFraming, reasonBadFraming},
	{message.ErrUnknownCoding, reasonUnknownCoding},
	{message.ErrTargetTooLong, reasonTargetTooLong},
	{message.ErrHeadTooLarge, reasonHeadTooLarge},
	{message.ErrHeadTimeout, reasonHeadTimeout},
	{message.ErrExpectation, reasonExpectation},
	{route.ErrCase, reasonAmbiguousPath},
	{route.ErrEnd, reasonAmbiguousPath},
	{route.ErrOwnField, reasonProtectedField},
	{route.ErrMethodOverride, reasonProtectedField},
	{route.ErrFoldedField, reasonProtectedField},
	{seal.ErrTooLong, reasonBodyTooLarge},
	{context.Canceled, reasonClientGone},
}

// Reasons is the closed set of reasons for a refusal, sorted.
func Reasons() []string { return slices.Sorted(maps.Keys(outcomes)) }

// sentence is a text of package httpsig as refusals write theirs.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }
