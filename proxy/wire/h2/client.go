package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"sallyport/proxy/message"
	"sallyport/proxy/wire"
)

// ClientOptions are what a connection to a server may take. Zero values stand for the
// defaults.
type ClientOptions struct {
	Scheme    string        // how the server is asked: "https", or "http" if empty
	Streams   int           // requests in flight, if the server does not allow fewer; 256
	WriteTime time.Duration // for a write that the server does not take; 30 s
	// PingTime is how long a server may take to answer PING. It is asked where
	// nothing was heard of it for as long, and a request is to be sent or was not
	// answered in time; 10 s.
	PingTime time.Duration
	// Frames is how many frames may come that bring no answer further, more than
	// requests and answers give cause for: 1000. A tenth comes back each second.
	Frames int
	// Resets is what resets of streams may cost before the connection takes no more
	// requests: five where one follows its request at once, else one. One comes back each
	// second. 100, and at most four times the requests in flight that the server allows.
	Resets int
	// StreamWindow is up to how many bytes of an answer that nobody has read yet may
	// wait, and Memory for how much more than 64 KiB each all answers of the
	// connection may have together: 4 MiB and 16 MiB. Windows begin at 64 KiB, and
	// widen while content is read as it comes.
	StreamWindow, Memory int
	// Buffers are lent for what is read and written; nil: the client's own.
	Buffers *wire.Buffers
	// Clock is asked for deadlines; the system if nil.
	Clock *wire.Clock
}

func (o ClientOptions) withDefaults() ClientOptions {
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	o.Streams = or(o.Streams, 256)
	o.WriteTime = or(o.WriteTime, 30*time.Second)
	o.PingTime = or(o.PingTime, 10*time.Second)
	o.Frames = or(o.Frames, 1000)
	o.StreamWindow = max(or(o.StreamWindow, 4<<20), startWindow)
	o.Memory = or(o.Memory, 16<<20)
	if o.Buffers == nil {
		o.Buffers = &wire.Buffers{}
	}
	return o
}

// connWindow is what a server may send at once, of all answers. It is granted again
// as content arrives: an answer that is read slowly holds up no other, and what
// may wait is bounded by the windows of the streams.
const connWindow = 16 << 20

// Client is one connection to a server, shared by many exchanges at a time. It implements
// [wire.Client]. It is safe for concurrent use.
type Client struct {
	conn    net.Conn
	bufs    *wire.Buffers
	options ClientOptions
	done    chan struct{} // closed when the reader's goroutine has ended

	// The reader's own.
	in     reader
	blocks *blockReader
	block  uint32 // the stream whose header block is incomplete; 0: none is
	ends   bool   // the stream ends with that block
	waited bool   // it has waited for the frame that it is reading

	mu       sync.Mutex // guards what follows
	calls    map[uint32]*call
	ready    []*call     // to be woken before the reader waits
	taken    int         // places that Reserve gave out
	next     uint32      // the stream of the next request
	greeted  bool        // SETTINGS have come
	leaving  bool        // no more requests can be sent: GOAWAY has come, or writing has failed
	draining bool        // no more places are given out
	gone     *wire.Error // why nothing is read or written any more

	most    int     // exchanges at a time, as the server has it
	takes   int64   // how large a head the server takes; -1: it has not said
	send    sending // what may be sent on the connection
	grant   int64   // of SETTINGS: the window of new streams
	receive receiving
	spare   int // of options.Memory

	out        *wire.Buffer // what is to be written; nil: nothing
	unwritable error        // why nothing is written any more
	told       bool         // the server knows that we have no table
	writing    bool
	kicked     bool       // a goroutine is about to write
	changed    *sync.Cond // something was written, SETTINGS have come, or the connection is gone
	frames     int        // how many more may come that bring nothing
	regained   time.Time

	calm      bool // GOAWAY has come because the server was asked for too much
	resets    int  // what resets have cost, less what came back
	resetsAt  time.Time
	lingers   int     // of calls: streams whose reset waits
	lingering []*call // those streams, and some that have ended since
	stale     int     // bytes that the server may have sent on streams before it knew of their reset
	pings     int     // sent since HEADERS or DATA last came
	pingAt    time.Time

	heard   time.Time // when something last came
	pinged  bool      // PING is to be answered until pingBy
	pingBy  time.Time
	writeBy time.Time // until when what is being written must be taken
	alarm   *time.Timer
	alarmAt time.Time // zero: it is not set
}

