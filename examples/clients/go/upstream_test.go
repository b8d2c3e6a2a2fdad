package upstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	upstream "sallyport/examples/clients/go"

	"sallyport/auth/httpsig"
)

// forward sends a request as the gateway does, changed by tamper after signing.
func forward(t *testing.T, server *httptest.Server, key *httpsig.Key, tamper func(*http.Request)) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", server.URL+"/v1/a%2Fb?x=1", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "text/plain")
	r.Header.Set("X-Sallyport-Principal", "key:alice")
	r.Header.Set("Content-Digest", httpsig.ContentDigest([]byte("content")))
	signer, err := httpsig.NewSigner(httpsig.ForwardProfile("x-sallyport-principal"), nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(key, &httpsig.Message{Method: "POST", Scheme: "http", Authority: r.URL.Host,
		Path: "/v1/a%2Fb", Query: "x=1", HasQuery: true, Fields: httpsig.Header(r.Header)}, "")
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Signature-Input", signed.Input)
	r.Header.Set("Signature", signed.Signature)
	if tamper != nil {
		tamper(r)
	}
	return r
}

func TestRequire(t *testing.T) {
	key, err := httpsig.HMACKey("up-1", bytes.Repeat([]byte("k"), 64))
	if err != nil {
		t.Fatal(err)
	}
	reached := 0
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached++
		content, err := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Header.Get("X-Sallyport-Principal"), " ", string(content), err)
	})
	var mu sync.Mutex
	seen := make(map[[16]byte]bool)
	server := httptest.NewUnstartedServer(nil)
	server.Config.Handler, err = upstream.Require(upstream.Options{
		Key: key, Authority: server.Listener.Addr().String(), Identity: []string{"x-sallyport-principal"},
		Seen: func(claim [16]byte, _ time.Time) bool {
			mu.Lock()
			defer mu.Unlock()
			before := seen[claim]
			seen[claim] = true
			return before
		},
	}, handler)
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	defer server.Close()
	for _, c := range []struct {
		name   string
		tamper func(*http.Request)
		want   int
	}{
		{"as it was signed", nil, 200},
		{"no signature", func(r *http.Request) { r.Header.Del("Signature"); r.Header.Del("Signature-Input") }, 401},
		{"another caller", func(r *http.Request) { r.Header.Set("X-Sallyport-Principal", "key:root") }, 401},
		{"other content", func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("CONTENT")) }, 401},
		{"another path", func(r *http.Request) { r.URL.RawPath, r.URL.Path = "", "/v1/a/b" }, 401},
		{"another host", func(r *http.Request) { r.Host = "other.example.com" }, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := reached
			response, err := server.Client().Do(forward(t, server, key, c.tamper))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			text, _ := io.ReadAll(response.Body)
			if response.StatusCode != c.want || (reached > before) != (c.want == 200) {
				t.Errorf("%d %q, want %d", response.StatusCode, text, c.want)
			}
			if c.want == 200 && string(text) != "key:alice content<nil>" {
				t.Errorf("%q", text)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		r := forward(t, server, key, nil)
		for _, want := range []int{200, 401} {
			again := r.Clone(t.Context())
			again.Body, _ = r.GetBody()
			response, err := server.Client().Do(again)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%d, want %d", response.StatusCode, want)
			}
		}
	})
	if _, err := upstream.Require(upstream.Options{}, handler); err == nil {
		t.Error("a handler without a key was made")
	}
}
