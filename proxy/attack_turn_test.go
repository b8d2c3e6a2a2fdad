package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// tellingServer checks that each whole message is one that its caller may send and has sent.
type tellingServer struct {
	mu       sync.Mutex // guards the fields below
	versions map[string]string
	messages map[string]int
	faults   []string
	calls    int
}

func (s *tellingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	caller := strings.TrimPrefix(r.Header.Get("x-sallyport-principal"), "issuer/corp:")
	w.Header().Set("content-type", "application/grpc")
	s.mu.Lock()
	s.calls++
	early := caller == "mallory" && s.calls%3 == 0
	s.mu.Unlock()
	if early { // the upload is cut while it is read
		w.Header().Set("grpc-status", "14")
		return
	}
	content, _ := io.ReadAll(r.Body)
	if len(content) >= 5 && len(content) >= 5+int(content[1])<<24+int(content[2])<<16+int(content[3])<<8+int(content[4]) {
		s.look(caller, content[5:])
	}
	_, _ = w.Write(framedText(caller))
	w.Header().Set(http.TrailerPrefix+"grpc-status", "0")
}

// look looks at a whole message.
func (s *tellingServer) look(caller string, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := func(format string, a ...any) { s.faults = append(s.faults, caller+": "+fmt.Sprintf(format, a...)) }
	var name string
	var versions []string
	for whole := message; len(message) > 0; {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 || kind != protowire.BytesType {
			fault("a message that is not his: %.40x", whole)
			return
		}
		value, m := protowire.ConsumeBytes(message[n:])
		if m < 0 {
			fault("a message that is not his: %.40x", whole)
			return
		}
		message = message[n+m:]
		switch number {
		case 1:
			name += string(value)
		case 2:
			versions = append(versions, string(value))
		case 7:
			if bytes.ContainsFunc(value, func(r rune) bool { return r != rune(caller[0]) }) {
				fault("content of another caller")
			}
		}
	}
	s.messages[caller]++
	switch known := s.versions[caller]; {
	case !strings.HasPrefix(name, caller+"-"):
		fault("the model %q", name)
	case len(versions) != 1 || known != "" && known != versions[0]:
		fault("versions %q after %q", versions, known)
	default:
		s.versions[caller] = versions[0]
	}
}

// Calls that are refused, cut, compressed, given up or answered early leave nothing to the next calls, which
// use the same memory: the server gets each victim's messages with the version that was chosen for it, and
// none of the attacker's that is refused.
func TestCutCallsLeaveNothingToTheNext(t *testing.T) {
	t.Parallel()
	s := &tellingServer{versions: map[string]string{}, messages: map[string]int{}}
	url := overHTTP2(t, s.ServeHTTP)
	var rules strings.Builder
	for _, name := range []string{"alice", "bob", "mallory"} {
		fmt.Fprintf(&rules, "      - {allow: predict, models: '%s-*', versions: [7, 8], who: {principal: 'issuer/corp:%s'}}\n", name, name)
	}
	h := build(t, plan{
		routes: `
  - host: models.test
    upstream: v2
    callers: issuer/corp
    limits: {batch: 1048576, inflated: 1MiB}
    rewrite: {split: {models: "*", versions: {7: 50, 8: 50}}}
    rules:
` + rules.String(),
		more: "upstreams: {v2: {serves: triton, grpc: '" + url + "'}}\n",
	})
	sizes := []int{10, 20 << 10, 40 << 10, 70 << 10, 300 << 10}
	message := func(caller, of string, size int, last bool) []byte {
		name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), of+"-model")
		input := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), nil)
		content := slices.Concat(input, protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), bytes.Repeat([]byte{caller[0]}, size)))
		if last {
			return slices.Concat(content, name)
		}
		return slices.Concat(name, content)
	}
	// send sends a call, and returns its status.
	send := func(ctx context.Context, caller string, body io.Reader, more ...string) string {
		more = append(more, "Authorization", h.as(caller, predict)["Authorization"])
		res, err := h.call(ctx, inferMethod, body, more...)
		if err != nil {
			return err.Error()
		}
		_, status := finish(t, res)
		return status
	}
	stop := make(chan struct{})
	var attackers, victims sync.WaitGroup
	for seed := range uint64(2) {
		attackers.Go(func() {
			draw := rand.New(rand.NewPCG(seed, 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				size := sizes[draw.IntN(len(sizes))]
				own, other := message("mallory", "mallory", size, false), message("mallory", "alice", size, draw.IntN(2) == 0)
				switch draw.IntN(7) {
				case 0:
					send(t.Context(), "mallory", bytes.NewReader(framedText(string(own))))
				case 1:
					if got := send(t.Context(), "mallory", bytes.NewReader(framedText(string(other)))); got == "0" {
						t.Error("the attacker's call for a model of another is served")
					}
				case 2: // compressed: no version can be written into it
					if got := send(t.Context(), "mallory", bytes.NewReader(compressedText(string(own))), "grpc-encoding", "gzip"); got == "0" {
						t.Error("a compressed call is served")
					}
				case 3: // given up within the message
					ctx, cancel := context.WithCancel(t.Context())
					r, w := io.Pipe()
					go func() {
						_, _ = w.Write(framedText(string(own))[:draw.IntN(len(own))])
						cancel()
						w.Close()
					}()
					send(ctx, "mallory", r)
				case 4: // cut
					send(t.Context(), "mallory", bytes.NewReader(framedText(string(own))[:draw.IntN(len(own))]))
				case 5: // two messages
					body := framedText(string(own))
					send(t.Context(), "mallory", bytes.NewReader(append(body, framedText(string(other))...)))
				default: // another version at its end
					late := protowire.AppendString(protowire.AppendTag(own, 2, protowire.BytesType), "9")
					if got := send(t.Context(), "mallory", bytes.NewReader(framedText(string(late)))); got == "0" {
						t.Error("a call for a version that is not allowed is served")
					}
				}
			}
		})
	}
	const calls = 60
	for seed, name := range []string{"alice", "bob"} {
		victims.Go(func() {
			draw := rand.New(rand.NewPCG(uint64(seed), 2))
			for range calls {
				body := framedText(string(message(name, name, sizes[draw.IntN(len(sizes))], false)))
				if got := send(t.Context(), name, bytes.NewReader(body)); got != "0" {
					t.Errorf("%s: %s", name, got)
				}
			}
		})
	}
	victims.Wait()
	close(stop)
	attackers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults[:min(len(s.faults), 10)] {
		t.Error(f)
	}
	if s.messages["alice"] != calls || s.messages["bob"] != calls || s.messages["mallory"] == 0 {
		t.Errorf("the server got %v messages", s.messages)
	}
}
