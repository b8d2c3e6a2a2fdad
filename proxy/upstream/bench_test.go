package upstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"sallyport/proxy/message"
)

// answerServer answers every request that fits into one read with the same bytes. It costs
// little, so measurements show the client.
func answerServer(tb testing.TB, answer string) string {
	tb.Helper()
	return rawServer(tb, func(c net.Conn) {
		buf, text := make([]byte, 64<<10), []byte(answer)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(text); err != nil {
				return
			}
		}
	})
}

const smallAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\nContent-Length: 27\r\n\r\n{\"predictions\": [2.5, 3.0]}"

func smallRequest(body *bytes.Reader) *Request {
	return &Request{
		Method: "POST", Target: "/v1/models/half_plus_two:predict", Host: "models.example.com",
		Fields: message.Fields{{Name: "content-type", Value: "application/json"}, {Name: "user-agent", Value: "curl/8.5"}, {Name: "x-sallyport-principal", Value: "issuer/corp:alice"}},
		Body:   plainBody{body}, Length: int64(body.Len()),
		Timeouts: DefaultTimeouts(),
	}
}

// plainBody is a body without trailers.
type plainBody struct{ io.Reader }

func (plainBody) Trailers() message.Fields { return nil }

func exchangeOnce(tb testing.TB, u *Upstream, ctx context.Context, buf []byte) {
	body := bytes.NewReader([]byte(`{"instances": [1.0, 2.0]}`))
	x, err := u.Send(ctx, smallRequest(body))
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := x.Body.Read(buf); err == io.EOF {
			break
		} else if err != nil {
			tb.Fatal(err)
		}
	}
	x.Close()
}

func BenchmarkSmall(b *testing.B) {
	u := newUpstream(b, answerServer(b, smallAnswer))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := make([]byte, 32<<10)
	exchangeOnce(b, u, ctx, buf)
	b.ReportAllocs()
	for b.Loop() {
		exchangeOnce(b, u, ctx, buf)
	}
}

func BenchmarkDownload(b *testing.B) {
	const size = 64 << 20
	u := newUpstream(b, rawServer(b, func(c net.Conn) {
		in := bufio.NewReader(c)
		part := make([]byte, 64<<10)
		for {
			if _, err := readRequestHead(in); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
			for range size / len(part) {
				if _, err := c.Write(part); err != nil {
					return
				}
			}
		}
	}))
	buf := make([]byte, 64<<10)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		x, err := u.Send(context.Background(), &Request{Method: "GET", Target: "/", Timeouts: Timeouts{Idle: time.Minute}})
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = x.Body.Read(buf)
		}
		x.Close()
	}
}
