package exchange

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"sallyport/auth"
	"sallyport/auth/httpsig"
	"sallyport/auth/login"
	"sallyport/policy"
	"sallyport/policy/model"
	"sallyport/proxy/credential"
	"sallyport/proxy/limit"
	"sallyport/proxy/message"
	"sallyport/proxy/route"
	"sallyport/proxy/seal"
	"sallyport/proxy/upstream"
)

// These are the reasons of refusals made here. Packages auth, login and policy define theirs; every reason
// has a row in outcomes.
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
	reasonCrossSite      = "cross_site"
	reasonAhead          = "fetched_ahead"
	reasonUntold         = "request_not_told"
	reasonUndecided      = "not_for_another_proxy"
	reasonUpgrade        = "upgrade_not_allowed"
	reasonMethod         = "method_not_allowed"
	reasonBodyTooLarge   = "body_too_large"
	reasonBadBody        = "bad_body"
	reasonBadModel       = "bad_model"
	reasonBadName        = "bad_model_name"
	reasonVersionNeeded  = "version_needed"
	reasonUnreadEncoding = "unread_encoding"
	reasonBatch          = "batch_too_large"
	reasonTensor         = "tensor_too_large"
	reasonUncounted      = "uncounted_body"
	reasonUnknownCall    = "unknown_call"
	reasonCodeInBody     = "code_in_body"
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
	reasonUpgradeBody    = "upgrade_with_body"
	reasonUpgradeMethod  = "upgrade_not_get"
	reasonTokenAlone     = "subprotocol_missing"
	reasonMisdirected    = "misdirected"

	reasonUpstreamSignature = "upstream_signature"

	reasonNoUpstreamCredential      = "upstream_credential_unavailable"
	reasonUpstreamCredentialRefused = "upstream_credential_refused"

	reasonPlainHTTP = "plain_http"
	reasonInternal  = "internal"

	// These reasons end an exchange after its answer has begun, or without an answer.
	reasonClientGone = "client_gone"
	reasonExpired    = "credential_expired_in_stream"
	reasonWithdrawn  = "withdrawn_in_stream"
	reasonReplaced   = "configuration_replaced"
	reasonShutdown   = "shutdown"
)

// outcome is the caller's view of a refusal: a status, a fixed text, and a gRPC status for gRPC.
type outcome struct {
	status int
	text   string
	grpc   grpcCode
}

type words struct {
	status int
	text   string
}

