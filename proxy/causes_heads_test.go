package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// refusedHeads are heads that are refused before there is a route.
func refusedHeads(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{more: "limits: {head_bytes: 20KiB, fields: 16}\n", routes: `
  - {host: models.test, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /Admin, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /files/, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
`})}
	get, host := "GET / HTTP/1.1\r\n", "Host: models.test\r\n"
	r.expect("bad_version", 505, "version is neither 1.0, 1.1 nor 2: HTTP/3.0", r.tell("GET / HTTP/3.0\r\n"+host+"\r\n"))
	r.expect("bad_method", 501, `method is not served: "TRACE"`, r.ask("TRACE / HTTP/1.1"))
	r.expect("bad_method", 501, `method is not served: "get"`, r.ask("get / HTTP/1.1"))
	r.expect("bad_target", 400, "bad request target: # at byte 4 of the request target: a byte that is not allowed in a query", r.ask("GET /a?b#c HTTP/1.1"))
	r.expect("bad_target", 400, "bad request target: it names another host than the field Host", r.ask("GET https://other.test/ HTTP/1.1"))
	r.expect("bad_target", 400, "bad request target: neither a path nor an absolute URL of this connection's scheme", r.ask("GET http://models.test/ HTTP/1.1"))
	r.expect("bad_authority", 400, "bad authority: host: byte 0x40 at 3 of its value", r.tell(get+"Host: mod@els.test\r\n\r\n"))
	r.expect("bad_authority", 400, "bad authority: host: there is none", r.tell(get+"\r\n"))
	r.expect("bad_field", 400, "duplicate of a field that may occur once: authorization: two readers would pick different lines; the client must send one",
		r.ask("GET / HTTP/1.1", "Authorization: Bearer "+r.secret("first-secret"), "Authorization: Bearer TOKEN"))
	r.expect("bad_field", 400, "duplicate of a field that may occur once: host: two readers would pick different lines; the client must send one", r.ask("GET / HTTP/1.1", "Host: other.test"))
	r.expect("bad_field", 400, "an end-to-end field is named by Connection: connection: the option at byte 0 of its value names a field that the next proxy would have to remove; the client must leave it out",
		r.ask("GET / HTTP/1.1", "Connection: "+r.secret("x-hidden-option")))
	r.expect("bad_syntax", 400, "head breaks the grammar: line 4: byte 0x20 at 1", r.ask("GET / HTTP/1.1", "a b: c"))
	r.expect("bad_syntax", 400, "head breaks the grammar: line 4: byte 0x00 at 8", r.ask("GET / HTTP/1.1", "Cookie: \x00"+r.secret("cookie-secret")))
	r.expect("bad_syntax", 400, "head breaks the grammar: the request line is not METHOD target HTTP/1.1", r.ask("GET /  HTTP/1.1"))
	r.expect("bad_framing", 400, "the end of the content is announced badly, or twice: content-length: it is not a number, or there are two; the client must send one", r.ask("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 1"))
	r.expect("bad_framing", 400, "the end of the content is announced badly, or twice: transfer-encoding: there is Content-Length too; the client must send one of the two", r.ask("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"))
	r.expect("bad_framing", 400, "the end of the content is announced badly, or twice: content-length: there is Transfer-Encoding too; the client must send one of the two", r.ask("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 1"))
	r.expect("unknown_transfer_coding", 501, "transfer coding is not chunked alone: transfer-encoding; the client must send chunked, or Content-Length", r.ask("POST / HTTP/1.1", "Transfer-Encoding: gzip"))
	r.expect("target_too_long", 414, "request target is too long: over 16KiB", r.ask("GET /"+strings.Repeat("a", 17<<10)+" HTTP/1.1"))
	r.expect("head_too_large", 431, "head is too large: over 20KiB (limits.head_bytes)", r.ask("GET / HTTP/1.1", "A: "+strings.Repeat("a", 21<<10)))
	r.expect("head_too_large", 431, "too many fields: over 16 (limits.fields)", r.ask("GET / HTTP/1.1", strings.TrimSuffix(strings.Repeat("A: a\r\n", 20), "\r\n")))
	r.expect("bad_expectation", 417, "expectation is not 100-continue: expect; the client must leave it out", r.ask("GET / HTTP/1.1", "Expect: "+r.secret("miracles")))
	r.expect("ambiguous_path", 400, "ambiguous path: .. at byte 3 of the request target: a dot segment", r.ask("GET /a/../b HTTP/1.1"))
	r.expect("ambiguous_path", 400, "ambiguous path: %2f at byte 2 of the request target: …; paths: {encoded_slash: keep} in the route accepts it", r.ask("GET /a%2fb HTTP/1.1"))
	r.expect("ambiguous_path", 400, `path leads to another route if letter case is ignored: "/Admin"`, r.ask("GET /admin/x HTTP/1.1"))
	r.expect("ambiguous_path", 400, `path leads to a longer route if a slash at its end is ignored or added, or if a colon ends it: "/files/"`, r.ask("GET /files HTTP/1.1"))
	r.expect("protected_field", 400, "field folds onto a name that is the gateway's: x-sallyport-principal; the client must not send it", r.ask("GET / HTTP/1.1", "X-Sallyport-Principal: "+r.secret("forged-principal")))
	r.expect("protected_field", 400, "field overrides the method: x-http-method-override; the client must send the request with the method that is meant", r.ask("GET / HTTP/1.1", "X-HTTP-Method-Override: DELETE"))
	r.expect("protected_field", 400, "field folds onto a name that decides how a message is read, or that is signed: x"+strings.Repeat("_", 63)+"…: some servers take it for x-api-key; the client must write it so, or leave it out",
		r.ask("GET / HTTP/1.1", "x"+strings.Repeat("_", 900)+"api_key: "+r.secret("folded-secret")))
	h2 := func(lines ...string) string {
		f := r.frames()
		f.headers(1, true, lines...)
		return f.wait(1)
	}
	usual := []string{":method: GET", ":scheme: https", ":authority: models.test", ":path: /"}
	r.expect("bad_syntax", 400, "head breaks the grammar: connection: HTTP/2 has no such field; the client must leave it out", h2(append(usual, "connection: "+r.secret("h2-option"))...))
	r.expect("bad_syntax", 400, "head breaks the grammar: there is no :scheme or no :path", h2(":method: GET", ":authority: models.test", ":scheme: https"))
	r.expect("bad_target", 400, "bad request target: :scheme is not that of the connection", h2(":method: GET", ":authority: models.test", ":scheme: http", ":path: /"))
	r.expect("bad_framing", 400, "the end of the content is announced badly, or twice: content-length: the request ends without content", h2(append(usual, "content-length: 5")...))
	r.expect("head_too_large", 431, "too many fields: over 16 (limits.fields)", h2(append(usual, manyLines(20)...)...))
	r.expect("head_too_large", 431, "head is too large: over 20KiB (limits.head_bytes)", h2(append(usual, slices.Repeat([]string{"a: " + strings.Repeat("a", 3000)}, 8)...)...))
	r.expect("no_route", 404, "no route names this host", r.tell(strings.ReplaceAll(get+host+"Connection: close\r\n\r\n", "models.test", "other.test")))
	return r
}

