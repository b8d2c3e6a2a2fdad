"""Signed requests and verified responses of sallyport (RFC 9421, RFC 9530), in one file.

Copy it beside your code. It needs Python 3.9 or newer and the library that you use
it with; keys of ed25519 need the package cryptography too.

A client, with requests or with httpx:

    auth = SallyportAuth("alice-2026-11", open("alice.key").read())
    answer = requests.post(url, json={"instances": [1, 2]}, auth=auth)

    auth = SallyportHTTPXAuth("alice-2026-11", open("alice.key").read())
    answer = httpx.post(url, json={"instances": [1, 2]}, auth=auth)

Both sign what is sent, and raise NotVerified unless the answer is what the gateway
signed for this very request. For other libraries there are SallyportAuth.headers
and verify_response. With what `sallyport keygen` wrote, see that all fits, without
a network: python3 sallyport_client.py check test-vector.json alice.key

A server behind the gateway, with Flask:

    gateway = Gateway({"gw-flask-2026-11": open("gw-flask.key").read()}, authority="127.0.0.1:5000")
    app.wsgi_app = WSGIMiddleware(app.wsgi_app, gateway)       # all of the app, or
    @signed_by(gateway)                                        # one view

Each attempt needs a signature of its own. A Retry of urllib3 sends the old one
again, which the gateway refuses as `replayed`: retry by calling requests again.
"""
import base64
import binascii
import functools
import hashlib
import hmac
import io
import json
import os
import re
import sys
import threading
import time
from collections import namedtuple
from urllib.parse import quote, urlsplit

try:
    import httpx
except ImportError:
    httpx = None

TAG_REQUEST, TAG_FORWARD = "sallyport-req", "sallyport-fwd"
TAG_RESPONSE = "sallyport-resp"  # over head and content: in the head, or in the trailers of a stream
TAG_HEAD = "sallyport-resp-head"  # over the head of a stream: a TAG_RESPONSE follows in its trailers
TAG_HEAD_ONLY = "sallyport-resp-head-only"  # over a head; nothing vouches for the content

MAX_AGE, SKEW = 60, 30  # seconds
MIN_SECRET = 32  # bytes

_TARGET = ("@method", "@authority", "@path", "@query")
_BINDING = tuple(c + ";req" for c in _TARGET)


# ── Errors ───────────────────────────────────────────────────────────────────


class SallyportError(Exception):
    """Anything that this module raises, but for TypeError and ValueError about its arguments."""


class NotVerified(SallyportError):
    """A message is not what was signed: do not act on it. code is one word, as in the gateway's log."""

    response = None  # the answer that was refused, where there is one

    def __init__(self, code, detail=""):
        super().__init__(code + (": " + detail if detail else ""))
        self.code, self.detail = code, detail


class SignatureMissing(NotVerified):
    """The answer has no signature of the gateway."""


class Refused(SignatureMissing):
    """The gateway refused the request. code is its reason, such as stale, replayed or bad_signature
    (also for an unknown key), and status is that of the answer. The refusal is not signed, because
    the gateway does not know the caller: anybody on the way could have sent it, so only report it."""

    status = None


class HeadOnly(NotVerified):
    """Only the head is signed, and the content could be anybody's; see accept_head_only."""


class DigestMismatch(NotVerified):
    """The content is not what was signed."""


def _refuse(code, detail=""):
    kind = {"signature_missing": SignatureMissing, "head_only": HeadOnly, "digest_mismatch": DigestMismatch}
    return kind.get(code, NotVerified)(code, detail)


# ── Keys ─────────────────────────────────────────────────────────────────────


class Key:
    """A key with its id and its one algorithm: hmac-sha256 for a secret in base64, ed25519
    for a PEM file, of which the public half only verifies. It never shows what it holds."""

    def __init__(self, key_id, secret):
        if not re.fullmatch(r"[ !#-\[\]-~]{1,128}", key_id):
            raise ValueError("key id: want 1 to 128 characters of printable ASCII without quotes and backslashes")
        text = secret.decode("ascii") if isinstance(secret, bytes) else secret
        self.id, self._private, self._public = key_id, None, None
        if "-----BEGIN" in text:
            self.algorithm = "ed25519"
            self._read_pem(text.encode())
            return
        self.algorithm = "hmac-sha256"
        try:
            self._secret = base64.b64decode(text.strip(), validate=True)
        except (ValueError, binascii.Error):
            raise ValueError("key %s: the secret is not base64 (and not a PEM file)" % key_id) from None
        if len(self._secret) < MIN_SECRET:
            raise ValueError("key %s: the secret has %d bytes, want at least %d" % (key_id, len(self._secret), MIN_SECRET))

    def _read_pem(self, pem):
        from cryptography.hazmat.primitives.asymmetric import ed25519
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

        if b"PRIVATE" in pem:
            self._private = load_pem_private_key(pem, password=None)
            self._public = self._private.public_key()
        else:
            self._public = load_pem_public_key(pem)
        if not isinstance(self._public, ed25519.Ed25519PublicKey):
            raise ValueError("key %s: want an Ed25519 key" % self.id)

    def __repr__(self):
        return "<%s key %s>" % (self.algorithm, self.id)

    def sign(self, base):
        """The signature of a signature base."""
        if self.algorithm == "hmac-sha256":
            return hmac.new(self._secret, base, hashlib.sha256).digest()
        if self._private is None:
            raise ValueError("%r cannot sign: it is the public half" % self)
        return self._private.sign(base)

    def verify(self, base, signature):
        """Whether a signature is this key's."""
        if self.algorithm == "hmac-sha256":
            return hmac.compare_digest(self.sign(base), signature)
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, base)
        except InvalidSignature:
            return False
        return True


def _keys(keys):
    """Key objects by id: of a Key, of a mapping from ids to Keys or secrets, or of the text of
    a key set (RFC 7517), such as https://HOST/.well-known/sallyport/keys has."""
    if isinstance(keys, Key):
        return {keys.id: keys}
    if isinstance(keys, (str, bytes)):
        public = [k for k in json.loads(keys)["keys"] if k.get("crv") == "Ed25519"]
        # The PEM form is this beginning and the key (RFC 8410, section 4).
        der = [bytes.fromhex("302a300506032b6570032100") + base64.urlsafe_b64decode(k["x"] + "=") for k in public]
        pems = ["-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n" % base64.b64encode(d).decode() for d in der]
        return {k["kid"]: Key(k["kid"], pem) for k, pem in zip(public, pems)}
    return {i: k if isinstance(k, Key) else Key(i, k) for i, k in keys.items()}


_NOBODY = Key("unknown", base64.b64encode(os.urandom(64)))


# ── Structured fields (RFC 9651), as far as signatures need them, and strictly ──


class _Token(str):
    """A bare item that is kept as it was written."""


