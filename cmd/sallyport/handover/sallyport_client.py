"""Signs requests to a sallyport gateway and verifies its answers (RFC 9421, RFC 9530).

One file; the standard library is enough for a secret (hmac-sha256). A private key (ed25519) needs the package "cryptography".

    import requests
    from sallyport_client import SallyportAuth

    auth = SallyportAuth.from_file("acme-2026-11", "acme-2026-11.secret")
    answer = requests.post("https://models.example.com/v1/models/half:predict", json={"instances": [1.0]}, auth=auth)
    auth.verify_response(answer)  # raises NotVerified: do not act on the answer before

Each attempt must be signed anew: retry above requests, never with HTTPAdapter(max_retries=...), which sends a signature twice.
See that this file and the key agree with the gateway, without a network:

    python3 sallyport_client.py check test-vector.json acme-2026-11.secret
"""
import base64
import hashlib
import hmac
import json
import os
import re
import sys
import time
from urllib.parse import urlsplit

LIFETIME = 60  # seconds from created to expires
SKEW = 30  # seconds by which clocks may differ
ACCEPT_SIGNATURE = ('sp=("@status" "content-digest" "@method";req "@authority";req "@path";req "@query";req);'
                    'created;tag="sallyport-resp"')
DEFAULT_PORTS = {"https": 443, "http": 80}


class NotVerified(Exception):
    """The answer is not what the gateway signed for this request. code is a word for programs."""

    def __init__(self, code, text):
        super().__init__("%s: %s" % (code, text))
        self.code = code


class SallyportAuth:
    """Signs what requests sends: requests.post(..., auth=SallyportAuth(key_id, secret)). For other libraries see headers().

    secret is base64 text, or a private key in PEM. Whoever has a private key gives response_key too, with which answers are
    verified: the gateway's public key in PEM, or the text of https://HOST/.well-known/sallyport/keys.
    """

    def __init__(self, key_id, secret, response_key=None, now=time.time):
        self.key_id, self._now = key_id, now
        self._key = _key(secret)
        self._response_key = _public(response_key) if response_key else self._key
        self._ask = bool(response_key)  # for a signature by the gateway's own key

    @classmethod
    def from_file(cls, key_id, path, **options):
        with open(path, encoding="ascii") as f:
            return cls(key_id, f.read(), **options)

    def __call__(self, r):
        """Signs a requests.PreparedRequest."""
        content = r.body if r.body is not None else b""
        if isinstance(content, str):
            content = content.encode()
        if not isinstance(content, (bytes, bytearray)):
            raise TypeError("the content is signed before it is sent: give bytes, not a file or a generator")
        # Content that the library decodes could not be compared with its digest.
        r.headers["Accept-Encoding"] = "identity"
        r.headers.update(self.headers(r.method, r.url, dict(r.headers), bytes(content)))
        return r

    def headers(self, method, url, headers=None, content=b"", created=None, nonce=None):
        """Returns what to send besides the headers given. Send the URL and the content as given here, and once."""
        return self._sign(method, url, headers or {}, content, created, nonce)[0]

    def _sign(self, method, url, headers, content, created=None, nonce=None):
        """Returns the headers and the signature base."""
        digest = "sha-256=:%s:" % _b64(hashlib.sha256(content).digest())
        fields = _lower(headers)
        fields["content-digest"] = digest
        covered = ["@method", "@authority", "@path", "@query", "content-digest"]
        covered += [name for name in ("content-type", "content-encoding") if name in fields]
        created = int(self._now()) if created is None else created
        nonce = nonce or base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        parameters = '(%s);created=%d;expires=%d;nonce="%s";keyid="%s";tag="sallyport-req"' % (
            " ".join('"%s"' % c for c in covered), created, created + LIFETIME, nonce, self.key_id)
        base = _base(covered, parameters, {**fields, **_target(method, url, fields)})
        signature = self._key.sign(base.encode("ascii"))
        signed = {"Content-Digest": digest, "Signature-Input": "sp=" + parameters, "Signature": "sp=:%s:" % _b64(signature)}
        if self._ask:
            signed["Accept-Signature"] = ACCEPT_SIGNATURE
        return signed, base

    def verify_response(self, response, head_only=False):
        """Raises NotVerified unless a response of requests, with its content, is what the gateway signed for its request.

        With head_only, answers pass of which only the head is signed: streams, whose content nothing proves then.
        """
        r = response.request
        content = b"" if head_only and not getattr(response, "_content_consumed", True) else response.content
        self.verify(response.status_code, dict(response.headers), content, r.method, r.url, dict(r.headers), head_only)

    def verify(self, status, headers, content, method, url, request_headers, head_only=False):
        """Is verify_response for other libraries. request_headers are those sent, signature and all; content is as received."""
        fields, sent = _lower(headers), _lower(request_headers)
        requested = _parse_input(sent.get("signature-input", ""))
        nonce = next((p.get("nonce") for _, p, _ in requested.values() if p.get("tag") == "sallyport-req"), None)
        tag, required = "sallyport-resp", ["@status", "content-digest"]
        empty = method == "HEAD" or status in (204, 304)
        signatures = _parse_input(fields.get("signature-input", ""))
        tags = [p.get("tag") for _, p, _ in signatures.values()]
        if tag not in tags and (head_only or empty) and "sallyport-resp-head-only" in tags:
            tag, required = "sallyport-resp-head-only", ["@status"]
        label = _only(tag, signatures)
        covered, p, parameters = signatures[label]
        required += ['%s";req' % c for c in ("@method", "@authority", "@path", "@query")]
        required += [c for c in ("content-type", "content-encoding") if c in fields]
        required += ['content-digest";req'] if "content-digest" in sent else []
        for c in required:
            if c not in covered:
                raise NotVerified("coverage", '%s is not covered' % c.replace('"', ""))
        self._timely(p)
        if nonce is None or p.get("nonce") != nonce:
            raise NotVerified("unbound", "the nonce is not that of the request")
        known = {**fields, "@status": str(status)}
        for name, value in {**sent, **_target(method, url, sent)}.items():
            known[name + '";req'] = value
        signature = _signature(label, fields.get("signature", ""))
        if not self._response_key.verify(_base(covered, parameters, known).encode("ascii", "replace"), signature):
            raise NotVerified("bad_signature", "the signature does not match")
        if tag == "sallyport-resp":
            _compare(content, fields)

    def _timely(self, p):
        now, created = int(self._now()), p.get("created")
        expires = p.get("expires", created)
        if type(created) is not int or type(expires) is not int:
            raise NotVerified("malformed", "the parameter created is missing")
        if created > now + SKEW:
            raise NotVerified("future", "the signature is from the future; compare the clocks")
        if now > created + LIFETIME or "expires" in p and now > expires:
            raise NotVerified("stale", "the signature is too old; compare the clocks")


