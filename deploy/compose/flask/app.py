"""A model server as there are many: no TLS, no authentication. sallyport stands before it."""
from flask import Flask, jsonify, request

app = Flask(__name__)


@app.get("/health")
def health():
    return jsonify(status="ok")


@app.post("/predict")
def predict():
    """The "model": the sum of the values, for the caller that sallyport names."""
    features = request.get_json()
    return jsonify(prediction=sum(features.values()), caller=request.headers.get("X-Sallyport-Principal"))
