package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// answering listens on loopback and answers each request with text; "" means no answer.
func answering(t *testing.T, text string) (address string, request <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line, _ := bufio.NewReader(c).ReadString('\n')
		asked <- line
		if text == "" {
			_, _ = io.Copy(io.Discard, c) // until the client has gone
			return
		}
		_, _ = io.WriteString(c, text)
	}()
	return l.Addr().String(), asked
}

func TestHealthy(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"ready", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"draining", "HTTP/1.1 503 Service Unavailable\r\n\r\n", `"HTTP/1.1 503 Service Unavailable"`},
		{"not found", "HTTP/1.1 404 Not Found\r\n\r\n", "404"},
		{"a longer status", "HTTP/1.1 2000 OK\r\n\r\n", "not ready"},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", "not ready"},
		{"an end in the line", "HTTP/1.1 200 O", "EOF"},
		{"an endless line", "HTTP/1.1 200 " + strings.Repeat("x", 1<<20), "reading"},
		{"silence", "", "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := time.Minute
			if c.answer == "" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			address, asked := answering(t, c.answer)
			err := healthy(ctx, address)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("healthy: %v, want ready", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("healthy: %v, want an error with %q", err, c.want)
			}
			if c.answer == "" {
				return // on a busy machine the time may be up before it asks
			}
			if got := <-asked; got != "GET /readyz HTTP/1.1\r\n" {
				t.Errorf("asked for %q", got)
			}
		})
	}
}

func TestHealthyFailsWithoutListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := healthy(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("healthy: %v, want a refused connection", err)
	}
}

// TestHealthyUnspecified checks that the unspecified address means this machine.
func TestHealthyUnspecified(t *testing.T) {
	address, _ := answering(t, "HTTP/1.1 200 OK\r\n\r\n")
	_, port, _ := net.SplitHostPort(address)
	if err := healthy(t.Context(), ":"+port); err != nil {
		t.Errorf("healthy: %v", err)
	}
}
