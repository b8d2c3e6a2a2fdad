"""Asks the model through sallyport, as a batch job would: a token by client credentials, then a call.

    CLIENT_SECRET=... client.py https://localhost:9000 provider.crt https://localhost:8443 root.pem '{"a": 1, "b": 2}'
"""
import json
import os
import sys

import requests

provider, provider_ca, gateway, gateway_ca, features = sys.argv[1:]

answer = requests.post(
    provider + "/token",
    data={"grant_type": "client_credentials", "scope": "models.predict"},
    auth=("batch", os.environ["CLIENT_SECRET"]),
    verify=provider_ca,
    timeout=30,
)
answer.raise_for_status()

answer = requests.post(
    gateway + "/predict",
    json=json.loads(features),
    headers={"Authorization": "Bearer " + answer.json()["access_token"]},
    verify=gateway_ca,
    timeout=30,
)
print(answer.status_code, answer.text.strip())
