package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// serveH2 serves h2c with prior knowledge, with the implementation of golang.org/x/net.
func serveH2(t testing.TB, h http.HandlerFunc) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: h, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250}}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return l.Addr().String()
}

// dialClient connects a client, which is closed at the end of the test.
func dialClient(t testing.TB, addr string, o ClientOptions) *Client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(conn, o)
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Greet(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask makes one exchange and reads its answer.
func (c *Client) get(ctx context.Context, r wire.Request) (*wire.Response, string, error) {
	x := &wire.Response{}
	for !c.Reserve() {
		if _, good := c.Load(); !good {
			return x, "", errLeft
		}
		time.Sleep(time.Millisecond)
	}
	if r.Method == "" {
		r.Method = "GET"
	}
	if r.Target == "" {
		r.Target = "/"
	}
	r.Host = "a"
	if err := c.Exchange(ctx, &r, x); err != nil {
		return x, "", err
	}
	defer x.Close()
	body, err := io.ReadAll(x)
	return x, string(body), err
}

// reading is a body that wraps a reader, with trailers.
type reading struct {
	io.Reader
	trailers message.Fields
}

func (b reading) Trailers() message.Fields { return b.trailers }

// faultOf returns the fault of an exchange's error.
func faultOf(err error) wire.Fault {
	var e *wire.Error
	if errors.As(err, &e) {
		return e.Fault
	}
	return 0
}

func TestClient(t *testing.T) {
	addr := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("x-seen", fmt.Sprintf("%s %s %s %d %s", r.Method, r.Host, r.RequestURI, r.ContentLength, r.Header.Get("te")))
			w.Header().Set("Trailer", "x-sum")
			n, _ := io.Copy(w, r.Body)
			w.Header().Set("x-sum", strconv.FormatInt(n, 10)+r.Trailer.Get("x-more"))
		case "/early":
			w.WriteHeader(413)
		case "/hints":
			w.Header().Set("link", "</a>")
			w.WriteHeader(103)
			w.Header().Del("link")
			io.WriteString(w, "ok")
		case "/none":
			w.WriteHeader(204)
		case "/abort":
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/slow":
			<-r.Context().Done()
		}
	})
	c := dialClient(t, addr, ClientOptions{})
	ctx := context.Background()

	t.Run("content at hand", func(t *testing.T) {
		x, body, err := c.get(ctx, wire.Request{Method: "POST", Target: "/echo?a=b", Content: []byte("hello")})
		if err != nil || body != "hello" || x.Head.Status != 200 {
			t.Fatal(x.Head, body, err)
		}
		if got, want := x.Head.Fields.Get("x-seen"), "POST a /echo?a=b 5 trailers"; got != want {
			t.Errorf("the server saw %q; want %q", got, want)
		}
	})
	t.Run("no content", func(t *testing.T) {
		x, body, err := c.get(ctx, wire.Request{Target: "/none"})
		if err != nil || body != "" || x.Head.Status != 204 || x.Head.ContentLength != 0 {
			t.Fatal(x.Head, body, err)
		}
	})
	t.Run("large content at hand", func(t *testing.T) {
		large := strings.Repeat("x", 300<<10)
		if _, body, err := c.get(ctx, wire.Request{Method: "POST", Target: "/echo", Content: []byte(large)}); err != nil || body != large {
			t.Fatal(len(body), err)
		}
	})
	t.Run("streamed both ways, with trailers", func(t *testing.T) {
		large := strings.Repeat("0123456789abcdef", 1<<20)
		x := &wire.Response{}
		c.Reserve()
		r := wire.Request{Method: "POST", Target: "/echo", Host: "a", Length: -1, Body: reading{strings.NewReader(large), message.Fields{{Name: "x-more", Value: "!"}, {Name: "host", Value: "b"}}},
			Trailers: func(f message.Fields) message.Fields { return f }, Fields: message.Fields{{Name: "trailer", Value: "x-more"}}}
		r.Fields = nil
		if err := c.Exchange(ctx, &r, x); err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(x)
		if err != nil || string(body) != large {
			t.Fatal(len(body), err)
		}
		if got := x.Trailers().Get("x-sum"); !strings.HasPrefix(got, strconv.Itoa(len(large))) {
			t.Errorf("trailer %q", got)
		}
		x.Close()
	})
	t.Run("interim", func(t *testing.T) {
		var hints []string
		_, body, err := c.get(ctx, wire.Request{Target: "/hints", Inform: func(m *message.Response) error {
			hints = append(hints, fmt.Sprint(m.Status, m.Fields.Get("link")))
			return nil
		}})
		if err != nil || body != "ok" || fmt.Sprint(hints) != "[103</a>]" {
			t.Fatal(hints, body, err)
		}
		if _, _, err = c.get(ctx, wire.Request{Target: "/hints", Inform: func(*message.Response) error { return io.ErrClosedPipe }}); faultOf(err) != wire.FaultInform {
			t.Error(err)
		}
	})
	t.Run("early answer", func(t *testing.T) {
		pr, pw := io.Pipe()
		interrupted := make(chan struct{})
		var once sync.Once
		x, body, err := c.get(ctx, wire.Request{Method: "POST", Target: "/early", Length: -1, Body: reading{Reader: pr}, Interrupt: func() {
			once.Do(func() { close(interrupted) })
			pw.CloseWithError(io.ErrClosedPipe)
		}})
		if err != nil || x.Head.Status != 413 || body != "" {
			t.Fatal(x.Head, err)
		}
		<-interrupted
	})
	t.Run("cut", func(t *testing.T) {
		x, body, err := c.get(ctx, wire.Request{Target: "/abort"})
		if faultOf(err) != wire.FaultBroken || body != "half" || x.Head.Status != 200 {
			t.Fatal(x.Head, body, err)
		}
	})
	t.Run("head in time", func(t *testing.T) {
		if _, _, err := c.get(ctx, wire.Request{Target: "/slow", Head: 20 * time.Millisecond}); faultOf(err) != wire.FaultTimeout {
			t.Fatal(err)
		}
	})
	t.Run("limit", func(t *testing.T) {
		if _, _, err := c.get(ctx, wire.Request{Target: "/slow", Limit: time.Now().Add(20 * time.Millisecond)}); faultOf(err) != wire.FaultTimeout {
			t.Fatal(err)
		}
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(10*time.Millisecond, func() { cancel(io.ErrNoProgress) })
		if _, _, err := c.get(ctx, wire.Request{Target: "/slow"}); faultOf(err) != wire.FaultContext || !errors.Is(err, io.ErrNoProgress) {
			t.Fatal(err)
		}
	})
	t.Run("body fails", func(t *testing.T) {
		_, _, err := c.get(ctx, wire.Request{Method: "POST", Target: "/echo", Length: -1, Body: reading{Reader: io.MultiReader(strings.NewReader("some"), iotestErr{io.ErrClosedPipe})}})
		if faultOf(err) != wire.FaultBody || !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
	})
	for _, bad := range []wire.Request{
		{Method: "CONNECT"},
		{Target: "//evil"},
		{Fields: message.Fields{{Name: "connection", Value: "x"}}},
		{Fields: message.Fields{{Name: "X-Upper", Value: "x"}}},
		{Fields: message.Fields{{Name: "x", Value: "a\nb"}}},
		{Upgrade: "websocket"},
		{Length: 5},
	} {
		if _, _, err := c.get(ctx, bad); faultOf(err) != wire.FaultRequest {
			t.Errorf("%+v: %v; want a refusal to write it", bad, err)
		}
	}
	if taken, good := c.Load(); taken != 0 || !good {
		t.Errorf("%d places are taken in the end, good: %v", taken, good)
	}
}

