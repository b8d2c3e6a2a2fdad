package h1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
	"sallyport/proxy/wire/socket"
)

// inPieces is a body that arrives in pieces. Each of the first came pieces is available once the
// one before has been read.
type inPieces struct {
	sizes []int
	came  int
	err   error // after the last piece
	asked int
}

func (b *inPieces) Read(p []byte) (int, error) {
	if len(b.sizes) == 0 {
		return 0, b.err
	}
	n := copy(p, bytes.Repeat([]byte("x"), b.sizes[0]))
	if b.sizes[0] -= n; b.sizes[0] == 0 {
		b.sizes, b.came = b.sizes[1:], b.came-1
	}
	if len(b.sizes) == 0 {
		return n, b.err
	}
	return n, nil
}

func (b *inPieces) Trailers() message.Fields { return nil }

func (b *inPieces) Coming() bool {
	b.asked++
	return b.came > 0
}

func TestUploadGathersWhatComes(t *testing.T) {
	const record = 16 << 10
	bad := errors.New("bad")
	for _, tt := range []struct {
		name  string
		body  inPieces
		left  int64
		want  int
		err   error
		asked int
	}{
		{"all there", inPieces{sizes: []int{record, record, record, record, record}, came: 5}, -1, 3 * record, nil, 2},
		{"two there", inPieces{sizes: []int{record, record, record}, came: 2}, -1, 2 * record, nil, 2},
		{"one there", inPieces{sizes: []int{100, 100}, came: 1}, -1, 100, nil, 1},
		{"its length has come", inPieces{sizes: []int{100, 100, 1}, came: 3}, 200, 200, nil, 1},
		{"its end is bad", inPieces{sizes: []int{100, 100}, came: 2, err: bad}, -1, 200, bad, 1},
		{"its end", inPieces{sizes: []int{100, 100}, came: 2, err: io.EOF}, -1, 200, io.EOF, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := &upload{r: &wire.Request{Body: &tt.body}}
			n, err := u.gather(make([]byte, uploadBuffer-12), tt.left)
			if n != tt.want || err != tt.err || tt.body.asked != tt.asked {
				t.Errorf("%d bytes and %v, asked %d times; want %d, %v, %d", n, err, tt.body.asked, tt.want, tt.err, tt.asked)
			}
		})
	}
	stopped := &upload{r: &wire.Request{Body: &inPieces{sizes: []int{1, 1, 1}, came: 3}}}
	stopped.stop.Store(true)
	if n, _ := stopped.gather(make([]byte, uploadBuffer), -1); n != 1 {
		t.Errorf("stopped: %d bytes", n)
	}
}

// TestServerBodyTellsWhatComes checks a body on a real socket before and after its parts are sent.
func TestServerBodyTellsWhatComes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	do := make(chan string)
	told := make(chan string)
	s := NewServer(func(s wire.Stream) {
		b := s.Body()
		coming, buf := b.(message.Coming).Coming, make([]byte, 1<<10)
		for what := range do {
			switch what {
			case "read":
				n, err := b.Read(buf)
				told <- fmt.Sprint(n, err)
			case "await":
				for end := time.Now().Add(time.Minute); !coming() && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				fallthrough
			case "look":
				n, whole := b.(message.Arrived).Arrived()
				told <- fmt.Sprint(coming(), n, whole)
			}
		}
		ok(s)
	}, testOptions)
	done := make(chan error, 1)
	go func() { done <- s.Serve(socket.Listen(l)) }()
	defer func() {
		_ = s.Close()
		<-done
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect := func(what, want string) {
		t.Helper()
		do <- what
		select {
		case got := <-told:
			if got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s: nothing", what)
		}
	}
	send(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
	expect("look", "true 3 false") // arrived with the head
	expect("read", "3 <nil>")
	expect("look", "false 0 false")
	send(t, c, "defghi")
	expect("await", "true 0 false") // unread in the socket
	expect("read", "6 EOF")
	expect("look", "false 0 true")
	close(do)
}
