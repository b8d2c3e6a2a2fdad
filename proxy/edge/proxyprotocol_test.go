package edge_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/edge"
)

// v2 returns a PROXY header of version 2.
func v2(command, family byte, rest string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{0x20 | command, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

const v4Addrs = "\xc0\x00\x02\x07\x0a\x00\x00\x01\x10\x00\x01\xbb"

var (
	loopback  = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	elsewhere = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
)

// behindBalancers listens on the loopback and reads PROXY headers.
func behindBalancers(t *testing.T, b edge.Balancers) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := edge.ReadProxyHeaders(l, func() edge.Balancers { return b }, nil)
	t.Cleanup(func() { x.Close() })
	return x
}

// speak connects, sends a text, and returns the connection.
func speak(t *testing.T, l net.Listener, what string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProxyHeadersSetTheClientAddress(t *testing.T) {
	for _, c := range []struct {
		name, sent string
		from       []netip.Prefix
		optional   bool
		client     string // "": the address of the peer
	}{
		{"version 1", "PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\nhello", loopback, false, "192.0.2.7:4096"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4096 443\r\nhello", loopback, false, "[2001:db8::7]:4096"},
		{"version 1, unknown", "PROXY UNKNOWN\r\nhello", loopback, false, ""},
		{"version 2", v2(1, 0x11, v4Addrs) + "hello", loopback, false, "192.0.2.7:4096"},
		{"version 2 with extensions", v2(1, 0x11, v4Addrs+"\x02\x00\x03abc"+"\xea\x02\x00"+strings.Repeat("x", 512)) + "hello", loopback, false, "192.0.2.7:4096"},
		{"version 2, local", v2(0, 0, "") + "hello", loopback, false, ""},
		{"version 2, local with addresses", v2(0, 0x11, v4Addrs) + "hello", loopback, false, ""},
		{"no header, which is optional", "hello", loopback, true, ""},
		{"a header although optional", "PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\nhello", loopback, true, "192.0.2.7:4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := behindBalancers(t, edge.Balancers{From: c.from, Optional: c.optional})
			out := speak(t, l, c.sent)
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			want := c.client
			if want == "" {
				want = out.LocalAddr().String()
			}
			if got := in.RemoteAddr().String(); got != want {
				t.Errorf("the client is %s; want %s", got, want)
			}
			_ = out.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(in); string(got) != "hello" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

func TestInvalidProxyHeadersAreDropped(t *testing.T) {
	for name, sent := range map[string]string{
		"no header":          "GET / HTTP/1.1\r\n\r\n",
		"TLS":                "\x16\x03\x01\x02\x00",
		"no address":         "PROXY TCP4 localhost 10.0.0.1 1 2\r\n",
		"bad port":           "PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n",
		"IPv6 as IPv4":       "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
		"bare LF":            "PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\n",
		"no end":             "PROXY TCP4 " + strings.Repeat("1", 200),
		"another version":    "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + v4Addrs,
		"unknown command":    v2(2, 0x11, v4Addrs),
		"unknown family":     v2(1, 0x13, v4Addrs),
		"UDP":                v2(1, 0x12, v4Addrs),
		"too short":          v2(1, 0x11, v4Addrs[:4]),
		"endless extensions": v2(1, 0x11, v4Addrs+strings.Repeat("\x00", 60000)),
		"silence":            "",
		"half a header":      "PROXY TCP4 192.0.2.7",
	} {
		t.Run(name, func(t *testing.T) {
			l := behindBalancers(t, edge.Balancers{From: loopback, HeaderTime: 200 * time.Millisecond})
			accepted := make(chan net.Conn, 1)
			go func() {
				c, _ := l.Accept()
				accepted <- c
			}()
			out := speak(t, l, sent)
			if got, err := io.ReadAll(out); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %q, %v; want the connection closed", got, err)
			}
			l.Close()
			if c := <-accepted; c != nil {
				t.Error("the connection was served")
			}
		})
	}
}

// A header from a peer that is no balancer is treated as content.
func TestProxyHeadersOfOtherPeersAreIgnored(t *testing.T) {
	const sent = "PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\nhello"
	l := behindBalancers(t, edge.Balancers{From: elsewhere})
	out := speak(t, l, sent)
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_ = out.(*net.TCPConn).CloseWrite()
	got, _ := io.ReadAll(in)
	if in.RemoteAddr().String() != out.LocalAddr().String() || string(got) != sent {
		t.Errorf("the client is %s, and sent %q", in.RemoteAddr(), got)
	}
}

// A balancer that sends its header slowly delays no other connection, and Close does not wait
// for it.
func TestSlowProxyHeaderDelaysNoOthers(t *testing.T) {
	l := behindBalancers(t, edge.Balancers{From: loopback, HeaderTime: time.Hour})
	slow := speak(t, l, "PRO")
	speak(t, l, "PROXY TCP4 192.0.2.7 10.0.0.1 4096 443\r\n")
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if in.RemoteAddr().String() != "192.0.2.7:4096" {
		t.Errorf("the client is %s", in.RemoteAddr())
	}
	l.Close()
	if _, err := io.ReadAll(slow); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the slow connection is still open")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

func TestAcceptFromClosesOthers(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := edge.AcceptFrom(inner, func() []netip.Prefix { return elsewhere }, nil)
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	_ = out.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := out.Read(make([]byte, 1)); n > 0 || err != io.EOF && !strings.Contains(err.Error(), "reset") {
		t.Errorf("read %d, %v; want the connection closed before a byte is read", n, err)
	}
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}