// iotestErr is a reader that fails.
type iotestErr struct{ err error }

func (e iotestErr) Read([]byte) (int, error) { return 0, e.err }

// TestClientCrowd runs hundreds of exchanges on one connection and cancels many at random.
func TestClientCrowd(t *testing.T) {
	addr := serveH2(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})
	c := dialClient(t, addr, ClientOptions{Resets: 1 << 20})
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for range 5 {
				content := bytes.Repeat([]byte{byte(i)}, rnd.IntN(200<<10))
				ctx, cancel := context.WithCancel(context.Background())
				if rnd.IntN(2) == 0 {
					time.AfterFunc(time.Duration(rnd.IntN(5000))*time.Microsecond, cancel)
				}
				r := wire.Request{Method: "POST", Length: -1, Body: reading{Reader: bytes.NewReader(content)}, Idle: 2 * time.Minute}
				if rnd.IntN(2) == 0 {
					r.Body, r.Length, r.Content = nil, 0, content
				}
				_, body, err := c.get(ctx, r)
				if err == nil && body != string(content) {
					t.Errorf("%d bytes came back of %d, or others", len(body), len(content))
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("an exchange failed: %v", err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if taken, good := c.Load(); taken != 0 || !good {
		t.Errorf("%d places are taken in the end, good: %v", taken, good)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spare != c.options.Memory || len(c.calls) != 0 {
		t.Errorf("%d of %d memory and %d calls in the end", c.spare, c.options.Memory, len(c.calls))
	}
}
