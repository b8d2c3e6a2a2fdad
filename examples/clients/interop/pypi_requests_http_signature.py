"""The PyPI package requests-http-signature 2.0.0 as a client.

    REQUESTS_CA_BUNDLE=root.pem python pypi_requests_http_signature.py https://localhost:8443/predict acme-2026-11 acme.key '{"a": 40, "b": 2}'
"""
import base64
import datetime
import secrets
import sys

import requests
from http_message_signatures import HTTPMessageVerifier, InvalidSignature, MappingKeyResolver
from requests_http_signature import HTTPSignatureAuth, algorithms

url, key_id, file, body = sys.argv[1:]
with open(file) as f:
    secret = base64.b64decode(f.read())
minute = datetime.timedelta(seconds=60)


class Verifier(HTTPMessageVerifier):
    max_clock_skew = datetime.timedelta(seconds=30)


class Auth(HTTPSignatureAuth):
    verifier_class = Verifier
    nonce = None

    def get_nonce(self, request):
        """The nonce is kept, since nothing else ties an answer to its request."""
        self.nonce = secrets.token_urlsafe(16)
        return self.nonce


def post(url, content):
    auth = Auth(
        signature_algorithm=algorithms.HMAC_SHA256,
        key=secret,
        key_id=key_id,
        tag="sallyport-req",
        use_nonce=True,
        expires_in=minute,
        covered_component_ids=("@method", "@authority", "@path", "@query", "content-type"),  # content-digest and date are added
    )
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    answer = requests.post(url, data=content, headers=headers, auth=auth, allow_redirects=False)
    verified = Auth.verify(
        answer,
        signature_algorithm=algorithms.HMAC_SHA256,
        key_resolver=MappingKeyResolver(public_keys={key_id: secret}, private_keys={}),
        max_age=minute,
        expect_tag="sallyport-resp",
        require_components=("@status", "content-digest", '"@method";req', '"@authority";req', '"@path";req', '"@query";req', '"content-digest";req'),
    )
    if verified.nonce != auth.nonce:
        raise InvalidSignature("the answer is to another request")
    return answer


try:
    answer = post(url, body.encode())
    print(answer.status_code, answer.text.strip())
except InvalidSignature as e:
    sys.exit("%s: %s" % (type(e).__name__, e))
