package h2

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sallyport/proxy/wire"
)

// begun is an exchange whose head has come.
func (c *Client) begun(t *testing.T, ctx context.Context) *wire.Response {
	t.Helper()
	x := &wire.Response{}
	if !c.Reserve() {
		t.Fatal("no place")
	}
	if err := c.Exchange(ctx, &wire.Request{Method: "GET", Target: "/", Host: "a"}, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// A connection on which too much was reset takes no more requests. What is cancelled on
// it then ends quietly: its answer is never taken for whole, and others go on.
func TestClientLingersOverItsResets(t *testing.T) {
	cancelled, resets := make(chan struct{}), make(chan int, 1)
	cl := dialClient(t, script(t, nil, func(o *origin) {
		var ids []uint32
		for len(ids) < 3 {
			id := o.request()
			ids = append(ids, id)
			o.headers(id, false, ":status:200")
			_ = o.fr.WriteData(id, false, []byte("begun"))
		}
		n := 0
		if o.until(http2.FrameRSTStream) != nil { // before the end of the others, which ends the connection
			n++
		}
		<-cancelled
		for range 3 {
			_ = o.fr.WriteData(ids[2], false, make([]byte, 16<<10))
		}
		_ = o.fr.WriteData(ids[2], true, nil)
		_ = o.fr.WriteData(ids[0], true, []byte(" and done"))
		for o.until(http2.FrameRSTStream) != nil {
			n++
		}
		resets <- n
	}), ClientOptions{Resets: 1})
	victim := cl.begun(t, context.Background())
	first, cancelFirst := context.WithCancel(context.Background())
	second, cancelSecond := context.WithCancel(context.Background())
	x, y := cl.begun(t, first), cl.begun(t, second)
	begun := time.Now()
	cancelFirst()
	if _, err := io.ReadAll(x); faultOf(err) != wire.FaultContext {
		t.Error(err)
	}
	x.Close()
	if cl.Reserve() {
		t.Error("the connection takes more requests")
	}
	cancelSecond()
	if _, err := io.ReadAll(y); faultOf(err) != wire.FaultContext {
		t.Error(err)
	}
	close(cancelled)
	if body, err := io.ReadAll(victim); string(body) != "begun and done" || err != nil {
		t.Errorf("the victim got %q, %v", body, err)
	}
	if _, err := y.Read(make([]byte, 10)); faultOf(err) != wire.FaultContext {
		t.Errorf("a cancelled exchange reads %v", err)
	}
	y.Close()
	victim.Close()
	<-cl.done
	if n, restored := <-resets, int(time.Since(begun)/time.Second); n < 1 || n > 1+restored {
		t.Errorf("%d streams were reset; want one, and at most %d that a second has restored", n, restored)
	}
}

// Streams that linger are reset one a second.
func TestClientResetsWhatLingersLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{calls: map[uint32]*call{}, most: 100, options: ClientOptions{Resets: 1}.withDefaults(), writing: true, taken: 1}
		c.bufs = c.options.Buffers
		for id := uint32(1); id <= 7; id += 2 {
			k := &call{c: c, id: id}
			k.readable.L, k.writable.L = &c.mu, &c.mu
			c.calls[id] = k
		}
		c.mu.Lock()
		for id := uint32(1); id <= 5; id += 2 {
			c.end(c.calls[id], cancel)
		}
		c.mu.Unlock()
		for want := 3; want >= 1; want-- {
			c.mu.Lock()
			if n := len(c.calls); n != want || c.lingers != want-1 {
				t.Errorf("%d streams, %d of which linger; want %d", n, c.lingers, want)
			}
			c.mu.Unlock()
			time.Sleep(time.Second)
			synctest.Wait()
		}
	})
}

// A server that was asked for too much is not asked again, whatever fails by that.
func TestClientTellsWhatAsksForCalm(t *testing.T) {
	cl := dialClient(t, script(t, nil, func(o *origin) {
		_ = o.fr.WriteGoAway(o.request(), http2.ErrCodeEnhanceYourCalm, nil)
	}), ClientOptions{})
	if x, _, err := cl.get(context.Background(), wire.Request{}); !errors.Is(err, wire.ErrCalm) || x.Unprocessed {
		t.Errorf("%v, unprocessed: %v", err, x.Unprocessed)
	}
}

// What a server has sent on a stream before it learns of the reset ends no connection,
// however small the frames are.
func TestClientTakesWhatWasUnderWayAtAReset(t *testing.T) {
	cl := dialClient(t, script(t, nil, func(o *origin) {
		victim := o.request()
		o.headers(victim, false, ":status:200")
		id := o.request()
		o.headers(id, false, ":status:200")
		o.until(http2.FrameRSTStream)
		for range 4000 {
			_ = o.fr.WriteData(id, false, []byte("0123456789"))
		}
		_ = o.fr.WriteData(victim, true, []byte("done"))
		o.drain()
	}), ClientOptions{})
	victim := cl.begun(t, context.Background())
	cl.begun(t, context.Background()).Close()
	if body, err := io.ReadAll(victim); string(body) != "done" || err != nil {
		t.Errorf("the victim got %q, %v", body, err)
	}
	victim.Close()
}
