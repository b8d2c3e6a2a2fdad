package exchange

import (
	"errors"
	"io"
	"testing"
	"time"

	"sallyport/policy/model"
	"sallyport/proxy/message"
)

// slowBody returns some bytes per read, slowly.
type slowBody struct {
	clock *time.Time
	each  int
	takes time.Duration
	reads int
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.reads == 0 {
		return 0, io.EOF
	}
	b.reads--
	*b.clock = b.clock.Add(b.takes)
	return copy(p, make([]byte, b.each)), nil
}

func (b *slowBody) Trailers() message.Fields { return nil }

// A body that trickles just within the idle time is refused.
func TestBodyRate(t *testing.T) {
	for _, c := range []struct {
		name string
		body slowBody
		rate int64
		want bool // refused
	}{
		{"a byte a minute", slowBody{each: 1, takes: 59 * time.Second, reads: 10}, 256, true},
		{"a byte a second", slowBody{each: 1, takes: time.Second, reads: 100}, 256, true},
		{"just enough", slowBody{each: 256, takes: time.Second, reads: 100}, 256, false},
		{"slow at first, within patience", slowBody{each: 1, takes: time.Second, reads: 9}, 256, false},
		{"much at once after a pause", slowBody{each: 32 << 10, takes: 59 * time.Second, reads: 4}, 256, false},
		{"no rate", slowBody{each: 1, takes: 59 * time.Second, reads: 10}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := time.Unix(1_800_000_000, 0)
			c.body.clock = &clock
			b := countedBody{src: &c.body, rate: c.rate, now: func() time.Time { return clock }}
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{&b}, make([]byte, 64<<10))
			if got := err != nil && asRefusal(err).reason == reasonBodyTimeout; got != c.want {
				t.Errorf("%v; refused: want %v", err, c.want)
			}
			if c.want && errors.Unwrap(err).Error() != "slower than 256B/s (limits.body_rate)" {
				t.Errorf("the cause is %v", errors.Unwrap(err))
			}
		})
	}
}

// The one message of a call that must name its model may not trickle: it takes memory meanwhile.
func TestBodyRateOfCalls(t *testing.T) {
	v2, _ := model.ByName("v2")
	for method, want := range map[string]int64{"ModelInfer": 256, "ModelStreamInfer": 0, "ServerLive": 0} {
		reading, err := v2.Read(&model.Request{Method: "POST", GRPC: true, Path: "/inference.GRPCInferenceService/" + method})
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange{snapshot: &Snapshot{BodyRate: 256}}
		x.grpc, x.reading = true, reading
		x.scanned.scanner = reading.Scanner(model.ScanOptions{})
		if got := x.bodyRate(); got != want {
			t.Errorf("%s: %d; want %d", method, got, want)
		}
	}
}
