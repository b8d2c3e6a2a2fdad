package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sallyport/auth/httpsig"
)

const (
	unary = "/tensorflow.serving.PredictionService/Predict"
	fails = "/tensorflow.serving.PredictionService/Classify"
)

// predicts is a PredictRequest or ClassificationRequest for model m, with a text in a field that does not matter.
func predicts(text string) string {
	return "\x0a\x03\x0a\x01m\x1a" + string(binary.AppendUvarint(nil, uint64(len(text)))) + text
}

// unaryServer acts on a message as soon as it is whole, as gRPC servers do. It answers with the
// message, or with a fault for the method fails.
type unaryServer struct {
	addr    string
	length  bool          // announce Content-Length
	most    uint32        // the longest message that it takes; 0: any
	refused chan struct{} // closed once it has refused a longer one

	mu    sync.Mutex
	acted []int         // lengths of the messages that it acted on
	heads []http.Header // of all requests
}

func newUnaryServer(t *testing.T) *unaryServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &unaryServer{addr: l.Addr().String(), refused: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: s, Protocols: protocols}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return s
}

func (s *unaryServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.heads = append(s.heads, r.Header.Clone())
	s.mu.Unlock()
	w.Header().Set("content-type", "application/grpc+proto")
	if r.URL.Path == fails {
		w.Header().Set("grpc-status", "5")
		return
	}
	var all bytes.Buffer
	var prefix [5]byte
	for {
		if _, err := io.ReadFull(r.Body, prefix[:]); err != nil {
			break
		}
		if s.most > 0 && binary.BigEndian.Uint32(prefix[1:]) > s.most {
			w.Header().Set("grpc-status", "8")
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			close(s.refused)
			return
		}
		message := make([]byte, binary.BigEndian.Uint32(prefix[1:]))
		if _, err := io.ReadFull(r.Body, message); err != nil {
			return
		}
		s.mu.Lock()
		s.acted = append(s.acted, len(message))
		s.mu.Unlock()
		all.Write(prefix[:])
		all.Write(message)
	}
	if s.length {
		w.Header().Set("content-length", strconv.Itoa(all.Len()))
	}
	_, _ = w.Write(all.Bytes())
	w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
}

// seen returns how many requests arrived, and the messages that were acted on.
func (s *unaryServer) seen() (requests int, acted []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.heads), append([]int(nil), s.acted...)
}

// buildSignedCalls is a house whose route takes signed calls.
func buildSignedCalls(t *testing.T, integrity string) (*house, *unaryServer) {
	t.Helper()
	s := newUnaryServer(t)
	return signed(t, plan{
		routes: `
  - {host: models.test, upstream: tf, callers: key, integrity: {` + integrity + `}, limits: {body: 128MiB}, rules: [{allow: "*", models: "*"}]}
`,
		more: `upstreams: {tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}}`,
	}), s
}

// signedCall is a call as its client sends it. A test may change it after it was signed.
type signedCall struct {
	path     string
	metadata httpsig.Lines // with digest and signature
	body     []byte
	call     *httpsig.Call
}

// callsOf signs calls with a key.
func callsOf(key *httpsig.Key) *httpsig.Calls {
	return &httpsig.Calls{Key: key, Authority: "models.test"}
}

const callContentType = "application/grpc+proto"

// newCall signs a call with one message, a request that holds the text.
func newCall(t *testing.T, c *httpsig.Calls, path, text string) *signedCall {
	t.Helper()
	message := predicts(text)
	call, metadata, err := c.Sign(path, callContentType, nil, []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return &signedCall{path: path, metadata: metadata, body: framedText(message), call: call}
}

// callAnswer is how a call ended, as its library sees it.
type callAnswer struct {
	status          uint32
	header, trailer httpsig.Lines
	messages        []string
}

// sendCall sends a call over HTTP/2.
func (h *house) sendCall(s *signedCall) *callAnswer {
	h.t.Helper()
	a, err := h.tryCall(s, bytes.NewReader(s.body))
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *house) tryCall(s *signedCall, body io.Reader) (*callAnswer, error) {
	h.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), "POST", "https://models.test"+s.path, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = -1 // as of gRPC libraries
	r.Header = http.Header{"Content-Type": {callContentType}, "Te": {"trailers"}}
	for _, l := range s.metadata {
		if l.Name == "content-type" {
			r.Header.Del("Content-Type")
		}
		r.Header.Add(l.Name, l.Value)
	}
	res, err := h.client(true).Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &callAnswer{}
	for len(content) > 0 {
		n := 5 + binary.BigEndian.Uint32(content[1:])
		a.messages, content = append(a.messages, string(content[5:n])), content[n:]
	}
	block := res.Trailer
	if res.Header.Get("grpc-status") != "" { // one block, which libraries report as trailers
		block = res.Header
	} else {
		a.header = visible(res.Header)
	}
	a.trailer = visible(block)
	status, err := strconv.ParseUint(block.Get("grpc-status"), 10, 8)
	a.status = uint32(status)
	return a, err
}

// visible returns the metadata that gRPC libraries show.
func visible(h http.Header) (all httpsig.Lines) {
	for name, values := range h {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "grpc-") || name == "content-type" {
			continue
		}
		for _, v := range values {
			all = append(all, httpsig.Line{Name: name, Value: v})
		}
	}
	return all
}

// verify verifies the answer to a call.
func (s *signedCall) verify(a *callAnswer) error {
	for _, m := range a.messages {
		s.call.Received([]byte(m))
	}
	return s.call.Verify(a.status, a.header, a.trailer)
}
