package exchange

import (
	"cmp"
	"strconv"
	"strings"

	"sallyport/proxy/message"
)

// grpcCode is a gRPC status code.
type grpcCode int

const (
	grpcUnknown           grpcCode = 2
	grpcInvalidArgument   grpcCode = 3
	grpcDeadlineExceeded  grpcCode = 4
	grpcPermissionDenied  grpcCode = 7
	grpcResourceExhausted grpcCode = 8
	grpcUnimplemented     grpcCode = 12
	grpcInternal          grpcCode = 13
	grpcUnavailable       grpcCode = 14
	grpcUnauthenticated   grpcCode = 16
)

// callType is the media type of the gateway's own answers to calls.
const callType = "application/grpc"

// codeOf returns the gRPC status for a refusal with this HTTP status.
func codeOf(status int) grpcCode {
	switch status {
	case 400, 417:
		return grpcInvalidArgument
	case 401:
		return grpcUnauthenticated
	case 403, 421:
		return grpcPermissionDenied
	case 404, 405, 501, 505:
		return grpcUnimplemented
	case 408, 504:
		return grpcDeadlineExceeded
	case 413, 429, 431:
		return grpcResourceExhausted
	case 500:
		return grpcInternal
	case 502, 503:
		return grpcUnavailable
	}
	return grpcUnknown
}

// checkCallForm refuses requests that claim to be gRPC but are not what gRPC servers expect. Rules
// that see another path than the server, or none, let calls pass (CVE-2026-33186).
func (x *exchange) checkCallForm() error { return CheckCallForm(x.head) }

// CheckCallForm refuses a gRPC call whose head has not the form of one.
func CheckCallForm(h *message.Head) error {
	switch {
	case h.Version != message.HTTP2:
		return because(reasonBadCall, "gRPC over another version than HTTP/2: "+h.Version.String())
	case h.Method != "POST":
		return because(reasonBadCall, "gRPC calls are POST")
	case !h.Trailers:
		return because(reasonBadCall, "the client does not take trailers (te: trailers)")
	case h.HasQuery:
		return because(reasonBadCall, "gRPC calls have no query")
	case !callPath(h.Path):
		return because(reasonBadCall, "the path is not /package.Service/Method")
	}
	return nil
}

// callPath reports whether a path is /package.Service/Method; only the package may be missing.
func callPath(path string) bool {
	service, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || len(service)+len(method)+2 != len(path) || !identifier(method) {
		return false
	}
	for part := range strings.SplitSeq(service, ".") {
		if !identifier(part) {
			return false
		}
	}
	return true
}

// identifier reports whether s is a Protocol Buffers identifier.
func identifier(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// shapeCall prepares the head of an answer to a call. An answer with messages ends in trailers, for
// which a known length leaves no place. One without messages has its status in the head. Its signature
// covers the media type, which gRPC libraries hide: clients take it for the plain one.
func (x *exchange) shapeCall(h *message.Response) {
	switch {
	case !h.Fields.Has("grpc-status"):
		h.ContentLength = -1
	case x.answer.Signs():
		h.Fields.Set("content-type", callType)
	}
}

// failed reports whether the head of an answer to a call is all of it, and an error.
func failed(h *message.Response) bool {
	code := h.Fields.Get("grpc-status")
	return code != "" && code != "0"
}

// asCall turns a refusal into a gRPC one: a status in fields, and no content. The record keeps the
// HTTP status.
func (x *exchange) asCall(o outcome, r *refusal, h *message.Response) {
	h.Status = 200
	x.record.GRPC = strconv.Itoa(int(o.grpc))
	addStatus(o, r, x.record.RequestID, &h.Fields)
}

// grpcMessage percent-encodes a text as gRPC requires.
func grpcMessage(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
		}
	}
	return b.String()
}

// noteCall records how a call ended. Its status is in the trailers, or in the head of a
// trailers-only answer.
func (x *exchange) noteCall(head, trailers message.Fields) {
	if !x.grpc {
		return
	}
	code := cmp.Or(trailers.Get("grpc-status"), head.Get("grpc-status"))
	if n, err := strconv.ParseUint(code, 10, 8); err == nil {
		x.record.GRPC = strconv.FormatUint(n, 10)
	}
}
