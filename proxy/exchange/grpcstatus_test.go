package exchange

import (
	"encoding/base64"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"sallyport/proxy/message"
)

// The status is read by the decoder that gRPC clients use.
func TestRetryOfACallIsReadByTheRealDecoder(t *testing.T) {
	for _, tt := range []struct {
		wait     time.Duration
		pushback string
	}{
		{time.Millisecond, "1"}, {1500*time.Millisecond + 1, "1501"}, {10 * time.Second, "10000"},
		{10*time.Second + 1, "-1"}, {time.Hour, "-1"}, {366 * 24 * time.Hour, "-1"},
	} {
		var f message.Fields
		addRetry(grpcResourceExhausted, "Too many requests.", tt.wait, &f)
		text, err := base64.RawStdEncoding.DecodeString(f.Get("grpc-status-details-bin"))
		if err != nil {
			t.Fatal(err)
		}
		var got status.Status
		if err := proto.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got.Code != 8 || got.Message != "Too many requests." || len(got.Details) != 1 || len(got.ProtoReflect().GetUnknown()) != 0 {
			t.Errorf("%s: got %v", tt.wait, &got)
			continue
		}
		detail, err := got.Details[0].UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		info, ok := detail.(*errdetails.RetryInfo)
		if !ok || info.RetryDelay.AsDuration() != tt.wait || info.RetryDelay.CheckValid() != nil {
			t.Errorf("%s: the detail is %v", tt.wait, detail)
		}
		if got := f.Get("grpc-retry-pushback-ms"); got != tt.pushback {
			t.Errorf("%s: pushback %s, want %s", tt.wait, got, tt.pushback)
		}
		// A client reads this, so the encoding is the shortest one of the same meaning.
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(&got)
		if err != nil || string(again) != string(text) {
			t.Errorf("%s: encoded as %x, the library writes %x", tt.wait, text, again)
		}
	}
}