class _Reader:
    """Reads a dictionary. Keys and parameters that are given twice are refused."""

    KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
    STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
    BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
    NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,3})?")
    BOOLEAN = re.compile(r"\?([01])")
    TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
    SPACES, COMMA = re.compile(r" *"), re.compile(r"[ \t]*,[ \t]*")

    def __init__(self, field, text):
        self.field, self.text, self.at = field, text.strip(" "), 0
        if len(text) > 4096:
            raise self.bad("is too long")

    def bad(self, why="cannot be read"):
        return _refuse("malformed", "%s %s" % (self.field, why))

    def take(self, pattern):
        m = pattern.match(self.text, self.at)
        if m:
            self.at = m.end()
        return m

    def literal(self, text):
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def dictionary(self, member):
        out = {}
        while True:
            key = self.take(self.KEY)
            if not key or key.group() in out or not self.literal("="):
                raise self.bad()
            out[key.group()] = member()
            if self.at == len(self.text):
                return out
            if not self.take(self.COMMA):
                raise self.bad()

    def inner_list(self):
        """A list of components and the parameters of the signature."""
        if not self.literal("("):
            raise self.bad()
        items = []
        while True:
            gap = len(self.take(self.SPACES).group())
            if self.literal(")"):
                return items, self.parameters()
            name = (gap or not items) and self.take(self.STRING)
            if not name or len(items) == 32:
                raise self.bad()
            item = (self.plain(name.group(1)), self.parameters())
            if item in items:
                raise self.bad("names a component twice")
            items.append(item)

    def digest(self):
        """A byte sequence; its parameters mean nothing to anybody."""
        value = self.bare()
        if not isinstance(value, bytes):
            raise self.bad()
        self.parameters()
        return value

    def parameters(self):
        out = {}
        while self.literal(";"):
            self.take(self.SPACES)
            key = self.take(self.KEY)
            if not key or key.group() in out:
                raise self.bad()
            out[key.group()] = self.bare() if self.literal("=") else True
        return out

    def bare(self):
        m = self.take(self.STRING)
        if m:
            return self.plain(m.group(1))
        m = self.take(self.BYTES)
        if m:
            try:
                value = base64.b64decode(m.group(1), validate=True)
            except (ValueError, binascii.Error):
                raise self.bad() from None
            if base64.b64encode(value).decode() != m.group(1):
                raise self.bad("has base64 that is not canonical")
            return value
        m = self.take(self.NUMBER)
        if m:
            return _Token(m.group()) if "." in m.group() else int(m.group())
        m = self.take(self.BOOLEAN)
        if m:
            return m.group(1) == "1"
        m = self.take(self.TOKEN)
        if not m:
            raise self.bad()
        return _Token(m.group())

    @staticmethod
    def plain(text):
        return re.sub(r'\\(["\\])', r"\1", text)


def _bare(value):
    if isinstance(value, _Token):
        return str(value)
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return ":%s:" % base64.b64encode(value).decode()
    return '"%s"' % re.sub(r'(["\\])', r"\\\1", value)


def _parameters(parameters):
    return "".join(";" + k if v is True else ";%s=%s" % (k, _bare(v)) for k, v in parameters.items())


def _item(component):
    return _bare(component[0]) + _parameters(component[1])


def _component(text):
    """A component as this module writes it: name, then ;req or ;tr."""
    name, *flags = text.split(";")
    return name, {f: True for f in flags}


# ── Messages and what is signed of them (RFC 9421, section 2) ────────────────


class Message:
    """A message as it is signed. fields and trailers are pairs of a name and a value, in
    order; a response has a status and the request that it answers."""

    def __init__(self, *, method="", scheme="https", authority="", path="/", query="", status=None,
                 fields=(), trailers=(), request=None):
        self.method, self.scheme, self.authority = method, scheme, authority
        self.path, self.query = path, query  # as sent: percent-encoded, and the query without "?"
        self.status, self.request = status, request
        self.fields, self.trailers = list(fields), list(trailers)

    def has(self, component):
        name, flags = component
        m = self.request if "req" in flags else self
        return any(n.lower() == name for n, _ in (m.trailers if "tr" in flags else m.fields))

    def field(self, name, trailers=False):
        """The value of a field, of all its lines; None if there is none."""
        values = [v.strip(" \t") for n, v in (self.trailers if trailers else self.fields) if n.lower() == name]
        return ", ".join(values) if values else None

    def value(self, component):
        """The value of a component."""
        name, flags = component
        m = self
        if "req" in flags:
            m = self.request
        if m is None or not flags.keys() <= {"req", "tr"} or any(f is not True for f in flags.values()):
            raise _refuse("malformed", "component %s is not supported here" % _item(component))
        if not name.startswith("@"):
            value = m.field(name, "tr" in flags)
            if value is None:
                raise _refuse("coverage", "%s is signed and not there" % _item(component))
            return value
        if "tr" in flags or (name == "@status") == (m.status is None):
            raise _refuse("malformed", "component %s is not of such a message" % _item(component))
        values = {
            "@method": m.method,
            "@authority": m.host(),
            "@scheme": m.scheme.lower(),
            "@path": m.path or "/",
            "@query": "?" + m.query,
            "@target-uri": "%s://%s%s%s" % (m.scheme.lower(), m.host(), m.path or "/", "?" + m.query if m.query else ""),
            "@status": str(m.status),
        }
        if name not in values:
            raise _refuse("malformed", "component %s is not supported here" % _item(component))
        return values[name]

    def host(self):
        """The authority in lower case, without the port that is the scheme's own."""
        authority, default = self.authority.lower(), {"http": ":80", "https": ":443"}.get(self.scheme.lower(), "\n")
        return authority[: -len(default)] if authority.endswith(default) else authority

    def base(self, components, parameters):
        """The signature base (section 2.5)."""
        lines = []
        for c in components:
            value = self.value(c)
            if re.search(r"[^\t -~]", value):
                raise _refuse("malformed", "%s has characters that cannot be signed" % _item(c))
            lines.append("%s: %s" % (_item(c), value))
        lines.append('"@signature-params": ' + _input(components, parameters))
        return "\n".join(lines).encode("ascii")


def _input(components, parameters):
    return "(%s)%s" % (" ".join(map(_item, components)), _parameters(parameters))


def content_digest(content):
    """The value of Content-Digest (RFC 9530) of content as it is sent."""
    return "sha-256=" + _bare(hashlib.sha256(content).digest())


def _match_digest(value, content):
    """Compares content with every digest that counts: sha-256 and sha-512."""
    if value is None:
        raise _refuse("digest_missing")
    reader = _Reader("Content-Digest", value)
    digests = reader.dictionary(reader.digest)
    known = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
    count = [hmac.compare_digest(known[k](content).digest(), d) for k, d in digests.items() if k in known]
    if not count:
        raise _refuse("digest_missing", "no sha-256 or sha-512")
    if not all(count):
        raise _refuse("digest_mismatch", "the content is not what was signed")


# ── Signatures ───────────────────────────────────────────────────────────────


