package httpsig_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sallyport/auth/httpsig"
)

// origin answers as a gateway does: it verifies requests and signs in one of the
// modes. tamper changes the answer after that.
type origin struct {
	t      *testing.T
	key    *httpsig.Key
	mode   string
	tamper func(h http.Header, content []byte) []byte
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		o.t.Error(err)
	}
	m := &httpsig.Message{Method: r.Method, Scheme: "http", Authority: r.Host, Fields: httpsig.Header(r.Header)}
	m.Path, m.Query, m.HasQuery = strings.Cut(r.RequestURI, "?")
	v, err := httpsig.NewVerifier(httpsig.RequestPolicy(), httpsig.VerifierOptions{
		Key: func(string) *httpsig.Key { return o.key }, Authority: func(string) bool { return true }})
	if err != nil {
		o.t.Fatal(err)
	}
	s, err := v.Verify(m)
	if err == nil {
		var d httpsig.Digests
		if d, err = httpsig.ParseContentDigest(m.Fields); err == nil {
			err = d.Match(content)
		}
	}
	if err != nil {
		w.WriteHeader(401)
		return
	}
	o.answer(w, m, s, append([]byte("echo "), content...))
}

func (o *origin) answer(w http.ResponseWriter, request *httpsig.Message, s *httpsig.Signature, content []byte) {
	h := w.Header()
	h.Set("Content-Type", "text/plain")
	response := &httpsig.Message{Status: 200, Request: request, Fields: httpsig.Header(h)}
	put := func(h http.Header, p httpsig.Profile) {
		signer, err := httpsig.NewSigner(p, nil)
		if err != nil {
			o.t.Fatal(err)
		}
		signed, err := signer.Sign(s.Key, response, s.Nonce)
		if err != nil {
			o.t.Fatal(err)
		}
		h.Set("Signature-Input", signed.Input)
		h.Set("Signature", signed.Signature)
	}
	trailers := make(http.Header)
	switch o.mode {
	case "header":
		h.Set("Content-Digest", httpsig.ContentDigest(content))
		put(h, httpsig.ResponseProfile())
	case "trailer":
		put(h, httpsig.HeadProfile(httpsig.TagResponseHead))
		trailers.Set("Content-Digest", httpsig.ContentDigest(content))
		response.Trailers = httpsig.Header(trailers)
		put(trailers, httpsig.TailProfile())
		h.Set("Trailer", "Content-Digest, Signature-Input, Signature")
	case "head-only":
		put(h, httpsig.HeadProfile(httpsig.TagResponseHeadOnly))
	}
	if o.tamper != nil {
		for name, values := range trailers {
			h[name+" tail"] = values
		}
		content = o.tamper(h, content)
		for name := range trailers {
			trailers[name] = h[name+" tail"]
			delete(h, name+" tail")
		}
	}
	w.WriteHeader(200)
	if o.mode == "trailer" {
		w.(http.Flusher).Flush()
	}
	if request.Method != "HEAD" {
		_, _ = w.Write(content)
	}
	for name, values := range trailers {
		h[name] = values
	}
}

