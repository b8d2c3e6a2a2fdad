package upstream

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
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
	"sallyport/proxy/wire"
)

// pattern returns n bytes of content.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 / 3)
	}
	return b
}

// sumServer answers with the SHA-256 of the content, and a field if it was chunked.
func sumServer(t *testing.T) *Upstream {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("X-Length", http.StatusText(200))
		if r.ContentLength < 0 {
			w.Header().Set("X-Chunked", "yes")
		}
		for k, v := range r.Trailer {
			w.Header().Set("X-Trailer-"+k, v[0])
		}
		w.Write(h.Sum(nil))
	}))
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = quiet()
	return newUpstream(t, srv.URL)
}

func TestContentArrivesWhole(t *testing.T) {
	u := sumServer(t)
	for _, n := range []int{0, 1, 1000, 16 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20, 5<<20 + 3} {
		for _, known := range []bool{true, false} {
			content := pattern(n)
			r := get()
			r.Method, r.Body, r.Length = "POST", plainBody{bytes.NewReader(content)}, int64(n)
			if !known {
				r.Length = -1
			}
			x, err := u.Send(t.Context(), r)
			if err != nil {
				t.Fatalf("%d bytes, known %v: %v", n, known, err)
			}
			got, err := io.ReadAll(x.Body)
			want := sha256.Sum256(content)
			if !bytes.Equal(got, want[:]) || err != nil {
				t.Errorf("%d bytes, known %v: content differs (%v)", n, known, err)
			}
			if x.Head.Fields.Has("x-chunked") == known {
				t.Errorf("%d bytes, known %v: wrong framing", n, known)
			}
			x.Close()
		}
	}
	if s := statusOf(u)[0]; s.Dials != 1 || s.InFlight != 0 {
		t.Errorf("status is %+v, want one connection throughout", s)
	}
}

// trailed is a body with trailers.
type trailed struct {
	io.Reader
	trailers message.Fields
}

func (b trailed) Trailers() message.Fields { return b.trailers }

func TestRequestTrailers(t *testing.T) {
	addr, heads := rawRecorder(t)
	sent := message.Fields{{Name: "x-checksum", Value: "1"}, {Name: "x_user", Value: "eve"}, {Name: "x-sallyport-scopes", Value: "all"},
		{Name: "content-length", Value: "5"}, {Name: "x-bad", Value: "a\r\nb: c"}, {Name: "X-Upper", Value: "d"}}
	for name, c := range map[string]struct {
		choose func(message.Fields) message.Fields
		want   string
	}{
		"none chosen": {nil, "3\r\nabc\r\n0\r\n\r\n"},
		"all chosen":  {func(f message.Fields) message.Fields { return f }, "3\r\nabc\r\n0\r\nx-checksum: 1\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, addr)
			r := get()
			r.Method, r.Length, r.Trailers = "POST", -1, c.choose
			r.Fields = message.Fields{{Name: "x-user", Value: "alice"}}
			r.Body = trailed{strings.NewReader("abc"), sent}
			if _, _, err := outcome(u, r); err != nil {
				t.Fatal(err)
			}
			_, content, _ := strings.Cut(<-heads, "\r\n\r\n")
			if content != c.want {
				t.Errorf("content on the wire is %q, want %q", content, c.want)
			}
		})
	}
	if len(sent) != 6 || sent[5].Name != "X-Upper" {
		t.Error("the caller's trailers were changed")
	}
}

// rawRecorder answers one request on each connection and passes on its bytes: the head, and the
// chunks if it has any.
func rawRecorder(t *testing.T) (addr string, seen chan string) {
	seen = make(chan string, 10)
	return rawServer(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		text, err := readRequestHead(in)
		if err != nil {
			return
		}
		if strings.Contains(text, "chunked") {
			for !strings.HasSuffix(text, "0\r\n\r\n") && !strings.HasSuffix(text, ": 1\r\n\r\n") {
				line, err := in.ReadString('\n')
				if text += line; err != nil {
					break
				}
			}
		}
		seen <- text
		io.WriteString(c, ok200+"Connection: close\r\nContent-Length: 0\r\n\r\n")
	}), seen
}

// patient is a body whose parts arrive on demand, as from a slow client.
type patient struct {
	parts       chan []byte
	interrupted chan struct{}
	once        sync.Once
	calls       atomic.Int32
}

func newPatient() *patient {
	return &patient{parts: make(chan []byte, 10), interrupted: make(chan struct{})}
}

var errInterrupted = errors.New("interrupted")

