"""A Flask model server that answers the gateway alone: each view takes only what sallyport signed, whole.

    GATEWAY_KEY=keys/gw-app AUTHORITY=127.0.0.1:5000 gunicorn --bind 127.0.0.1:5000 app:app
"""
import os
import time

from flask import Flask, Response, g, jsonify, request
from sallyport_client import Gateway, signed_by

with open(os.environ["GATEWAY_KEY"]) as key:
    gateway = Gateway({"gw-app-2026-11": key.read()}, authority=os.environ["AUTHORITY"])

app = Flask(__name__)


@app.get("/health")
@signed_by(gateway)
def health():
    return jsonify(status="ok")


@app.post("/predict")
@signed_by(gateway)
def predict():
    """The "model": the sum of the JSON object's values. The caller is proven, not told."""
    return jsonify(prediction=sum(request.get_json().values()), caller=g.sallyport.principal)


@app.route("/echo", methods=["GET", "POST", "PUT", "DELETE"])
@app.route("/echo/<path:rest>", methods=["GET", "POST"])
@signed_by(gateway)
def echo(rest=""):
    return jsonify(rest=rest, query=request.query_string.decode(), content=request.get_data(as_text=True), type=request.content_type)


@app.route("/events", methods=["GET", "POST"])
@app.route("/events/inline", methods=["GET", "POST"])
@signed_by(gateway)
def events():
    """Three server-sent events, a tenth of a second apart."""

    def pieces():
        for n in range(3):
            yield f"data: {n}\n\n"
            time.sleep(0.1)

    return Response(pieces(), content_type="text/event-stream")


@app.route("/weights", methods=["GET", "POST"])
@signed_by(gateway)
def weights():
    """2 MiB: more than the gateway holds to sign them in the head of the answer."""
    return Response(bytes(2 << 20), content_type="application/octet-stream")
