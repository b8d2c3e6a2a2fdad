package exchange

import (
	"encoding/base64"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"sallyport/proxy/message"
)

// The status is read by the decoder that gRPC clients use.
func TestStatusOfARefusedCallIsReadByTheRealDecoder(t *testing.T) {
	for _, tt := range []struct {
		wait     time.Duration
		details  int
		pushback string
	}{
		{0, 2, ""},
		{time.Millisecond, 3, "1"}, {1500*time.Millisecond + 1, 3, "1501"}, {10 * time.Second, 3, "10000"},
		{10*time.Second + 1, 3, "-1"}, {time.Hour, 3, "-1"}, {366 * 24 * time.Hour, 3, "-1"},
	} {
		var f message.Fields
		addStatus(outcome{text: "Too many requests.", grpc: grpcResourceExhausted}, &refusal{reason: reasonRate, retryAfter: tt.wait}, "0123456789abcdef", &f)
		text, err := base64.RawStdEncoding.DecodeString(f.Get("grpc-status-details-bin"))
		if err != nil {
			t.Fatal(err)
		}
		var got status.Status
		if err := proto.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got.Code != 8 || got.Message != "Too many requests." || len(got.Details) != tt.details || len(got.ProtoReflect().GetUnknown()) != 0 {
			t.Errorf("%s: got %v", tt.wait, &got)
			continue
		}
		var all []proto.Message
		for _, d := range got.Details {
			detail, err := d.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, detail)
		}
		want := []proto.Message{
			&errdetails.ErrorInfo{Reason: "rate_limited", Domain: "sallyport"},
			&errdetails.RequestInfo{RequestId: "0123456789abcdef"},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(tt.wait)},
		}
		for i, detail := range all {
			if !proto.Equal(detail, want[i]) {
				t.Errorf("%s: the detail is %v, want %v", tt.wait, detail, want[i])
			}
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
