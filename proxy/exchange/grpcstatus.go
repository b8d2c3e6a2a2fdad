package exchange

import (
	"encoding/base64"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sallyport/proxy/message"
)

// longestPushback is the longest wait that a refusal asks of a gRPC client's own retries. The call
// would wait that long; after longer waits the caller should decide.
const longestPushback = 10 * time.Second

// addRetry tells a gRPC client when to try again: a program by google.rpc.RetryInfo among the details
// of the status, and the client library by grpc-retry-pushback-ms, of which a negative number means
// not to retry (gRFC A6).
func addRetry(code grpcCode, text string, wait time.Duration, f *message.Fields) {
	f.Add("grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(statusWithRetry(code, text, wait)))
	pushback := int64(-1)
	if wait <= longestPushback {
		pushback = int64((wait + time.Millisecond - 1) / time.Millisecond)
	}
	f.Add("grpc-retry-pushback-ms", strconv.FormatInt(pushback, 10))
}

// statusWithRetry encodes a google.rpc.Status with a google.rpc.RetryInfo.
func statusWithRetry(code grpcCode, text string, wait time.Duration) []byte {
	var delay []byte // google.protobuf.Duration
	delay = appendNumber(delay, 1, uint64(wait/time.Second))
	delay = appendNumber(delay, 2, uint64(wait%time.Second))
	info := appendBytes(nil, 1, delay)
	detail := appendBytes(nil, 1, []byte("type.googleapis.com/google.rpc.RetryInfo")) // google.protobuf.Any
	detail = appendBytes(detail, 2, info)
	status := appendNumber(nil, 1, uint64(code))
	status = appendBytes(status, 2, []byte(text))
	return appendBytes(status, 3, detail)
}

func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b // as encoders write zero
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}
