package message

import "strings"

// IsGRPC says whether a Content-Type is that of gRPC: application/grpc, alone or with
// the name of what the messages are written in, and parameters. gRPC-Web, which
// works over any HTTP, is another.
func IsGRPC(contentType string) bool {
	const base = "application/grpc"
	if len(contentType) < len(base) || !strings.EqualFold(contentType[:len(base)], base) {
		return false
	}
	rest := contentType[len(base):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}
