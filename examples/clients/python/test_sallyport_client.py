"""Tests of sallyport_client.py that need no gateway: python -m unittest. What is not installed is skipped."""
import ast
import asyncio
import base64
import concurrent.futures
import io
import pathlib
import sys
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "cmd/sallyport/handover"))

import sallyport_client as sp

SECRET = base64.b64encode(bytes(range(64))).decode()
KEY = sp.Key("alice", SECRET)
URL = "https://models.example.com/v1/a%2Fb?x=1"


class Closed(sp.Response):
    """An answer that can be closed, and written to, as those of requests can."""

    def close(self):
        pass


def answer(content=b"hello", status=200, auth=None, method="POST", body=b"ask", tag=sp.TAG_RESPONSE, key=KEY,
           content_type="text/plain", **changes):
    """A signed answer to a signed request, with what changes says changed after signing."""
    auth = auth or sp.SallyportAuth("alice", SECRET)
    headers = {"Content-Type": "text/plain", **auth.headers(method, URL, {"Content-Type": "text/plain"}, body)}
    request = sp.Request(method, URL, headers)
    fields = [("Content-Type", content_type)]
    cover = ["@status", *sp._BINDING]
    if tag == sp.TAG_RESPONSE:
        fields.append(("Content-Digest", sp.content_digest(content)))
        cover.insert(1, "content-digest")
    message = sp.Message(status=status, fields=fields, request=sp._request(method, URL, list(headers.items())))
    nonce = next(iter(sp._signatures(message.request).values()))[1]["nonce"]
    signed = sp._sign(key, message, tag, cover, ("content-type", "content-digest;req"), nonce=nonce)
    fields += zip(("Signature-Input", "Signature"), signed)
    trailers = ()
    if tag == sp.TAG_HEAD:
        message.trailers = [("Content-Digest", sp.content_digest(content))]
        signed = sp._sign(key, message, sp.TAG_RESPONSE, ["@status", "content-digest;tr", *sp._BINDING], ("content-digest;req",),
                          nonce=nonce, label="sp-tail")
        trailers = [*message.trailers, *zip(("Signature-Input", "Signature"), signed)]
    whole = sp.Response(status, fields, content, trailers, request)
    return whole._replace(**{k: v(getattr(whole, k)) if callable(v) else v for k, v in changes.items()})


