package httpsig_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/auth/httpsig"
)

func TestCallsNeedKeyAndAuthority(t *testing.T) {
	key, err := httpsig.HMACKey("alice", make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*httpsig.Calls{{Authority: "models.test"}, {Key: key}} {
		if _, _, err := c.Sign("/a.B/C", "application/grpc", nil, nil); err == nil {
			t.Errorf("%+v signed a call", c)
		}
	}
}

// answered signs the end of a call as a gateway does: in trailers, or in the one block of fields of
// an answer without messages.
func answered(t *testing.T, key *httpsig.Key, request *httpsig.Message, nonce, status string, oneBlock bool) httpsig.Lines {
	t.Helper()
	fields := httpsig.Lines{{Name: "content-digest", Value: httpsig.ContentDigest(nil)}, {Name: "grpc-status", Value: status}}
	m := &httpsig.Message{Status: 200, Trailers: fields, Request: request}
	profile := httpsig.TailProfile()
	if oneBlock {
		profile = httpsig.ResponseProfile()
		m.Trailers, m.Fields = nil, append(httpsig.Lines{{Name: "content-type", Value: "application/grpc"}}, fields...)
	}
	s, err := httpsig.NewSigner(profile, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.Sign(key, m, nonce)
	if err != nil {
		t.Fatal(err)
	}
	return httpsig.Lines{fields[0], {Name: "signature-input", Value: made.Input}, {Name: "signature", Value: made.Signature}}
}

func TestCallVerifiesItsEnd(t *testing.T) {
	key, err := httpsig.HMACKey("alice", []byte(strings.Repeat("secret of alice ", 4)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := httpsig.HMACKey("alice", []byte(strings.Repeat("secret of other ", 4)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		signed   string // the status that is signed; "" for no signature
		status   uint32 // that the library reports
		key      *httpsig.Key
		accept   bool // AcceptUnsigned
		received bool // a message that nobody signed
		want     httpsig.Code
	}{
		{"as signed", "0", 0, key, false, false, ""},
		{"an error as signed", "5", 5, key, false, false, ""},
		{"another status", "0", 5, key, false, false, httpsig.BadSignature},
		{"another status that libraries make", "0", 14, key, true, false, httpsig.BadSignature},
		{"another key", "0", 0, other, true, false, httpsig.BadSignature},
		{"a message too many", "0", 0, key, false, true, httpsig.DigestMismatch},
		{"unsigned success", "", 0, key, false, false, httpsig.Missing},
		{"unsigned refusal", "", 16, key, false, false, httpsig.Missing},
		{"unsigned refusal that is accepted", "", 16, key, true, false, ""},
		{"deadline of the library", "", 4, key, false, false, ""},
	} {
		for _, oneBlock := range []bool{false, true} {
			calls := &httpsig.Calls{Key: key, Authority: "models.test", AcceptUnsigned: c.accept}
			call, metadata, err := calls.Sign("/a.B/C", "application/grpc", nil, []byte("question"))
			if err != nil {
				t.Fatal(err)
			}
			request := &httpsig.Message{Method: "POST", Scheme: "https", Authority: "models.test", Path: "/a.B/C",
				Fields: append(metadata, httpsig.Line{Name: "content-type", Value: "application/grpc"})}
			s, err := requestVerifier(t, key).Verify(request)
			if err != nil {
				t.Fatal(err)
			}
			var trailer httpsig.Lines
			if c.signed != "" {
				trailer = answered(t, c.key, request, s.Nonce, c.signed, oneBlock)
			}
			if c.received {
				call.Received(nil)
			}
			var e *httpsig.Error
			if err = call.Verify(c.status, nil, trailer); errors.As(err, &e) != (c.want != "") || e != nil && e.Code != c.want {
				t.Errorf("%s, one block %v: got %v; want %q", c.name, oneBlock, err, c.want)
			}
		}
	}
}

// requestVerifier verifies requests for models.test.
func requestVerifier(t *testing.T, key *httpsig.Key) *httpsig.Verifier {
	t.Helper()
	v, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key:       func(string) *httpsig.Key { return key },
		Authority: func(a string) bool { return a == "models.test" },
		Now:       time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