// refusedSlowHeads are heads that take too long.
func refusedSlowHeads(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{more: "limits: {head_time: 1s}\n"})}
	r.expect("head_timeout", 408, "head did not arrive in time: not within 1s (limits.head_time)", r.tell("GET / HTTP/1.1\r\nHost: mo"))
	return r
}

// refusedByRoutes are requests that a route refuses before it authenticates the caller.
func refusedByRoutes(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{routes: `
  - {host: models.test, path: /v1, methods: [GET, POST], upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}]}
  - {host: models.test, path: /office, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], allow_from: 192.0.2.0/24}
  - {host: models.test, path: /banned, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], deny_from: [10.0.0.0/8, 127.0.0.0/8]}
  - {host: models.test, path: /pages, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], cors: {origins: https://demo.test}}
  - {host: models.test, path: /live, upstream: '%s', callers: issuer/corp, rules: [{allow: "*"}], websocket: true, websocket_token: openai}
`})}
	r.expect("no_route", 404, "the host has no route for this path", r.ask("GET /other HTTP/1.1"))
	r.expect("method_not_allowed", 405, "the routes for this path take GET, POST", r.ask("DELETE /v1/x HTTP/1.1"))
	r.expect("address_not_allowed", 403, "127.0.0.1 is in no range of allow_from", r.ask("GET /office HTTP/1.1", "Authorization: Bearer TOKEN"))
	r.expect("address_not_allowed", 403, "127.0.0.1 is in 127.0.0.0/8 of deny_from", r.ask("GET /banned HTTP/1.1", "Authorization: Bearer TOKEN"))
	r.expect("origin_not_allowed", 403, `cors.origins does not have "https://evil.test"`, r.ask("OPTIONS /pages HTTP/1.1", "Origin: https://evil.test", "Access-Control-Request-Method: POST"))
	r.expect("upgrade_not_get", 400, `the method is "POST"`, r.ask("POST /live HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", wsKey, "Authorization: Bearer TOKEN"))
	r.expect("subprotocol_missing", 400, "Sec-WebSocket-Protocol offers no other subprotocol than the one with the token", r.ask("GET /live HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", wsKey, "Sec-WebSocket-Protocol: openai-insecure-api-key.TOKEN"))
	r.expect("upgrade_with_body", 400, "a request for websocket has a body of 5 bytes", r.ask("GET /live HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", wsKey, "Content-Length: 5", "Authorization: Bearer TOKEN")+"hello")
	r.expect("upgrade_with_body", 400, "a request for websocket has a body of unknown length", r.ask("GET /live HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", wsKey, "Transfer-Encoding: chunked", "Authorization: Bearer TOKEN"))
	return r
}