func (p *patient) Read(b []byte) (int, error) {
	select {
	case part, ok := <-p.parts:
		if !ok {
			return 0, io.EOF
		}
		return copy(b, part), nil
	case <-p.interrupted:
		return 0, errInterrupted
	}
}

func (p *patient) Trailers() message.Fields { return nil }

func (p *patient) interrupt() {
	p.calls.Add(1)
	p.once.Do(func() { close(p.interrupted) })
}

func upload(body *patient, length int64) *Request {
	r := get()
	r.Method, r.Body, r.Length, r.Interrupt = "POST", body, length, body.interrupt
	return r
}

// An early answer is returned while the client still has content to send. The rest of the
// content stays unread.
func TestEarlyAnswersAreReturnedDuringTheUpload(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		then   after
		status int
		body   string
	}{
		"refusal, connection kept":   {"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig", stayOpen, 413, "big"},
		"refusal, connection closed": {"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig", hangUp, 413, "big"},
		"consent without content":    {ok200 + "Content-Length: 0\r\n\r\n", stayOpen, 200, ""},
		"consent to the end":         {ok200 + "\r\nfine", hangUp, 200, "fine"},
	} {
		for framing, length := range map[string]int64{"chunked": -1, "known length": 1 << 30} {
			t.Run(name+", "+framing, func(t *testing.T) {
				t.Parallel()
				u := newUpstream(t, scripted(t, c.answer, c.then))
				body := newPatient()
				body.parts <- []byte("the beginning")
				x, err := u.Send(t.Context(), upload(body, length))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(x.Body)
				if x.Head.Status != c.status || string(got) != c.body || err != nil {
					t.Errorf("got %d %q %v, want %d %q", x.Head.Status, got, err, c.status, c.body)
				}
				x.Close()
				if n := body.calls.Load(); n > 1 {
					t.Errorf("the body was interrupted %d times", n)
				}
				if s := statusOf(u)[0]; s.Idle != 0 || s.InFlight != 0 {
					t.Errorf("%d idle, %d in flight, want none: the request was not sent whole", s.Idle, s.InFlight)
				}
			})
		}
	}
}

// Each part of the answer follows a part of the request.
func TestFullDuplex(t *testing.T) {
	u := newUpstream(t, rawServer(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		readRequestHead(in)
		io.WriteString(c, ok200+"Transfer-Encoding: chunked\r\n\r\n")
		for {
			size, err := in.ReadString('\n')
			if err != nil {
				return
			}
			part, err := in.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(c, size+part)
			if size == "0\r\n" {
				readRequestHead(in)
				return
			}
		}
	}))
	body := newPatient()
	x, err := u.Send(t.Context(), upload(body, -1))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for _, part := range []string{"one", "two", "three"} {
		body.parts <- []byte(part)
		n, err := x.Body.Read(buf)
		if string(buf[:n]) != part || err != nil {
			t.Errorf("got %q, %v, want %q", buf[:n], err, part)
		}
	}
	close(body.parts)
	if n, err := x.Body.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v at the end", n, err)
	}
	x.Close()
	if s := statusOf(u)[0]; s.Idle != 1 || body.calls.Load() != 0 {
		t.Errorf("%d idle, %d interrupts, want the connection kept and no interrupt", s.Idle, body.calls.Load())
	}
}

