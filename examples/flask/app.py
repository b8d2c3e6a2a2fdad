"""An ordinary Flask model server: it knows nothing of TLS, tokens or sallyport."""
import time

from flask import Flask, Response, jsonify, request, stream_with_context

app = Flask(__name__)


@app.get("/health")
def health():
    return jsonify(status="ok")


@app.post("/predict")
def predict():
    """The "model": the sum of the JSON object's values."""
    features = request.get_json()
    return jsonify(prediction=sum(features.values()))


@app.get("/stream")
def stream():
    """Five server-sent events, a tenth of a second apart."""

    def events():
        for n in range(5):
            yield f"data: {n}\n\n"
            time.sleep(0.1)

    return Response(events(), content_type="text/event-stream")


@app.get("/weights")
def weights():
    """A large download: as many MiB as are asked for."""

    def pieces():
        for _ in range(int(request.args["mib"])):
            yield bytes(1 << 20)

    return Response(stream_with_context(pieces()), content_type="application/octet-stream")


@app.route("/echo", methods=["GET", "POST", "PUT", "DELETE"])
def echo():
    """Returns the request as it arrived, with what the gateway says about the caller."""
    size = 0
    while chunk := request.stream.read(1 << 16):
        size += len(chunk)
    return jsonify(method=request.method, path=request.path, query=request.query_string.decode(),
                   headers=sorted([k.lower(), v] for k, v in request.headers), body_bytes=size)