// refusedOnPlainHTTP are requests without TLS.
func refusedOnPlainHTTP(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{})}
	ask := func(text string) string {
		all, _ := io.ReadAll(r.connect(r.addrs.HTTP[0], text))
		return string(all)
	}
	r.expect("plain_http", 403, "authorization was sent without TLS", ask("GET / HTTP/1.1\r\nHost: models.test\r\nAuthorization: Bearer "+r.bearer(nil)+"\r\nConnection: close\r\n\r\n"))
	r.expect("plain_http", 403, "x-api-key was sent without TLS", ask("GET / HTTP/1.1\r\nHost: models.test\r\nX-Api-Key: "+r.secret("plain-secret")+"\r\nConnection: close\r\n\r\n"))
	r.expect("plain_http", 403, "sec-websocket-protocol was sent without TLS", ask("GET / HTTP/1.1\r\nHost: models.test\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: realtime, openai-insecure-api-key."+r.secret("plain-token")+"\r\nConnection: Upgrade, close\r\n\r\n"))
	r.expect("no_route", 404, "no route names this host", ask("GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n"))
	return r
}

// refusedForProxies are decisions that another proxy asks for.
func refusedForProxies(t *testing.T) *refusals {
	r := &refusals{house: asked(t, "nginx", authRoutes)}
	token := "Authorization: Bearer " + r.bearer(nil)
	r.expect("request_not_told", 403, "a field that describes the request is missing or repeated: x-original-method", r.askAs("X-Original-URL: https://models.test/v1"))
	r.expect("not_for_another_proxy", 403, "the gateway answers this request itself, and a permission would make the proxy forward it", r.askAs(told("nginx", "GET", "models.test", "/closed")...))
	r.expect("not_for_another_proxy", 403, "the proxy in front would forward the token in Sec-WebSocket-Protocol", r.askAs(append(told("nginx", "POST", "models.test", "/v1"), token, "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key."+r.secret("passed-on"))...))
	r.expect("upgrade_not_allowed", 403, "the request may ask for another protocol (sec-websocket-key), and the route has no websocket: true", r.askAs(append(told("nginx", "POST", "models.test", "/v1"), token, wsKey)...))
	return r
}

