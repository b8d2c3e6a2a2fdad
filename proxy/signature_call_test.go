package proxy_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

func TestSignedCallIsVerifiedBothWays(t *testing.T) {
	for name, key := range map[string]struct {
		key    *httpsig.Key
		answer func(string) *httpsig.Key
	}{
		"secret":      {keyOf("acme-1"), nil},
		"private key": {edKey("orbit-ed"), func(string) *httpsig.Key { return edKey("gateway-ed") }},
	} {
		for _, length := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newUnaryServer(t)
				s.length = length
				h := signed(t, plan{
					routes: `
  - {host: models.test, upstream: tf, callers: key, rules: [{allow: "*", models: "*"}]}
`,
					more: `integrity: {publish: gateway-ed}
upstreams: {tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}}`,
				})
				calls := callsOf(key.key)
				calls.ResponseKey = key.answer
				call := newCall(t, calls, unary, "hello")
				a := h.sendCall(call)
				if err := call.verify(a); err != nil || a.status != 0 || len(a.messages) != 1 || a.messages[0] != predicts("hello") {
					t.Fatalf("%v, %+v", err, a)
				}
				head := s.heads[0]
				if head.Get("signature") != "" || head.Get("x-sallyport-principal") == "" {
					t.Errorf("the server saw %v", head)
				}
				if got := head.Get("grpc-accept-encoding"); got != "identity" {
					t.Errorf("the server may compress: %q", got)
				}
			})
		}
	}
}

// TestSignedEndWithoutMessages verifies answers that are one block of fields: of the server, and of
// the gateway itself.
func TestSignedEndWithoutMessages(t *testing.T) {
	h, s := buildSignedCalls(t, "")
	failed := newCall(t, callsOf(keyOf("acme-1")), fails, "hello")
	a := h.sendCall(failed)
	if err := failed.verify(a); err != nil || a.status != 5 || len(a.header) != 0 {
		t.Errorf("%v, %+v", err, a)
	}
	again := *failed
	a = h.sendCall(&again)
	if err := again.verify(a); err != nil || a.status != 16 {
		t.Errorf("a replay: %v, %+v", err, a)
	}
	if requests, _ := s.seen(); requests != 1 {
		t.Errorf("the server saw %d requests", requests)
	}
}

// TestSignedCallRefused sends calls that were changed after they were signed. The server sees none of
// them, and a good call beside them passes.
func TestSignedCallRefused(t *testing.T) {
	for _, mode := range []string{"body: buffer", "body: stream"} {
		h, s := buildSignedCalls(t, mode)
		wanted := map[string]string{}
		for _, c := range []struct {
			name   string
			change func(*signedCall)
			status uint32
			reason string
			signed bool // the refusal is signed
		}{
			{"message changed", func(s *signedCall) { s.body[len(s.body)-1]++ }, 3, "digest_mismatch", true},
			{"message cut", func(s *signedCall) { s.body = s.body[:len(s.body)-1] }, 3, "digest_mismatch", true},
			{"message dropped", func(s *signedCall) { s.body = nil }, 3, "digest_mismatch", true},
			{"message added", func(s *signedCall) { s.body = append(s.body, framedText(predicts("more"))...) }, 3, "digest_mismatch", true},
			{"compressed by the library", func(s *signedCall) { s.body = compressed(s.body[5:]) }, 3, "digest_mismatch", true},
			{"other method", func(s *signedCall) { s.path = fails }, 16, "bad_signature", false},
			{"other media type", func(s *signedCall) { s.set("content-type", "application/grpc+json") }, 16, "bad_signature", false},
			{"digest of other content", func(s *signedCall) { s.set("content-digest", httpsig.ContentDigest(nil)) }, 16, "bad_signature", false},
			{"no signature", func(s *signedCall) { s.metadata = nil }, 16, "signature_missing", false},
			{"no digest", func(s *signedCall) {
				call, metadata, err := callsOf(keyOf("acme-1")).SignHead(s.path, callContentType, nil)
				if err != nil {
					panic(err)
				}
				s.call, s.metadata = call, metadata
			}, 16, "coverage", false},
		} {
			t.Run(mode+" "+c.name, func(t *testing.T) {
				before, _ := s.seen()
				call := newCall(t, callsOf(keyOf("acme-1")), unary, "hello")
				c.change(call)
				a := h.sendCall(call)
				if a.status != c.status || len(a.messages) != 0 {
					t.Errorf("%+v", a)
				}
				id, _ := a.trailer.Line("x-request-id", 0)
				wanted[id] = c.reason
				if c.name == "message added" && mode == "body: stream" {
					wanted[id] = "bad_grpc_call" // before the digest of all is known
				}
				err := call.verify(a)
				var e *httpsig.Error
				if errors.As(err, &e); c.signed && err != nil || !c.signed && (e == nil || e.Code != httpsig.Missing) {
					t.Errorf("the refusal: %v", err)
				}
				if requests, _ := s.seen(); requests != before {
					t.Error("the server saw it")
				}
				victim := newCall(t, callsOf(keyOf("orbit-1")), unary, "mine")
				if a := h.sendCall(victim); victim.verify(a) != nil || a.status != 0 {
					t.Errorf("another caller: %+v", a)
				}
			})
		}
		if err := h.stop(); err != nil {
			t.Error(err)
		}
		found := 0
		for _, r := range h.audit.records(t) {
			if want, ok := wanted[r["id"].(string)]; ok {
				if found++; r["reason"] != want {
					t.Errorf("record %v; want %s", r, want)
				}
			}
		}
		if found != len(wanted) {
			t.Errorf("%d records of %d refusals", found, len(wanted))
		}
	}
}