def _sign(key, message, tag, cover, if_present=(), nonce=None, label="sp", now=None):
    """The values of Signature-Input and Signature."""
    components = [_component(c) for c in cover]
    components += [c for c in map(_component, if_present) if message.has(c) and c not in components]
    created = int(time.time() if now is None else now)
    if nonce is None:
        nonce = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    parameters = {"created": created, "expires": created + MAX_AGE, "nonce": nonce, "keyid": key.id, "tag": tag}
    try:
        signature = key.sign(message.base(components, parameters))
    except NotVerified as e:
        raise ValueError("the message cannot be signed: %s" % e.detail) from None
    return "%s=%s" % (label, _input(components, parameters)), "%s=%s" % (label, _bare(signature))


#: A signature that was verified. claim tells it from all others; it is good until then.
Signature = namedtuple("Signature", "key_id label components parameters claim until")


def _signatures(message, trailers=False):
    """All signatures: by label, the components, the parameters and the signature itself."""
    inputs, values = message.field("signature-input", trailers), message.field("signature", trailers)
    if inputs is None and values is None:
        return {}
    if inputs is None or values is None:
        raise _refuse("malformed", "one of Signature-Input and Signature is missing")
    reader = _Reader("Signature-Input", inputs)
    inputs = reader.dictionary(reader.inner_list)
    reader = _Reader("Signature", values)
    values = reader.dictionary(reader.digest)
    if inputs.keys() != values.keys() or len(inputs) > 4:
        raise _refuse("malformed", "Signature-Input and Signature have different labels, or too many")
    return {label: inputs[label] + (values[label],) for label in inputs}


def _verify(message, keys, tag, require, if_present=(), nonce=None, trailers=False, authorities=None, now=None):
    """Finds the one signature with the tag and verifies it: what needs no key comes first."""
    found = _signatures(message, trailers)
    ours = [label for label, s in found.items() if s[1].get("tag") == tag]
    if not ours:
        raise _refuse("signature_missing", "no signature with the tag " + tag)
    if len(ours) > 1 or trailers and ours[0] in _signatures(message):
        raise _refuse("malformed", "several signatures with the same tag or label")
    components, parameters, signature = found[ours[0]]
    until = _timely(parameters, time.time() if now is None else now)
    covered = [_component(c) for c in require] + [c for c in map(_component, if_present) if message.has(c)]
    for c in covered:
        if c not in components:
            raise _refuse("coverage", "%s is not signed" % _item(c))
    if authorities is not None and message.host() not in authorities:
        raise _refuse("authority", "signed for another host")
    base = message.base(components, parameters)
    key = keys.get(parameters["keyid"], _NOBODY)
    if parameters.get("alg", key.algorithm) != key.algorithm or not key.verify(base, signature) or key is _NOBODY:
        raise _refuse("bad_signature", "keyid %s" % parameters["keyid"])
    if nonce is not None and parameters["nonce"] != nonce:
        raise _refuse("unbound", "the nonce is not that of the request")
    return Signature(key.id, ours[0], [_item(c) for c in components], parameters, signature[:16], until)


def _timely(parameters, now):
    created, expires = parameters.get("created"), parameters.get("expires", 1 << 60)
    if type(created) is not int or type(expires) is not int:
        raise _refuse("malformed", "the parameter created is missing, or a time is no integer")
    for name in ("keyid", "nonce"):
        if type(parameters.get(name)) is not str:
            raise _refuse("malformed", "the parameter %s is missing" % name)
    until = min(created + MAX_AGE, expires)
    if created > now + SKEW:
        raise _refuse("future", "%d s ahead: compare the clocks" % (created - now))
    if int(now) > until:
        raise _refuse("stale", "%d s old: compare the clocks" % (now - created))
    return until


# ── Clients ──────────────────────────────────────────────────────────────────


def _place(url, host=None):
    """What a URL asks for, as the parts of a Message. host is a Host that was set by hand."""
    u = urlsplit(url)
    name = u.hostname or ""
    if ":" in name:
        name = "[%s]" % name
    if u.port is not None:
        name = "%s:%d" % (name, u.port)
    if not name or u.scheme not in ("http", "https"):
        raise ValueError("the URL %r has no host, or is not of http" % url)
    return {"scheme": u.scheme, "authority": host or name, "path": u.path or "/", "query": u.query}


def _request(method, url, fields):
    host = next((v for n, v in fields if n.lower() == "host"), None)
    return Message(method=method, fields=fields, **_place(url, host))


#: An answer, for verify_response: headers and trailers are mappings or pairs.
Response = namedtuple("Response", "status_code headers content trailers request", defaults=((), None))

#: The request that it answers, with the headers that it was sent with.
Request = namedtuple("Request", "method url headers")


def _pairs(headers):
    """Headers of any kind as pairs of text."""
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)  # httpx has both
    pairs = items() if items else headers
    return [tuple(x.decode("latin-1") if isinstance(x, bytes) else str(x) for x in pair) for pair in pairs]


def verify_response(response, keys, *, accept_head_only=False, now=None):
    """Verifies an answer of requests or httpx, or a Response: that the gateway signed it for
    this very request, and that its content is what was signed. Returns the Signature, or
    raises a NotVerified.

    keys is the Key that signed the request, or a mapping from ids to Keys or secrets. Streams
    and long answers are signed in trailers, which neither requests nor httpx can see, or, for
    such clients, by their head alone: that is HeadOnly unless accept_head_only says that the
    content may be anybody's."""
    verified, read = _verify_head(response, _keys(keys), accept_head_only, now)
    if read is not None:
        read(response.content)
    return verified


def _verify_head(response, keys, accept_head_only, now=None):
    """Verifies the head. Returns its Signature and what is to be called with the content, or
    None where nothing is signed of that."""
    message = _answer(response)
    nonces = [s[1].get("nonce") for s in _signatures(message.request).values() if s[1].get("tag") == TAG_REQUEST]
    asked = message.request.field("accept-signature")
    if not nonces and asked is not None:
        reader = _Reader("Accept-Signature", asked)
        nonces = [p.get("nonce") for _, p in reader.dictionary(reader.inner_list).values() if p.get("tag") == TAG_RESPONSE]
    if len(nonces) != 1 or not nonces[0]:
        raise _refuse("unbound", "the request was not signed: its headers must be those that were sent")
    tags = {s[1].get("tag") for s in _signatures(message).values()}
    if_present = ("content-type", "content-encoding", "content-digest;req", "x-sallyport-model", "x-sallyport-model-version")
    check = functools.partial(_verify, message, keys, nonce=nonces[0], now=now)
    if TAG_RESPONSE in tags:
        signature = check(TAG_RESPONSE, ("@status", "content-digest", *_BINDING), if_present)

        def read(content):
            if message.field("content-encoding") not in (None, "identity") and not isinstance(response, Response):
                raise _refuse("content_encoding", "the answer came coded: send Accept-Encoding: identity")
            _match_digest(message.field("content-digest"), content)

        return signature, read
    if TAG_HEAD in tags:
        return check(TAG_HEAD, ("@status", *_BINDING), if_present), _Tail(message, check)
    if TAG_HEAD_ONLY not in tags:
        raise _refuse("signature_missing", "the answer with status %d bears no signature of the gateway" % message.status)
    signature = check(TAG_HEAD_ONLY, ("@status", *_BINDING), if_present)
    empty = message.request.method == "HEAD" or message.status in (204, 304)
    if not empty and not accept_head_only:
        raise _refuse("head_only", "nothing vouches for the content of this answer: see accept_head_only")
    return signature, None


