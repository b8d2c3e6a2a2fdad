package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// smallHeads serves h without TLS over HTTP/2, and takes small heads only.
func smallHeads(t *testing.T, h http.HandlerFunc) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: h, Protocols: protocols, MaxHeaderBytes: 2048}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return "h2c://" + l.Addr().String()
}

// A head that the model server would not take is the caller's fault, and stays here.
func TestHeadTooLargeForTheModelServer(t *testing.T) {
	url := smallHeads(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("x-long") != "" {
			t.Error("the head came up")
		}
	})
	h := build(t, plan{
		routes: grpcRoute,
		more:   fmt.Sprintf("upstreams: {tf: {rest: %q, grpc: %q}}", url, url),
	})
	long := strings.Repeat("a", 4096)
	if r := h.do("GET", "/", "", map[string]string{"X-Long": long}); r.StatusCode != 431 || r.reason() != "head_too_large" {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := h.do("GET", "/", "", nil); r.StatusCode != 200 {
		t.Errorf("the next request: %d %s", r.StatusCode, r.body)
	}
	res, err := h.call(context.Background(), echo, bytes.NewReader(framedText("x")), "x-long", long)
	if err != nil {
		t.Fatal(err)
	}
	if _, status := finish(t, res); status != "8" {
		t.Errorf("gRPC status %s; want RESOURCE_EXHAUSTED", status)
	}
}

// blocks serves HTTP/2 without TLS, and answers each request with how many blocks of
// fields it had: two where it has trailers.
func blocks(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	serve := func(c net.Conn) {
		defer c.Close()
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		fr := http2.NewFramer(c, c)
		_ = fr.WriteSettings()
		got := map[uint32]int{}
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			id, kind := f.Header().StreamID, f.Header().Type
			if kind == http2.FrameHeaders {
				got[id]++
			}
			if (kind != http2.FrameHeaders && kind != http2.FrameData) || !f.Header().Flags.Has(http2.FlagDataEndStream) {
				continue
			}
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			_ = enc.WriteField(hpack.HeaderField{Name: "x-blocks", Value: fmt.Sprint(got[id])})
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
		}
	}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(c) })
		}
	})
	return "h2c://" + l.Addr().String()
}

// Trailers of requests go up over HTTP/2 where the upstream's configuration says so, and
// those of gRPC never do.
func TestRequestTrailersOverHTTP2(t *testing.T) {
	url := blocks(t)
	for more, want := range map[string]string{"": "1", ", request_trailers: true": "2"} {
		t.Run("text has blocks: "+want, func(t *testing.T) {
			h := build(t, plan{routes: grpcRoute, more: fmt.Sprintf("upstreams: {tf: {rest: %q, grpc: %q%s}}", url, url, more)})
			for kind, want := range map[string]string{"text/plain": want, "application/grpc": "1"} {
				req, _ := http.NewRequest("POST", "https://models.test/a.B/C", struct{ io.Reader }{strings.NewReader("x")})
				req.Header = http.Header{"Authorization": {"Bearer " + h.token()}, "Content-Type": {kind}, "Te": {"trailers"}}
				req.Trailer = http.Header{"X-Sum": {"7"}}
				r := h.send(h.client(true), req)
				if got := r.Header.Get("x-blocks"); got != want {
					t.Errorf("%s: %d, the server got %q blocks; want %s; %s", kind, r.StatusCode, got, want, r.body)
				}
			}
		})
	}
}
