package wire

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lingerer is a connection of a server that does nothing but linger.
type lingerer struct{ net.Conn }

func (lingerer) Look(time.Time) time.Time { return time.Time{} }
func (lingerer) Serve()                   {}
func (lingerer) Drain()                   {}
func (lingerer) Abandon()                 {}
func (lingerer) Cut()                     {}

func TestEarlierOfTwoTimes(t *testing.T) {
	first := time.Unix(1, 0)
	second := first.Add(time.Nanosecond)
	for _, pair := range [][2]time.Time{{first, second}, {second, first}, {first, first}} {
		if got := Earlier(pair[0], pair[1]); !got.Equal(first) {
			t.Errorf("of %v: %v", pair, got)
		}
	}
}

// A client that continues to send is read for as long as it may linger, whatever the bytes. Silence, a
// drain, or too many lingering connections end that earlier.
func TestLinger(t *testing.T) {
	const most = 30 * time.Second
	for name, c := range map[string]struct {
		every  time.Duration // how often the client sends; 0: never
		leaves time.Duration // when it closes; 0: never
		others int32         // connections that linger already
		drains time.Duration // when the server drains; 0: never
		want   time.Duration
	}{
		"a fast upload":                {every: time.Millisecond, leaves: 20 * time.Second, want: 20 * time.Second},
		"an upload without end":        {every: time.Millisecond, want: most},
		"a byte now and then":          {every: 4 * time.Second, want: most},
		"silence":                      {want: MaxSilence},
		"silence after a while":        {every: 6 * time.Second, want: MaxSilence},
		"a client that leaves at once": {leaves: time.Nanosecond, want: time.Nanosecond},
		"among many":                   {every: time.Millisecond, others: maxLingering, want: Brief},
		"the last of many":             {every: time.Millisecond, others: maxLingering - 1, want: most},
		"a server that drains":         {every: time.Millisecond, drains: 10 * time.Second, want: 10*time.Second + Brief},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(NewRegister[lingerer](Lag, nil, nil), func(c net.Conn) lingerer { return lingerer{c} })
				s.lingering.Store(c.others)
				client, conn := net.Pipe()
				if c.leaves > 0 {
					time.AfterFunc(c.leaves, func() { client.Close() })
				}
				if c.drains > 0 {
					time.AfterFunc(c.drains, func() { _ = s.Shutdown(context.Background()) })
				}
				var sender sync.WaitGroup
				if c.every > 0 {
					sender.Go(func() {
						for {
							time.Sleep(c.every)
							if _, err := client.Write(make([]byte, 100)); err != nil {
								return
							}
						}
					})
				}
				begun := time.Now()
				s.Linger(conn, most, make([]byte, 1000))
				if took := time.Since(begun); took < c.want-time.Second || took > c.want+2*Brief {
					t.Errorf("took %v, want %v", took, c.want)
				}
				if _, err := conn.Write([]byte("x")); err != io.ErrClosedPipe {
					t.Errorf("the connection is open: %v", err)
				}
				if n := s.lingering.Load(); n != c.others {
					t.Errorf("%d connections count as lingering, want %d", n, c.others)
				}
				client.Close()
				sender.Wait()
			})
		})
	}
}