func TestTransport(t *testing.T) {
	type tamper = func(http.Header, []byte) []byte
	cases := []struct {
		name, mode, method string
		tamper             tamper
		change             func(*httpsig.Transport)
		want               httpsig.Code
	}{
		{name: "header", mode: "header"},
		{name: "trailer", mode: "trailer"},
		{name: "head of nothing", mode: "head-only", method: "HEAD"},
		{name: "head only, not accepted", mode: "head-only", want: httpsig.Coverage},
		{name: "head only, accepted", mode: "head-only", change: func(t *httpsig.Transport) { t.AcceptHeadOnly = true }},
		{name: "unsigned", mode: "none", want: httpsig.Missing},
		{name: "unsigned, accepted", mode: "none", change: func(t *httpsig.Transport) { t.AcceptUnsigned = true }},
		{name: "content changed", mode: "header", want: httpsig.DigestMismatch,
			tamper: func(_ http.Header, b []byte) []byte { b[0] = 'E'; return b }},
		{name: "content added to a stream", mode: "trailer", want: httpsig.DigestMismatch,
			tamper: func(_ http.Header, b []byte) []byte { return append(b, '!') }},
		{name: "content changed and its digest too", mode: "header", want: httpsig.BadSignature,
			tamper: func(h http.Header, _ []byte) []byte {
				h.Set("Content-Digest", httpsig.ContentDigest([]byte("forged")))
				return []byte("forged")
			}},
		{name: "stream and its digest changed", mode: "trailer", want: httpsig.BadSignature,
			tamper: func(h http.Header, _ []byte) []byte {
				h["Content-Digest tail"] = []string{httpsig.ContentDigest([]byte("forged"))}
				return []byte("forged")
			}},
		{name: "tail stripped", mode: "trailer", want: httpsig.Missing,
			tamper: func(h http.Header, b []byte) []byte {
				delete(h, "Signature tail")
				delete(h, "Signature-Input tail")
				return b
			}},
		{name: "type changed", mode: "header", want: httpsig.BadSignature,
			tamper: func(h http.Header, b []byte) []byte { h.Set("Content-Type", "text/html"); return b }},
		{name: "encoding added", mode: "header", want: httpsig.Coverage,
			tamper: func(h http.Header, b []byte) []byte { h.Set("Content-Encoding", "gzip"); return b }},
		{name: "signature removed", mode: "header", want: httpsig.Missing,
			tamper: func(h http.Header, b []byte) []byte { h.Del("Signature"); h.Del("Signature-Input"); return b }},
		{name: "broken, where unsigned is accepted", mode: "header", want: httpsig.Malformed,
			change: func(t *httpsig.Transport) { t.AcceptUnsigned = true },
			tamper: func(h http.Header, b []byte) []byte { h.Del("Signature"); return b }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			key := secretKey(t, "k1")
			server := httptest.NewServer(&origin{t, key, c.mode, c.tamper})
			defer server.Close()
			transport := &httpsig.Transport{Base: server.Client().Transport, Key: key}
			if c.change != nil {
				c.change(transport)
			}
			method := c.method
			if method == "" {
				method = "POST"
			}
			request, err := http.NewRequest(method, server.URL+"/a%2Fb?x=1", strings.NewReader("content"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := transport.RoundTrip(request)
			got := []byte(nil)
			if err == nil {
				got, err = io.ReadAll(response.Body)
				response.Body.Close()
			}
			if code(err) != c.want || err == nil && method == "POST" && string(got) != "echo content" {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
			if request.Header.Get("Signature") != "" {
				t.Error("the caller's request was changed")
			}
		})
	}
}

// An answer to another request, signed by the right key, is not the answer.
func TestTransportSplice(t *testing.T) {
	key := secretKey(t, "k1")
	server := httptest.NewServer(&origin{t: t, key: key, mode: "header"})
	defer server.Close()
	var kept *http.Response
	splice := roundTrip(func(r *http.Request) (*http.Response, error) {
		response, err := server.Client().Transport.RoundTrip(r)
		if kept == nil {
			kept = response
		}
		answer := *kept
		answer.Body = io.NopCloser(strings.NewReader("echo "))
		return &answer, err
	})
	transport := &httpsig.Transport{Base: splice, Key: key}
	for i, want := range []httpsig.Code{"", httpsig.Unbound} {
		request, err := http.NewRequest("GET", server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = transport.RoundTrip(request); code(err) != want {
			t.Errorf("answer %d: %v, want %q", i, err, want)
		}
	}
}

// Fields that a route demands are signed where a request has them.
func TestTransportCover(t *testing.T) {
	base := roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{"Input": r.Header["Signature-Input"]}}, nil
	})
	transport := &httpsig.Transport{Base: base, Key: secretKey(t, "k1"), AcceptUnsigned: true, Cover: []string{"authorization", "x-tenant"}}
	request, err := http.NewRequest("GET", "http://h/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Tenant", "blue")
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	const want = `sp=("@method" "@authority" "@path" "@query" "content-digest" "x-tenant");`
	if got := response.Header.Get("Input"); !strings.HasPrefix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	transport = &httpsig.Transport{Base: base, Key: secretKey(t, "k1"), Cover: []string{"content-type"}}
	if _, err := transport.RoundTrip(request); err == nil {
		t.Error("a field was to be signed twice")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTransportContent(t *testing.T) {
	key := secretKey(t, "k1")
	server := httptest.NewServer(&origin{t: t, key: key, mode: "header"})
	defer server.Close()
	client := &http.Client{Transport: &httpsig.Transport{Base: server.Client().Transport, Key: key}}
	for name, from := range map[string]io.Reader{
		"none":              nil,
		"of memory":         bytes.NewReader([]byte("x")),
		"readable but once": io.MultiReader(strings.NewReader("on"), strings.NewReader("ce")),
	} {
		response, err := client.Post(server.URL, "text/plain", from)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := io.ReadAll(response.Body); err != nil || response.StatusCode != 200 {
			t.Errorf("%s: %d, %v", name, response.StatusCode, err)
		}
		response.Body.Close()
	}
	endless := io.MultiReader(io.LimitReader(zeros{}, 33<<20))
	if _, err := client.Post(server.URL, "text/plain", endless); err == nil {
		t.Error("content without a bound was read into memory")
	}
	if _, err := (&http.Client{Transport: &httpsig.Transport{}}).Get(server.URL); err == nil {
		t.Error("a transport without a key sent something")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
