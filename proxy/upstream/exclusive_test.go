package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/setting"
)

// post returns a request whose content is small enough to be buffered.
func post(body string) *Request {
	r := get()
	r.Method, r.Body, r.Length = "POST", plainBody{strings.NewReader(body)}, int64(len(body))
	return r
}

func TestLastUsedConnectionIsReusedFirst(t *testing.T) {
	var conns atomic.Int32
	u := newUpstream(t, rawServer(t, func(c net.Conn) {
		id := conns.Add(1)
		in := bufio.NewReader(c)
		for {
			if _, err := readRequestHead(in); err != nil {
				return
			}
			fmt.Fprintf(c, ok200+"Content-Length: 1\r\n\r\n%d", id)
		}
	}))
	open := make([]*Response, 3)
	for i := range open {
		x, err := u.Send(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		open[i] = x
	}
	var order []string
	for _, i := range []int{1, 0, 2} { // the connection of 2 is the last in
		b, err := io.ReadAll(open[i].Body)
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, string(b))
		open[i].Close()
	}
	for range 3 {
		if _, body, err := outcome(u, get()); err != nil || body != order[2] {
			t.Errorf("request went to connection %q (%v), want the last used, %q", body, err, order[2])
		}
	}
	if s := statusOf(u)[0]; s.Dials != 3 || s.Reuses != 3 || s.Idle != 3 {
		t.Errorf("status is %+v, want 3 dials, 3 reuses, 3 idle", s)
	}
}

// The server answers the first request twice. The second answer arrives while the connection
// is idle and must not be served to the next request.
func TestUnsolicitedAnswersAreNeverServed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			more, sent := make(chan struct{}), make(chan struct{})
			var conns atomic.Int32
			handle := func(c net.Conn) {
				first := conns.Add(1) == 1
				in := bufio.NewReader(c)
				for {
					if _, err := readRequestHead(in); err != nil {
						return
					}
					io.WriteString(c, ok200+"Content-Length: 4\r\n\r\ngood")
					if first {
						<-more
						io.WriteString(c, ok200+"Content-Length: 4\r\n\r\nevil")
						close(sent)
					}
				}
			}
			u := secureOrNot(t, secure, handle)
			if _, body, err := outcome(u, get()); body != "good" || err != nil {
				t.Fatalf("first answer is %q, %v", body, err)
			}
			close(more)
			<-sent
			for _, r := range []*Request{get(), post("x")} {
				if _, body, err := outcome(u, r); body != "good" || err != nil {
					t.Errorf("answer to %s is %q, %v", r.Method, body, err)
				}
			}
			if n := conns.Load(); n < 2 {
				t.Errorf("%d connections, want the first to be discarded", n)
			}
		})
	}
}

// staleServer answers one request on each connection. It resets the connection when the
// next request arrives.
func staleServer(t *testing.T) (addr string, requests *atomic.Int32) {
	requests = new(atomic.Int32)
	return rawServer(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := readRequestHead(in); err != nil {
			return
		}
		requests.Add(1)
		io.WriteString(c, ok200+"Content-Length: 2\r\n\r\nok")
		if _, err := readRequestHead(in); err == nil {
			requests.Add(1)
		}
		c.(*net.TCPConn).SetLinger(0)
	}), requests
}

func TestOnlyIdempotentRequestsAreRepeatedOnStaleConnections(t *testing.T) {
	for name, c := range map[string]struct {
		request func() *Request
		seen    int32 // requests that arrived after the first
		fails   bool
	}{
		"GET":                    {get, 2, false},
		"DELETE":                 {func() *Request { r := get(); r.Method = "DELETE"; return r }, 2, false},
		"PUT with small content": {func() *Request { r := post("x"); r.Method = "PUT"; return r }, 2, false},
		"PUT that streams": {func() *Request {
			r := post("x")
			r.Method, r.Length = "PUT", -1
			return r
		}, 1, true},
		"POST":                 {func() *Request { return post("x") }, 1, true},
		"POST without content": {func() *Request { r := get(); r.Method = "POST"; return r }, 1, true},
		"PATCH":                {func() *Request { r := post("x"); r.Method = "PATCH"; return r }, 1, true},
		"BREW":                 {func() *Request { r := get(); r.Method = "BREW"; return r }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, requests := staleServer(t)
			u := newUpstream(t, addr)
			if _, _, err := outcome(u, get()); err != nil {
				t.Fatal(err)
			}
			_, body, err := outcome(u, c.request())
			if c.fails {
				if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Reset {
					t.Errorf("error is %v, want a reset", err)
				}
			} else if body != "ok" || err != nil {
				t.Errorf("got %q, %v, want ok", body, err)
			}
			if n := requests.Load() - 1; n != c.seen {
				t.Errorf("the server saw the request %d times, want %d", n, c.seen)
			}
		})
	}
}

