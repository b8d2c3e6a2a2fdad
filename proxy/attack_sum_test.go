package proxy_test

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// Frames that cost little by themselves are limited in number: a flood of HEADERS on a stream that the
// gateway has reset ends the connection. Other clients are served meanwhile.
func TestAttackHeadersOnAResetStream(t *testing.T) {
	leavesNothing(t)
	h := build(t, plan{more: "limits: {frames: 1000}"})
	h.meanwhile(func() {
		f := h.frames()
		f.mute = true
		f.headers(1, true, h.usual("GET", "/")...)
		_ = f.fr.WriteWindowUpdate(1, 0) // a fault of the stream: the gateway resets it
		over := make(chan struct{})
		go func() {
			defer close(over)
			for f.next() {
			}
		}()
		block, ended := f.block("x-late: 1"), false
		for i := 0; i < 1_000_000 && !ended; i++ {
			ended = f.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}) != nil
		}
		f.c.Close()
		<-over
		if !ended {
			t.Error("a million HEADERS did not end the connection")
		}
	})
}

// The total length of chunk extensions is limited, though each is short: the limit on content does not
// count them.
func TestAttackExtensionsOfChunks(t *testing.T) {
	j := newJudge(t, nil)
	h := build(t, plan{routes: j.before("")})
	h.meanwhile(func() {
		c := h.dial("models.test")
		defer c.Close()
		head := "POST /upload HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer " + h.token() + "\r\nTransfer-Encoding: chunked\r\n\r\n"
		_, _ = io.WriteString(c, head+strings.Repeat("1;"+strings.Repeat("x", 250)+"\r\nx\r\n", 4000)+"0\r\n\r\n"+probeVictim)
		answer, _ := io.ReadAll(c)
		if got := statuses(string(answer)); got != "400" || !strings.Contains(string(answer), "bad_body") {
			t.Errorf("got %s", answer)
		}
	})
	for _, r := range j.taken() {
		if r.Target != "/honest" {
			t.Errorf("the upstream saw %s %s", r.Method, r.Target)
		}
	}
	j.sound(t)
}