def _base(covered, parameters, known):
    """The signature base (RFC 9421, section 2.5). Components are named as in Signature-Input, without the outer quotes."""
    lines = []
    for c in covered:
        if c not in known:
            raise NotVerified("bad_signature", "no value for " + c.replace('"', ""))
        name = c if c.endswith(";req") else c + '"'
        lines.append('"%s: %s' % (name, known[c]))
    return "\n".join(lines + ['"@signature-params": ' + parameters])


def _target(method, url, fields):
    u = urlsplit(url)
    # Host names host and port as they are sent; otherwise the URL does. Neither a default port nor a user belongs to it.
    a = urlsplit("//" + fields["host"]) if fields.get("host") else u
    host = a.hostname or ""
    if ":" in host:
        host = "[%s]" % host  # an IPv6 literal
    if a.port and a.port != DEFAULT_PORTS.get(u.scheme):
        host += ":%d" % a.port
    return {"@method": method, "@authority": host.lower(), "@path": u.path or "/", "@query": "?" + u.query}


def _lower(headers):
    out = {}
    for name, value in headers.items():
        value = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        name = name.decode("latin-1") if isinstance(name, bytes) else name
        out[name.lower()] = value.strip(" \t")
    return out


# Signature-Input is read strictly: what was signed is the canonical form, and only that matches.
_COMPONENT = re.compile(r'"([a-z0-9@!#$%&\'*+.^_`|~-]+)"((?:;[a-z]+(?:="[ !#-\[\]-~]*")?)*)')
_PARAMETER = re.compile(r';([a-z*][a-z0-9_.*-]*)(?:=(?:(0|-?[1-9][0-9]{0,14})|"([ !#-\[\]-~]*)"))?')
_LABEL = re.compile(r'([a-z*][a-z0-9_.*-]*)=')
_BYTES = re.compile(r':([A-Za-z0-9+/]*={0,2}):')
_COMMA = re.compile(r'[ \t]*,[ \t]*')


def _members(text, read):
    """Reads a dictionary: read(position) gives a value and where it ends."""
    out, at = {}, 0
    while text:
        m = _LABEL.match(text, at)
        if not m or m.group(1) in out:
            raise NotVerified("malformed", "the signature cannot be read")
        out[m.group(1)], at = read(m.end())
        if at == len(text):
            break
        m = _COMMA.match(text, at)
        if not m:
            raise NotVerified("malformed", "the signature cannot be read")
        at = m.end()
    return out