// outcomes is the one table of refusals. Packages auth and login hold the texts of their own, because
// challenges repeat them. The gRPC status follows from the HTTP status unless codes has an entry.
var outcomes = func(table map[string]words, codes map[string]grpcCode) map[string]outcome {
	for _, reason := range auth.Reasons() {
		e := auth.Error{Reason: reason}
		table[reason] = words{e.Status(), e.Text()}
	}
	for _, reason := range login.Reasons() {
		e := login.Error{Reason: reason}
		table[reason] = words{e.Status(), e.Text()}
	}
	all := map[string]outcome{}
	for reason, w := range table {
		all[reason] = outcome{w.status, w.text, cmp.Or(codes[reason], codeOf(w.status))}
	}
	return all
}(map[string]words{
	reasonBadVersion:     {505, "This HTTP version is not supported."},
	reasonBadMethod:      {501, "This method is not supported."},
	reasonBadTarget:      {400, "The request target is invalid."},
	reasonBadAuthority:   {400, "The Host is invalid."},
	reasonBadField:       {400, "A header field is invalid."},
	reasonBadSyntax:      {400, "This is not a well-formed HTTP request."},
	reasonBadFraming:     {400, "The request's Content-Length or Transfer-Encoding is invalid or ambiguous."},
	reasonUnknownCoding:  {501, "The transfer coding is not supported."},
	reasonTargetTooLong:  {414, "The request target is too long."},
	reasonHeadTooLarge:   {431, "The request head is too large."},
	reasonHeadTimeout:    {408, "The request head did not arrive in time."},
	reasonExpectation:    {417, "The expectation cannot be met."},
	reasonAmbiguousPath:  {400, "The path can be read in more than one way."},
	reasonProtectedField: {400, "A header field that only the gateway may set was sent."},
	reasonBadBody:        {400, "The request body is malformed."},
	reasonBadModel:       {400, "The request body does not name a model in one clear way."},
	reasonBadName:        {400, "The name of the model or version can be read in more than one way."},
	reasonVersionNeeded:  {400, "The gateway cannot choose a version of the model for this request. Name one in the request."},
	reasonCodeInBody:     {415, "The type of the request body is one that runs code when it is read."},
	reasonUnreadEncoding: {415, "The gateway must read the messages of this call, and does not read this grpc-encoding."},
	reasonUnknownCall:    {404, "The model server has no such path or method."},
	reasonBadCall:        {400, "The gRPC call is malformed."},
	reasonUpgradeBody:    {400, "A WebSocket request must have no body."},
	reasonUpgradeMethod:  {400, "A WebSocket request must be a GET."},
	reasonTokenAlone:     {400, "Offer another subprotocol beside the one with the token, for the server to choose."},
	reasonMisdirected:    {421, "This connection was opened for another host, or before the host asked for client certificates. Open a new one."},
	reasonNoRoute:        {404, "No route has this host and path."},
	reasonMethod:         {405, "The method is not allowed here."},
	reasonBodyTimeout:    {408, "The request body did not arrive in time."},
	reasonBodyTooLarge:   {413, "The request body is too large."},
	reasonBatch:          {413, "The batch is too large."},
	reasonTensor:         {413, "An input is too large."},
	reasonUncounted:      {400, "The batch in the request body cannot be counted."},
	reasonPlainHTTP:      {403, "Credentials were sent without encryption. Use https, and replace the credentials."},

	reasonAddress:   {403, "Requests from this address are not allowed."},
	reasonUntold:    {400, "The asking proxy left out or repeated a field that describes the request."},
	reasonUndecided: {403, "The gateway answers this request only itself, not for another proxy."},
	reasonUpgrade:   {403, "No change of protocol is allowed here."},
	reasonOrigin:    {403, "Pages of this origin are not allowed."},
	reasonCrossSite: {403, "A page of another site may have sent this request in the name of the person who is signed in."},

	reasonAhead: {403, "A login begins when a person opens the page, not when a browser fetches it ahead."},

	policy.ReasonForbidden:         {403, "The caller is not allowed to do this."},
	policy.ReasonInsufficientScope: {403, "The token lacks a required scope."},

	reasonReplayed:       {401, sentence(httpsig.Replayed.Text())},
	reasonReplayFull:     {503, "The store of used nonces is full. Try again later."},
	reasonReplayWindow:   {503, "The gateway has just started and cannot tell this request from a replay yet. Sign a new request later."},
	reasonBodyMemory:     {503, "The gateway has no memory for the request body now."},
	reasonDigestMissing:  {400, sentence(httpsig.DigestMissing.Text())},
	reasonDigestMismatch: {400, sentence(httpsig.DigestMismatch.Text())},

	reasonRate:       {429, "Too many requests."},
	reasonBusy:       {429, "Too many requests are in flight."},
	reasonOverloaded: {503, "The gateway has no memory left for more requests now."},
	reasonAudit:      {503, "The audit log is unavailable."},

	reasonRefused:     {502, "The model server cannot be reached."},
	reasonReset:       {502, "The model server closed the connection."},
	reasonGarbage:     {502, "The model server's answer is malformed."},
	reasonTimeout:     {504, "The model server did not answer in time."},
	reasonNoneHealthy: {503, "No model server is available."},
	reasonUnserved:    {503, "No model server supports this protocol."},
	reasonInternal:    {500, "The gateway failed."},

	reasonUpstreamSignature: {502, "The model server's answer lacks a valid signature."},

	reasonNoUpstreamCredential:      {503, "The gateway has no credential for the model server now."},
	reasonUpstreamCredentialRefused: {502, "The model server refused the gateway's own credential."},

	reasonClientGone: {499, ""}, // the client has left
	reasonExpired:    {401, "The credential expired."},
	reasonWithdrawn:  {403, "The right to do this was withdrawn."},
	reasonReplaced:   {503, "The gateway's configuration was replaced."},
	reasonShutdown:   {503, "The gateway is stopping."},
}, map[string]grpcCode{
	reasonUnserved:       grpcUnimplemented,   // other callers get an "unavailable" status
	reasonUnreadEncoding: grpcUnimplemented,   // clients try again without compression (compression.md of gRPC)
	reasonMisdirected:    grpcUnavailable,     // a retry over a new connection succeeds
	reasonBatch:          grpcInvalidArgument, // as Triton and TensorFlow Serving say of their own limits: a retry cannot succeed
	reasonTensor:         grpcInvalidArgument,
})

