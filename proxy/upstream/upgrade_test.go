package upstream

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"sallyport/proxy/message"
)

const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

func wsAccept() string {
	sum := sha1.Sum([]byte(wsKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func upgrade() *Request {
	r := get()
	r.Upgrade = "websocket"
	r.Fields = message.Fields{{Name: "sec-websocket-key", Value: wsKey}, {Name: "sec-websocket-version", Value: "13"}}
	return r
}

func TestUpgrade(t *testing.T) {
	switching := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + wsAccept() + "\r\n\r\nhello"
	for _, secure := range []bool{false, true} {
		received := make(chan string, 1)
		u := secureOrNot(t, secure, func(c net.Conn) {
			in := bufio.NewReader(c)
			text, _ := readRequestHead(in)
			received <- text
			io.WriteString(c, switching)
			io.Copy(c, in)
		})
		ctx, cancel := context.WithCancel(t.Context())
		x, err := u.Send(ctx, upgrade())
		if err != nil {
			t.Fatal(err)
		}
		if s := <-received; !strings.Contains(s, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n") || strings.Contains(s, "Content-Length") {
			t.Errorf("request is %q", s)
		}
		if x.Head.Status != 101 || !x.Head.Fields.Has("sec-websocket-accept") || x.Head.Fields.Has("upgrade") {
			t.Errorf("head is %+v", x.Head)
		}
		if n, err := x.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the body gives %d, %v, want its end", n, err)
		}
		c := x.Upgraded()
		io.WriteString(c, " and back")
		buf := make([]byte, len("hello and back"))
		if _, err := io.ReadFull(c, buf); string(buf) != "hello and back" || err != nil {
			t.Errorf("the tunnel gives %q, %v", buf, err)
		}
		cancel()
		if _, err := c.Read(buf); err == nil {
			t.Error("the tunnel outlives the context")
		}
		x.Close()
		if s := statusOf(u)[0]; s.InFlight != 0 || s.Idle != 0 {
			t.Errorf("status is %+v, want nothing left", s)
		}
	}
}

func TestInvalidUpgradesAreRefused(t *testing.T) {
	accept := "Sec-WebSocket-Accept: " + wsAccept() + "\r\n"
	for name, answer := range map[string]string{
		"other protocol":      "HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n" + accept + "\r\n",
		"two protocols":       "HTTP/1.1 101 S\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n" + accept + "\r\n",
		"two lines":           "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n" + accept + "\r\n",
		"no protocol":         "HTTP/1.1 101 S\r\nConnection: Upgrade\r\n" + accept + "\r\n",
		"no Connection":       "HTTP/1.1 101 S\r\nUpgrade: websocket\r\n" + accept + "\r\n",
		"no accept":           "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"wrong accept":        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
		"two accepts":         "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + accept + accept + "\r\n",
		"on HTTP/1.0":         "HTTP/1.0 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + accept + "\r\n",
		"announces content":   "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 5\r\n" + accept + "\r\n",
		"announces chunks":    "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n" + accept + "\r\n",
		"after an interim 10": strings.Repeat("HTTP/1.1 102 P\r\n\r\n", 10),
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, scripted(t, answer, stayOpen))
			_, _, err := outcome(u, upgrade())
			if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Garbage {
				t.Errorf("error is %v, want garbage", err)
			}
		})
	}
}

// A 200 to an upgrade request is an ordinary answer without a tunnel (CVE-2024-23326).
func TestUpgradeConfirmedBy200(t *testing.T) {
	u := newUpstream(t, scripted(t, ok200+"Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\n\r\n", stayOpen))
	x, err := u.Send(t.Context(), upgrade())
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(x.Body)
	if string(b) != "no" || err != nil || x.Upgraded() != nil {
		t.Errorf("content %q, %v, tunnel %v, want an ordinary answer", b, err, x.Upgraded())
	}
	x.Close()
	if s := statusOf(u)[0]; s.Idle != 0 {
		t.Error("the connection was kept, although an unsolicited answer is on it")
	}
}

func TestUpgradeWithContentIsNotSent(t *testing.T) {
	u := newUpstream(t, answerServer(t, smallAnswer))
	for _, length := range []int64{1, -1} {
		r := upgrade()
		r.Body, r.Length = plainBody{strings.NewReader("x")}, length
		if _, _, err := outcome(u, r); err == nil {
			t.Errorf("length %d: no error", length)
		}
	}
}

func TestInterimResponsesArePassedOn(t *testing.T) {
	addr := scripted(t, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x-b\r\nX-B: c\r\n\r\n"+ok200+"Content-Length: 0\r\n\r\n", stayOpen)
	var got []message.Response
	r := get()
	r.Inform = func(m *message.Response) error { got = append(got, *m); return nil }
	if status, _, err := outcome(newUpstream(t, addr), r); status != 200 || err != nil {
		t.Fatalf("got %d, %v", status, err)
	}
	if len(got) != 1 || got[0].Status != 103 || len(got[0].Fields) != 1 || got[0].Fields.Get("link") != "</a>" {
		t.Errorf("interim responses are %v, want 103 with its link alone", got)
	}
	errGone := errors.New("client gone")
	r.Inform = func(*message.Response) error { return errGone }
	_, _, err := outcome(newUpstream(t, addr), r)
	if fault := (*Error)(nil); !errors.Is(err, errGone) || errors.As(err, &fault) {
		t.Errorf("error is %v, want that of Inform", err)
	}
}
