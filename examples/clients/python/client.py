"""Calls a model through sallyport, signed. That the answer is the gateway's, to this very call, is verified on the way.

    client.py https://localhost:8443/predict python-2026-11 keys/python '{"a": 40, "b": 2}'
"""
import sys

import requests
from sallyport_client import NotVerified, SallyportAuth

url, key_id, key_file, question = sys.argv[1:]
try:
    answer = requests.post(url, data=question, headers={"Content-Type": "application/json"}, auth=SallyportAuth.from_file(key_id, key_file))
    print(answer.status_code, answer.text.strip())
except NotVerified as e:
    sys.exit("do not act on this: %s" % e)