// All connections after the first one break at their first request.
func TestRequestIsRepeatedOnlyOnce(t *testing.T) {
	var conns, requests atomic.Int32
	u := newUpstream(t, rawServer(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if conns.Add(1) == 1 {
			readRequestHead(in)
			io.WriteString(c, ok200+"Content-Length: 0\r\n\r\n")
		}
		if _, err := readRequestHead(in); err == nil {
			requests.Add(1)
		}
	}))
	if _, _, err := outcome(u, get()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := outcome(u, get()); err == nil {
		t.Error("no error")
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("the request was sent %d times, want 2", n)
	}
}

// A partial answer shows that the server received the request.
func TestNoRetryAfterAnAnswerBegan(t *testing.T) {
	var requests atomic.Int32
	u := newUpstream(t, rawServer(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		readRequestHead(in)
		io.WriteString(c, ok200+"Content-Length: 0\r\n\r\n")
		if _, err := readRequestHead(in); err == nil {
			requests.Add(1)
			io.WriteString(c, "HTTP/1.1 102 Pro")
		}
	}))
	if _, _, err := outcome(u, get()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := outcome(u, get()); err == nil {
		t.Error("no error")
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("the request was sent %d times, want 1", n)
	}
}

// A server that closes idle connections, as gunicorn does after 2 s, must not fail a POST.
func TestClosedConnectionsAreNotUsed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			closed := make(chan struct{}, 10)
			u := secureOrNot(t, secure, func(c net.Conn) {
				readRequestHead(bufio.NewReader(c))
				io.WriteString(c, ok200+"Content-Length: 2\r\n\r\nok")
				c.Close()
				closed <- struct{}{}
			})
			for range 5 {
				if _, body, err := outcome(u, post("x")); body != "ok" || err != nil {
					t.Fatalf("got %q, %v", body, err)
				}
				<-closed
			}
		})
	}
}

func TestIdleConnectionsExpire(t *testing.T) {
	var clock atomic.Int64
	now := func() time.Time { return time.Unix(clock.Load(), 0) }
	for name, c := range map[string]struct {
		fields string
		after  int64 // seconds
		dials  uint64
	}{
		"young":                   {"", 0, 1},
		"old for all one knows":   {"", 1, 2},
		"announced and young":     {"Keep-Alive: timeout=5\r\n", 3, 1},
		"announced and old":       {"Keep-Alive: timeout=5\r\n", 4, 2},
		"announced for very long": {"Keep-Alive: timeout=9999\r\n", 60, 2},
	} {
		t.Run(name, func(t *testing.T) {
			addr := answerServer(t, ok200+c.fields+"Content-Length: 0\r\n\r\n")
			u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, addr)}}, Options{Now: now})
			outcome(u, get())
			clock.Add(c.after)
			outcome(u, get())
			if got := statusOf(u)[0].Dials; got != c.dials {
				t.Errorf("%d dials, want %d", got, c.dials)
			}
		})
	}
}

func TestExpiredIdleConnectionsAreClosed(t *testing.T) {
	gone := make(chan struct{})
	addr := rawServer(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		readRequestHead(in)
		io.WriteString(c, ok200+"Content-Length: 0\r\n\r\n")
		in.ReadByte()
		close(gone)
	})
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, addr)}, IdleTime: setting.Duration(10 * time.Millisecond)}, Options{})
	if _, _, err := outcome(u, get()); err != nil {
		t.Fatal(err)
	}
	<-gone
}

