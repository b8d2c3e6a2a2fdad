// Package tenants tests two callers of one model server, one of which attacks. Whatever it sends, the
// other's calls over the same connection to the server go on.
package tenants

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sallyport/examples/story"
)

func TestMain(m *testing.M) { os.Exit(story.Run(m)) }

// start starts the four servers and the gateway.
func start(t *testing.T) *story.Gateway {
	t.Helper()
	story.Need(t, "nghttpd")
	python := filepath.Join(story.Installed(t, "tenants", "tenants/requirements.txt"), "bin", "python")

	calls := listen(t)
	server := grpc.NewServer() // with its default limits: two PINGs too many end a connection
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(calls)
	t.Cleanup(server.Stop)

	plain := listen(t)
	web := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	})}
	web.Protocols.SetUnencryptedHTTP2(true)
	go web.Serve(plain)
	t.Cleanup(func() { web.Close() })

	hypercorn, nghttpd := story.FreeAddress(t), story.FreeAddress(t)
	app := exec.Command(python, "-m", "hypercorn", "--bind", hypercorn, "app:app")
	story.Start(t, "hypercorn", app).Listens(t, hypercorn)
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "nghttpd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "nghttpd", "x"), []byte("ok"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(nghttpd)
	story.Start(t, "nghttpd", exec.Command("nghttpd", "--no-tls", "--address", "127.0.0.1", "-d", folder, port)).Listens(t, nghttpd)
	triton := story.FreeAddress(t)
	if binary := os.Getenv("TRITON"); binary != "" {
		_, port, _ := net.SplitHostPort(triton)
		server := exec.Command(binary, "--model-repository", t.TempDir(), "--allow-http=false", "--allow-metrics=false", "--grpc-address=127.0.0.1", "--grpc-port="+port)
		story.Start(t, "triton", server).Listens(t, triton)
	}
	return story.StartGateway(t, "127.0.0.1:7005", triton, "127.0.0.1:7001", calls.Addr().String(), "127.0.0.1:7002", plain.Addr().String(), "127.0.0.1:7003", hypercorn, "127.0.0.1:7004", nghttpd)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func trust(t *testing.T, g *story.Gateway, protocol string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(g.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{protocol}}
}

// victim calls a server over and over until stop is closed, and counts.
type victim struct{ ok, failed atomic.Int64 }

func (v *victim) run(t *testing.T, stop <-chan struct{}, call func(context.Context) error) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		err := call(ctx)
		cancel()
		if err != nil {
			if v.failed.Add(1) < 5 {
				t.Errorf("the victim: %v", err)
			}
			continue
		}
		v.ok.Add(1)
	}
}

// attacker is a raw HTTP/2 client from an address of its own.
type attacker struct {
	c    net.Conn
	fr   *http2.Framer
	path string
	grpc bool
	id   uint32
	gone chan struct{} // closed when the gateway has ended the connection
}

func attackerOf(t *testing.T, g *story.Gateway, path string) *attacker {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}, Config: trust(t, g, "h2")}
	c, err := d.Dial("tcp", g.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	a := &attacker{c: c, fr: http2.NewFramer(c, c), path: path, grpc: strings.HasPrefix(path, "/grpc.") || strings.HasPrefix(path, "/inference."), id: 1, gone: make(chan struct{})}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	_ = a.fr.WriteSettings()
	go func() {
		defer close(a.gone)
		_, _ = io.Copy(io.Discard, c)
	}()
	return a
}

