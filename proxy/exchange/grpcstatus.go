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

// errorDomain is the domain of our reasons in a google.rpc.ErrorInfo.
const errorDomain = "sallyport"

// addStatus adds the status of a refused call. Programs read its details (google.rpc.Status): the reason
// by which the audit log and the answers to other clients call it, the request id, and when to try again.
func addStatus(o outcome, r *refusal, requestID string, f *message.Fields) {
	f.Add("grpc-status", strconv.Itoa(int(o.grpc)))
	f.Add("grpc-message", grpcMessage(o.text))
	f.Add("grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(encodeStatus(o, r, requestID)))
	if r.retryAfter > 0 {
		addPushback(r.retryAfter, f)
	}
}

// addPushback tells the client library when to try again. A negative number means not to retry (gRFC A6).
func addPushback(wait time.Duration, f *message.Fields) {
	pushback := int64(-1)
	if wait <= longestPushback {
		pushback = int64((wait + time.Millisecond - 1) / time.Millisecond)
	}
	f.Add("grpc-retry-pushback-ms", strconv.FormatInt(pushback, 10))
}

// encodeStatus encodes a google.rpc.Status with its details.
func encodeStatus(o outcome, r *refusal, requestID string) []byte {
	status := appendNumber(nil, 1, uint64(o.grpc))
	status = appendBytes(status, 2, []byte(o.text))
	info := appendBytes(appendBytes(nil, 1, []byte(r.reason)), 2, []byte(errorDomain))
	status = appendDetail(status, "ErrorInfo", info)
	status = appendDetail(status, "RequestInfo", appendBytes(nil, 1, []byte(requestID)))
	if wait := r.retryAfter; wait > 0 {
		var delay []byte // google.protobuf.Duration
		delay = appendNumber(delay, 1, uint64(wait/time.Second))
		delay = appendNumber(delay, 2, uint64(wait%time.Second))
		status = appendDetail(status, "RetryInfo", appendBytes(nil, 1, delay))
	}
	return status
}

// appendDetail appends a message of package google.rpc as a google.protobuf.Any to the details of a status.
func appendDetail(status []byte, name string, message []byte) []byte {
	detail := appendBytes(nil, 1, []byte("type.googleapis.com/google.rpc."+name))
	return appendBytes(status, 3, appendBytes(detail, 2, message))
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