class Requests(unittest.TestCase):
    def test_old_python(self):
        with open(sp.__file__) as f:
            ast.parse(f.read(), feature_version=(3, 9))

    def test_rfc_vector(self):
        """RFC 9421, B.2.5."""
        secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
        fields = [("Date", "Tue, 20 Apr 2021 02:07:55 GMT"), ("Content-Type", "application/json")]
        message = sp.Message(method="POST", authority="example.com", path="/foo", fields=fields)
        base = message.base([(n, {}) for n in ("date", "@authority", "content-type")], {"created": 1618884473, "keyid": "test-shared-secret"})
        got = base64.b64encode(sp.Key("test-shared-secret", secret).sign(base)).decode()
        self.assertEqual(got, "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=")

    def test_place(self):
        for url, host, want in (
            ("https://Models.Example.com:443", None, ("models.example.com", "/", "")),
            ("http://h:80/a?", None, ("h", "/a", "")),
            ("http://h:443/", None, ("h:443", "/", "")),
            ("https://u:p@h:8443/%2f;a?b=%20+", None, ("h:8443", "/%2f;a", "b=%20+")),
            ("https://[::1]:8443/", None, ("[::1]:8443", "/", "")),
            ("https://[2001:DB8::1]/", None, ("[2001:db8::1]", "/", "")),
            ("https://127.0.0.1:9/x#f", "Other.example:443", ("other.example", "/x", "")),
        ):
            m = sp.Message(method="GET", **sp._place(url, host))
            self.assertEqual((m.host(), m.path, m.query), want, url)

    def test_place_as_libraries_have_it(self):
        try:
            import httpx
            import requests
        except ImportError:
            self.skipTest("requests and httpx are not installed")
        for url, host, target in (
            ("https://[::1]:8443/\u00e9%c3%a9?a=%2f b", "[::1]:8443", "/%C3%A9%C3%A9"),
            ("https://[::1]:443", "[::1]", "/"),
            ("http://User:pass@H.example:80/%7e", "h.example", None),  # requests decodes ~, httpx does not
            ("https://b\u00fccher.example/", "xn--bcher-kva.example", "/"),
        ):
            prepared = requests.Request("GET", url).prepare()
            theirs = httpx.Request("GET", url)
            for m in (sp._request("GET", sp._as_sent(prepared.url), []), sp._httpx_message(theirs)):
                self.assertEqual(m.host(), host)
                self.assertIn(m.path.replace("%c3%a9", "%C3%A9"), (target,) if target else ("/~", "/%7e", "/%7E"))
            self.assertEqual(sp._httpx_message(theirs).path.encode(), theirs.url.raw_path.partition(b"?")[0])
            self.assertEqual(sp._place(sp._as_sent(prepared.url))["path"], prepared.path_url.partition("?")[0])

    def test_keys(self):
        for key_id, secret in (("a", "not base64!"), ("a", base64.b64encode(bytes(31)).decode()), ('a"', SECRET), ("", SECRET)):
            with self.assertRaises(ValueError):
                sp.Key(key_id, secret)
        self.assertNotIn(SECRET[:8], repr(KEY) + str(vars(sp.SallyportAuth("a", SECRET))))

    def test_line_breaks_are_not_signed(self):
        with self.assertRaises(ValueError):
            sp.SallyportAuth("alice", SECRET).headers("POST", URL, {"Content-Type": "a\n\"@path\": /"})

    def test_content(self):
        class Prepared:
            method, url, hooks = "POST", URL, {}
            def __init__(self, body):
                self.body, self.headers = body, {"Content-Type": "text/plain"}
            def register_hook(self, *_): pass
            deregister_hook = register_hook
        auth = sp.SallyportAuth("alice", SECRET)
        for body, sent in ((None, b""), ("\u00e9", b"\xc3\xa9"), (b"a", b"a"), (bytearray(b"a"), b"a")):
            self.assertEqual(auth(Prepared(body)).headers["Content-Digest"], sp.content_digest(sent))
        for body in ((x for x in [b"a"]), io.BytesIO(b"a"), open(__file__, "rb")):
            with self.assertRaisesRegex(TypeError, "pass data=file.read()"):
                auth(Prepared(body))
            body.close()

    def test_each_attempt_is_another(self):
        auth = sp.SallyportAuth("alice", SECRET)
        self.assertNotEqual(auth.headers("GET", URL)["Signature"], auth.headers("GET", URL)["Signature"])

    def test_ed25519(self):
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives import serialization as ser
        except ImportError:
            self.skipTest("cryptography is not installed")
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()).decode()
        raw = private.public_key().public_bytes(ser.Encoding.Raw, ser.PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        published = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "gateway", "x": "%s"}]}' % x
        with self.assertRaises(ValueError):
            sp.SallyportAuth("bob", pem)
        auth = sp.SallyportAuth("bob", pem, published)
        self.assertIn("Accept-Signature", auth.headers("GET", URL))
        r = answer(auth=auth, key=sp.Key("gateway", pem))
        self.assertEqual(auth.verify_response(r).key_id, "gateway")
        with self.assertRaises(sp.DigestMismatch):
            auth.verify_response(r._replace(content=b"other"))
        short = answer(auth=auth, key=sp.Key("gateway", pem), headers=lambda f: [(n, "sp=:AAAA:" if n == "Signature" else v) for n, v in f])
        with self.assertRaises(sp.NotVerified):
            auth.verify_response(short)
        with self.assertRaises(sp.NotVerified):
            auth.verify_response(answer(auth=auth))  # by a key that is not the gateway's


