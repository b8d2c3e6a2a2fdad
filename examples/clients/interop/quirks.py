"""What the PyPI packages do of themselves, a line for each, as the README tells it.

    REQUESTS_CA_BUNDLE=root.pem python quirks.py https://localhost:8443/predict interop-2026-11 interop.key
"""
import base64
import datetime
import re
import sys

import requests
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, MappingKeyResolver, algorithms
from requests_http_signature import HTTPSignatureAuth

url, key_id, file = sys.argv[1:]
with open(file) as f:
    secret = base64.b64decode(f.read())
keys = MappingKeyResolver(public_keys={key_id: secret}, private_keys={key_id: secret})
signer = HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=keys)


def tell(name, what):
    print("%s: %s" % (name, what))


def refused(call):
    try:
        call()
    except Exception as e:
        return str(e)
    return "taken"


def prepared(method="POST", url=url):
    return requests.Request(method, url, data=b'{"a": 1}', headers={"Content-Type": "application/json"}).prepare()


def sign(r, **options):
    signer.sign(r, key_id=key_id, body=r.body, **options)
    return r


now = datetime.datetime.now()
r = sign(prepared(), expires=now, nonce="n", tag="t", covered_component_ids=("@method",))
tell("parameters", re.sub("[0-9]{9,}", "N", re.sub(r"\(.*?\)", "()", r.headers["Signature-Input"].replace(key_id, "ID"))))
tell("default components", re.search(r"\((.*?)\)", sign(prepared()).headers["Signature-Input"]).group(1))
lower = prepared()
lower.method = "post"
tell("method post", refused(lambda: sign(lower)))
tell("tr", refused(lambda: sign(prepared(), covered_component_ids=("@method", '"content-type";tr'))))
tell("default port", re.search('"@authority": (.*)', signer.prepare(prepared(url="https://H.example:443/"), key_id=key_id).signature_base.decode()).group(1))
tell("clock skew", HTTPMessageVerifier.max_clock_skew)
yesterday = sign(prepared(), created=now - datetime.timedelta(hours=23))
tell("verifies a signature of 23 hours ago", refused(lambda: HTTPMessageVerifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=keys).verify(yesterday)))


def ask(**options):
    auth = HTTPSignatureAuth(signature_algorithm=algorithms.HMAC_SHA256, key=secret, key_id=key_id, **options)
    a = requests.post(url, data=b'{"a": 1}', headers={"Content-Type": "application/json"}, auth=auth)
    ask.components = re.search(r"\((.*?)\)", a.request.headers["Signature-Input"]).group(1)
    return "taken" if a.ok else a.json()["reason"]


tell("requests defaults", ask())
tell("requests default components", ask.components)
tell("requests with tag", ask(tag="sallyport-req"))
typed = ("@method", "@target-uri", "content-type")
tell("requests with content-type", ask(tag="sallyport-req", covered_component_ids=typed))
tell("requests with nonce", ask(tag="sallyport-req", covered_component_ids=typed, use_nonce=True))
