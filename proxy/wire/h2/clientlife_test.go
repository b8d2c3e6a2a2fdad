package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/wire"
)

// A server that does not speak HTTP/2 is detected before a request is sent.
func TestClientGreets(t *testing.T) {
	for name, c := range map[string]struct {
		says, want string
	}{
		"HTTP/1.1":      {"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "the server speaks HTTP/1: write http://"},
		"another frame": {"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "not SETTINGS"},
		"nothing":       {"", "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			if c.says != "" {
				go func() { _, _ = io.WriteString(theirs, c.says) }()
			}
			cl := NewClient(ours, ClientOptions{})
			defer cl.Close()
			limit := time.Minute
			if c.says == "" {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			if err := cl.Greet(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// A server that opens no window blocks only its own upload, and not for ever.
func TestClientAndClosedWindows(t *testing.T) {
	first := make(chan struct{})
	cl := dialClient(t, script(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 5}}, func(o *origin) {
		for id := o.request(); id != 0; id = o.request() {
			if id > 1 {
				o.headers(id, true, ":status:204")
			} else {
				close(first)
			}
		}
	}), ClientOptions{})
	stuck := make(chan error, 1)
	go func() {
		_, _, err := cl.get(context.Background(), wire.Request{Method: "POST", Content: make([]byte, 100), Idle: 200 * time.Millisecond})
		stuck <- err
	}()
	<-first
	if x, _, err := cl.get(context.Background(), wire.Request{}); err != nil || x.Head.Status != 204 {
		t.Error(err)
	}
	if err := <-stuck; faultOf(err) != wire.FaultTimeout {
		t.Error(err)
	}
}

// A window that becomes negative and opens again loses no bytes.
func TestClientAndShrinkingWindows(t *testing.T) {
	got := make(chan int, 1)
	cl := dialClient(t, script(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 100}}, func(o *origin) {
		id := o.request()
		total, opened := 0, false
		for {
			f, err := o.fr.ReadFrame()
			if err != nil {
				return
			}
			d, ok := f.(*http2.DataFrame)
			if !ok {
				continue
			}
			total += len(d.Data())
			if !opened {
				opened = true
				_ = o.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
				_ = o.fr.WriteWindowUpdate(id, 1000)
			}
			if d.StreamEnded() {
				got <- total
				o.headers(id, true, ":status:204")
				o.drain()
			}
		}
	}), ClientOptions{})
	if _, _, err := cl.get(context.Background(), wire.Request{Method: "POST", Content: make([]byte, 1000), Idle: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 1000 {
		t.Errorf("%d bytes arrived", n)
	}
}

// A silent server gets a PING, and is given up if it does not answer.
func TestClientGivesUpTheDeaf(t *testing.T) {
	cl := dialClient(t, script(t, nil, func(o *origin) { o.drain() }), ClientOptions{PingTime: 30 * time.Millisecond})
	// On a busy machine the connection may be given up before the head is late.
	if _, _, err := cl.get(context.Background(), wire.Request{Head: 20 * time.Millisecond}); faultOf(err) != wire.FaultTimeout && !errors.Is(err, errDeaf) {
		t.Fatal(err)
	}
	<-cl.done
	if _, good := cl.Load(); good {
		t.Error("the connection is still taken for good")
	}
}

func TestClientAsksTheSilent(t *testing.T) {
	pinged := make(chan struct{}, 1)
	cl := dialClient(t, script(t, nil, func(o *origin) {
		for {
			f, err := o.fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.PingFrame:
				_ = o.fr.WritePing(true, f.Data)
				pinged <- struct{}{}
			case *http2.MetaHeadersFrame:
				o.headers(f.StreamID, true, ":status:204")
			}
		}
	}), ClientOptions{})
	cl.mu.Lock()
	cl.heard = time.Now().Add(-time.Minute)
	cl.mu.Unlock()
	if _, _, err := cl.get(context.Background(), wire.Request{}); err != nil {
		t.Fatal(err)
	}
	<-pinged
	if _, good := cl.Load(); !good {
		t.Error("the connection is taken for dead")
	}
}

// A server that accepts no bytes is given up.
func TestClientGivesUpTheFull(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	cl := NewClient(ours, ClientOptions{WriteTime: 30 * time.Millisecond})
	defer cl.Close()
	if err := cl.Greet(context.Background()); faultOf(err) != wire.FaultTimeout {
		t.Error(err)
	}
}

// A server that exceeds its window gets an error.
func TestClientHoldsServersToWindows(t *testing.T) {
	told := make(chan http2.ErrCode, 1)
	cl := dialClient(t, script(t, nil, func(o *origin) {
		id := o.request()
		o.headers(id, false, ":status:200")
		for range 8 {
			_ = o.fr.WriteData(id, false, make([]byte, 16<<10))
		}
		if f, ok := o.until(http2.FrameRSTStream).(*http2.RSTStreamFrame); ok {
			told <- f.ErrCode
		}
		o.drain()
	}), ClientOptions{})
	cl.Reserve()
	x := &wire.Response{}
	if err := cl.Exchange(context.Background(), &wire.Request{Method: "GET", Target: "/", Host: "a"}, x); err != nil {
		t.Fatal(err)
	}
	if got := <-told; got != http2.ErrCodeFlowControl {
		t.Errorf("the server was told %v", got)
	}
	if _, err := io.ReadAll(x); faultOf(err) != wire.FaultMalformed {
		t.Error(err)
	}
	x.Close()
}

// Unread content of a server is limited, and no stream blocks another.
func TestClientBoundsWhatItKeeps(t *testing.T) {
	const streams = 20
	cl := dialClient(t, script(t, nil, func(o *origin) {
		var ids []uint32
		for len(ids) < streams {
			ids = append(ids, o.request())
		}
		for _, id := range ids[:streams-1] {
			o.headers(id, false, ":status:200")
			for range 3 {
				_ = o.fr.WriteData(id, false, make([]byte, 16<<10))
			}
			_ = o.fr.WriteData(id, false, make([]byte, 16<<10-1))
		}
		last := ids[streams-1]
		o.headers(last, false, ":status:200", "x-last:yes")
		_ = o.fr.WriteData(last, true, []byte("last"))
		o.drain()
	}), ClientOptions{})
	var all []*wire.Response
	for range streams {
		cl.Reserve()
		x := &wire.Response{}
		all = append(all, x)
	}
	var asked sync.WaitGroup
	for _, x := range all {
		asked.Go(func() {
			if err := cl.Exchange(context.Background(), &wire.Request{Method: "GET", Target: "/", Host: "a"}, x); err != nil {
				t.Error(err)
			}
		})
	}
	asked.Wait()
	for _, x := range all {
		if body, err := func() (string, error) {
			if !x.Head.Fields.Has("x-last") {
				return "", nil
			}
			b, err := io.ReadAll(x)
			return string(b), err
		}(); err != nil || body != "" && body != "last" {
			t.Errorf("%q, %v", body, err)
		}
	}
	for _, x := range all {
		x.Close()
	}
	if n, _ := cl.Load(); n != 0 {
		t.Errorf("%d places are taken in the end", n)
	}
}

// TestClientIsCutAtEachPoint aborts a valid answer after each of its frames, in each way.
func TestClientIsCutAtEachPoint(t *testing.T) {
	answer := []func(o *origin, id uint32){
		func(o *origin, id uint32) { o.headers(id, false, ":status:103", "link:</a>") },
		func(o *origin, id uint32) { o.headers(id, false, ":status:200") },
		func(o *origin, id uint32) { _ = o.fr.WriteData(id, false, []byte("hello, ")) },
		func(o *origin, id uint32) { _ = o.fr.WriteData(id, false, []byte("world")) },
		func(o *origin, id uint32) { o.headers(id, true, "grpc-status:0") },
	}
	for _, c := range []struct {
		name  string
		fault wire.Fault // 0: the rest still arrives
		cut   func(o *origin, id uint32)
	}{
		{"reset", wire.FaultBroken, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id, http2.ErrCodeInternal) }},
		{"reset without an error", wire.FaultBroken, func(o *origin, id uint32) { _ = o.fr.WriteRSTStream(id, http2.ErrCodeNo) }},
		{"GOAWAY behind it", 0, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(id, http2.ErrCodeNo, nil) }},
		{"GOAWAY of no number", 0, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) }},
		{"GOAWAY before it", wire.FaultBroken, func(o *origin, id uint32) { _ = o.fr.WriteGoAway(0, http2.ErrCodeInternal, nil) }},
		{"closed", wire.FaultBroken, func(o *origin, id uint32) { o.c.Close() }},
		{"half a frame", wire.FaultBroken, func(o *origin, id uint32) {
			_, _ = o.c.Write([]byte{0, 0, 5, 0, 0})
			o.c.Close()
		}},
		{"push", wire.FaultMalformed, func(o *origin, id uint32) {
			_ = o.fr.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		}},
		{"window too large", wire.FaultMalformed, func(o *origin, id uint32) { _ = o.fr.WriteWindowUpdate(id, 1<<31-1) }},
	} {
		for at := range len(answer) + 1 {
			t.Run(fmt.Sprint(c.name, " behind ", at), func(t *testing.T) {
				cl := dialClient(t, script(t, nil, func(o *origin) {
					id := o.request()
					if id == 0 {
						return
					}
					for i := range len(answer) + 1 {
						if i == at {
							c.cut(o, id)
							if c.fault != 0 {
								break
							}
						}
						if i < len(answer) {
							answer[i](o, id)
						}
					}
					o.drain()
				}), ClientOptions{})
				_, body, err := cl.get(context.Background(), wire.Request{Head: time.Minute, Idle: time.Minute})
				whole := err == nil && body == "hello, world"
				switch {
				case c.fault == 0 || at == len(answer):
					if !whole {
						t.Errorf("%q, %v; want the whole answer", body, err)
					}
				case faultOf(err) != c.fault || !strings.HasPrefix("hello, world", body):
					t.Errorf("%q, %v (fault %d); want fault %d", body, err, faultOf(err), c.fault)
				}
			})
		}
	}
}