class _Tail:
    """What vouches for a stream: a signature at its end, in trailers or in a comment."""

    COMMENT = b": sallyport-sig "

    def __init__(self, message, check):
        self.message, self._check = message, check
        media_type = (message.field("content-type") or "").partition(";")[0]
        self._inline = not message.trailers and media_type.strip().lower() == "text/event-stream"

    def __call__(self, content):
        if self._inline:
            at = self.begin(content)
            content, tail = content[:at], content[at:]
            self.end(content_digest(content), tail)
        else:
            self.end(content_digest(content))

    def begin(self, events):
        """Where in events, as far as they have come, the comment begins, or may begin."""
        at = events.rfind(b"\n" + self.COMMENT) + 1
        if events.startswith(self.COMMENT, at) and events.find(b"\n\n", at, len(events) - 2) < 0:
            return at
        at = events.rfind(b"\n") + 1
        return at if self.COMMENT.startswith(events[at:]) else len(events)

    def end(self, digest, comment=b""):
        """Verifies the end of content with a digest. The comment is what stands there for trailers."""
        parts = comment.decode("latin-1").rsplit(" ", 2)
        if comment.startswith(self.COMMENT) and len(parts) == 3 and parts[2].endswith("\n\n"):
            values = parts[0][len(self.COMMENT):], parts[1], parts[2][:-2]
            self.message.trailers = list(zip(("signature-input", "signature", "content-digest"), values))
        try:
            self._check(TAG_RESPONSE, ("@status", "content-digest;tr", *_BINDING), ("content-digest;req",), trailers=True)
        except SignatureMissing:  # not one that was never signed: the head has promised a tail
            raise _refuse("cut_short", "the signature at the end is missing") from None
        if self.message.field("content-digest", trailers=True) != digest:
            raise _refuse("digest_mismatch", "the content is not what was signed")


def verified_events(response, keys, chunks=None, *, now=None):
    """Hands on the content of a text/event-stream as it comes, in pieces of any length, and
    raises NotVerified at the end if that was not what the gateway signed: believe that nothing
    is missing only after that. The route must say `events: inline`.

        answer = requests.post(url, json=question, auth=SallyportAuth(id, secret, verify=False), stream=True)
        for piece in verified_events(answer, auth.keys): ...

    chunks is what the content comes from: response.iter_content(None) or response.iter_raw()
    if it is not given."""
    _, tail = _verify_head(response, _keys(keys), False, now)
    if chunks is None:
        chunks = response.iter_content(None) if hasattr(response, "iter_content") else response.iter_raw()
    if not isinstance(tail, _Tail):  # short, and signed in its head
        content = b"".join(chunks)
        tail(content)
        yield content
        return
    digest, held = hashlib.sha256(), b""
    for chunk in chunks:
        held += chunk
        at = tail.begin(held)
        digest.update(held[:at])
        if at:
            yield held[:at]
        held = held[at:]
    tail.end("sha-256=" + _bare(digest.digest()), held)


def _answer(response):
    """An answer of any library as a Message with its request."""
    sent = response.request
    if httpx and isinstance(sent, httpx.Request):
        request = _httpx_message(sent)
    else:
        request = _request(sent.method, _as_sent(sent.url), _pairs(sent.headers))
    return Message(status=response.status_code, fields=_pairs(response.headers), request=request,
                   trailers=_pairs(getattr(response, "trailers", None) or ()))


def _as_sent(url):
    """urllib3 sends percent-encoding in capitals, whatever it was given."""
    return re.sub("%[0-9a-fA-F]{2}", lambda m: m.group().upper(), url)


class SallyportAuth:
    """Signs the requests of requests, and verifies the answers: auth=SallyportAuth(id, secret).

    secret is the text of a key file: base64, or an Ed25519 key in PEM. Content must be bytes,
    text, form fields or JSON. Answers are read whole and verified before they are handed on,
    but for the content of those that accept_head_only lets through; where verify is False,
    verify_response is to be called.

    accept_unsigned lets answers pass that bear no signature at all, such as refusals by who
    does not know the key; what bears one must verify all the same. cover are further fields to
    be signed where they are sent. response_key are further keys that may sign answers, as a
    mapping, or the text of https://HOST/.well-known/sallyport/keys: who signs with a private
    key needs it. Redirects are not signed anew: pass allow_redirects=False, and follow them by hand."""

    def __init__(self, key_id, secret, response_key=None, *, verify=True, accept_head_only=False, accept_unsigned=False,
                 cover=("authorization",)):
        self.key = secret if isinstance(secret, Key) else Key(key_id, secret)
        self.keys = _keys(response_key or {})
        if self.key.algorithm == "hmac-sha256":
            self.keys[self.key.id] = self.key
        elif verify and not self.keys:
            raise ValueError("answers to requests of a private key need a response_key, or verify=False")
        self.verify, self.accept_head_only, self.accept_unsigned = verify, accept_head_only, accept_unsigned
        self.cover, self._ask = tuple(c.lower() for c in cover), response_key is not None

    @classmethod
    def from_file(cls, key_id, path, *args, **options):
        """SallyportAuth with the key in a file."""
        with open(path, encoding="ascii") as f:
            return cls(key_id, f.read(), *args, **options)

    def headers(self, method, url, headers=(), content=b"", created=None, nonce=None):
        """What must be sent besides the headers given, for clients of any kind. All must be as it
        is sent: the path percent-encoded, the method in capitals. Signed are the headers that say
        what the content is, and those of cover. Send Accept-Encoding: identity too: answers in
        another coding may reach you decoded, as what nobody signed."""
        return self._headers(_request(method, url, _pairs(headers)), content_digest(content), created, nonce)

    def _headers(self, message, digest, created=None, nonce=None):
        """Signs a message, and returns what was added to it. Without a digest the content is not signed."""
        message.fields = [f for f in message.fields if f[0].lower() not in ("content-digest", "signature", "signature-input")]
        out = {} if digest is None else {"Content-Digest": digest}
        message.fields += [(n.lower(), v) for n, v in out.items()]
        signature_input, signature = _sign(self.key, message, TAG_REQUEST, (*_TARGET, *(n.lower() for n in out)),
                                           ("content-type", "content-encoding", *self.cover), nonce=nonce, now=created)
        out.update({"Signature-Input": signature_input, "Signature": signature})
        message.fields += [("signature-input", signature_input), ("signature", signature)]
        if self._ask:
            # No components: those that the gateway covers by itself, which are more than could be named here.
            out["Accept-Signature"] = 'sp=();created;tag="%s"' % TAG_RESPONSE
        return out

    def verify_response(self, response, accept_head_only=None):
        """verify_response with the keys of this."""
        return verify_response(response, self.keys,
                               accept_head_only=self.accept_head_only if accept_head_only is None else accept_head_only)

    def __call__(self, r):
        content = r.body
        if content is None:
            content = b""
        elif isinstance(content, str):
            content = content.encode()
        elif isinstance(content, (bytearray, memoryview)):
            content = bytes(content)
        if not isinstance(content, bytes):
            raise TypeError("the digest of the content is signed before it is sent, so it must be bytes and not a %s: pass "
                            "data=file.read(), or data=b\"\".join(parts)" % type(content).__name__)
        if r.body is not None:
            r.body = content
            r.headers["Content-Length"] = str(len(content))
            r.headers.pop("Transfer-Encoding", None)
        r.url = _as_sent(r.url)
        r.headers["Accept-Encoding"] = "identity"
        r.headers.update(self.headers(r.method, r.url, r.headers, content))
        if self.verify:
            self._watch(r)
        return r

    def _watch(self, r):
        """Has the answer to a request verified, once."""
        r.deregister_hook("response", self._answered)
        r.register_hook("response", self._answered)

    def _answered(self, response, **_):
        try:
            _, read = _verify_head(response, self.keys, self.accept_head_only)
            if read is not None:
                read(response.content)
        except SignatureMissing as e:
            if not self.accept_unsigned:
                raise _explained(e, response) from None
        except NotVerified as e:
            e.response = response
            response.close()
            raise