// set replaces one field of the metadata.
func (s *signedCall) set(name, value string) {
	for i := range s.metadata {
		if s.metadata[i].Name == name {
			s.metadata[i].Value = value
			return
		}
	}
	s.metadata = append(s.metadata, httpsig.Line{Name: name, Value: value})
}

// compressed frames a message as gRPC does after compressing it.
func compressed(message []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(message)
	_ = w.Close()
	framed := framedText(b.String())
	framed[0] = 1
	return framed
}

func TestChangedAnswerToSignedCallIsDetected(t *testing.T) {
	h, _ := buildSignedCalls(t, "")
	without := func(all httpsig.Lines, names ...string) (kept httpsig.Lines) {
		for _, l := range all {
			if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+l.Name+" ") {
				kept = append(kept, l)
			}
		}
		return kept
	}
	for _, c := range []struct {
		name   string
		change func(*callAnswer)
		code   httpsig.Code
	}{
		{"message", func(a *callAnswer) { a.messages[0] = predicts("hellO") }, httpsig.DigestMismatch},
		{"message dropped", func(a *callAnswer) { a.messages = nil }, httpsig.DigestMismatch},
		{"message added", func(a *callAnswer) { a.messages = append(a.messages, "") }, httpsig.DigestMismatch},
		{"status", func(a *callAnswer) { a.status = 5 }, httpsig.BadSignature},
		{"status that libraries make", func(a *callAnswer) { a.status = 14 }, httpsig.BadSignature},
		{"digest", func(a *callAnswer) {
			a.trailer = append(without(a.trailer, "content-digest"), httpsig.Line{Name: "content-digest", Value: httpsig.ContentDigest(nil)})
		}, httpsig.BadSignature},
		{"signature stripped", func(a *callAnswer) {
			a.trailer = without(a.trailer, "signature", "signature-input", "content-digest")
		}, httpsig.Missing},
		{"signature stripped, another status", func(a *callAnswer) {
			a.status, a.messages, a.trailer = 5, nil, without(a.trailer, "signature", "signature-input", "content-digest")
		}, httpsig.Missing},
		{"model added", func(a *callAnswer) {
			a.header = append(a.header, httpsig.Line{Name: httpsig.ModelField, Value: "other"})
		}, httpsig.Coverage},
		{"of another call", func(a *callAnswer) {
			other := newCall(t, callsOf(keyOf("acme-1")), unary, "hello")
			*a = *h.sendCall(other)
		}, httpsig.Unbound},
	} {
		t.Run(c.name, func(t *testing.T) {
			call := newCall(t, callsOf(keyOf("acme-1")), unary, "hello")
			a := h.sendCall(call)
			c.change(a)
			var e *httpsig.Error
			if err := call.verify(a); !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("got %v; want %s", err, c.code)
			}
		})
	}
}

// TestLargeMessageIsActedOnOnlyOnceVerified changes a message that is forwarded while it is verified.
// A gRPC server acts on a whole message, even before the stream ends.
func TestLargeMessageIsActedOnOnlyOnceVerified(t *testing.T) {
	h, s := buildSignedCalls(t, "body: stream")
	long := strings.Repeat("0123456789abcdef", 20<<10) // 320 KiB
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
	}{
		{"a byte near the start", func(b []byte) []byte { b[50]++; return b }},
		{"last byte", func(b []byte) []byte { b[len(b)-1]++; return b }},
		{"a second message", func(b []byte) []byte { return append(b, framedText(predicts(long))...) }},
		{"two in the place of one", func([]byte) []byte {
			return append(framedText(predicts(long[:100<<10])), framedText(predicts(long[100<<10:]))...)
		}},
		{"a short one first", func(b []byte) []byte { return append(framedText(predicts("short")), b...) }},
	} {
		call := newCall(t, callsOf(keyOf("acme-1")), unary, long)
		call.body = c.change(call.body)
		a := h.sendCall(call)
		if err := call.verify(a); err != nil || a.status != 3 {
			t.Errorf("%s: %v, %+v", c.name, err, a)
		}
		if _, acted := s.seen(); len(acted) != 0 {
			t.Errorf("%s: the server acted on messages of %v bytes", c.name, acted)
		}
	}
	call := newCall(t, callsOf(keyOf("acme-1")), unary, long)
	if a := h.sendCall(call); call.verify(a) != nil || a.status != 0 || a.messages[0] != predicts(long) {
		t.Errorf("as signed: status %d", a.status)
	}
}

