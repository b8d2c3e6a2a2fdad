package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// uploadBytes is longer than what sockets hold, and than what a gateway may read in vain in
// order to keep the connection.
const uploadBytes = 32 << 20

// uploadThenRead sends a whole request before it reads, as Python's http.client does.
func uploadThenRead(t *testing.T, c *tls.Conn, head string, chunked bool) (*http.Response, error) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if chunked {
		head += "Transfer-Encoding: chunked\r\n\r\n"
	} else {
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", uploadBytes)
	}
	if _, err := io.WriteString(c, head); err != nil {
		return nil, fmt.Errorf("the head: %w", err)
	}
	piece := bytes.Repeat([]byte{'x'}, 64<<10)
	for sent := 0; sent < uploadBytes; sent += len(piece) {
		if chunked {
			fmt.Fprintf(c, "%x\r\n", len(piece))
		}
		if _, err := c.Write(piece); err != nil {
			return nil, fmt.Errorf("after %d bytes: %w", sent, err)
		}
		if chunked {
			_, _ = io.WriteString(c, "\r\n")
		}
	}
	if chunked {
		_, _ = io.WriteString(c, "0\r\n\r\n")
	}
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "POST"})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	return res, err
}

// TestEarlyAnswerReachesAClientThatStillSends: each kind of early answer reaches a client that
// reads nothing before it has sent all: a refusal, and an answer of the upstream that did not
// wait for the body either.
func TestEarlyAnswerReachesAClientThatStillSends(t *testing.T) {
	t.Parallel()
	early := rawUpstream(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	h := build(t, plan{routes: `
  - {host: models.test, upstream: %s, callers: issuer/corp, rules: [{allow: "*"}], limits: {body: 1MiB}}
  - {host: models.test, path: /early, upstream: '` + early + `', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /dead, upstream: 'http://127.0.0.1:1', callers: issuer/corp, rules: [{allow: "*"}]}
`})
	for _, c := range []struct {
		name, head string
		chunked    bool
		status     int
	}{
		{"no credential", "POST / HTTP/1.1\r\nHost: models.test\r\n", false, 401},
		{"no credential, chunked", "POST / HTTP/1.1\r\nHost: models.test\r\n", true, 401},
		{"no route", "POST /x HTTP/1.1\r\nHost: models.test\r\n", false, 401},
		{"unclear path", "POST /a%2Fb HTTP/1.1\r\nHost: models.test\r\n", false, 400},
		{"announced as too long", "POST / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n", false, 413},
		{"turns out as too long", "POST / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n", true, 413},
		{"the upstream answers early", "POST /early HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n", false, 413},
		{"the upstream answers early, chunked", "POST /early HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n", true, 413},
		{"the upstream is down", "POST /dead HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer TOKEN\r\n", false, 502},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := uploadThenRead(t, h.dial("models.test"), strings.ReplaceAll(c.head, "TOKEN", h.token()), c.chunked)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.status {
				t.Errorf("status %d, want %d", res.StatusCode, c.status)
			}
		})
	}
}

// TestSmallRefusedRequestKeepsItsConnection: a refusal costs no new handshake.
func TestSmallRefusedRequestKeepsItsConnection(t *testing.T) {
	h := build(t, plan{})
	c := h.dial("models.test")
	r := bufio.NewReader(c)
	for range 3 {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: models.test\r\nContent-Length: 5\r\n\r\nhello")
		res, err := http.ReadResponse(r, &http.Request{Method: "POST"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode != 401 || res.Close {
			t.Errorf("status %d, closing %v; want 401 on a connection that stays", res.StatusCode, res.Close)
		}
	}
}

// TestHeadOfAStreamLeavesAtOnce: the head of an answer of unknown length arrives before any content,
// whatever form the content has, as it does from a model that thinks for minutes first.
func TestHeadOfAStreamLeavesAtOnce(t *testing.T) {
	think := make(chan struct{})
	for _, form := range []string{"Transfer-Encoding: chunked\r\n", "Connection: close\r\n"} {
		t.Run(form, func(t *testing.T) {
			thinking := rawUpstream(t, func(c net.Conn) {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"+form+"\r\n")
				<-think
				if strings.HasPrefix(form, "Transfer") {
					_, _ = io.WriteString(c, "3\r\nyes\r\n0\r\n\r\n")
				} else {
					_, _ = io.WriteString(c, "yes")
				}
			})
			h := build(t, plan{routes: strings.ReplaceAll(oneRoute, "%s", thinking)})
			for _, h2 := range []bool{false, true} {
				req, err := http.NewRequest("GET", "https://models.test/", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+h.token())
				res, err := h.client(h2).Do(req) // returns with the head
				if err != nil {
					t.Fatal(err)
				}
				think <- struct{}{}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || string(body) != "yes" {
					t.Errorf("HTTP/2 %v: %q, %v", h2, body, err)
				}
			}
		})
	}
}