// TestClientCrowdIsResetAtRandom has a server that sends resets and GOAWAY and closes during many
// exchanges. Each ends with an error or a complete answer.
func TestClientCrowdIsResetAtRandom(t *testing.T) {
	addr := script(t, nil, func(o *origin) {
		for n := 0; ; n++ {
			id := o.request()
			switch {
			case id == 0:
				return
			case n%97 == 96:
				_ = o.fr.WriteGoAway(id-2, http2.ErrCodeNo, nil)
			case n%7 == 1:
				_ = o.fr.WriteRSTStream(id, http2.ErrCode(n%14))
			case n%7 == 2:
				o.headers(id, false, ":status:200")
				_ = o.fr.WriteRSTStream(id, http2.ErrCodeCancel)
			case n%331 == 330:
				return
			default:
				o.headers(id, false, ":status:200", "content-length:5")
				_ = o.fr.WriteData(id, true, []byte("whole"))
			}
		}
	})
	var mu sync.Mutex
	var cl *Client
	client := func() *Client {
		mu.Lock()
		defer mu.Unlock()
		if cl != nil {
			if _, good := cl.Load(); good {
				return cl
			}
		}
		cl = dialClient(t, addr, ClientOptions{})
		return cl
	}
	var all sync.WaitGroup
	outcomes := make([]map[string]int, 100)
	for i := range outcomes {
		outcomes[i] = map[string]int{}
		all.Go(func() {
			for j := range 20 {
				ctx, cancel := context.WithCancel(context.Background())
				if (i+j)%5 == 0 {
					time.AfterFunc(time.Duration(j)*50*time.Microsecond, cancel)
				}
				_, body, err := client().get(ctx, wire.Request{Method: "POST", Content: []byte("x"), Head: time.Minute, Idle: time.Minute})
				switch {
				case err == nil && body != "whole":
					t.Errorf("%q as a whole answer", body)
				case err == nil:
					outcomes[i]["whole"]++
				default:
					outcomes[i][fmt.Sprint(faultOf(err))]++
				}
				cancel()
			}
		})
	}
	all.Wait()
	total := map[string]int{}
	for _, o := range outcomes {
		for k, n := range o {
			total[k] += n
		}
	}
	if total["whole"] == 0 || total[fmt.Sprint(wire.FaultBroken)] == 0 || total[fmt.Sprint(wire.FaultTimeout)] > 0 || total[fmt.Sprint(wire.FaultMalformed)] > 0 {
		t.Error(total)
	}
}

// A closed client leaves no goroutine, whatever was in progress.
func TestClientLeavesNothing(t *testing.T) {
	addr := script(t, nil, func(o *origin) {
		o.headers(o.request(), false, ":status:200")
		o.drain()
	})
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c := NewClient(conn, ClientOptions{})
		pr, pw := io.Pipe()
		c.Reserve()
		x := &wire.Response{}
		r := &wire.Request{Method: "POST", Target: "/", Host: "a", Length: -1, Body: reading{Reader: pr}, Interrupt: func() { pw.CloseWithError(io.ErrClosedPipe) }}
		if err := c.Exchange(context.Background(), r, x); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := io.ReadAll(x); faultOf(err) != wire.FaultBroken {
			t.Error(err)
		}
		x.Close()
	}
	buf := make([]byte, 1<<20)
	left := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if left = string(buf[:runtime.Stack(buf, true)]); !strings.Contains(left, "h2.(*Client)") && !strings.Contains(left, "h2.(*upload)") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(left)
}