class SallyportReader(SallyportAuth):
    """For requests of who has a token and no key: does not sign, but asks for answers that the
    gateway signs with the key that it publishes, and verifies them. response_key is the text of
    https://HOST/.well-known/sallyport/keys, fetched once and kept."""

    def __init__(self, response_key, *, accept_head_only=False, accept_unsigned=False):
        self.keys, self.accept_head_only, self.accept_unsigned = _keys(response_key), accept_head_only, accept_unsigned

    def __call__(self, r):
        nonce = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        r.url = _as_sent(r.url)
        r.headers["Accept-Encoding"] = "identity"
        r.headers["Accept-Signature"] = 'sp=();created;nonce="%s";tag="%s"' % (nonce, TAG_RESPONSE)
        self._watch(r)
        return r


def _explained(e, response):
    """Returns the error for an unsigned answer: Refused if the answer has the gateway's reason."""
    reason, text = _reason(response.content) if response.status_code >= 400 else ("", "")
    if reason:
        e = Refused(reason, "%s (status %d; this refusal is not signed)" % (text or "refused", response.status_code))
        e.status = response.status_code
    e.response = response
    return e


def _reason(content):
    """Returns the reason and the text of a refusal. The reason is the same member in all formats."""
    try:
        said = json.loads(content[:65536])
        reason, text = said.get("reason"), said.get("title") or said.get("error")
    except (ValueError, AttributeError):
        return "", ""
    if isinstance(text, dict):  # the format of OpenAI's servers
        text = text.get("message")
    if not isinstance(reason, str) or not re.fullmatch("[a-z][a-z0-9_]{0,63}", reason):
        return "", ""
    return reason, re.sub(r"[^ -~]", " ", text)[:200] if isinstance(text, str) else ""


def _httpx_message(request):
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    return Message(method=request.method, scheme=request.url.scheme, authority=request.headers["Host"],
                   path=path, query=query, fields=request.headers.multi_items())


class SallyportHTTPXAuth(httpx.Auth if httpx else object):
    """SallyportAuth for httpx, sync and async. Content that is streamed is read into memory first."""

    requires_request_body = True

    def __init__(self, key_id, secret, response_key=None, **options):
        if httpx is None:
            raise ImportError("SallyportHTTPXAuth needs the package httpx")
        self._auth = SallyportAuth(key_id, secret, response_key, **options)

    def _sign(self, request):
        request.headers["Accept-Encoding"] = "identity"
        request.headers.update(self._auth._headers(_httpx_message(request), content_digest(request.content)))

    def _head(self, response):
        """What the content is to be given to, if it is signed."""
        try:
            return _verify_head(response, self._auth.keys, self._auth.accept_head_only)[1] if self._auth.verify else None
        except SignatureMissing:
            if not self._auth.accept_unsigned:
                raise
            return None

    def sync_auth_flow(self, request):
        request.read()
        self._sign(request)
        response = yield request
        try:
            read = self._head(response)
            if read is not None:
                read(response.read())
        except SignatureMissing as e:
            if response.status_code >= 400:
                response.read()
            raise _explained(e, response) from None
        except NotVerified as e:
            e.response = response
            response.close()
            raise

    async def async_auth_flow(self, request):
        await request.aread()
        self._sign(request)
        response = yield request
        try:
            read = self._head(response)
            if read is not None:
                read(await response.aread())
        except SignatureMissing as e:
            if response.status_code >= 400:
                await response.aread()
            raise _explained(e, response) from None
        except NotVerified as e:
            e.response = response
            await response.aclose()
            raise


# ── gRPC ─────────────────────────────────────────────────────────────────────


#: Statuses that a library of gRPC makes itself when a call breaks off, by their numbers. They claim
#: nothing about the server, so they need no signature.
_BROKEN_OFF = (1, 2, 4, 8, 13, 14)  # CANCELLED UNKNOWN DEADLINE_EXCEEDED RESOURCE_EXHAUSTED INTERNAL UNAVAILABLE


