"""Asks the Flask model until its standard input ends: TOKEN=... python client_flask.py URL ROOT.PEM

Prints a line for each request that failed, and how many there were.
"""
import os
import sys
import threading

import requests

url, root = sys.argv[1:3]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
asked = failed = 0
with requests.Session() as session:
    session.headers["Authorization"] = "Bearer " + os.environ["TOKEN"]
    print("asks", flush=True)
    while not ended.is_set():
        asked += 1
        try:
            answer = session.post(url, json={"a": 1, "b": 2}, verify=root, timeout=30)
            if answer.status_code == 200 and answer.json() == {"prediction": 3}:
                continue
            print("failed:", answer.status_code, answer.text.strip(), flush=True)
        except (requests.RequestException, ValueError) as e:
            print("failed:", e, flush=True)
        failed += 1
print(f"asked {'some' if asked else 'none'}, {failed} failed", flush=True)
