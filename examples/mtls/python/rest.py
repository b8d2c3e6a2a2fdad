"""Asks for predictions by REST with a client certificate: rest.py URL ROOT.PEM CERT KEY"""

import sys

import requests

url, root, cert, key = sys.argv[1:]
answer = requests.post(url, json={"instances": [1.0, 2.0, 5.0]}, cert=(cert, key), verify=root, timeout=60)
print(answer.status_code, answer.json().get("predictions") or answer.json())