class Responses(unittest.TestCase):
    def refused(self, code, response, **options):
        with self.assertRaises(sp.NotVerified) as caught:
            sp.verify_response(response, KEY, **options)
        self.assertEqual(caught.exception.code, code, caught.exception)

    def test_good(self):
        for tag in (sp.TAG_RESPONSE, sp.TAG_HEAD):
            self.assertEqual(sp.verify_response(answer(tag=tag), KEY).key_id, "alice")
        self.assertEqual(sp.verify_response(answer(), {"alice": SECRET}).key_id, "alice")
        sp.verify_response(answer(method="HEAD", content=b"", tag=sp.TAG_HEAD_ONLY), KEY)
        sp.verify_response(answer(status=204, content=b"", tag=sp.TAG_HEAD_ONLY), KEY)
        sp.verify_response(answer(tag=sp.TAG_HEAD_ONLY), KEY, accept_head_only=True)

    def test_refused(self):
        def field(name, change):
            return lambda fields: [(n, change(v) if n == name else v) for n, v in fields]

        def without(name):
            return lambda fields: [f for f in fields if f[0] != name]

        digest = sp.content_digest(b"hello")
        for name, code, r in (
            ("content", "digest_mismatch", answer(**{"content": b"hellO"})._replace(content=b"hellO!")),
            ("status", "bad_signature", answer(status_code=201)),
            ("type", "bad_signature", answer(headers=field("Content-Type", lambda _: "text/html"))),
            ("digest", "bad_signature", answer(headers=field("Content-Digest", lambda _: sp.content_digest(b"x")))),
            ("digest gone", "coverage", answer(headers=without("Content-Digest"))),
            ("two digests", "bad_signature", answer(headers=lambda f: [*f, ("Content-Digest", digest)])),
            ("encoding added", "coverage", answer(headers=lambda f: [*f, ("Content-Encoding", "gzip")])),
            ("no signature", "malformed", answer(headers=without("Signature"))),
            ("neither", "signature_missing", answer(headers=lambda f: without("Signature")(without("Signature-Input")(f)))),
            ("a label twice", "malformed", answer(headers=field("Signature", lambda v: v + ", " + v))),
            ("another label", "malformed", answer(headers=field("Signature", lambda v: v.replace("sp=", "sq=")))),
            ("nonce", "unbound", answer(request=answer().request)),
            ("no digest covered", "coverage", answer(headers=field("Signature-Input", lambda v: v.replace(' "content-digest" ', " ")))),
            ("tag of requests", "signature_missing", answer(headers=field("Signature-Input", lambda v: v.replace("-resp", "-req")))),
            ("unknown key", "bad_signature", answer(headers=field("Signature-Input", lambda v: v.replace("alice", "mallory")))),
            ("another key", "bad_signature", answer(key=sp.Key("alice", base64.b64encode(bytes(64)).decode()))),
            ("alg", "bad_signature", answer(headers=field("Signature-Input", lambda v: v + ';alg="none"'))),
            ("base64 not canonical", "malformed", answer(headers=field("Signature", lambda v: v[:-3] + "%c=:" % (ord(v[-3]) + 1)))),
            ("head only", "head_only", answer(tag=sp.TAG_HEAD_ONLY)),
            ("tail cut off", "cut_short", answer(tag=sp.TAG_HEAD, trailers=())),
            ("tail of other content", "digest_mismatch", answer(tag=sp.TAG_HEAD)._replace(content=b"hell")),
            ("tail with the head's label", "malformed", answer(tag=sp.TAG_HEAD, trailers=lambda t: [(n, v.replace("sp-tail=", "sp=")) for n, v in t])),
        ):
            with self.subTest(name):
                self.refused(code, r)
        self.refused("stale", answer(), now=time.time() + 61)
        self.refused("future", answer(), now=time.time() - 31)
        self.refused("unbound", answer()._replace(request=sp.Request("POST", URL, {})))

    def events(self, change=lambda c: c, content=b"data: 1\n\n: sallyport-sig x\n\ndata: 2\n\n", step=7):
        """Events with their signature at the end, as verified_events hands them on."""
        r = answer(content, tag=sp.TAG_HEAD, content_type="text/event-stream")
        t = dict(r.trailers)
        comment = ": sallyport-sig %s %s %s\n\n" % (t["Signature-Input"], t["Signature"], t["Content-Digest"])
        sent = change(content + comment.encode())
        r = r._replace(trailers=(), content=sent)
        self.assertEqual(self.code(lambda: sp.verify_response(r, KEY)), self.code(lambda: list(sp.verified_events(r, KEY, [sent]))))
        return b"".join(sp.verified_events(r, KEY, [sent[i:i + step] for i in range(0, len(sent), step)]))

    @staticmethod
    def code(call):
        try:
            call()
        except sp.NotVerified as e:
            return e.code

    def test_events(self):
        for content in (b"data: 1\n\n: sallyport-sig x\n\ndata: 2\n\n", b"", b": sallyport-sig a b c\n\n", b": s\n\n"):
            for step in (1, 2, 7, 1000):
                self.assertEqual(self.events(content=content, step=step), content)
        for change, code in (
            (lambda c: c.replace(b"data: 1", b"data: 3"), "digest_mismatch"),
            (lambda c: c.replace(b"data: 1\n\n", b""), "digest_mismatch"),
            (lambda c: c + b"data: 3\n\n", "cut_short"),
            (lambda c: c[:-1], "cut_short"),
            (lambda c: c[:20], "cut_short"),
            (lambda c: b"", "cut_short"),
        ):
            for step in (1, 7, 1000):
                self.assertEqual(self.code(lambda: self.events(change, step=step)), code)

    def test_a_request_is_no_answer(self):
        r = answer()
        self.refused("signature_missing", r._replace(headers=r.request.headers))

    def test_foreign_signatures_are_ignored(self):
        r = answer(headers=lambda f: [(n, {"Signature": v + ", x=:AAAA:", "Signature-Input": v + ', x=("a";sf);v=1.5;t=tok'}.get(n, v)) for n, v in f])
        self.assertEqual(sp.verify_response(r, KEY).label, "sp")

    def test_refusals_have_the_gateways_reason(self):
        auth = sp.SallyportAuth("alice", SECRET)
        for content, code in (
            (b'{"title":"the signature is too old","status":401,"reason":"stale","request_id":"1"}', "stale"),
            (b'{"error":"text","reason":"unknown_key","request_id":"1"}', "unknown_key"),
            (b'{"error":{"message":"text","type":"t"},"reason":"forbidden","request_id":"1"}', "forbidden"),
            (b'{"reason":"Stale\\n"}', None),
            (b'{"reason":7}', None),
            (b'["reason"]', None),
            (b"<html>", None),
            (b"", None),
        ):
            with self.assertRaises(sp.SignatureMissing) as caught:
                auth._answered(answer(headers=[], status_code=401, content=content))
            self.assertEqual(type(caught.exception), sp.Refused if code else sp.SignatureMissing, content)
            self.assertEqual(caught.exception.code, code or "signature_missing")
        # An answer that is no refusal keeps its fault, whatever it says.
        with self.assertRaises(sp.SignatureMissing) as caught:
            auth._answered(answer(headers=[], content=b'{"reason":"stale"}'))
        self.assertEqual(caught.exception.code, "signature_missing")

    def test_accept_unsigned(self):
        """What was never signed passes, and nothing else."""
        auth = sp.SallyportAuth("alice", SECRET, accept_unsigned=True)
        auth._answered(answer(headers=[]))
        for r in (answer(tag=sp.TAG_HEAD, trailers=()), answer(tag=sp.TAG_HEAD_ONLY), answer(status_code=201)):
            with self.assertRaises(sp.NotVerified):
                auth._answered(Closed(*r))

    def test_every_byte_counts(self):
        """Whatever one byte of the signature fields is changed to: refused, and never another exception."""
        for tag in (sp.TAG_RESPONSE, sp.TAG_HEAD):
            r = answer(tag=tag)
            for where in ("headers", "trailers"):
                for at, (name, value) in enumerate(getattr(r, where)):
                    for i in range(len(value)):
                        for c in "\0 \"(),:;=A0b~\xff":
                            if c != value[i] and (name.startswith("Signature") or name == "Content-Digest"):
                                pairs = list(getattr(r, where))
                                pairs[at] = (name, value[:i] + c + value[i + 1:])
                                with self.assertRaises(sp.NotVerified, msg=pairs[at]):
                                    sp.verify_response(r._replace(**{where: pairs}), KEY)

    def test_reader(self):
        for text in ("", "a", "a=(", 'a=("x"', 'a=("x" "x")', 'a=("x""y")', "a=();a=1;a=2", "a=(), a=()", 'a=("\u00e9")', "a=() b=()", "A=()", "a=(),", "a=1"):
            with self.assertRaises(sp.NotVerified, msg=text):
                reader = sp._Reader("f", text)
                reader.dictionary(reader.inner_list)