class SigningChannel:
    """A channel of grpc whose calls are signed and whose answers are verified: give it to stubs.

        options = [("grpc.enable_retries", 0)]  # each attempt needs a signature of its own
        channel = grpc.secure_channel("models.example.com:443", credentials, options)
        stub = PredictionServiceStub(SigningChannel(channel, SallyportAuth(id, secret), "models.example.com:443"))

    authority is what the channel calls the server: its target, or grpc.default_authority. An
    answer of one message is handed on once it is verified. Of a stream each message is handed on
    as it comes, and the end raises NotVerified if it was not what was signed: believe that
    nothing is missing only after that.

    A call that fails raises grpc.RpcError as ever, if the gateway has signed its status; its text
    and details are not signed. It does so too for a status that grpc makes itself when a call
    breaks off, such as UNAVAILABLE. Any other status without a signature raises Refused, whose
    code is the status in lower case, such as unauthenticated: the gateway does not know the key,
    or somebody on the way answered. accept_unsigned of auth lets it pass as grpc.RpcError.

    Messages are not compressed, since what is signed is what is sent. Requests that are streams
    cannot be signed before they are sent: with headers_only the content of such is left out,
    which the gateway must allow. For channels of grpc.aio there is SigningAioChannel."""

    def __init__(self, channel, auth, authority, *, scheme="https", headers_only=False):
        self._channel, self._auth, self._headers_only = channel, auth, headers_only
        self._place = {"authority": authority, "scheme": scheme}

    def unary_unary(self, method, request_serializer=None, response_deserializer=None, *args, **options):
        return self._call("unary_unary", method, request_serializer, response_deserializer, args, options)

    def unary_stream(self, method, request_serializer=None, response_deserializer=None, *args, **options):
        return self._call("unary_stream", method, request_serializer, response_deserializer, args, options)

    def stream_unary(self, method, request_serializer=None, response_deserializer=None, *args, **options):
        return self._call("stream_unary", method, request_serializer, response_deserializer, args, options)

    def stream_stream(self, method, request_serializer=None, response_deserializer=None, *args, **options):
        return self._call("stream_stream", method, request_serializer, response_deserializer, args, options)

    def _call(self, arity, method, serializer, deserializer, args, options):
        # Without serializers the channel takes and gives bytes.
        inner = getattr(self._channel, arity)(method, None, None, *args, **options)
        requests, answers = arity.split("_")
        return self._kinds()[answers == "stream"](self, inner, method, serializer, deserializer, requests == "stream")

    @staticmethod
    def _kinds():
        return _Call, _StreamCall

    def subscribe(self, callback, try_to_connect=False):
        return self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback):
        return self._channel.unsubscribe(callback)

    def close(self):
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Frames:
    """The digest of messages as they are sent: not compressed, each after its length."""

    def __init__(self, *messages):
        self._hash = hashlib.sha256()
        for m in messages:
            self.add(m)

    def add(self, message):
        self._hash.update(b"\0" + len(message).to_bytes(4, "big"))
        self._hash.update(message)

    def digest(self):
        return "sha-256=" + _bare(self._hash.digest())


class _Call:
    """Calls of one method. Messages go through the channel as bytes, so that what is signed here is what is sent."""

    def __init__(self, channel, inner, method, serializer, deserializer, stream):
        self._of, self._inner, self._path, self._stream = channel, inner, method, stream
        self._serialize, self._deserialize = serializer or bytes, deserializer or bytes

    def _start(self, request, timeout, metadata, options):
        """What to send, what to send it with, and the Message that was signed."""
        import grpc

        metadata = list(metadata or ())
        fields = [(n, v) for n, v in metadata if isinstance(v, str)]
        message = Message(method="POST", path=self._path, fields=[*fields, ("content-type", "application/grpc")], **self._of._place)
        if self._stream:
            if not self._of._headers_only:
                raise TypeError("a stream of requests cannot be signed before it is sent: see headers_only of SigningChannel")
            content, digest = self._serialize_all(request), None
        else:
            content = self._serialize(request)
            digest = _Frames(content).digest()
        metadata += ((n.lower(), v) for n, v in self._of._auth._headers(message, digest).items())
        return content, {**options, "timeout": timeout, "metadata": metadata, "compression": grpc.Compression.NoCompression}, message

    def _serialize_all(self, requests):
        return map(self._serialize, requests)

    def __call__(self, request, timeout=None, metadata=None, **options):
        return self.with_call(request, timeout, metadata, **options)[0]

    def with_call(self, request, timeout=None, metadata=None, **options):
        import grpc

        content, options, message = self._start(request, timeout, metadata, options)
        try:
            answer, call = self._inner.with_call(content, **options)
        except grpc.RpcError as e:
            self._verify(message, e)
            raise
        self._verify(message, call, _Frames(answer))
        return self._deserialize(answer), call

    def future(self, request, timeout=None, metadata=None, **options):
        content, options, message = self._start(request, timeout, metadata, options)
        return _VerifiedFuture(self, self._inner.future(content, **options), message)

    def _verify(self, request, call, frames=None):
        """Verifies the end of a call: its status, its model and, where frames are given, all that came."""
        self._verify_end(request, call, call.code(), call.details(), call.initial_metadata(), call.trailing_metadata(), frames)

    def _verify_end(self, request, call, code, details, head, tail, frames):
        if not self._of._auth.verify:
            return
        head, tail = _pairs(head or ()), [*_pairs(tail or ()), ("grpc-status", str(code.value[0]))]
        message = Message(status=200, fields=head, trailers=tail, request=request)
        nonce, = (s[1]["nonce"] for s in _signatures(request).values())
        parts = [s[0] for s in _signatures(message, True).values() if s[1].get("tag") == TAG_RESPONSE]
        at = ";tr"
        if ("grpc-status", {}) in sum(parts, []) and message.field("signature-input") is None:
            # An answer without messages is one block of fields, which grpc reports as trailers, and mostly without its media type.
            at, message.fields, message.trailers = "", [*head, *tail], []
            if message.field("content-type") is None:
                message.fields.append(("content-type", "application/grpc"))
        if_present = ("content-digest;req", "x-sallyport-model", "x-sallyport-model-version", *(() if at else ("content-type",)))
        try:
            _verify(message, self._of._auth.keys, TAG_RESPONSE, ("@status", "grpc-status" + at, "content-digest" + at, *_BINDING),
                    if_present, nonce=nonce, trailers=bool(at))
        except SignatureMissing:
            if self._of._auth.accept_unsigned or code.value[0] in _BROKEN_OFF:
                return
            if code.value[0]:
                e = Refused(code.name.lower(), "%s (this refusal is not signed)" % details)
            else:
                e = _refuse("signature_missing", "the answer bears no signature of the gateway")
            e.status, e.response = code, call
            raise e from None
        if frames is not None and message.field("content-digest", trailers=bool(at)) != frames.digest():
            raise _refuse("digest_mismatch", "the content is not what was signed, or the server compressed it")


class _StreamCall(_Call):
    def __call__(self, request, timeout=None, metadata=None, **options):
        content, options, message = self._start(request, timeout, metadata, options)
        return _VerifiedStream(self, self._inner(content, **options), message)


class _VerifiedFuture:
    """The answer to come, and all else that a call of grpc can do."""

    def __init__(self, method, call, request):
        self._method, self._call, self._request = method, call, request

    def result(self, timeout=None):
        import grpc

        try:
            answer = self._call.result(timeout)
        except grpc.RpcError:
            self._method._verify(self._request, self._call)
            raise
        self._method._verify(self._request, self._call, _Frames(answer))
        return self._method._deserialize(answer)

    def exception(self, timeout=None):
        import grpc

        try:
            self.result(timeout)
        except (grpc.RpcError, SallyportError) as e:
            return e
        return None

    def add_done_callback(self, f):
        self._call.add_done_callback(lambda _: f(self))

    def __getattr__(self, name):
        return getattr(self._call, name)