// refusal is the error by which a step ends an exchange.
type refusal struct {
	reason     string
	text       string        // replaces the text of the reason; "" keeps that
	cause      error         // for the audit record only
	allow      string        // with reasonMethod: the allowed methods
	accept     string        // with reasonUnreadEncoding: the encodings of messages that are read
	retryAfter time.Duration // with 429 and 503; zero: not sent
	quota      limit.Quota   // of the limit that refuses
	keyID      string        // the key of a verified credential that was refused; "" for none
	hangUp     bool          // only a new connection can succeed
}

func (r *refusal) Error() string { return r.reason }

func (r *refusal) Unwrap() error { return r.cause }

// hangingUp returns the refusal of a connection whose certificate policy is not that of the
// request's host. Unless the connection serves another host, it is of no use any more.
func hangingUp(bad error) *refusal {
	r := *asRefusal(bad)
	var misled *Misdirected
	r.hangUp = !errors.As(bad, &misled) || misled.Outdated
	return &r
}

// unreadRefusal returns the refusal of a head that the dialect does not read.
func unreadRefusal(e *model.Unread) *refusal {
	switch e.Reason {
	case model.WrongMethod:
		return &refusal{reason: reasonMethod, allow: e.Allow, cause: e}
	case model.BadName:
		return &refusal{reason: reasonBadName, cause: e}
	}
	return &refusal{reason: reasonUnknownCall, cause: e}
}

// muchRefusal returns the refusal of a body that asks for too much.
func muchRefusal(e *model.TooMuch) *refusal {
	if e.Tensor {
		return because(reasonTensor, e.Error()+", "+over(e.Most, "limits.tensor_bytes"))
	}
	return because(reasonBatch, fmt.Sprintf("%s, over %d (limits.batch)", e, e.Most))
}

// checkRetry is the Retry-After if a credential cannot be checked now.
const checkRetry = 5 * time.Second

// These errors are causes for the audit record.
var (
	errNoSwitch = errors.New("the upstream did not switch protocols, and did not refuse to")
	errEarly    = errors.New("the server answered before it had the end of the request")
	errNoGrant  = errors.New("no valid grant")
)

// asRefusal finds the reason for an error of any step. An unknown error is an internal fault: the
// request is refused, and the answer does not reveal the cause.
func asRefusal(err error) *refusal {
	var (
		own     *refusal
		authErr *auth.Error
		signIn  *login.Error
		misled  *Misdirected
		denied  *policy.Refusal
		unread  *model.Unread
		coding  model.UnreadEncoding
		much    *model.TooMuch
		upErr   *upstream.Error
		method  *route.MethodError
		leg     *seal.UnsignedAnswerError
		signed  *httpsig.Error
		shown   *credential.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &authErr):
		r := &refusal{reason: authErr.Reason, cause: authErr.Err, keyID: authErr.KeyID}
		if authErr.Status() != http.StatusUnauthorized {
			r.retryAfter = checkRetry
		}
		return r
	case errors.As(err, &signIn):
		r := &refusal{reason: signIn.Reason, cause: signIn.Err}
		if signIn.Reason == login.Unavailable {
			r.retryAfter = checkRetry
		}
		return r
	case errors.As(err, &misled):
		return &refusal{reason: reasonMisdirected, cause: misled}
	case errors.As(err, &unread):
		return unreadRefusal(unread)
	case errors.As(err, &coding):
		return &refusal{reason: reasonUnreadEncoding, accept: coding.Accepted(), cause: err}
	case errors.As(err, &much):
		return muchRefusal(much)
	case errors.Is(err, model.ErrUncounted):
		return &refusal{reason: reasonUncounted, cause: err}
	case errors.Is(err, model.ErrBody):
		return &refusal{reason: reasonBadModel, cause: err}
	case errors.As(err, &denied):
		return &refusal{reason: denied.Reason, cause: errors.New(denied.Cause)}
	case errors.As(err, &leg): // first, because it wraps the signature's fault
		return &refusal{reason: reasonUpstreamSignature, cause: leg.Err}
	case errors.As(err, &signed):
		return &refusal{reason: string(signed.Code.Public()), cause: signed}
	case errors.As(err, &shown) && shown.Refused:
		return &refusal{reason: reasonUpstreamCredentialRefused, cause: shown}
	case errors.As(err, &shown):
		return &refusal{reason: reasonNoUpstreamCredential, cause: shown, retryAfter: checkRetry}
	case errors.As(err, &upErr):
		return &refusal{reason: upstreamReasons[upErr.Kind], cause: upErr.Err}
	case errors.As(err, &method):
		return &refusal{reason: reasonMethod, allow: method.Allow, cause: method}
	case errors.Is(err, route.ErrNotFound):
		return &refusal{reason: reasonNoRoute, cause: err}
	case errors.Is(err, seal.ErrMemory):
		return &refusal{reason: reasonBodyMemory, cause: err, retryAfter: busyRetry}
	}
	for _, m := range errorReasons {
		if errors.Is(err, m.err) {
			return &refusal{reason: m.reason, text: cmp.Or(m.text, placed(m.reason, err)), cause: err}
		}
	}
	return &refusal{reason: reasonInternal, cause: err}
}