class Servers(unittest.TestCase):
    def setUp(self):
        self.gateway = sp.Gateway({"alice": SECRET}, authority="10.0.0.2:5000")

    def forwarded(self, content=b"ask", path="/v1/a%2Fb", query="x=1", **fields):
        """What the gateway sends, as WSGI has it."""
        fields = {"content-type": "text/plain", "x-sallyport-principal": "key:bob", "x-sallyport-request-id": "r1", **fields}
        fields["content-digest"] = sp.content_digest(content)
        m = sp.Message(method="POST", scheme="http", authority="10.0.0.2:5000", path=path, query=query, fields=list(fields.items()))
        signed = sp._sign(KEY, m, sp.TAG_FORWARD, [*sp._TARGET, "content-digest", "x-sallyport-principal", "x-sallyport-request-id"], ["content-type"])
        environ = {"REQUEST_METHOD": "POST", "RAW_URI": path + "?" + query, "PATH_INFO": path.replace("%2F", "/"), "QUERY_STRING": query,
                   "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": str(len(content)), "HTTP_HOST": "10.0.0.2:5000",
                   "HTTP_SIGNATURE_INPUT": signed[0], "HTTP_SIGNATURE": signed[1], "wsgi.input": io.BytesIO(content), "wsgi.url_scheme": "http"}
        environ.update({"HTTP_" + n.upper().replace("-", "_"): v for n, v in fields.items() if n != "content-type"})
        return environ

    def ask(self, environ):
        """The status of an answer and the caller that the app was told of, if it was asked."""
        status, seen = [], []

        def app(environ, start_response):
            seen.append((environ["sallyport.caller"].principal, environ["wsgi.input"].read()))
            start_response("200 OK", [])
            return []

        b"".join(sp.WSGIMiddleware(app, self.gateway)(environ, lambda s, h: status.append(int(s[:3]))))
        return status[0], seen

    def test_wsgi(self):
        self.assertEqual(self.ask(self.forwarded()), (200, [("key:bob", b"ask")]))
        self.assertEqual(self.ask(self.forwarded(b"")), (200, [("key:bob", b"")]))
        environ = self.forwarded(path="/v1/a%20b")
        environ.pop("RAW_URI")
        environ["PATH_INFO"] = "/v1/a b"
        self.assertEqual(self.ask(environ)[0], 200)
        environ = self.forwarded()
        environ.pop("CONTENT_LENGTH")
        environ.update({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True})
        self.assertEqual(self.ask(environ), (200, [("key:bob", b"ask")]))

    def test_wsgi_refuses(self):
        for name, status, change in (
            ("principal", 401, {"HTTP_X_SALLYPORT_PRINCIPAL": "key:root"}),
            ("no principal", 401, {"HTTP_X_SALLYPORT_PRINCIPAL": None}),
            ("a field of ours that is not signed", 401, {"HTTP_X_SALLYPORT_SCOPES": "admin"}),
            ("content", 400, {"wsgi.input": io.BytesIO(b"ASK")}),
            ("less content", 400, {"CONTENT_LENGTH": "2"}),
            ("path", 401, {"RAW_URI": "/v1/a/b?x=1"}),
            ("query", 401, {"RAW_URI": "/v1/a%2Fb?x=2"}),
            ("method", 401, {"REQUEST_METHOD": "PUT"}),
            ("host", 421, {"HTTP_HOST": "10.0.0.3:5000"}),
            ("type", 401, {"CONTENT_TYPE": "text/html"}),
            ("no signature", 401, {"HTTP_SIGNATURE": None, "HTTP_SIGNATURE_INPUT": None}),
            ("too long", 413, {"CONTENT_LENGTH": str((32 << 20) + 1)}),
        ):
            with self.subTest(name):
                environ = {k: v for k, v in {**self.forwarded(), **change}.items() if v is not None}
                self.assertEqual(self.ask(environ), (status, []))
        environ = self.forwarded()
        self.assertEqual(self.ask(dict(environ))[0], 200)
        self.assertEqual(self.ask({**environ, "wsgi.input": io.BytesIO(b"ask")}), (401, []))

    def test_replays_are_not_forgotten_early(self):
        seen = sp.Replays(room=2)
        soon, past = time.time() + 60, time.time() - 1
        self.assertFalse(seen(b"a", past) or seen(b"b", soon) or seen(b"c", soon))
        self.assertTrue(seen(b"b", soon))
        with self.assertRaises(sp.NotVerified):
            seen(b"d", soon)

    def test_asgi(self):
        def ask(environ, parts):
            names = [n for n in environ if n.startswith("HTTP_") or n == "CONTENT_TYPE"]
            headers = [(n.replace("HTTP_", "").replace("_", "-").lower().encode(), environ[n].encode()) for n in names]
            path, _, query = environ["RAW_URI"].partition("?")
            scope = {"type": "http", "method": environ["REQUEST_METHOD"], "path": environ["PATH_INFO"], "raw_path": path.encode(),
                     "query_string": query.encode(), "headers": headers, "scheme": "http"}
            sent, seen = [], []

            async def app(scope, receive, send):
                seen.append((scope["sallyport.caller"].principal, (await receive())["body"]))
                await send({"type": "http.response.start", "status": 200, "headers": []})

            async def receive():
                return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

            async def send(event):
                sent.append(event)

            asyncio.run(sp.ASGIMiddleware(app, self.gateway)(scope, receive, send))
            return sent[0]["status"], seen

        self.assertEqual(ask(self.forwarded(), [b"as", b"k"]), (200, [("key:bob", b"ask")]))
        self.assertEqual(ask(self.forwarded(), [b"as", b"K"]), (400, []))
        self.assertEqual(ask({**self.forwarded(), "HTTP_X_SALLYPORT_PRINCIPAL": "key:root"}, [b"ask"]), (401, []))