func TestIdleConnectionsAreLimited(t *testing.T) {
	addr := answerServer(t, smallAnswer)
	u := configured(t, Config{Rest: setting.List[setting.URL]{endpointURL(t, addr)}, MaxIdle: 2}, Options{})
	var open []*Response
	for range 5 {
		x, err := u.Send(t.Context(), get())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, x)
	}
	for _, x := range open {
		io.Copy(io.Discard, x.Body)
		x.Close()
		x.Close()
	}
	if n := statusOf(u)[0].Idle; n != 2 {
		t.Errorf("%d connections are kept, want 2", n)
	}
	u.Close()
	if n := statusOf(u)[0].Idle; n != 0 {
		t.Errorf("%d connections are kept after Close", n)
	}
}

func TestUnreadContentClosesTheConnection(t *testing.T) {
	u := newUpstream(t, answerServer(t, smallAnswer))
	x, err := u.Send(t.Context(), get())
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	if n := statusOf(u)[0].Idle; n != 0 {
		t.Error("a connection with unread content was kept")
	}
	if _, err := x.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("reading after Close gives %v, want an error", err)
	}
}

// Many concurrent requests, some canceled midway, some left unread: each answer must belong to
// its request.
func TestAnswersGoToTheirRequests(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.URL.Path)
		for range 3 {
			fmt.Fprintf(w, "%s|%s\n", r.URL.Path, body)
			w.(http.Flusher).Flush()
		}
	}))
	t.Cleanup(srv.Close)
	u := newUpstream(t, srv.URL)
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := range 60 {
				ctx, cancel := context.WithCancel(t.Context())
				id := fmt.Sprintf("%d-%d", w, i)
				r := post(id)
				r.Target = "/" + id
				if i%3 == 0 {
					r.Length = -1
				}
				if i%7 == 0 {
					time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
				}
				x, err := u.Send(ctx, r)
				if err != nil {
					cancel()
					continue
				}
				if i%5 != 0 {
					b, err := io.ReadAll(x.Body)
					want := strings.Repeat("/"+id+"|"+id+"\n", 3)
					if err == nil && string(b) != want || ctx.Err() == nil && err != nil {
						t.Errorf("request %s got %q, %v", id, b, err)
					}
				}
				if p := x.Head.Fields.Get("x-path"); p != "/"+id {
					t.Errorf("request %s got the head of %s", id, p)
				}
				x.Close()
				cancel()
			}
		})
	}
	workers.Wait()
	if s := statusOf(u)[0]; s.InFlight != 0 {
		t.Errorf("%d in flight at the end", s.InFlight)
	}
}

// Cancellation is reported with its cause at each point of an exchange.
func TestCancellationReportsItsCause(t *testing.T) {
	errWhy := errors.New("the client left")
	for name, c := range map[string]struct {
		answer string
		body   message.Body
		length int64
	}{
		"waiting for the head":    {answer: ""},
		"within the head":         {answer: ok200 + "A: b"},
		"after an interim":        {answer: "HTTP/1.1 103 Early\r\n\r\n"},
		"waiting for content":     {answer: ok200 + "Content-Length: 10\r\n\r\nabc"},
		"waiting for a chunk":     {answer: ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
		"waiting for the end":     {answer: ok200 + "\r\nabc"},
		"uploading without end":   {answer: "", body: plainBody{endless{}}, length: -1},
		"uploading, answer begun": {answer: ok200 + "\r\nabc", body: plainBody{endless{}}, length: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reached := make(chan struct{})
			u := newUpstream(t, rawServer(t, func(conn net.Conn) {
				in := bufio.NewReader(conn)
				readRequestHead(in)
				io.WriteString(conn, c.answer)
				close(reached)
				io.Copy(io.Discard, in)
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			go func() { <-reached; cancel(errWhy) }()
			r := get()
			r.Timeouts = Timeouts{}
			r.Body, r.Length = c.body, c.length
			x, err := u.Send(ctx, r)
			if err == nil {
				_, err = io.ReadAll(x.Body)
				x.Close()
			}
			var fault *Error
			if !errors.Is(err, errWhy) || errors.As(err, &fault) {
				t.Errorf("error is %v, want the cause and no fault of the upstream", err)
			}
			if s := statusOf(u)[0]; s.InFlight != 0 || s.Idle != 0 {
				t.Errorf("%d in flight, %d idle, want none", s.InFlight, s.Idle)
			}
		})
	}
}

// endless is content that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestCanceledContextSendsNothing(t *testing.T) {
	u := newUpstream(t, answerServer(t, smallAnswer))
	outcome(u, get())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.Send(ctx, get()); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
}
