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

// ClientOptions configure a connection to a server. Zero values mean the defaults.
type ClientOptions struct {
	Scheme    string        // the :scheme of requests; "http" if empty
	Streams   int           // requests in flight, unless the server allows fewer; 256
	WriteTime time.Duration // for a blocked write; 30 s
	// PingTime is how long a server may take to answer PING. A PING is sent after as long a
	// silence, when a request is about to be sent or an answer is late; 10 s.
	PingTime time.Duration
	// PingRest is how long a server with requests in flight may be silent before the client sends
	// PING, whatever the requests wait for. After two PINGs without HEADERS or DATA between them, it
	// is also the shortest time to the next. 5 min 10 s: by default grpc-go and C-core count PINGs
	// within 5 minutes of another as strikes, and end the connection at the third.
	PingRest time.Duration
	// Frames limits unproductive frames: those beyond what requests and answers account for. 1000;
	// a tenth is restored each second.
	Frames int
	// Resets limits what resets of streams may cost before the connection accepts no more
	// requests: five for a reset soon after its request, else one. One is restored each second.
	// 100, and at most four times the requests in flight that the server allows.
	Resets int
	// StreamWindow limits the unread bytes of one answer: 4 MiB. Memory limits how far the windows
	// of all answers may grow beyond 64 KiB each: 16 MiB. Windows begin at 64 KiB and grow while
	// content is read as fast as it arrives.
	StreamWindow, Memory int
	// Buffers is the pool for what is read and written; if nil, the client makes its own.
	Buffers *wire.Buffers
	// Clock supplies the time for deadlines; the system's if nil.
	Clock *wire.Clock
}

func (o ClientOptions) withDefaults() ClientOptions {
	if o.Scheme == "" {
		o.Scheme = "http"
	}
	o.Streams = or(o.Streams, 256)
	o.WriteTime = or(o.WriteTime, 30*time.Second)
	o.PingTime = or(o.PingTime, 10*time.Second)
	o.PingRest = or(o.PingRest, 5*time.Minute+10*time.Second)
	o.Frames = or(o.Frames, 1000)
	o.StreamWindow = max(or(o.StreamWindow, 4<<20), startWindow)
	o.Memory = or(o.Memory, 16<<20)
	if o.Buffers == nil {
		o.Buffers = &wire.Buffers{}
	}
	return o
}

// connWindow is the receive window of the connection. It is replenished as content arrives, so that
// a slow reader of one answer blocks no other. The windows of the streams limit the buffered bytes.
const connWindow = 16 << 20

// Client is one connection to a server, shared by many exchanges at a time. It implements
// [wire.Client]. It is safe for concurrent use.
type Client struct {
	conn    net.Conn
	bufs    *wire.Buffers
	options ClientOptions
	done    chan struct{} // closed when the reader's goroutine has ended

	// The reader goroutine owns the fields below.
	in     reader
	blocks *blockReader
	block  uint32 // the stream whose header block is incomplete; 0: none
	ends   bool   // that block has END_STREAM
	waited bool   // the reader has blocked within the current frame

	mu       sync.Mutex // guards the fields below
	calls    map[uint32]*call
	ready    []*call     // to wake before the reader blocks
	taken    int         // places reserved
	next     uint32      // the stream number of the next request
	greeted  bool        // SETTINGS have arrived
	leaving  bool        // send no more requests: GOAWAY has arrived, or writing has failed
	draining bool        // reserve no more places
	gone     *wire.Error // why the connection ended; nil while it is open

	most    int       // concurrent exchanges that the server allows
	takes   int64     // the largest head that the server accepts; -1: it has not said
	send    sending   // the send window of the connection
	dryAt   time.Time // when that was used up; zero: it is not
	grant   int64     // from SETTINGS: the send window of new streams
	receive receiving
	spare   int // unused part of options.Memory

	out        *wire.Buffer // pending output; nil if none
	unwritable error        // why writing has failed
	told       bool         // the encoder's table size update (0) was sent
	writing    bool
	kicked     bool       // a goroutine is about to write
	changed    *sync.Cond // signals a write, SETTINGS, or the end of the connection
	frames     int        // budget for unproductive frames
	updates    updates
	regained   time.Time

	calm      bool // GOAWAY has arrived because too much was asked of the server
	resets    int  // the cost of resets, less what was restored
	resetsAt  time.Time
	lingers   int     // calls whose reset is delayed
	lingering []*call // those calls, and some that have ended since
	stale     int     // bytes that the server may have sent on streams before it saw their reset
	pings     int     // sent since the last HEADERS or DATA arrived
	pingAt    time.Time

	heard   time.Time // time of the last read
	pinged  bool      // a PING is unanswered; due by pingBy
	pingBy  time.Time
	writeBy time.Time // deadline of the current write
	alarm   *time.Timer
	alarmAt time.Time // zero: not set
}

var _ wire.Client = (*Client)(nil)

// NewClient returns a client of a connection whose TLS handshake, if any, is complete. It starts
// the goroutine that reads; Close ends it.
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

// Greet sends the client's preface and waits for the server's SETTINGS, which prove that the server
// speaks HTTP/2 and hold its limits.
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

// Reserve takes a place for one exchange, if one is free. Each Exchange needs a place. The place is
// released when the response is closed or Exchange fails.
func (c *Client) Reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.good() || c.taken >= min(c.most, c.options.Streams) {
		return false
	}
	c.taken++
	return true
}

// Release gives back a place that no Exchange has used.
func (c *Client) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken--
	c.rest()
}

// Load returns how many places are taken. good is false if the connection accepts no more
// exchanges, even when places become free.
func (c *Client) Load() (taken int, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken, c.good()
}

func (c *Client) good() bool { return !c.leaving && !c.draining && c.gone == nil }

// Drain stops giving out places; the connection closes when none is taken.
func (c *Client) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.rest()
}

// Close cuts the connection, fails its exchanges and waits until its goroutine has ended.
func (c *Client) Close() error {
	c.mu.Lock()
	c.die(&wire.Error{Fault: wire.FaultBroken, Err: net.ErrClosed})
	c.mu.Unlock()
	<-c.done
	return nil
}

// Exchange implements [wire.Client]. The caller must have reserved a place; closing x, or an error,
// releases it. After an error the connection may still be usable.
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
		// The head is sent with the first piece of content, if that is ready.
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

// ask sends the request's head, and its content if that is in memory and fits the windows; mu is
// held.
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
		c.spendWindow(sending(n))
		b.B = appendData(b.B, k.id, r.Content)
		k.outEnded = true
	default:
		k.content = bytes.Clone(r.Content) // the caller's slice must not be used after Exchange has returned
	}
	c.queue(b)
}

// appendData writes content as DATA frames and ends the stream.
func appendData(b []byte, stream uint32, p []byte) []byte {
	for len(p) > maxFrame {
		b = append(appendFrameHead(b, maxFrame, frameData, 0, stream), p[:maxFrame]...)
		p = p[maxFrame:]
	}
	return append(appendFrameHead(b, len(p), frameData, flagEndStream, stream), p...)
}

// render writes the head of the request after space for a frame head.
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
	errLeft          = errors.New("the connection accepts no more requests")
	errClientUpgrade = errors.New("tunnels are not asked for over HTTP/2")
	errContextEnded  = errors.New("context ended") // the exchange replaces it by the context's cause
	errDeaf          = errors.New("PING was not answered in time")
	errStalled       = errors.New("the server accepts no data")
)

// blame converts the error of an exchange to a [*wire.Error].
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

// ofConnection converts the error that ended a connection to a [*wire.Error].
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