// placed is the text of a reason with the bytes of the target that are meant, and where
// they are; "" for errors that are of none.
func placed(reason string, err error) string {
	var target *message.TargetError
	if !errors.As(err, &target) {
		return ""
	}
	return strings.TrimSuffix(outcomes[reason].text, ".") + ": " + target.Place() + "."
}

var upstreamReasons = map[upstream.Kind]string{
	upstream.Refused:     reasonRefused,
	upstream.Reset:       reasonReset,
	upstream.Garbage:     reasonGarbage,
	upstream.Timeout:     reasonTimeout,
	upstream.NoneHealthy: reasonNoneHealthy,
	upstream.Unserved:    reasonUnserved,
}

// errorReasons maps errors without further data to reasons.
var errorReasons = []struct {
	err    error
	reason string
	text   string // where the reason's does not say what is wrong; "" for that
}{
	{message.ErrBadVersion, reasonBadVersion, ""},
	{message.ErrBadMethod, reasonBadMethod, ""},
	{message.ErrBadTarget, reasonBadTarget, ""},
	{message.ErrAmbiguousPath, reasonAmbiguousPath, ""},
	{message.ErrBadAuthority, reasonBadAuthority, ""},
	{message.ErrBadField, reasonBadField, ""},
	{message.ErrDuplicate, reasonBadField, "A header field that may occur once was sent twice."},
	{message.ErrLength, reasonBadField, "Content-Length is not the length of the content."},
	{message.ErrConnection, reasonBadField, "Connection names a field that is not of the connection. Leave it out of Connection."},
	{message.ErrTooManyLines, reasonHeadTooLarge, ""},
	{message.ErrSyntax, reasonBadSyntax, ""},
	{message.ErrFraming, reasonBadFraming, ""},
	{message.ErrUnknownCoding, reasonUnknownCoding, ""},
	{message.ErrTargetTooLong, reasonTargetTooLong, ""},
	{message.ErrHeadTooLarge, reasonHeadTooLarge, ""},
	{message.ErrHeadTimeout, reasonHeadTimeout, ""},
	{message.ErrExpectation, reasonExpectation, ""},
	{route.ErrCase, reasonAmbiguousPath, ""},
	{route.ErrEnd, reasonAmbiguousPath, ""},
	{route.ErrOwnField, reasonProtectedField, ""},
	{route.ErrMethodOverride, reasonProtectedField, "A header field that overrides the method was sent. Send the request with the method that is meant."},
	{route.ErrSpoofed, reasonProtectedField, ""},
	{route.ErrFoldedField, reasonProtectedField, "The name of a header field can be read as that of another field."},
	{seal.ErrTooLong, reasonBodyTooLarge, ""},
	{context.Canceled, reasonClientGone, ""},
}

// Reasons returns the closed set of refusal reasons, sorted.
func Reasons() []string { return slices.Sorted(maps.Keys(outcomes)) }

// sentence turns a text of package httpsig into a sentence.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }
