"""An ordinary Flask app with several models: it knows nothing of TLS, keys or sallyport."""
from flask import Flask, jsonify, request

app = Flask(__name__)
models = {"churn": sum, "fraud": max}


@app.get("/health")
def health():
    return jsonify(status="ok")


@app.post("/predict/<name>")
def predict(name):
    """The "model": what it makes of the list of numbers."""
    if name not in models:
        return jsonify(error="no such model"), 404
    return jsonify(model=name, prediction=models[name](request.get_json()))


@app.post("/retrain/<name>")
def retrain(name):
    return jsonify(retrained=name)
