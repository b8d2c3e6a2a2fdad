"""An ASGI app behind the gateway, signed in both directions.

    GATEWAY_KEY=keys/gw-app OWN_KEY=keys/app AUTHORITY=127.0.0.1:5001 uvicorn --port 5001 asgi:app
"""
import json
import os

from sallyport_client import ASGIMiddleware, Gateway, Key

with open(os.environ["GATEWAY_KEY"]) as theirs, open(os.environ["OWN_KEY"]) as own:
    gateway = Gateway({"gw-app-2026-11": theirs.read()}, authority=os.environ["AUTHORITY"], answers=Key("app-2026-11", own.read()))


async def predict(scope, receive, send):
    features = json.loads((await receive())["body"])
    answer = json.dumps({"prediction": sum(features.values()), "caller": scope["sallyport.caller"].principal}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


app = ASGIMiddleware(predict, gateway)