class _VerifiedStream:
    """The messages of an answer, and all else that a call of grpc can do."""

    def __init__(self, method, call, request):
        self._method, self._call, self._request, self._frames = method, call, request, _Frames()

    def __iter__(self):
        return self

    def __next__(self):
        import grpc

        try:
            answer = next(self._call)
        except (StopIteration, grpc.RpcError):
            self._method._verify(self._request, self._call, self._frames)
            raise
        self._frames.add(answer)
        return self._method._deserialize(answer)

    def __getattr__(self, name):
        return getattr(self._call, name)


class SigningAioChannel(SigningChannel):
    """SigningChannel for a channel of grpc.aio."""

    @staticmethod
    def _kinds():
        return _AioCall, _AioStreamCall

    async def close(self, grace=None):
        await self._channel.close(grace)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    def __getattr__(self, name):
        return getattr(self._channel, name)


class _AioCall(_Call):
    def __call__(self, request=None, timeout=None, metadata=None, **options):
        content, options, message = self._start(request, timeout, metadata, options)
        return self._begun(self._inner(content, **options), message)

    def _serialize_all(self, requests):
        if requests is None:  # they come by write
            return None
        return self._serialize_async(requests) if hasattr(requests, "__aiter__") else map(self._serialize, requests)

    async def _serialize_async(self, requests):
        async for r in requests:
            yield self._serialize(r)

    def _begun(self, call, request):
        return _VerifiedAioCall(self, call, request)

    async def _verify(self, request, call, frames=None):
        head, tail = tuple(await call.initial_metadata() or ()), tuple(await call.trailing_metadata() or ())
        self._verify_end(request, call, await call.code(), await call.details(), head, tail, frames)


class _AioStreamCall(_AioCall):
    def _begun(self, call, request):
        return _VerifiedAioStream(self, call, request)


class _VerifiedAioCall:
    """An answer to be awaited, and all else that a call of grpc.aio can do."""

    def __init__(self, method, call, request):
        self._method, self._call, self._request = method, call, request

    def __await__(self):
        return self._verified().__await__()

    async def _verified(self):
        import grpc

        try:
            answer = await self._call
        except grpc.RpcError:
            await self._method._verify(self._request, self._call)
            raise
        await self._method._verify(self._request, self._call, _Frames(answer))
        return self._method._deserialize(answer)

    async def write(self, request):
        await self._call.write(self._method._serialize(request))

    def __getattr__(self, name):
        return getattr(self._call, name)


class _VerifiedAioStream:
    """The messages of an answer, and all else that a call of grpc.aio can do."""

    def __init__(self, method, call, request):
        self._method, self._call, self._request, self._frames = method, call, request, _Frames()

    def __aiter__(self):
        return self

    async def __anext__(self):
        import grpc

        answer = await self.read()
        if answer is grpc.aio.EOF:
            raise StopAsyncIteration
        return answer

    async def read(self):
        import grpc

        try:
            answer = await self._call.read()
        except grpc.RpcError:
            await self._method._verify(self._request, self._call, self._frames)
            raise
        if answer is grpc.aio.EOF:
            await self._method._verify(self._request, self._call, self._frames)
            return answer
        self._frames.add(answer)
        return self._method._deserialize(answer)

    async def write(self, request):
        await self._call.write(self._method._serialize(request))

    def __getattr__(self, name):
        return getattr(self._call, name)


# ── Servers behind the gateway ───────────────────────────────────────────────


#: Who calls, as the gateway says: proven by its signature.
Caller = namedtuple("Caller", "principal request_id key_id nonce")


class Replays:
    """Remembers signatures until they are stale, in this process alone. Where there is no
    room for another, requests are refused: none is forgotten early."""

    def __init__(self, room=100_000):
        self.room, self._until, self._lock = room, {}, threading.Lock()

    def __call__(self, claim, until):
        """Whether a signature was seen before."""
        with self._lock:
            if claim in self._until:
                return True
            if len(self._until) >= self.room:
                now = time.time()
                self._until = {c: u for c, u in self._until.items() if u >= now}
                if len(self._until) >= self.room:
                    raise _refuse("replay_full")
            self._until[claim] = until
            return False


class Gateway:
    """The gateway, as a server behind it knows it: by its keys (a mapping from ids to
    secrets) and by how it calls this server, the host, and port, of gateway.yaml's upstream.

    identity are the fields that must be signed, and any other X-Sallyport field must be where
    it is there. seen is told of each signature (its claim and until when to remember) and
    says whether it was there before: share one between processes to stop replays between
    them. The gateway has stopped those of clients in any case. answers is the Key that signs
    what this server answers, for `verify` of gateway.yaml's upstream; answers are held whole
    then, so it is not for streams."""

    def __init__(self, keys, *, authority, scheme="http", identity=("x-sallyport-principal",), max_content=32 << 20, seen=None,
                 answers=None):
        self.keys, self.scheme, self.max_content = _keys(keys), scheme, max_content
        names = (authority,) if isinstance(authority, str) else authority
        self.authorities = {Message(scheme=scheme, authority=a).host() for a in names}
        self.identity = tuple(n.lower() for n in identity)
        self.seen, self.answers = Replays() if seen is None else seen, answers

    def head(self, message):
        """Verifies a request before its content is read. Returns the Caller."""
        ours = {n.lower() for n, _ in message.fields if n.lower().startswith("x-sallyport-")}
        s = _verify(message, self.keys, TAG_FORWARD, (*_TARGET, "content-digest", *self.identity),
                    ("content-type", "content-encoding", *sorted(ours)), authorities=self.authorities)
        if self.seen(s.claim, s.until):
            raise _refuse("replayed")
        request_id = message.field("x-sallyport-request-id") or message.field("x-request-id")
        return Caller(message.field("x-sallyport-principal"), request_id, s.key_id, s.parameters["nonce"])

    def content(self, message, content):
        """Compares the content with its digest, which head has seen to be signed."""
        _match_digest(message.field("content-digest"), content)

    def seal(self, message, caller, status, headers, content):
        """The headers that sign an answer to the request in message, besides those it has."""
        signed, cover, tag = [], ["@status", *_BINDING], TAG_HEAD_ONLY
        if message.method != "HEAD" and status not in (204, 304):
            signed, cover, tag = [("Content-Digest", content_digest(content))], [cover[0], "content-digest", *cover[1:]], TAG_RESPONSE
        answer = Message(status=status, fields=[*headers, *signed], request=message)
        values = _sign(self.answers, answer, tag, cover, ("content-type", "content-encoding", "content-digest;req"), nonce=caller.nonce)
        return [*signed, *zip(("Signature-Input", "Signature"), values)]

    def too_long(self):
        return _refuse("body_too_large", "more than %d bytes" % self.max_content)


def _refusal(e):
    """The answer to a refused request: status, media type and content."""
    status = {"digest_missing": 400, "digest_mismatch": 400, "body_too_large": 413, "authority": 421, "replay_full": 503}
    return status.get(e.code, 401), "application/json", json.dumps({"error": "refused", "reason": e.code}).encode()


