"""The PyPI package http-message-signatures 3.0.0 as a client, with requests to carry the messages.

    REQUESTS_CA_BUNDLE=root.pem python pypi_http_message_signatures.py https://localhost:8443/predict acme-2026-11 acme.key '{"a": 40, "b": 2}'
"""
import base64
import datetime
import secrets
import sys

import requests
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, MappingKeyResolver, algorithms
from http_message_signatures.exceptions import HTTPMessageSignaturesException

url, key_id, file, body = sys.argv[1:]
with open(file) as f:
    secret = base64.b64decode(f.read())
keys = MappingKeyResolver(public_keys={key_id: secret}, private_keys={key_id: secret})
minute = datetime.timedelta(seconds=60)


class Verifier(HTTPMessageVerifier):
    max_clock_skew = datetime.timedelta(seconds=30)


def post(url, content):
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    request = requests.Request("POST", url, data=content, headers=headers).prepare()
    nonce, created = secrets.token_urlsafe(16), datetime.datetime.now()
    HTTPMessageSigner(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=keys).sign(
        request,
        key_id=key_id,
        created=created,
        expires=created + minute,
        nonce=nonce,
        tag="sallyport-req",
        covered_component_ids=("@method", "@authority", "@path", "@query", "content-type"),
        body=content,  # adds Content-Digest and covers it
    )
    answer = requests.Session().send(request, verify=sys_ca(), allow_redirects=False)
    (verified,) = Verifier(signature_algorithm=algorithms.HMAC_SHA256, key_resolver=keys).verify(
        answer,
        max_age=minute,
        expect_tag="sallyport-resp",
        require_components=("@status", "content-digest", '"@method";req', '"@authority";req', '"@path";req', '"@query";req', '"content-digest";req'),
        body=answer.content,
    )
    if verified.nonce != nonce:  # the package leaves this to its caller
        raise HTTPMessageSignaturesException("the answer is to another request")
    return answer


def sys_ca():
    """Session.send does not look into the environment, as requests.post does."""
    return requests.Session().merge_environment_settings(url, {}, None, None, None)["verify"]


try:
    answer = post(url, body.encode())
    print(answer.status_code, answer.text.strip())
except HTTPMessageSignaturesException as e:
    sys.exit("%s: %s" % (type(e).__name__, e))
