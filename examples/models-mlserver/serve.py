"""Serves double (v1), secret (1 and 2) and idle with MLServer: serve.py FOLDER REST_PORT GRPC_PORT

FOLDER is where the settings are written; MLServer reads its models from there.
"""
import json
import os
import sys

folder, rest, grpc = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(content, f)


write(os.path.join(folder, "settings.json"), {
    "host": "127.0.0.1", "http_port": int(rest), "grpc_port": int(grpc), "metrics_endpoint": None,
    "parallel_workers": 0, "grpc_max_message_length": 64 << 20,
})
for name, version in ("double", "v1"), ("secret", "1"), ("secret", "2"), ("idle", "1"):
    write(os.path.join(folder, f"{name}-{version}", "model-settings.json"), {
        "name": name, "implementation": "double.Double", "parameters": {"version": version},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    })
os.environ["PYTHONPATH"] = here
os.execv(os.path.join(os.path.dirname(sys.executable), "mlserver"), ["mlserver", "start", folder])