var _ wire.Client = (*Client)(nil)

// NewClient makes a client of a connection, on which TLS, if any, has shaken hands.
// It starts the goroutine that reads, and which Close ends.
func NewClient(conn net.Conn, o ClientOptions) *Client {
	o = o.withDefaults()
	c := &Client{
		conn:    conn,
		bufs:    o.Buffers,
		options: o,
		done:    make(chan struct{}),
		blocks:  newBlockReader(),
		calls:   map[uint32]*call{},
		next:    1,
		most:    o.Streams,
		takes:   -1,
		send:    startWindow,
		grant:   startWindow,
		receive: receiving{left: connWindow, size: connWindow, most: connWindow},
		spare:   o.Memory,
		frames:  o.Frames,
		heard:   time.Now(),
	}
	c.in = reader{conn: conn, bufs: c.bufs}
	c.changed = sync.NewCond(&c.mu)
	c.out = c.bufs.Get(0)
	b := append(c.out.B, preface...)
	b = appendSettings(b, setting{settingPush, 0}, setting{settingHeadSize, wire.MaxHead})
	c.out.B = appendWindow(b, 0, connWindow-startWindow)
	go c.run()
	return c
}

// Greet sends the client's preface and waits for the server's, which says how much
// it takes, and that it speaks HTTP/2 at all.
func (c *Client) Greet(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kick()
	for !c.greeted && c.gone == nil && ctx.Err() == nil {
		c.changed.Wait()
	}
	switch {
	case c.greeted:
		return nil
	case c.gone != nil:
		return fmt.Errorf("waiting for the server's SETTINGS: %w", c.gone)
	}
	return fmt.Errorf("waiting for the server's SETTINGS: %w", ctx.Err())
}

// Reserve takes a place for one exchange, if there is one: each Exchange needs a
// place, and gives it back when its response is closed, or with its error.
func (c *Client) Reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.good() || c.taken >= min(c.most, c.options.Streams) {
		return false
	}
	c.taken++
	return true
}

// Release gives back a place that Reserve took and no Exchange has used.
func (c *Client) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken--
	c.rest()
}

// Load says how many places are taken, and whether the connection is good for more
// exchanges, now or once places are free.
func (c *Client) Load() (taken int, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken, c.good()
}

func (c *Client) good() bool { return !c.leaving && !c.draining && c.gone == nil }

// Drain ends the giving of places; the connection closes when none is taken.
func (c *Client) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.rest()
}

// Close cuts the connection, and every exchange on it, and waits until its
// goroutine has ended.
func (c *Client) Close() error {
	c.mu.Lock()
	c.die(&wire.Error{Fault: wire.FaultBroken, Err: net.ErrClosed})
	c.mu.Unlock()
	<-c.done
	return nil
}

