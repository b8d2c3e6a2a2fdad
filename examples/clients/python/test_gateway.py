"""What requests and httpx do at a gateway that runs: SALLYPORT_URL, with the keys of gateway.yaml in the folder SALLYPORT_KEYS."""
import asyncio
import http.client
import io
import os
import ssl
import time
import unittest

import httpx
import requests
import requests.adapters
import sallyport_client as sp

URL, KEYS = os.environ["SALLYPORT_URL"], os.environ["SALLYPORT_KEYS"]
TRUST = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
ID = "python-2026-11"
SECRET = os.path.join(KEYS, "python")


def auth(**options):
    return sp.SallyportAuth.from_file(ID, SECRET, **options)


def httpx_auth(**options):
    with open(SECRET) as f:
        return sp.SallyportHTTPXAuth(ID, f.read(), **options)


# Paths and queries as people write them, and as the app must see them decoded.
TARGETS = (
    ("/echo", "", ""),
    ("/echo?", "", ""),
    ("/echo?a=1&b=%20x+y&c=%C3%A9", "", "a=1&b=%20x+y&c=%C3%A9"),
    ("/echo/a b/\u00e9%C3%A9/%7e'(x)y=1,2:3@4", "a b/\u00e9\u00e9/~'(x)y=1,2:3@4", ""),
    ("/echo?q#fragment", "", "q"),
)


