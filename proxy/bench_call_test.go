package proxy_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"sallyport/proxy/message"
)

// callRoute is a route for gRPC calls. Its rule is not about models, so nothing reads the messages.
const callRoute = `{host: models.test, upstream: tf, callers: issuer/corp, limits: {body: 128MiB}, rules: [{allow: "*", models: "*", who: {scope: models.predict}}]}`

// modelCallRoute is callRoute with a rule about models.
const modelCallRoute = `{host: models.test, upstream: tf, callers: issuer/corp, limits: {body: 128MiB}, rules: [{allow: "*", models: "half_*", who: {scope: models.predict}}]}`

// answerCalls answers gRPC calls over HTTP/2 with an empty message. It allocates nothing for a call,
// and lets clients send as fast as they can.
func answerCalls(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			answerCallsOn(c)
		}()
	}
}

func answerCallsOn(c net.Conn) {
	const (
		data, headers, settings, ping, windowUpdate = 0, 1, 4, 6, 8
		ack, endStream, endHeaders                  = 1, 1, 4
		initialWindow                               = 4
		window                                      = 1 << 24
	)
	var out []byte
	frame := func(kind, flags byte, stream uint32, payload ...byte) {
		out = append(out, 0, byte(len(payload)>>8), byte(len(payload)), kind, flags)
		out = binary.BigEndian.AppendUint32(out, stream)
		out = append(out, payload...)
	}
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	// The fields are not indexed, so that all answers are the same bytes.
	literal := func(name, value string) []byte {
		return append(append(append([]byte{0, byte(len(name))}, name...), byte(len(value))), value...)
	}
	begin := append([]byte{0x88}, literal("content-type", "application/grpc")...)
	end := literal("grpc-status", "0")

	r := bufio.NewReaderSize(c, 256<<10)
	if _, err := r.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		return
	}
	frame(settings, 0, 0, append([]byte{0, initialWindow}, number(window)...)...)
	frame(windowUpdate, 0, 0, number(window)...)
	for {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		size := uint32(head[0])<<16 | uint32(head[1])<<8 | uint32(head[2])
		stream := binary.BigEndian.Uint32(head[5:])
		ends := (head[3] == data || head[3] == headers) && head[4]&endStream != 0
		if _, err := r.Discard(int(size)); err != nil {
			return
		}
		switch {
		case head[3] == settings && head[4]&ack == 0:
			frame(settings, ack, 0)
		case head[3] == ping && head[4]&ack == 0:
			frame(ping, ack, 0, 0, 0, 0, 0, 0, 0, 0, 0) // nobody checks what it holds
		case head[3] == data && size > 0:
			frame(windowUpdate, 0, 0, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
			if !ends {
				frame(windowUpdate, 0, stream, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
			}
		}
		if ends {
			frame(headers, endHeaders, stream, begin...)
			frame(data, 0, stream, 0, 0, 0, 0, 0)
			frame(headers, endHeaders|endStream, stream, end...)
		}
		if r.Buffered() == 0 || ends || len(out) > 16<<10 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

// setCall sets s to a Predict call with this content, as an engine would.
func (s *benchStream) setCall(token string, content []byte) {
	s.requestOf(content)
	s.head.Version, s.head.Target, s.head.ContentLength = message.HTTP2, predictMethod, -1
	s.head.Fields = append(s.head.Fields[:0],
		message.Field{Name: "content-type", Value: "application/grpc"},
		message.Field{Name: "te", Value: "trailers"},
		message.Field{Name: "user-agent", Value: "grpc-go/1.60.0"},
		message.Field{Name: "grpc-accept-encoding", Value: "gzip"},
		message.Field{Name: "authorization", Value: token})
}

// BenchmarkCall measures a unary gRPC call of one model with a message of some size, under a rule that
// is not about models and under one that is.
func BenchmarkCall(b *testing.B) {
	for _, rule := range []struct{ name, route string }{{"any model", callRoute}, {"some models", modelCallRoute}} {
		g, token := benchGatewayTo(b, rule.route, answerCalls)
		token = "Bearer " + token
		for _, size := range []struct {
			name  string
			bytes int
		}{{"100B", 100}, {"600KiB", 600 << 10}, {"32MiB", 32 << 20}} {
			b.Run(rule.name+"/"+size.name, func(b *testing.B) {
				content := framedText(string(predictRequest([][]byte{modelSpec("half_plus_two", 0)}, 0, size.bytes)))
				b.ReportAllocs()
				if size.bytes > 1<<10 {
					b.SetBytes(int64(size.bytes))
				}
				var s benchStream
				for b.Loop() {
					s.setCall(token, content)
					g.Serve(&s)
					if s.call != "0" {
						b.Fatalf("status %q", s.call)
					}
				}
			})
		}
	}
}