// open begins a POST and returns its stream.
func (a *attacker) open(end bool, more ...string) uint32 {
	id := a.id
	a.id += 2
	a.headers(id, end, append([]string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", a.path}, more...)...)
	return id
}

// call begins a call as the server expects it.
func (a *attacker) call(end bool) uint32 {
	if a.grpc {
		return a.open(end, "content-type", "application/grpc", "te", "trailers")
	}
	return a.open(end)
}

func (a *attacker) headers(id uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block := b.Bytes()
	first := block[:min(len(block), 16<<10)]
	_ = a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		part := block[:min(len(block), 16<<10)]
		block = block[len(part):]
		_ = a.fr.WriteContinuation(id, len(block) == 0, part)
	}
}

// message is an empty message of gRPC, or two bytes of content.
func (a *attacker) message() []byte {
	if a.grpc {
		return make([]byte, 5)
	}
	return []byte("xx")
}

// attack is what one caller sends, as often as it can during a test. Each call of step uses a connection
// that stays open until the gateway ends it.
type attack struct {
	name string
	step func(a *attacker)
}

func attacks() []attack {
	return []attack{
		{"request trailers", func(a *attacker) {
			id := a.call(false)
			_ = a.fr.WriteData(id, false, a.message())
			a.headers(id, true, "x-checksum", "1234")
		}},
		{"heads that servers find too large", func(a *attacker) {
			for _, size := range []int{5 << 10, 17 << 10, 40 << 10, 60 << 10} {
				a.open(true, "x-large", strings.Repeat("v", size))
			}
		}},
		{"many fields", func(a *attacker) {
			var more []string
			for i := range 90 {
				more = append(more, fmt.Sprintf("x-%d", i), strings.Repeat("v", 100))
			}
			a.open(true, more...)
		}},
		{"cancels", func(a *attacker) {
			_ = a.fr.WriteRSTStream(a.call(true), http2.ErrCodeCancel)
		}},
		{"cancels of uploads", func(a *attacker) {
			id := a.call(false)
			_ = a.fr.WriteData(id, false, a.message())
			_ = a.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"content that is not as long as it says", func(a *attacker) {
			id := a.open(false, "content-length", "10")
			_ = a.fr.WriteData(id, true, []byte("xx"))
		}},
		{"empty frames of data", func(a *attacker) {
			id := a.call(false)
			for range 50 {
				_ = a.fr.WriteData(id, false, nil)
			}
			_ = a.fr.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"windows", func(a *attacker) {
			id := a.call(false)
			for range 50 {
				_ = a.fr.WriteWindowUpdate(id, 1)
				_ = a.fr.WriteWindowUpdate(0, 1)
			}
			_ = a.fr.WriteData(id, true, a.message())
		}},
		{"pings", func(a *attacker) {
			a.call(true)
			for range 10 {
				_ = a.fr.WritePing(false, [8]byte{})
			}
		}},
		{"answers that are not read", func(a *attacker) {
			_ = a.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			a.call(true)
		}},
		{"deadlines that pass", func(a *attacker) {
			if a.grpc {
				a.open(false, "content-type", "application/grpc", "te", "trailers", "grpc-timeout", "1m")
				return
			}
			a.open(false)
		}},
	}
}

// serverLive is a call of Triton that needs no model.
const serverLive = "/inference.GRPCInferenceService/ServerLive"

// TestOneCallerEndsNoOthersCalls sends each attack for a second at each server. The victim calls over
// the one connection that both share.
func TestOneCallerEndsNoOthersCalls(t *testing.T) {
	g := start(t)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: trust(t, g, "h2"), ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, g.Address)
	}}}
	channel, err := grpc.NewClient("passthrough:///"+g.Address, grpc.WithTransportCredentials(credentials.NewTLS(trust(t, g, "h2"))), grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	defer channel.Close()
	get := func(path string) func(context.Context) error {
		return func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, "GET", g.URL(path), nil)
			if err != nil {
				return err
			}
			answer, err := web.Do(r)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			got, err := io.ReadAll(answer.Body)
			if err == nil && (answer.StatusCode != 200 || string(got) != "ok") {
				return fmt.Errorf("%s: %d %s", path, answer.StatusCode, got)
			}
			return err
		}
	}
	for _, server := range []struct {
		name, path string
		call       func(context.Context) error
	}{
		{"grpc-go", "/grpc.health.v1.Health/Check", func(ctx context.Context) error {
			_, err := grpc_health_v1.NewHealthClient(channel).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
			return err
		}},
		{"net-http", "/net-http/x", get("/net-http/x")},
		{"hypercorn", "/hypercorn/x", get("/hypercorn/x")},
		{"nghttpd", "/nghttpd/x", get("/nghttpd/x")},
		{"triton", serverLive, func(ctx context.Context) error {
			// Both answers have one number in field 1.
			return channel.Invoke(ctx, serverLive, &grpc_health_v1.HealthCheckRequest{}, &grpc_health_v1.HealthCheckResponse{})
		}},
	} {
		if server.name == "triton" && os.Getenv("TRITON") == "" {
			t.Log("triton is left out: TRITON names no binary")
			continue
		}
		for _, attack := range attacks() {
			t.Run(server.name+", "+attack.name, func(t *testing.T) {
				var v victim
				stop, over := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(over)
					v.run(t, stop, server.call)
				}()
				steps := 0
				for end := time.Now().Add(time.Second); time.Now().Before(end); {
					a := attackerOf(t, g, server.path)
					for time.Now().Before(end) && steps%500 != 499 {
						select {
						case <-a.gone:
						default:
							attack.step(a)
							steps++
							continue
						}
						break
					}
					steps++
					a.c.Close()
				}
				close(stop)
				<-over
				t.Logf("%d steps of the attack; the victim: %d calls ok, %d failed", steps, v.ok.Load(), v.failed.Load())
				if v.ok.Load() == 0 {
					t.Error("the victim was starved")
				}
			})
		}
	}
}
