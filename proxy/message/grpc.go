package message

import "strings"

// IsGRPC reports whether a Content-Type is gRPC's: application/grpc, optionally with a suffix for
// the message format, and parameters. gRPC-Web is a different protocol.
func IsGRPC(contentType string) bool {
	const base, kind = "application/grpc", len("application/")
	if len(contentType) < len(base) || contentType[kind]|0x20 != 'g' || !strings.EqualFold(contentType[:len(base)], base) {
		return false
	}
	rest := contentType[len(base):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// IsProtobufCall reports whether a Content-Type of gRPC's says that messages are Protocol Buffers, which
// is also the default. Servers may have decoders for other formats, such as JSON.
func IsProtobufCall(contentType string) bool {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.Trim(t, " \t")
	return strings.EqualFold(t, "application/grpc") || strings.EqualFold(t, "application/grpc+proto")
}
