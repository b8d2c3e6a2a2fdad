//go:build !race

package upstream

// The race detector makes pools forget.

import (
	"bytes"
	"context"
	"testing"
)

func TestSmallRequestAllocatesLittle(t *testing.T) {
	u := newUpstream(t, answerServer(t, smallAnswer))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := make([]byte, 32<<10)
	request := smallRequest(bytes.NewReader(nil))
	request.Method, request.Length = "GET", 0
	allocs := testing.AllocsPerRun(200, func() {
		x, err := u.Send(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = x.Body.Read(buf)
		}
		x.Close()
	})
	if allocs > 6 {
		t.Errorf("a small request on a kept connection allocates %v times, want at most 6", allocs)
	}
}