class Requests(unittest.TestCase):
    def setUp(self):
        self.session = requests.Session()
        self.addCleanup(self.session.close)

    def ask(self, method, path, **options):
        options.setdefault("auth", auth())
        return self.session.request(method, URL + path, **options)

    def refused(self, kind, call, *args, **options):
        with self.assertRaises(kind) as caught:
            call(*args, **options)
        return caught.exception

    def test_targets(self):
        for path, rest, query in TARGETS:
            a = self.ask("GET", path).json()
            self.assertEqual((a["rest"], a["query"]), (rest, query), path)

    def test_percent_in_lower_case(self):
        """urllib3 sends capitals, whatever it was given; what was signed must be what is sent."""
        prepared = requests.Request("GET", URL + "/echo", auth=auth()).prepare()
        prepared.url = URL + "/echo/%c3%a9?q=%c3%a9"
        auth()(prepared)
        a = self.session.send(prepared, verify=os.environ["REQUESTS_CA_BUNDLE"])
        self.assertEqual((a.json()["rest"], a.json()["query"]), ("\u00e9", "q=%C3%A9"))

    def test_content(self):
        for options, content, media_type in (
            ({}, "", None),
            ({"data": b""}, "", None),
            ({"json": {"a": 1}}, '{"a": 1}', "application/json"),
            ({"data": {"k": "v w"}}, "", "application/x-www-form-urlencoded"),
            ({"data": "h\u00e9", "headers": {"Content-Type": "text/plain"}}, "h\u00e9", "text/plain"),
            ({"data": bytearray(b"x")}, "x", None),
        ):
            a = self.ask("POST", "/echo", **options).json()
            self.assertEqual(a["type"], media_type, options)
            if media_type != "application/x-www-form-urlencoded":  # which Flask reads for itself
                self.assertEqual(a["content"], content, options)
        self.assertEqual(self.ask("POST", "/echo", files={"f": ("n", b"x")}).status_code, 200)
        for data in ((x for x in [b"a"]), io.BytesIO(b"a")):
            self.refused(TypeError, self.ask, "POST", "/echo", data=data)

    def test_status(self):
        self.assertEqual(self.ask("HEAD", "/echo").status_code, 200)
        self.assertEqual(self.ask("PUT", "/predict", data=b"x").status_code, 405)
        self.assertEqual(self.ask("GET", "/nothing").status_code, 404)

    def test_host_by_hand(self):
        host = URL.partition("//")[2]
        a = self.session.get(URL.replace("localhost", "LOCALHOST") + "/echo", auth=auth(), headers={"Host": host})
        self.assertEqual(a.status_code, 200)

    def test_unknown_key(self):
        with open(SECRET) as f:
            stranger = f.read()
        e = self.refused(sp.Refused, self.ask, "GET", "/echo", auth=sp.SallyportAuth("who", stranger))
        self.assertEqual((e.code, e.status), ("bad_signature", 401))
        self.assertEqual(e.response.status_code, 401)
        a = self.ask("GET", "/echo", auth=sp.SallyportAuth("who", stranger, accept_unsigned=True))
        self.assertEqual(a.json()["reason"], "bad_signature")

    def test_retries_sign_anew(self):
        """A Retry of urllib3 sends the same signature again, and learns so; another call does not."""
        again = requests.adapters.Retry(total=1, status_forcelist=[404], allowed_methods=None, raise_on_status=False)
        self.session.mount("https://", requests.adapters.HTTPAdapter(max_retries=again))
        a = self.ask("POST", "/nothing", data=b"x")
        self.assertEqual((a.status_code, a.json()["reason"]), (401, "replayed"))
        self.assertEqual([self.ask("POST", "/echo", data=b"x").status_code for _ in range(3)], [200] * 3)

    def test_streams(self):
        for path in ("/events", "/weights"):
            self.refused(sp.HeadOnly, self.ask, "GET", path)
            self.refused(sp.HeadOnly, self.ask, "GET", path, stream=True)
            self.assertEqual(self.ask("GET", path, auth=auth(accept_head_only=True)).status_code, 200)

    def test_trailers(self):
        """What can see trailers gets streams and long answers verified: here the client of Python's library, opened up."""

        class Answer(http.client.HTTPResponse):
            def _read_and_discard_trailer(self):
                self.trailers = http.client.parse_headers(self.fp).items()

        host = URL.partition("//")[2]
        for path, length in (("/events", 27), ("/weights", 2 << 20)):
            client = http.client.HTTPSConnection(host, context=TRUST)
            client.response_class = Answer
            headers = {"TE": "trailers", "Accept-Encoding": "identity"}
            headers.update(auth().headers("GET", URL + path, headers))
            client.request("GET", path, headers=headers)
            a = client.getresponse()
            content = a.read()
            client.close()
            whole = sp.Response(a.status, a.getheaders(), content, a.trailers, sp.Request("GET", URL + path, headers))
            self.assertEqual(len(content), length)
            self.assertEqual(auth().verify_response(whole).key_id, ID)
            self.refused(sp.DigestMismatch, auth().verify_response, whole._replace(content=content[:-1]))
            self.assertEqual(self.refused(sp.NotVerified, auth().verify_response, whole._replace(trailers=())).code, "cut_short")

    def test_events_inline(self):
        a = self.ask("GET", "/events/inline")
        self.assertEqual(a.text.partition(": sallyport-sig")[0], "data: 0\n\ndata: 1\n\ndata: 2\n\n")
        reader = auth(verify=False)
        a, came = self.ask("GET", "/events/inline", auth=reader, stream=True), []
        for piece in sp.verified_events(a, reader.keys):
            came.append((piece, time.monotonic()))
        self.assertEqual(b"".join(p for p, _ in came), b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        self.assertGreater(came[-1][1] - came[0][1], 0.1, "the events were held back")
        a = self.ask("GET", "/events/inline", auth=reader, stream=True)
        self.refused(sp.NotVerified, list, sp.verified_events(a, reader.keys, [c.replace(b"1", b"7") for c in a.iter_content(None)]))

    def test_verify_later(self):
        a = self.ask("POST", "/predict", json={"a": 40, "b": 2}, auth=auth(verify=False))
        self.assertEqual(auth().verify_response(a).key_id, ID)
        b = self.ask("POST", "/predict", json={"a": 40, "b": 2}, auth=auth(verify=False))
        a.request = b.request
        self.assertEqual(self.refused(sp.NotVerified, auth().verify_response, a).code, "unbound")

    def test_partner_with_a_private_key(self):
        published = self.session.get(URL + "/.well-known/sallyport/keys").text
        partner = sp.SallyportAuth.from_file("partner-2026-11", os.path.join(KEYS, "partner.pem"), published)
        a = self.ask("POST", "/predict", json={"a": 40, "b": 2}, auth=partner)
        self.assertEqual(a.json(), {"prediction": 42, "caller": "key:partner"})
        self.assertIn('keyid="gateway-2026-11"', a.headers["Signature-Input"])

    def test_reader_without_a_key(self):
        published = self.session.get(URL + "/.well-known/sallyport/keys").text
        reader = sp.SallyportReader(published)
        a = self.ask("GET", "/health", auth=reader)
        self.assertEqual(a.json(), {"status": "ok"})
        self.assertIn('keyid="gateway-2026-11"', a.headers["Signature-Input"])
        del a.request.headers["Accept-Signature"]
        self.assertEqual(self.refused(sp.NotVerified, reader.verify_response, a).code, "unbound")
        self.refused(sp.SignatureMissing, self.ask, "GET", "/echo", auth=reader)  # 401: it wants a key
        self.assertNotIn("Signature", self.ask("GET", "/health", auth=None).headers)


class HTTPX(unittest.TestCase):
    def test_sync(self):
        with httpx.Client(auth=httpx_auth(), verify=TRUST) as client:
            self.assertEqual(client.post(URL + "/predict", json={"a": 40, "b": 2}).json()["prediction"], 42)
            for path, rest, query in TARGETS:
                a = client.get(URL + path).json()
                self.assertEqual((a["rest"], a["query"]), (rest, query), path)
            self.assertEqual(client.get(URL + "/echo", params={"a": "b c/&"}).json()["query"], "a=b+c%2F%26")
            a = client.post(URL + "/echo", content=(x for x in (b"a", b"b")), headers={"Content-Type": "text/plain"})
            self.assertEqual(a.json()["content"], "ab")
            for path in ("/events", "/weights"):
                with self.assertRaises(sp.HeadOnly):
                    client.get(URL + path)
            with client.stream("GET", URL + "/weights", auth=httpx_auth(accept_head_only=True)) as a:
                self.assertEqual(sum(map(len, a.iter_raw())), 2 << 20)
            self.assertIn("data: 2", client.get(URL + "/events/inline").text)
            with open(SECRET) as f, self.assertRaises(sp.Refused) as caught:
                client.get(URL + "/echo", auth=sp.SallyportHTTPXAuth("who", f.read()))
            self.assertEqual(caught.exception.code, "bad_signature")

    def test_async(self):
        async def parts():
            yield b"a"
            yield b"b"

        async def calls():
            async with httpx.AsyncClient(auth=httpx_auth(), verify=TRUST) as client:
                self.assertEqual((await client.post(URL + "/predict", json={"a": 40, "b": 2})).json()["prediction"], 42)
                a = await client.post(URL + "/echo", content=parts(), headers={"Content-Type": "text/plain"})
                self.assertEqual(a.json()["content"], "ab")
                with self.assertRaises(sp.HeadOnly):
                    await client.get(URL + "/events")

        asyncio.run(calls())


if __name__ == "__main__":
    unittest.main()
