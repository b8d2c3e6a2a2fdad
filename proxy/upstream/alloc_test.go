//go:build !race

package upstream

// The race detector makes sync.Pool drop items, so allocations cannot be counted with it.

import (
	"bytes"
	"context"
	"net"
	"testing"

	"golang.org/x/net/http2"
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

func TestSmallCallAllocatesLittle(t *testing.T) {
	url := frameServer(t, func(_ int, fr *http2.Framer, id uint32, _ net.Conn) { answer204(fr, id) })
	u := grpcUpstream(t, Options{}, url)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := make([]byte, 32<<10)
	body := bytes.NewReader(nil)
	request := call("hello")
	request.Body = plainBody{body}
	var x Response
	request.Into = &x
	allocs := testing.AllocsPerRun(200, func() {
		body.Reset([]byte("hello"))
		answer, err := u.Send(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = answer.Body.Read(buf)
		}
		answer.Close()
	})
	if allocs > 14 { // five of them in the server, which runs in the same process
		t.Errorf("a small call allocates %v times, want at most 14", allocs)
	}
}