def _wsgi_message(environ, scheme):
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")  # of gunicorn and werkzeug; of uWSGI
    if raw:
        raw = re.sub("^[a-zA-Z]+://[^/?]*", "", raw)
        path, _, query = raw.partition("?")
    else:  # what it decodes to is what the app sees: if this is what was signed, so is that
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        path, query = quote(path.encode("latin-1"), safe="/-._~!$&'()*+,;=:@"), environ.get("QUERY_STRING", "")
    fields = [(k[5:].replace("_", "-").lower(), v) for k, v in environ.items() if k.startswith("HTTP_")]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            fields.append((name.replace("_", "-").lower(), environ[name]))
    return Message(method=environ["REQUEST_METHOD"], scheme=scheme, authority=environ.get("HTTP_HOST", ""), path=path,
                   query=query, fields=fields)


def _verify_wsgi(environ, gateway):
    """Verifies a request and puts its content back. Returns its Message and the Caller."""
    message = _wsgi_message(environ, gateway.scheme)
    caller = gateway.head(message)
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdigit():
        limit = int(length)
    else:
        limit = gateway.max_content + 1 if environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ else 0
    if limit > gateway.max_content and length.isdigit():
        raise gateway.too_long()
    content = environ["wsgi.input"].read(limit) if limit else b""
    if len(content) > gateway.max_content:
        raise gateway.too_long()
    gateway.content(message, content)
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(content), str(len(content))
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ["sallyport.caller"] = caller
    return message, caller


class WSGIMiddleware:
    """Lets only those requests through to a WSGI app that the gateway signed, whole. The app
    finds its Caller in environ["sallyport.caller"]."""

    def __init__(self, app, gateway):
        self.app, self.gateway = app, gateway

    def __call__(self, environ, start_response):
        try:
            message, caller = _verify_wsgi(environ, self.gateway)
        except NotVerified as e:
            status, media_type, body = _refusal(e)
            start_response("%d Refused" % status, [("Content-Type", media_type), ("Content-Length", str(len(body)))])
            return [body]
        if self.gateway.answers is None:
            return self.app(environ, start_response)
        begun, parts = [], []

        def begin(status, headers, exc_info=None):
            begun[:] = [status, headers]
            return parts.append

        rest = self.app(environ, begin)
        try:
            parts += rest
        finally:
            getattr(rest, "close", lambda: None)()
        (status, headers), content = begun, b"".join(parts)
        start_response(status, [*headers, *self.gateway.seal(message, caller, int(status[:3]), headers, content)])
        return [content]


def signed_by(gateway):
    """A decorator of Flask's views: WSGIMiddleware for one of them. It must stand below
    @app.route. The view finds its Caller in flask.g.sallyport."""

    def decorate(view):
        @functools.wraps(view)
        def guarded(*args, **kwargs):
            import flask

            try:
                message, flask.g.sallyport = _verify_wsgi(flask.request.environ, gateway)
            except NotVerified as e:
                status, media_type, body = _refusal(e)
                return flask.Response(body, status, content_type=media_type)
            # What Flask has made of the stream already is of before it was read.
            flask.request.__dict__.pop("stream", None)
            answer = view(*args, **kwargs)
            if gateway.answers is not None:
                answer = flask.make_response(answer)
                answer.direct_passthrough = False
                content = answer.get_data()
                answer.headers.extend(gateway.seal(message, flask.g.sallyport, answer.status_code, list(answer.headers), content))
            return answer

        return guarded

    return decorate


class ASGIMiddleware:
    """Lets only those requests through to an ASGI app that the gateway signed, whole. The app
    finds its Caller in scope["sallyport.caller"]. WebSockets, whose content nothing signs,
    are closed."""

    def __init__(self, app, gateway):
        self.app, self.gateway = app, gateway

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            message, content = await self._verified(scope, receive)
        except NotVerified as e:
            status, media_type, body = _refusal(e)
            headers = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        parts = [{"type": "http.request", "body": content, "more_body": False}]

        async def again():
            return parts.pop() if parts else await receive()

        await self.app(scope, again, send if self.gateway.answers is None else self._sealing(scope, message, send))

    def _sealing(self, scope, message, send):
        """send for an answer that is signed once it is whole."""
        begun, parts = [], []

        async def sealed(event):
            if event["type"] == "http.response.start":
                begun.append(event)
                return
            parts.append(event.get("body", b""))
            if event.get("more_body", False):
                return
            content, headers = b"".join(parts), list(begun[0].get("headers", ()))
            signed = self.gateway.seal(message, scope["sallyport.caller"], begun[0]["status"], _pairs(headers), content)
            headers += ((n.lower().encode(), v.encode()) for n, v in signed)
            await send({**begun[0], "headers": headers})
            await send({"type": "http.response.body", "body": content})

        return sealed

    async def _verified(self, scope, receive):
        """Verifies a request and returns its Message and its content."""
        fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"]]
        path = scope.get("raw_path") or quote(scope["path"], safe="/-._~!$&'()*+,;=:@").encode()
        message = Message(method=scope["method"], scheme=self.gateway.scheme, path=path.decode("ascii", "replace").partition("?")[0],
                          query=scope["query_string"].decode("latin-1"), fields=fields)
        message.authority = message.field("host") or ""
        caller = self.gateway.head(message)
        parts, size, more = [], 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise _refuse("digest_mismatch", "the content ended early")
            parts.append(event.get("body", b""))
            size, more = size + len(parts[-1]), event.get("more_body", False)
            if size > self.gateway.max_content:
                raise self.gateway.too_long()
        content = b"".join(parts)
        self.gateway.content(message, content)
        scope["sallyport.caller"] = caller
        return message, content


# ── The test vector of `sallyport keygen` ────────────────────────────────────


def check(vector, secret):
    """Signs the request of a test vector again and returns what came out differently: by name, ours and the vector's."""
    r = vector["request"]
    auth = SallyportAuth(vector["key_id"], secret, verify=False)
    got = auth.headers(r["method"], r["url"], r["headers"], r["content"].encode(), vector["created"], vector["nonce"])
    message = _request(r["method"], r["url"], [*_pairs(r["headers"]), *got.items()])
    (components, parameters, _), = _signatures(message).values()
    pairs = {"signature base": (message.base(components, parameters).decode(), vector["signature_base"])}
    pairs.update({name: (got[name], vector["signed_headers"][name]) for name in got})
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def main(args):
    if len(args) != 3 or args[0] != "check":
        print("usage: sallyport_client.py check VECTOR.json KEY-FILE", file=sys.stderr)
        return 2
    with open(args[1], encoding="utf-8") as v, open(args[2], encoding="ascii") as k:
        faults = check(json.load(v), k.read())
    for name, (ours, theirs) in faults.items():
        print("%s differs\n  here    %r\n  vector  %r" % (name, ours, theirs), file=sys.stderr)
    print("refused: see above" if faults else "ok: the signature is that of the test vector")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
