package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"sallyport/auth/apikey"
)

// Servers that fold names read another list of subprotocols than the gateway, and could get a token by it.
// As for Authorization, no other spelling is taken, and no trailer.
func TestAttackSubprotocolSpellings(t *testing.T) {
	h := newTokenHouse(t, nil)
	token := h.token()
	for _, name := range []string{"Sec_WebSocket_Protocol", "sec-websocket_protocol", "SEC_WEBSOCKET_PROTOCOL", "Sec.WebSocket.Protocol", "-Sec-WebSocket-Protocol", "Sec-WebSocket--Protocol"} {
		for _, path := range []string{"/", "/open", "/left"} {
			hits := h.model.hits.Load()
			got := h.open(path, "Sec-WebSocket-Protocol: chat, "+kubernetes(token), name+": realtime, "+openAI(token), "X-Choose: chat")
			if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "protected_field") || h.model.hits.Load() != hits {
				t.Errorf("%s at %s: got %q", name, path, got)
			}
			opened(t, "the victim beside it", h.open("/", "Sec-WebSocket-Protocol: chat, "+kubernetes(token), "X-Choose: chat"), "chat")
		}
	}
	for _, name := range []string{"Sec-WebSocket-Protocol", "Sec_WebSocket_Protocol"} {
		h.model.handler = func(_ http.ResponseWriter, r *http.Request) {
			for {
				if n, err := r.Body.Read(make([]byte, 64)); n == 0 && err != nil {
					break
				}
			}
			for field, values := range r.Trailer {
				if field != "X-Sum" {
					t.Errorf("the upstream got the trailer %s: %q", field, values)
				}
			}
		}
		got := h.raw("POST /open HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, " + name + "\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n" + name + ": chat, " + kubernetes(token) + "\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("a trailer %s: got %q", name, got)
		}
	}
	h.secretIn(h.log, strings.Split(token, ".")[2], kubernetes(token))
}

// Where a route demands several proofs, the token counts whichever of them names the caller: the record says
// so, and the client gets the subprotocol that its server implies.
func TestSubprotocolTokenAsSecondProof(t *testing.T) {
	key := apikey.New()
	p, log := withLog(plan{handler: choosing, more: unwatched + "api_keys: {lab: {hash: '" + apikey.HashText(key) + "'}}", routes: `
  - {host: models.test, upstream: '%s', callers: {all: [apikey, issuer/corp], bind: independent}, rules: [{allow: "*"}], websocket: true, websocket_token: openai, insecure_forward_authorization: true}
`})
	h := &tokenHouse{build(t, p), log, key}
	token := h.token()
	opened(t, "two proofs", h.open("/", "X-Api-Key: "+key, "Sec-WebSocket-Protocol: realtime, "+openAI(token)), "realtime")
	r, _ := h.model.seen()
	if r.Header.Get("X-Sallyport-Principal") != "apikey:lab" || r.Header.Get("Sec-Websocket-Protocol") != "realtime" || r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("X-Api-Key") != "" {
		t.Errorf("the upstream got %v", r.Header)
	}
	hits := h.model.hits.Load()
	for name, fields := range map[string][]string{
		"the key alone":         {"X-Api-Key: " + key, "Sec-WebSocket-Protocol: realtime"},
		"the token alone":       {"Sec-WebSocket-Protocol: realtime, " + openAI(token)},
		"the key, as both":      {"Sec-WebSocket-Protocol: realtime, " + openAI(key)},
		"the key, sent twice":   {"X-Api-Key: " + key, "Sec-WebSocket-Protocol: realtime, " + openAI(key)},
		"a token that is wrong": {"X-Api-Key: " + key, "Sec-WebSocket-Protocol: realtime, " + openAI(token[:len(token)-6]+"AAAAAA")},
	} {
		if got := h.open("/", fields...); !strings.HasPrefix(got, "HTTP/1.1 401 ") || h.model.hits.Load() != hits {
			t.Errorf("%s: got %q", name, got)
		}
	}
	h.secretIn(h.log, strings.Split(token, ".")[2], key)
	for _, rec := range h.audit.records(t) {
		if rec["status"] == 101. && rec["dropped"] != nil {
			t.Errorf("record %v", rec)
		}
	}
}

// Lists of any length and form come up as they were sent, but for the token.
func TestAttackSubprotocolLists(t *testing.T) {
	h := newTokenHouse(t, nil)
	token := h.token()
	var many []string
	for range 1000 {
		many = append(many, "p")
	}
	for name, c := range map[string]struct{ lines, upstream []string }{
		"Streamlit":      {[]string{"streamlit, 2|3a|b!c, 0-1-2"}, []string{"streamlit, 2|3a|b!c, 0-1-2"}},
		"Jupyter":        {[]string{"v1.kernel.websocket.jupyter.org"}, []string{"v1.kernel.websocket.jupyter.org"}},
		"many":           {[]string{strings.Join(many, ",")}, []string{strings.Join(many, ",")}},
		"empty members":  {[]string{", ,streamlit,,"}, []string{", ,streamlit,,"}},
		"several lines":  {[]string{"a", "b , c", kubernetes(token), "d"}, []string{"a", "b , c", "d"}},
		"many and token": {[]string{strings.Join(many, ",") + "," + kubernetes(token) + ",z"}, []string{strings.Join(many, ",") + ",z"}},
		"tabs":           {[]string{"a,\t" + kubernetes(token) + "\t,b"}, []string{"a,b"}},
	} {
		for _, path := range []string{"/open", "/"} {
			if signed := strings.Contains(strings.Join(c.lines, ","), kubernetes(token)); signed != (path == "/") {
				continue
			}
			var fields []string
			f := h.frames()
			head := []string{":protocol: websocket", ":method: CONNECT", ":scheme: https", ":authority: models.test", ":path: " + path, "sec-websocket-version: 13", "x-choose: p"}
			for _, line := range c.lines {
				fields = append(fields, "Sec-WebSocket-Protocol: "+line)
				head = append(head, "sec-websocket-protocol: "+strings.Trim(line, " \t"))
			}
			opened(t, name, h.open(path, append(fields, "X-Choose: p")...), "p")
			if r, _ := h.model.seen(); strings.Join(r.Header["Sec-Websocket-Protocol"], "|") != strings.Join(c.upstream, "|") {
				t.Errorf("%s: the upstream got %q", name, r.Header["Sec-Websocket-Protocol"])
			}
			f.headers(1, false, head...)
			f.data(1, false, "bye\n")
			if got := f.wait(1); got != "200" {
				t.Errorf("%s over HTTP/2: %s", name, got)
			}
			f.c.Close()
			if r, _ := h.model.seen(); strings.Join(r.Header["Sec-Websocket-Protocol"], "|") != strings.Join(c.upstream, "|") {
				t.Errorf("%s over HTTP/2: the upstream got %q", name, r.Header["Sec-Websocket-Protocol"])
			}
		}
	}
	if got := h.open("/", "Sec-WebSocket-Protocol: chat, "+kubernetes(token)+strings.Repeat(", x", 30<<10)); !strings.HasPrefix(got, "HTTP/1.1 431 ") {
		t.Errorf("90 KiB: got %.100q", got)
	}
	h.secretIn(h.log, strings.Split(token, ".")[2], kubernetes(token))
}
