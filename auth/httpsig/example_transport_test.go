package httpsig_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"sallyport/auth/httpsig"
)

// signing is a handler like a gateway: it verifies requests and signs the responses with
// the key of the request.
type signing struct {
	verifier *httpsig.Verifier
	signer   *httpsig.Signer
}

func (h *signing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	request := &httpsig.Message{Method: r.Method, Scheme: "http", Authority: r.Host, Fields: httpsig.Header(r.Header)}
	request.Path, request.Query, request.HasQuery = strings.Cut(r.RequestURI, "?")
	s, err := h.verifier.Verify(request)
	if err != nil {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	answer := []byte("good day, " + s.Key.ID())
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Digest", httpsig.ContentDigest(answer))
	response := &httpsig.Message{Status: http.StatusOK, Request: request, Fields: httpsig.Header(w.Header())}
	signed, err := h.signer.Sign(s.Key, response, s.Nonce)
	if err != nil {
		http.Error(w, "no", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Signature-Input", signed.Input)
	w.Header().Set("Signature", signed.Signature)
	if r.URL.Path == "/tampered" {
		answer[0] = 'G'
	}
	_, _ = w.Write(answer)
}

// A client signs its requests and verifies the responses. A response that does not match
// its signature ends with an error and not with io.EOF.
func ExampleTransport() {
	key, err := httpsig.HMACKey("alice-2026-11", bytes.Repeat([]byte("64 random bytes "), 4))
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key:       func(string) *httpsig.Key { return key },
		Authority: func(a string) bool { return strings.HasPrefix(a, "127.0.0.1:") },
	})
	if err != nil {
		log.Fatal(err)
	}
	signer, err := httpsig.NewSigner(httpsig.ResponseProfile(), nil)
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(&signing{verifier, signer})
	defer server.Close()

	client := &http.Client{Transport: &httpsig.Transport{Base: server.Client().Transport, Key: key}}
	for _, path := range []string{"/", "/tampered"} {
		response, err := client.Post(server.URL+path, "text/plain", strings.NewReader("hello"))
		if err != nil {
			log.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		fmt.Printf("%d %s, %v\n", response.StatusCode, content, err)
	}
	// Output:
	// 200 good day, alice-2026-11, <nil>
	// 200 Good day, alice-2026-11, verifying the content of the response: the content does not match its digest
}
