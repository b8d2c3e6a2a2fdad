//go:build !race

package h1

// The race detector makes pools forget.

import (
	"context"
	"io"
	"testing"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// One allocation: the text of the head. The list of fields is reused.
func TestExchangeAllocatesLittle(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}"
	client, conn := cannedClient(answer, 1<<20)
	r := &wire.Request{Method: "POST", Target: "/", Host: "a", Content: []byte("{}"), Fields: message.Fields{{Name: "accept", Value: "*/*"}}}
	buf, text := make([]byte, 4<<10), []byte(answer)
	var x wire.Response
	allocs := testing.AllocsPerRun(100, func() {
		conn.answer = text
		conn.written.Reset()
		if err := client.Exchange(context.Background(), r, &x); err != nil {
			t.Fatal(err)
		}
		if n, err := x.Read(buf); n != 2 || err != io.EOF {
			t.Fatal(n, err)
		}
		if !x.Close() {
			t.Fatal("not reusable")
		}
	})
	if allocs > 1 {
		t.Errorf("an exchange allocates %v times, want at most 1: the text of the head", allocs)
	}
}