// The server never sees a complete request if the body is invalid, and Send returns the
// body's error.
func TestInvalidBodiesNeverReachTheServerWhole(t *testing.T) {
	errBad := errors.New("digest does not match")
	big := pattern(200 << 10)
	for name, c := range map[string]struct {
		body   io.Reader
		length int64
		want   error
	}{
		"small, bad end":          {io.MultiReader(strings.NewReader("abc"), failing{errBad}), 3, errBad},
		"small, too short":        {strings.NewReader("ab"), 3, wire.ErrHalfBody},
		"small, too long":         {strings.NewReader("abcd"), 3, wire.ErrHalfBody},
		"large, bad end":          {io.MultiReader(bytes.NewReader(big), failing{errBad}), int64(len(big)), errBad},
		"large, too short":        {bytes.NewReader(big[1:]), int64(len(big)), nil},
		"large, too long":         {bytes.NewReader(append(big, 'x')), int64(len(big)), nil},
		"unknown length, bad end": {io.MultiReader(bytes.NewReader(big), failing{errBad}), -1, errBad},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := make(chan bool, 1)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.Copy(io.Discard, r.Body)
				whole <- err == nil
			}))
			srv.Config.ErrorLog = quiet()
			t.Cleanup(srv.Close)
			u := newUpstream(t, srv.URL)
			r := get()
			r.Method, r.Body, r.Length = "POST", plainBody{c.body}, c.length
			_, _, err := outcome(u, r)
			var fault *Error
			if err == nil || errors.As(err, &fault) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v and no fault of the upstream", err, c.want)
			}
			if c.length >= 0 && c.length <= maxWhole {
				if d := statusOf(u)[0].Dials; d != 0 {
					t.Errorf("%d dials for content that was bad before", d)
				}
			} else if <-whole {
				t.Error("the server saw a complete request")
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// An upload to a server that does not read fails with the idle timeout.
func TestUploadToAStalledServerTimesOut(t *testing.T) {
	release := make(chan struct{})
	u := newUpstream(t, rawServer(t, func(c net.Conn) { <-release }))
	t.Cleanup(func() { close(release) })
	r := get()
	r.Method, r.Body, r.Length = "POST", plainBody{endless{}}, -1
	r.Timeouts = Timeouts{Idle: 50 * time.Millisecond, Head: time.Minute}
	_, err := u.Send(t.Context(), r)
	if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Timeout {
		t.Errorf("error is %v, want a timeout", err)
	}
}

// The head timeout does not run during the upload: a slow client is not the server's fault.
func TestHeadTimeoutRunsFromTheEndOfTheUpload(t *testing.T) {
	u := newUpstream(t, rawServer(t, func(c net.Conn) { io.Copy(io.Discard, c) }))
	body := newPatient()
	r := upload(body, -1)
	r.Timeouts = Timeouts{Head: 50 * time.Millisecond}
	result := make(chan error, 1)
	go func() {
		_, err := u.Send(t.Context(), r)
		result <- err
	}()
	select {
	case err := <-result:
		t.Fatalf("failed with %v while the client was sending", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(body.parts)
	if fault := (*Error)(nil); !errors.As(<-result, &fault) || fault.Kind != Timeout {
		t.Errorf("error is %v, want a timeout", fault)
	}
}

// The client's read must not hang when the server resets the connection.
func TestResetWhileUploading(t *testing.T) {
	u := newUpstream(t, scripted(t, "", reset))
	body := newPatient()
	body.parts <- []byte("x")
	_, err := u.Send(t.Context(), upload(body, -1))
	if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Reset {
		t.Errorf("error is %v, want a reset", err)
	}
	// No interrupt is needed if the upload itself has noticed the reset.
	if n := body.calls.Load(); n > 1 {
		t.Errorf("the body was interrupted %d times", n)
	}
}

// A reader that misses the first interrupt must not make Close hang.
func TestInterruptIsRepeated(t *testing.T) {
	u := newUpstream(t, scripted(t, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", stayOpen))
	body := newPatient()
	r := upload(body, -1)
	var calls atomic.Int32
	r.Interrupt = func() {
		if calls.Add(1) == 2 {
			body.interrupt()
		}
	}
	if status, _, err := outcome(u, r); status != 413 || err != nil {
		t.Errorf("got %d, %v", status, err)
	}
	if n := calls.Load(); n != 2 {
		t.Errorf("interrupted %d times, want 2", n)
	}
}

// Transfers larger than any buffer must not allocate in proportion.
func TestLargeTransfersUseConstantMemory(t *testing.T) {
	const size = 64 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	t.Cleanup(srv.Close)
	u := newUpstream(t, srv.URL)
	r := get()
	r.Method, r.Body, r.Length = "POST", plainBody{io.LimitReader(endless{}, size)}, size
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Body = plainBody{io.LimitReader(endless{}, size)}
			x, err := u.Send(t.Context(), r)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, x.Body); n != size || err != nil {
				b.Fatalf("%d bytes came back, %v", n, err)
			}
			x.Close()
		}
	})
	if n := allocated.AllocedBytesPerOp(); n > 1<<20 {
		t.Errorf("%d bytes are allocated for %d transferred", n, size)
	}
}

// After an early refusal, the idle timeout applies even while the client's upload is pending.
func TestIdleTimeoutRunsAfterARefusal(t *testing.T) {
	u := newUpstream(t, scripted(t, "HTTP/1.1 413 Too Large\r\nContent-Length: 10\r\n\r\nabc", stayOpen))
	r := upload(newPatient(), -1)
	r.Timeouts = Timeouts{Idle: 50 * time.Millisecond}
	_, _, err := outcome(u, r)
	if fault := (*Error)(nil); !errors.As(err, &fault) || fault.Kind != Timeout {
		t.Errorf("error is %v, want a timeout", err)
	}
}