class GRPC(unittest.TestCase):
    """Against a server of grpcio that verifies and signs as a gateway would."""

    def setUp(self):
        try:
            import grpc
        except ImportError:
            self.skipTest("grpcio is not installed")
        self.grpc, self.tamper = grpc, lambda parts: parts
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers([self.handler()])
        self.authority = "127.0.0.1:%d" % server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(None).wait())
        channel = grpc.insecure_channel(self.authority, options=[("grpc.enable_retries", 0)])
        self.channel = sp.SigningChannel(channel, sp.SallyportAuth("alice", SECRET), self.authority, scheme="http")
        self.addCleanup(self.channel.close)

    def handler(self):
        def serve(request, context):
            fields = [(n, v) for n, v in context.invocation_metadata() if isinstance(v, str)]
            m = sp.Message(method="POST", scheme="http", authority=self.authority, path="/a.B/" + self.method,
                           fields=[*fields, ("content-type", "application/grpc")])
            try:
                s = sp._verify(m, {"alice": KEY}, sp.TAG_REQUEST, [*sp._TARGET, "content-digest"], ["content-type", "authorization"])
                self.assertEqual(m.field("content-digest"), sp._Frames(request).digest())
            except sp.NotVerified as e:
                context.abort(self.grpc.StatusCode.UNAUTHENTICATED, e.code)
            parts = [b"<", request, b">"] if self.method == "Stream" else [b"<" + request + b">"]
            digest = sp._Frames(*parts).digest()
            answer = sp.Message(status=200, request=m, trailers=[("content-digest", digest), ("grpc-status", "0")])
            signed = sp._sign(KEY, answer, sp.TAG_RESPONSE, ["@status", "grpc-status;tr", "content-digest;tr", *sp._BINDING],
                              ["content-digest;req"], nonce=s.parameters["nonce"], label="sp-tail")
            context.set_trailing_metadata((("content-digest", digest), ("signature-input", signed[0]), ("signature", signed[1])))
            return self.tamper(parts)

        class Handler(self.grpc.GenericRpcHandler):
            def service(_, details):
                self.method = details.method.rpartition("/")[2]
                if self.method == "Stream":
                    return self.grpc.unary_stream_rpc_method_handler(lambda r, c: iter(serve(r, c)))
                return self.grpc.unary_unary_rpc_method_handler(lambda r, c: serve(r, c)[0])

        return Handler()

    def test_unary(self):
        call = self.channel.unary_unary("/a.B/C", str.encode, bytes.decode)
        self.assertEqual(call("hi", 5, [("authorization", "Bearer x"), ("x-bin", b"\0")]), "<hi>")
        self.assertEqual(call.with_call("", timeout=5)[0], "<>")
        self.tamper = lambda parts: [b"<ho>"]
        with self.assertRaises(sp.DigestMismatch):
            call("hi", timeout=5)

    def test_stream(self):
        call = self.channel.unary_stream("/a.B/Stream", str.encode, bytes.decode)
        self.assertEqual(list(call("hi", timeout=5)), ["<", "hi", ">"])
        self.tamper = lambda parts: parts[:-1]
        got = []
        with self.assertRaises(sp.DigestMismatch):
            got.extend(call("hi", timeout=5))

    def test_future(self):
        future = self.channel.unary_unary("/a.B/C", str.encode, bytes.decode).future
        self.assertEqual(future("hi", timeout=5).result(), "<hi>")
        self.tamper = lambda parts: [b"<ho>"]
        self.assertIsInstance(future("hi", timeout=5).exception(), sp.DigestMismatch)

    def test_refused(self):
        call = self.channel.unary_unary("/a.B/C", str.encode, bytes.decode)
        self.channel._auth.key = sp.Key("alice", base64.b64encode(bytes(64)).decode())
        with self.assertRaises(sp.Refused) as caught:
            call("hi", timeout=5)
        self.assertEqual((caught.exception.code, caught.exception.detail[:13]), ("unauthenticated", "bad_signature"))
        self.assertIsInstance(call.future("hi", timeout=5).exception(), sp.Refused)
        self.channel._auth.accept_unsigned = True
        with self.assertRaises(self.grpc.RpcError):
            call("hi", timeout=5)
        self.assertRaises(TypeError, self.channel.stream_unary("/a.B/C"), iter([b"a"]), timeout=5)

    def test_aio(self):
        async def calls():
            aio = self.grpc.aio.insecure_channel(self.authority, options=[("grpc.enable_retries", 0)])
            async with sp.SigningAioChannel(aio, sp.SallyportAuth("alice", SECRET), self.authority, scheme="http") as channel:
                unary = channel.unary_unary("/a.B/C", str.encode, bytes.decode)
                stream = channel.unary_stream("/a.B/Stream", str.encode, bytes.decode)
                self.assertEqual([await unary("hi", timeout=5), *[m async for m in stream("hi", timeout=5)]], ["<hi>", "<", "hi", ">"])
                self.tamper = lambda parts: [b"<ho>"]
                with self.assertRaises(sp.DigestMismatch):
                    await unary("hi", timeout=5)
                with self.assertRaises(sp.DigestMismatch):
                    [m async for m in stream("hi", timeout=5)]
                channel._auth.key = sp.Key("alice", base64.b64encode(bytes(64)).decode())
                with self.assertRaises(sp.Refused):
                    await unary("hi", timeout=5)

        asyncio.run(calls())

    def test_broken_off(self):
        with sp.SigningChannel(self.grpc.insecure_channel("127.0.0.1:1"), self.channel._auth, "127.0.0.1:1") as nobody:
            with self.assertRaises(self.grpc.RpcError) as caught:
                nobody.unary_unary("/a.B/C", str.encode, bytes.decode)("hi", timeout=30)
        self.assertEqual(caught.exception.code(), self.grpc.StatusCode.UNAVAILABLE)


if __name__ == "__main__":
    unittest.main()