def _parse_input(text):
    """Gives, by label: the components, the parameters by name, and both as text."""

    def read(begin):
        covered, p, at = [], {}, begin + 1
        if text[begin:at] != "(":
            raise NotVerified("malformed", "the signature cannot be read")
        while text[at:at + 1] != ")":
            m = _COMPONENT.match(text, at + 1 if covered and text[at:at + 1] == " " else at)
            name = m and m.group(1) + ('"' + m.group(2) if m.group(2) else "")
            if not m or (covered and text[at:at + 1] != " ") or name in covered:
                raise NotVerified("malformed", "the signature cannot be read")
            covered.append(name)
            at = m.end()
        at += 1
        while m := _PARAMETER.match(text, at):
            if m.group(1) in p:
                raise NotVerified("malformed", "the signature cannot be read")
            p[m.group(1)] = int(m.group(2)) if m.group(2) else m.group(3) if m.group(3) is not None else True
            at = m.end()
        return (covered, p, text[begin:at]), at

    return _members(text, read)


def _only(tag, signatures):
    labels = [label for label, (_, p, _) in signatures.items() if p.get("tag") == tag]
    if not labels:
        raise NotVerified("signature_missing", "no signature with tag %s was found" % tag)
    if len(labels) > 1:
        raise NotVerified("malformed", "several signatures with tag %s" % tag)
    return labels[0]


def _bytes_members(text):
    def read(at):
        m = _BYTES.match(text, at)
        if not m:
            raise NotVerified("malformed", "a field is no dictionary of byte sequences")
        return base64.b64decode(m.group(1)), m.end()

    try:
        return _members(text, read)
    except ValueError:
        raise NotVerified("malformed", "a field holds no base64") from None


def _signature(label, text):
    members = _bytes_members(text)
    if label not in members:
        raise NotVerified("malformed", "Signature and Signature-Input have other labels")
    return members[label]


def _compare(content, fields):
    if fields.get("content-encoding", "identity") != "identity":
        raise NotVerified("digest_mismatch", "encoded content cannot be compared: send Accept-Encoding: identity")
    known = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
    digests = {name: value for name, value in _bytes_members(fields["content-digest"]).items() if name in known}
    if not digests:
        raise NotVerified("digest_missing", "the digest of the content is missing")
    for name, value in digests.items():
        if not hmac.compare_digest(known[name](content).digest(), value):
            raise NotVerified("digest_mismatch", "the content does not match its digest")


class _HMAC:
    def __init__(self, secret):
        if len(secret) < 32:
            raise ValueError("the secret has %d bytes, want at least 32" % len(secret))
        self._secret = secret

    def sign(self, base):
        return hmac.new(self._secret, base, hashlib.sha256).digest()

    def verify(self, base, signature):
        return hmac.compare_digest(self.sign(base), signature)


class _Ed25519:
    def __init__(self, private=None, public=None):
        self._private, self._public = private, public or private.public_key()

    def sign(self, base):
        return self._private.sign(base)

    def verify(self, base, signature):
        from cryptography.exceptions import InvalidSignature
        try:
            self._public.verify(signature, base)
        except InvalidSignature:
            return False
        return True


def _key(secret):
    text = secret.decode("ascii") if isinstance(secret, bytes) else secret
    if "-----BEGIN" not in text:
        return _HMAC(base64.b64decode(text.strip(), validate=True))
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    return _Ed25519(private=load_pem_private_key(text.encode(), None))


def _public(text):
    text = text.decode("ascii") if isinstance(text, bytes) else text
    if text.lstrip().startswith("{"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        keys = [k for k in json.loads(text)["keys"] if k.get("crv") == "Ed25519"]
        if len(keys) != 1:
            raise ValueError("%d Ed25519 keys, want one" % len(keys))
        return _Ed25519(public=Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(keys[0]["x"] + "=")))
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    return _Ed25519(public=load_pem_public_key(text.encode()))


def _b64(b):
    return base64.b64encode(b).decode("ascii")


def check(vector, secret):
    """Signs the request of a test vector again and returns what came out differently: by name, ours and the vector's."""
    r = vector["request"]
    auth = SallyportAuth(vector["key_id"], secret)
    got, base = auth._sign(r["method"], r["url"], r["headers"], r["content"].encode(), vector["created"], vector["nonce"])
    pairs = {"signature base": (base, vector["signature_base"])}
    pairs.update({name: (got[name], vector["signed_headers"][name]) for name in got})
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def main(args):
    if len(args) != 3 or args[0] != "check":
        print("usage: sallyport_client.py check VECTOR.json SECRET-FILE", file=sys.stderr)
        return 2
    with open(args[1], encoding="utf-8") as v, open(args[2], encoding="ascii") as s:
        faults = check(json.load(v), s.read())
    for name, (ours, theirs) in faults.items():
        print("%s differs\n  here    %r\n  vector  %r" % (name, ours, theirs), file=sys.stderr)
    print("ok: the signature is that of the test vector" if not faults else "refused: see above")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