// refusedBodies are requests with invalid content.
func refusedBodies(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{more: testKeys, files: keyFiles(), routes: `
  - {host: models.test, upstream: '%s', callers: [issuer/corp, key], rules: [{allow: "*"}], limits: {body: 1KiB}, timeouts: {idle: 200ms}, integrity: {buffer: 100B}}
`})}
	post := "POST / HTTP/1.1\r\nHost: models.test\r\nConnection: close\r\nAuthorization: Bearer " + r.bearer(nil) + "\r\n"
	chunked := post + "Transfer-Encoding: chunked\r\n\r\n"
	r.expect("body_too_large", 413, "Content-Length is 1025, over 1KiB (limits.body)", r.tell(post+"Content-Length: 1025\r\n\r\n"))
	r.expect("body_too_large", 413, "over 1KiB (limits.body)", r.tell(chunked+"800\r\n"+strings.Repeat("x", 2048)+"\r\n0\r\n\r\n"))
	signed := errand{method: "POST", body: strings.Repeat("x", 101)}.signed(t)
	r.secret(signed.signature)
	r.expect("body_too_large", 413, "Content-Length is 101, over 100B (integrity.buffer)", r.tell(signed.raw()))
	r.expect("bad_body", 400, "malformed: bad chunk size", r.tell(chunked+"5;\r\nhello\r\n0\r\n\r\n"))
	r.expect("body_timeout", 408, "no content within 200ms (timeouts.idle)", r.tell(post+"Content-Length: 9\r\n\r\nhello"))
	c := r.dial("models.test")
	_, _ = io.WriteString(c, post+"Content-Length: 9\r\n\r\nhello")
	_ = c.Close()
	r.until("the record is there", func() bool { return strings.Contains(r.audit.text(), "client_gone") })
	r.expect("client_gone", 499, "the client closed the connection within the request", "")
	return r
}

// refusedCalls are gRPC calls, and requests to servers that speak nothing else.
func refusedCalls(t *testing.T) *refusals {
	s := newGRPCServer(t)
	r := &refusals{house: build(t, plan{more: "upstreams:\n  tf: {grpc: 'h2c://" + s.addr + "'}\n", routes: `
  - {host: models.test, upstream: tf, callers: issuer/corp, rules: [{allow: "*"}], timeouts: {idle: 300ms}}
`})}
	r.expect("bad_grpc_call", 400, "gRPC over another version than HTTP/2: HTTP/1.1", r.ask("POST /a.B/C HTTP/1.1", "Content-Type: application/grpc", "Authorization: Bearer TOKEN"))
	call := func(path string, more ...string) any {
		res, err := r.call(t.Context(), path, http.NoBody, more...)
		if err != nil {
			t.Fatal(err)
		}
		body, status := finish(t, res)
		return []any{res.Header, body, status}
	}
	r.expect("bad_grpc_call", 400, "the path is not /package.Service/Method", call("/a"))
	r.expect("bad_grpc_call", 400, "gRPC calls have no query", call("/a.B/C?d"))
	r.expect("bad_grpc_call", 400, "the client does not take trailers (te: trailers)", call("/a.B/C", "Te", ""))
	r.expect("protocol_not_served", 503, "the upstream has endpoints for gRPC only", r.ask("GET / HTTP/1.1", "Authorization: Bearer TOKEN"))
	r.expect("upstream_timeout", 200, "no content within 300ms (timeouts.idle)", call("/a.B/Hang"))
	<-s.gone
	return r
}

// refusedEncodings are gRPC calls whose messages the gateway must read, and cannot.
func refusedEncodings(t *testing.T) *refusals {
	h, _ := buildModels(t)
	r := &refusals{house: h}
	call := func(encodings ...string) any {
		res, err := h.compressedCall(t.Context(), h.client(true), bytes.NewReader(compressedText("message")), encodings...)
		if err != nil {
			t.Fatal(err)
		}
		body, status := finish(t, res)
		return []any{res.Header, body, status}
	}
	r.expect("unread_encoding", 415, "the message is compressed in a way that the gateway cannot read; it reads gzip and deflate", call("zstd"))
	r.expect("bad_model", 400, "grpc-encoding stands twice", call("gzip", "gzip"))
	return r
}