// TestMessageWithoutEndIsNotForwardedWhole sends all of a changed message, and the end of the stream
// only after other calls have passed.
func TestMessageWithoutEndIsNotForwardedWhole(t *testing.T) {
	for _, size := range []int{1, 64<<10 - 14, 64 << 10, 320 << 10} {
		h, s := buildSignedCalls(t, "body: stream")
		call := newCall(t, callsOf(keyOf("acme-1")), unary, strings.Repeat("x", size))
		call.body[len(call.body)-1]++
		pr, pw := io.Pipe()
		done := make(chan *callAnswer)
		go func() {
			a, _ := h.tryCall(call, pr)
			done <- a
		}()
		if _, err := pw.Write(call.body); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			victim := newCall(t, callsOf(keyOf("orbit-1")), unary, "mine")
			if a := h.sendCall(victim); victim.verify(a) != nil || a.status != 0 {
				t.Errorf("another caller: %+v", a)
			}
		}
		pw.Close()
		if a := <-done; a == nil || call.verify(a) != nil || a.status != 3 {
			t.Errorf("%d bytes: %+v", size, a)
		}
		if _, acted := s.seen(); len(acted) != 20 {
			t.Errorf("%d bytes: the server acted on %v", size, acted)
		}
	}
}

// TestEarlyRefusalOfLargeMessageArrives lets a server refuse a message by its length alone, as gRPC
// servers do. The refusal is not signed, since the message was not verified.
func TestEarlyRefusalOfLargeMessageArrives(t *testing.T) {
	s := newUnaryServer(t)
	s.most = 100 << 10
	h := signed(t, plan{
		routes: `
  - {host: models.test, upstream: tf, callers: key, integrity: {body: stream}, limits: {body: 128MiB}, rules: [{allow: "*", models: "*"}]}
`,
		more: `upstreams: {tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}}`,
	})
	call := newCall(t, callsOf(keyOf("acme-1")), unary, strings.Repeat("x", 1<<20))
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write(call.body[:200<<10])
		<-s.refused
		_, _ = pw.Write(call.body[200<<10:])
		pw.Close()
	}()
	a, err := h.tryCall(call, pr)
	pr.Close()
	if err != nil || a.status != 8 {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, ok := a.trailer.Line("signature", 0); ok {
		t.Error("the refusal is signed")
	}
}

// TestSignedCallOf32MiBIsNotHeld sends a message that is larger than all memory for held content.
func TestSignedCallOf32MiBIsNotHeld(t *testing.T) {
	s := newUnaryServer(t)
	h := signed(t, plan{
		routes: `
  - {host: models.test, upstream: tf, callers: key, integrity: {body: stream}, limits: {body: 128MiB}, rules: [{allow: "*", models: "*"}]}
`,
		more: `integrity: {memory: 1MiB}
upstreams: {tf: {serves: tensorflow, grpc: "h2c://` + s.addr + `"}}`,
	})
	message := strings.Repeat("0123456789abcdef", 2<<20)
	call := newCall(t, callsOf(keyOf("acme-1")), unary, message)
	a := h.sendCall(call)
	if err := call.verify(a); err != nil || a.status != 0 || a.messages[0] != predicts(message) {
		t.Errorf("%v, status %d", err, a.status)
	}
	if _, acted := s.seen(); len(acted) != 1 || acted[0] != len(predicts(message)) {
		t.Errorf("the server acted on %v", acted)
	}
}

// TestSignedStreamOfRequests lets a stream through whose content nobody signs, where the route says so.
func TestSignedStreamOfRequests(t *testing.T) {
	h, s := buildSignedCalls(t, "body: headers_only")
	call, metadata, err := callsOf(keyOf("acme-1")).SignHead(unary, callContentType, nil)
	if err != nil {
		t.Fatal(err)
	}
	stream := &signedCall{path: unary, metadata: metadata, call: call, body: append(framedText(predicts("one")), framedText(predicts("two"))...)}
	a := h.sendCall(stream)
	if err := stream.verify(a); err != nil || strings.Join(a.messages, "") != predicts("one")+predicts("two") {
		t.Errorf("%v, %+v", err, a)
	}
	if _, acted := s.seen(); len(acted) != 2 {
		t.Errorf("the server acted on %v", acted)
	}
}
