package exchange

import (
	"cmp"
	"errors"
	"strconv"
	"strings"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// grpcCode is a status of gRPC.
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

// codeOf is the status of gRPC for a refusal that other callers get with a status of HTTP.
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

// checkCallForm refuses what says that it is gRPC and is not as its servers read it:
// rules that look at another path than the server, or at none, let calls pass
// (CVE-2026-33186).
func (x *exchange) checkCallForm() error {
	h := x.head
	switch {
	case h.Version != message.HTTP2:
		return &refusal{reason: reasonBadCall, cause: errCallVersion}
	case h.Method != "POST", !h.Trailers, h.HasQuery, !callPath(h.Path):
		return &refusal{reason: reasonBadCall, cause: errCallForm}
	}
	return nil
}

// callPath says whether a path is /package.Service/Method, in which only the package
// may be missing.
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

// identifier says whether s is a name as Protocol Buffers have them.
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

// asCall makes a refusal what gRPC's callers read: a status in fields, and no
// content. The record keeps the status that others get.
func (x *exchange) asCall(o outcome, h *message.Response) {
	x.record.GRPC = strconv.Itoa(int(o.grpc))
	h.Status = 200
	h.Fields.Add("grpc-status", x.record.GRPC)
	h.Fields.Add("grpc-message", grpcMessage(o.text))
}

// grpcMessage writes a text as gRPC's callers read it, percent-encoded.
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

// noteCall records how a call ended: its status stands in the trailers, or in the
// head of an answer that is nothing else.
func (x *exchange) noteCall(head, trailers message.Fields) {
	if !x.grpc {
		return
	}
	code := cmp.Or(trailers.Get("grpc-status"), head.Get("grpc-status"))
	if n, err := strconv.ParseUint(code, 10, 8); err == nil {
		x.record.GRPC = strconv.FormatUint(n, 10)
	}
}

// cutAs has the engine cut the answer with the reason that the upstream gave, where
// it gave one.
func (x *exchange) cutAs(err error) {
	var reset *wire.Reset
	if s, ok := x.stream.(wire.Cutter); ok && errors.As(err, &reset) {
		s.CutAs(reset.Code)
	}
}
