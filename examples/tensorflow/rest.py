"""The JSON half of TensorFlow Serving's REST API: bodies to protos, one gRPC call, protos to bodies.

rest_front reads HTTP and the path; what it found comes here over a UNIX socket,
one request a connection: six fields (operation, model, version, label, content
encoding, body), each a 4 byte big-endian length and its bytes. The answer is a
4 byte status and one field, the body.
"""
import base64
import json
import math
import os
import socketserver
import struct
import zlib

import grpc
import numpy
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

# From a gRPC code to an HTTP status, as TensorFlow Serving does; others are 500.
HTTP = {1: 499, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401}
INFLATED = 100 << 20


class BadBody(Exception):
    pass


def first_wins(pairs):
    """rapidjson finds the first of two members with one name."""
    out = {}
    for k, v in pairs:
        out.setdefault(k, v)
    return out


def parse(body):
    if not body:
        return {}
    try:
        doc = json.loads(body, object_pairs_hook=first_wins)
    except (ValueError, RecursionError):
        raise BadBody("JSON Parse error: Invalid value. at offset: 0") from None
    if not isinstance(doc, dict):
        raise BadBody("Malformed request: not a JSON object")
    return doc


def floats(values):
    try:
        return numpy.asarray(values, dtype=numpy.float32)
    except (TypeError, ValueError):
        raise BadBody("JSON Value: is not of expected type: float") from None


def decimal(v):
    if math.isnan(v):
        return "NaN"
    if math.isinf(v):
        return "Infinity" if v > 0 else "-Infinity"
    return repr(float(str(numpy.float32(v))))


def tensor(t):
    """A float tensor as JSON, nested as its shape is."""
    def nest(values, shape):
        if not shape:
            return decimal(values[0])
        step = len(values) // shape[0] if shape[0] else 0
        return "[" + ", ".join(nest(values[i * step:(i + 1) * step], shape[1:]) for i in range(shape[0])) + "]"

    return nest(list(t.float_val), [d.size for d in t.tensor_shape.dim])


def feature(name, value):
    f = tf.train.Feature()
    for v in value if isinstance(value, list) else [value]:
        if isinstance(v, dict) and set(v) == {"b64"}:
            f.bytes_list.value.append(base64.b64decode(v["b64"]))
        elif isinstance(v, str):
            f.bytes_list.value.append(v.encode())
        elif isinstance(v, float):
            f.float_list.value.append(v)
        elif isinstance(v, int):
            f.int64_list.value.append(v)
        else:
            raise BadBody(f"Feature: {name} has element with unexpected JSON type: {type(v).__name__}")
    return f


class Rest:
    def __init__(self, address):
        channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(channel)

    def answer(self, op, name, version, label, encoding, body):
        """The status and the body for one request."""
        try:
            if "gzip" in encoding:
                body = inflate(body)
            return 200, getattr(self, op)(self.spec(name, version, label), body)
        except BadBody as e:
            return 400, error(str(e))
        except grpc.RpcError as e:
            return HTTP.get(e.code().value[0], 500), error(e.details())

    def spec(self, name, version, label):
        def fill(request, doc=None):
            request.model_spec.name = name
            if version:
                request.model_spec.version.value = int(version)
            if label:
                request.model_spec.version_label = label
            if doc and "signature_name" in doc:
                request.model_spec.signature_name = doc["signature_name"]
            return request

        return fill

    def predict(self, fill, body):
        doc = parse(body)
        if "instances" in doc and "inputs" in doc:
            raise BadBody("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
        request = fill(predict_pb2.PredictRequest(), doc)
        if "instances" in doc:
            rows = doc["instances"]
            if not isinstance(rows, list) or not rows:
                raise BadBody("JSON Value: 'instances' must be a non-empty list")
            columns = {k: [row[k] for row in rows] for k in rows[0]} if isinstance(rows[0], dict) else {"x": rows}
        elif "inputs" in doc:
            columns = doc["inputs"] if isinstance(doc["inputs"], dict) else {"x": doc["inputs"]}
        else:
            raise BadBody("Missing 'inputs' or 'instances' key")
        for k, v in columns.items():
            request.inputs[k].CopyFrom(tf.make_tensor_proto(floats(v)))
        outputs = [tensor(t) for t in self.prediction.Predict(request).outputs.values()]
        if "inputs" in doc:
            return '{\n    "outputs": ' + outputs[0] + "\n}"
        # The line break before the bracket is TensorFlow Serving's own.
        return '{\n    "predictions": ' + outputs[0][:-1] + "\n    ]\n}"

    def examples(self, request, doc):
        if not isinstance(doc.get("examples"), list) or not doc["examples"]:
            raise BadBody("When method is classify, key 'examples' is expected and was not found")
        for e in doc["examples"]:
            if not isinstance(e, dict):
                raise BadBody("Example must be JSON object but got JSON " + type(e).__name__)
            example = request.input.example_list.examples.add()
            for source in (doc.get("context") or {}, e):
                for k, v in source.items():
                    example.features.feature[k].CopyFrom(feature(k, v))
        return request

    def classify(self, fill, body):
        doc = parse(body)
        answer = self.prediction.Classify(self.examples(fill(classification_pb2.ClassificationRequest(), doc), doc))
        rows = (", ".join(f"[{json.dumps(c.label)}, {decimal(c.score)}]" for c in r.classes) for r in answer.result.classifications)
        return '{\n    "results": [' + ", ".join(f"[{r}]" for r in rows) + "\n    ]\n}"

    def regress(self, fill, body):
        doc = parse(body)
        answer = self.prediction.Regress(self.examples(fill(regression_pb2.RegressionRequest(), doc), doc))
        return '{\n    "results": [' + ", ".join(decimal(r.value) for r in answer.result.regressions) + "\n    ]\n}"

    def status(self, fill, _):
        answer = self.model.GetModelStatus(fill(get_model_status_pb2.GetModelStatusRequest()))
        return json_format.MessageToJson(answer, indent=1, always_print_fields_with_no_presence=True) + "\n"

    def metadata(self, fill, _):
        request = fill(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
        answer = self.prediction.GetModelMetadata(request)
        defs = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(defs)
        # Sorted, because the order of the signatures would change from call to call.
        spec, defs = (json_format.MessageToJson(m, indent=1, sort_keys=True, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
                      for m in (answer.model_spec, defs))
        return '{\n"model_spec":' + spec + ',\n"metadata": {"signature_def": ' + defs + "}\n}\n"


def inflate(body):
    d = zlib.decompressobj(wbits=31)
    try:
        out = d.decompress(body, INFLATED)
    except zlib.error:
        raise BadBody("Failed to uncompress the gzipped body") from None
    if d.unconsumed_tail:
        raise BadBody("Failed to uncompress the gzipped body")
    return out


def error(text):
    return '{\n    "error": ' + json.dumps(text) + "\n}"


def serve(path, grpc_address):
    """Answers rest_front until the process ends."""
    calls = Rest(grpc_address)

    class Handler(socketserver.StreamRequestHandler):
        def field(self):
            (n,) = struct.unpack(">I", self.rfile.read(4))
            return self.rfile.read(n)

        def handle(self):
            op, name, version, label, encoding = (self.field().decode("utf-8", "replace") for _ in range(5))
            status, text = calls.answer(op, name, version, label, encoding, self.field())
            text = text.encode()
            self.wfile.write(struct.pack(">II", status, len(text)) + text)

    if os.path.exists(path):
        os.unlink(path)
    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        server.daemon_threads = True
        server.serve_forever()
