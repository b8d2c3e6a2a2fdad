package proxy_test

import (
	"cmp"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/proxy"
)

// stopped returns a gateway clock that stands, and the exp of a token that ends two seconds after the
// request that brings it, however long the test takes until then.
func stopped() (now func() time.Time, exp int64) {
	at := time.Now().Truncate(time.Second)
	return func() time.Time { return at }, at.Unix() - 58 // taken for 60 s more: clocks differ
}

// ending returns alice's token with this exp.
func (h *house) ending(exp int64) string {
	h.t.Helper()
	claims := h.issuer.Claims("alice", "models.predict")
	claims["exp"] = exp
	token, err := h.issuer.Sign(claims)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

// drip sends content for as long as it is read, and for half a minute at most.
type drip struct{ sent int }

func (d *drip) Read(p []byte) (int, error) {
	if d.sent++; d.sent > 300 {
		return 0, io.EOF
	}
	time.Sleep(100 * time.Millisecond)
	return copy(p, "x"), nil
}

// Uploads do not keep rights for ever: they end when the token does, whether the model
// server has answered or not, and whether it has heard of the request yet or not.
func TestUploadEndsWithTheCredential(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		http2  bool
		length int64
		kind   string
		idle   string
		more   string // of the upstream
		answer bool
	}{
		"in chunks":                      {length: -1},
		"over HTTP/2":                    {length: -1, http2: true},
		"of a gRPC client":               {length: -1, http2: true, kind: "application/grpc"},
		"of a small length":              {length: 301},
		"of a small length, over HTTP/2": {length: 301, http2: true},
		"of a large length":              {length: 100 << 10},
		"behind the answer's head":       {length: -1, answer: true, http2: true},
		"without a bound on idleness":    {length: -1, idle: "never"},
		"that is held":                   {length: -1, more: ", integrity: {sign: out-1}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			build := build
			if strings.Contains(c.more, "sign: out-1") {
				build = signed
			}
			url := overHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
				if c.answer {
					w.Header().Set("content-length", "5")
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = io.Copy(io.Discard, r.Body)
			})
			now, exp := stopped()
			h := build(t, plan{
				options: proxy.Options{Now: now},
				routes:  grpcRoute + "    timeouts: {idle: " + cmp.Or(c.idle, "20s") + "}\n",
				more:    "upstreams: {tf: {rest: \"" + url + "\", grpc: \"" + url + "\"" + c.more + "}}\n",
			})
			req, err := http.NewRequest("POST", "https://models.test/a.B/C", &drip{})
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = c.length
			req.Header = http.Header{"Authorization": {"Bearer " + h.ending(exp)}, "Content-Type": {c.kind}, "Te": {"trailers"}}
			begun := time.Now()
			if res, err := h.client(c.http2).Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
			if d := time.Since(begun); d > 20*time.Second {
				t.Errorf("the upload went on for %v", d)
			}
			if r := h.ended(); r["reason"] != "credential_expired_in_stream" || !strings.Contains(r["cause"].(string), "expired") {
				t.Errorf("record %v", r)
			}
		})
	}
}
