package story

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Question is one request to a real model server, as its bytes, and what is known of
// the answer. It is recorded for the tests of the dialects; the README of
// policy/model/testdata/exchanges/classic describes the form of the files.
type Question struct {
	Name string
	Note string // what the exchange shows; one line

	Request []byte // over HTTP/1.1: the whole message

	Method   string // over gRPC: the path
	Encoding string // over gRPC: grpc-encoding
	Body     []byte // over gRPC: the frames

	Varies bool // the body of the answer differs from run to run, so it is not kept
}

// Reply is what a server answered.
type Reply struct {
	Status  int    // of HTTP, or of gRPC
	Message string // of gRPC
	Body    []byte // the content, over gRPC the frames
	Fields  http.Header
}

// Ask sends the question to a server at host:port and returns the answer.
func (q Question) Ask(t testing.TB, address string) Reply {
	t.Helper()
	if q.Method != "" {
		return q.askGRPC(t, address)
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(q.Request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(string(q.Request), " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", q.Name, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", q.Name, err)
	}
	return Reply{Status: res.StatusCode, Body: body, Fields: res.Header}
}

// Through sends the question to the gateway, with a token, and returns the answer.
func (q Question) Through(t testing.TB, g *Gateway, token string) Reply {
	t.Helper()
	if q.Method != "" {
		transport := Client(t, g.CA).Transport.(*http.Transport)
		return q.call(t, transport, g.URL(q.Method), "Bearer "+token)
	}
	res, body := g.Raw(t, []byte(strings.Replace(string(q.Request), "\r\n", "\r\nAuthorization: Bearer "+token+"\r\n", 1)))
	return Reply{Status: res.StatusCode, Body: body, Fields: res.Header}
}

func (q Question) askGRPC(t testing.TB, address string) Reply {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return q.call(t, &http.Transport{Protocols: protocols}, "http://"+address+q.Method, "")
}

// call makes the gRPC call with nothing but HTTP/2, so that no library mends it.
func (q Question) call(t testing.TB, transport *http.Transport, url, authorization string) Reply {
	t.Helper()
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(q.Body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}
	if q.Encoding != "" {
		req.Header.Set("Grpc-Encoding", q.Encoding)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s: %v", q.Name, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", q.Name, err)
	}
	end := res.Trailer
	if end.Get("Grpc-Status") == "" {
		end = res.Header // a call that fails at once has trailers only
	}
	status, err := strconv.Atoi(end.Get("Grpc-Status"))
	if err != nil {
		t.Fatalf("%s: HTTP status %d and no status of gRPC", q.Name, res.StatusCode)
	}
	return Reply{Status: status, Message: end.Get("Grpc-Message"), Body: body, Fields: res.Header}
}

// Denied reports whether an answer says that this caller may not make the call.
func (q Question) Denied(r Reply) bool {
	if q.Method != "" {
		return r.Status == 7
	}
	return r.Status == http.StatusForbidden
}

// Row is one call in both forms, and whether it is allowed.
type Row struct {
	Name       string
	Token      string
	REST, GRPC Question
	Denied     bool
}

// SameDecision asks each row over REST and over gRPC: both must be denied, or both be
// allowed and answered without an error.
func SameDecision(t *testing.T, g *Gateway, rows []Row) {
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			rest, call := row.REST.Through(t, g, row.Token), row.GRPC.Through(t, g, row.Token)
			if row.REST.Denied(rest) != row.Denied || row.GRPC.Denied(call) != row.Denied {
				t.Errorf("denied should be %v: REST answers %d %s, gRPC %d %s", row.Denied, rest.Status, rest.Body, call.Status, call.Message)
			}
			if !row.Denied && (rest.Status != http.StatusOK || call.Status != 0) {
				t.Errorf("REST answers %d %s, gRPC %d %s", rest.Status, rest.Body, call.Status, call.Message)
			}
		})
	}
}

// keptAnswer is how much of an answer is kept.
const keptAnswer = 800

// Keep compares an exchange with the file NAME.txt of the folder for a server, or
// writes the file if record is set. Served lists the models that the server worked on,
// each as "NAME" or "NAME VERSION".
func Keep(t testing.TB, record bool, folder, server string, q Question, r Reply, served []string) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "server: %s\nnote: %s\n", server, q.Note)
	if q.Method == "" {
		quoted(&b, "send: ", q.Request)
	} else {
		fmt.Fprintf(&b, "grpc: %s\n", q.Method)
		if q.Encoding != "" {
			fmt.Fprintf(&b, "grpc-encoding: %s\n", q.Encoding)
		}
		fmt.Fprintf(&b, "frames: %s\n", hex.EncodeToString(q.Body))
	}
	fmt.Fprintf(&b, "status: %d\n", r.Status)
	if r.Message != "" {
		fmt.Fprintf(&b, "message: %s\n", r.Message)
	}
	for _, s := range served {
		fmt.Fprintf(&b, "served: %s\n", s)
	}
	body := r.Body[:min(len(r.Body), keptAnswer)]
	switch {
	case q.Varies || len(body) == 0:
	case q.Method == "":
		quoted(&b, "body: ", body)
	default:
		fmt.Fprintf(&b, "answer: %s\n", hex.EncodeToString(body))
	}
	keep(t, record, filepath.Join("..", "..", "policy", "model", "testdata", "exchanges", "classic", folder, q.Name+".txt"), b.Bytes())
}

// quoted writes bytes as Go strings, one for each line.
func quoted(b *bytes.Buffer, name string, text []byte) {
	for line := range bytes.Lines(text) {
		fmt.Fprintf(b, "%s%s\n", name, strconv.QuoteToASCII(string(line)))
	}
}