// refusedModels are requests whose body does not say the model in one clear way.
func refusedModels(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{routes: modelRoutes + `
  - host: models.test
    path: /kserve
    strip: /kserve
    upstream: '%s'
    serves: v2
    callers: issuer/corp
    rewrite: {latest: 3}
    rules: [{allow: "*", models: "*"}]
`})}
	ask := func(body, field string) *reply {
		return r.do("POST", "/v1/chat/completions", body, map[string]string{"Authorization": "Bearer " + r.bearer(nil), "Content-Encoding": field})
	}
	r.expect("bad_model", 400, "…", ask(`{"model":"`+r.secret("half-a-model"), ""))
	r.expect("bad_model", 400, "the body has a content coding that the gateway does not read here; it reads gzip", ask(`{}`, "br"))
	r.expect("bad_model", 400, "…", ask(`{"model":"a","model":"b"}`, ""))
	r.expect("code_in_body", 415, "the Content-Type is one of serialized objects, which run code when they are read: application/x-pickle",
		r.do("POST", "/v1/chat/completions", "x", map[string]string{"Authorization": "Bearer " + r.bearer(nil), "Content-Type": "application/x-pickle"}))
	r.expect("bad_model_name", 400, "…", r.do("GET", "/v1/models/%2Fx", "", map[string]string{"Authorization": "Bearer " + r.bearer(nil)}))
	r.expect("version_needed", 400, "the route chooses a version of the model (rewrite), and a request by this path or method has no place for one",
		r.do("POST", "/kserve/v1/models/public:predict", "{}", map[string]string{"Authorization": "Bearer " + r.bearer(nil)}))
	r.expect("unknown_call", 404, "the gateway knows no such path of openai servers", r.do("POST", "/v9/x", "", map[string]string{"Authorization": "Bearer " + r.bearer(nil)}))
	return r
}

// refusedBatches are requests whose body asks for too much, or cannot be counted.
func refusedBatches(t *testing.T) *refusals {
	r := &refusals{house: build(t, plan{routes: batchRoutes})}
	ask := func(path, body string, fields ...string) *reply {
		head := map[string]string{"Authorization": "Bearer " + r.bearer(nil)}
		for i := 0; i < len(fields); i += 2 {
			head[fields[i]] = fields[i+1]
		}
		return r.do("POST", path, body, head)
	}
	const predict, infer = "/tf/v1/models/m:predict", "/v2/models/m/infer"
	r.expect("batch_too_large", 413, "a batch of 5 or more, over 4 (limits.batch)", ask(predict, `{"instances":["`+r.secret("confidential")+`",2,3,4,5,6]}`))
	r.expect("batch_too_large", 413, "a batch of 1000 or more, over 4 (limits.batch)", ask(infer, `{"inputs":[{"shape":[1000,2]}]}`))
	r.expect("tensor_too_large", 413, "an input of 2048 bytes or more, over 1KiB (limits.tensor_bytes)", ask(infer, `{"inputs":[{"shape":[1],"parameters":{"binary_data_size":2048}}]}`, "Inference-Header-Content-Length", "70"))
	r.expect("uncounted_body", 400, "the shape of an input is not an array of whole numbers (byte 21)", ask(infer, `{"inputs":[{"shape":["1000"]}]}`))
	r.expect("uncounted_body", 400, "n or best_of is not a whole number (byte 5)", ask("/v1/chat/completions", `{"n":"1000"}`))
	r.expect("uncounted_body", 400, "the Content-Type of the body is not application/json", ask("/v1/chat/completions", `n=1000`, "Content-Type", "application/x-www-form-urlencoded"))
	r.expect("uncounted_body", 400, "the body has a content coding that the gateway does not read here; it reads gzip", ask(predict, `{}`, "Content-Encoding", "br"))
	return r
}