// Exchange implements [wire.Client]. A place must have been reserved, which is given back
// when x is closed, or with the error. After an error the connection may well live on.
func (c *Client) Exchange(ctx context.Context, r *wire.Request, x *wire.Response) error {
	x.Reset()
	b, err := c.render(r)
	if err != nil {
		c.mu.Lock()
		c.taken--
		c.mu.Unlock()
		return err
	}
	e := &exchange{c: c, ctx: ctx}
	k := &e.call
	k.begin(c, r)
	e.watching = wire.Watch(ctx, k.contextEnded)
	c.mu.Lock()
	c.ask(k, r, b)
	if k.err == nil && !k.outEnded {
		k.up = startUpload(k, r)
		// The head leaves with the first of the content, if that is there.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.flush()
	err = k.awaitHead(r)
	c.mu.Unlock()
	if err != nil {
		err = e.blame(err)
		e.err = err
		e.Close()
		c.mu.Lock() // the stream may linger
		x.Answered, x.Unprocessed = k.answered, k.unprocessed && (k.up == nil || !k.up.touched)
		c.mu.Unlock()
		return err
	}
	x.Answered, x.Head = true, k.head
	x.Open(e)
	return nil
}

// ask sends the request's head, and its content if that is at hand and the windows
// hold it; mu is held.
func (c *Client) ask(k *call, r *wire.Request, b *wire.Buffer) {
	if k.err != nil { // the context has ended
		c.bufs.Put(b)
		return
	}
	if c.leaving || c.gone != nil {
		c.bufs.Put(b)
		k.unprocessed = true
		k.fail(&wire.Error{Fault: wire.FaultBroken, Err: errLeft})
		return
	}
	if why := c.checkSize(r); why != nil {
		c.bufs.Put(b)
		k.fail(why)
		return
	}
	k.begun = time.Now()
	if !c.heard.IsZero() && k.begun.Sub(c.heard) > c.options.PingTime {
		c.ping()
	}
	k.id = c.next
	c.next += 2
	c.leaving = c.next > maxStream
	c.calls[k.id] = k
	k.send = sending(c.grant)
	k.receive = receiving{left: startWindow, size: startWindow, most: startWindow}
	if !c.told {
		c.told = true
		b.B = append(b.B, 0)
		copy(b.B[frameHead+1:], b.B[frameHead:])
		b.B[frameHead] = noTable
	}
	c.earn(4)
	n := len(r.Content)
	whole := !r.Streams()
	b.B = sealBlock(b.B, 0, k.id, whole && n == 0)
	switch {
	case !whole:
	case n == 0:
		k.outEnded = true
	case sending(n) <= min(k.send, c.send) && (c.out == nil || len(c.out.B) < maxHeld):
		k.send -= sending(n)
		c.send -= sending(n)
		b.B = appendData(b.B, k.id, r.Content)
		k.outEnded = true
	default:
		k.content = bytes.Clone(r.Content) // the caller's is not used once Exchange has returned
	}
	c.queue(b)
}

// appendData writes content to its end.
func appendData(b []byte, stream uint32, p []byte) []byte {
	for len(p) > maxFrame {
		b = append(appendFrameHead(b, maxFrame, frameData, 0, stream), p[:maxFrame]...)
		p = p[maxFrame:]
	}
	return append(appendFrameHead(b, len(p), frameData, flagEndStream, stream), p...)
}

// render writes the head of the request behind room for a frame's head.
func (c *Client) render(r *wire.Request) (*wire.Buffer, error) {
	err := r.Check()
	if err == nil && r.Upgrade != "" {
		err = errClientUpgrade
	}
	if err != nil {
		return nil, &wire.Error{Fault: wire.FaultRequest, Err: fmt.Errorf("writing request: %w", err)}
	}
	lent := c.bufs.Get(len(r.Content) + 1<<10)
	b := append(lent.B, make([]byte, frameHead)...)
	b = appendPseudo(b, r.Method, c.options.Scheme, r.Host, r.Target)
	if b, err = appendFields(b, r.Fields); err != nil {
		c.bufs.Put(lent)
		return nil, &wire.Error{Fault: wire.FaultRequest, Err: fmt.Errorf("writing request: %w", err)}
	}
	switch {
	case message.IsGRPC(r.Fields.Get("content-type")): // counts its messages itself, and takes every other field for metadata
	case r.Body != nil && r.Length > 0:
		b = appendLength(b, r.Length)
	case r.Body != nil && r.Length < 0:
	case len(r.Content) > 0 || r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH":
		b = appendLength(b, int64(len(r.Content)))
	}
	lent.B = appendField(b, "te", "trailers")
	return lent, nil
}

var (
	errLeft          = errors.New("the connection takes no more requests")
	errClientUpgrade = errors.New("tunnels are not asked for over HTTP/2")
	errContextEnded  = errors.New("context ended") // stands for the cause, which the exchange looks up
	errDeaf          = errors.New("PING was not answered in time")
	errStalled       = errors.New("the server takes nothing")
)

// blame makes a [*wire.Error] of what an exchange failed with.
func (x *exchange) blame(err error) error {
	var known *wire.Error
	switch {
	case errors.As(err, &known):
		if known.Fault == wire.FaultContext && x.ctx.Err() != nil {
			return &wire.Error{Fault: wire.FaultContext, Err: fmt.Errorf("exchange ended: %w", wire.Cause(x.ctx))}
		}
		return known
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &wire.Error{Fault: wire.FaultTimeout, Err: err}
	}
	return &wire.Error{Fault: wire.FaultBroken, Err: err}
}

// ofConnection makes a [*wire.Error] of what a connection ended with.
func ofConnection(err error) *wire.Error {
	var bad *fault
	var known *wire.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &bad):
		return &wire.Error{Fault: wire.FaultMalformed, Err: bad}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &wire.Error{Fault: wire.FaultTimeout, Err: err}
	case errors.Is(err, io.EOF):
		return &wire.Error{Fault: wire.FaultBroken, Err: io.ErrUnexpectedEOF}
	}
	return &wire.Error{Fault: wire.FaultBroken, Err: err}
}
