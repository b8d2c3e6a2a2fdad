"""Calls of the official stubs (tensorflow-serving-api) through the gateway: TOKEN=... python client.py HOST:PORT ROOT.PEM

Prints a line for each.
"""
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

target, root = sys.argv[1:]
with open(root, "rb") as f:
    tls = grpc.ssl_channel_credentials(f.read())
credentials = grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(os.environ["TOKEN"]))


def spec(request, name, version=None, label=None):
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    return request


def predict(name, values=(1.0, 2.0, 5.0), **version):
    request = spec(predict_pb2.PredictRequest(), name, **version)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(list(values), dtype=tf.float32))
    return request


def examples(request):
    example = request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(2.0)
    return request


def say(what, call, request, show=lambda answer: "OK", **options):
    try:
        print(what + ":", show(call(request, timeout=30, **options)))
    except grpc.RpcError as e:
        print(what + ":", e.code().name, e.details())


def numbers(answer):
    y = tf.make_ndarray(answer.outputs["y"]).tolist()
    return f"{y if len(y) < 10 else len(y)} by version {answer.model_spec.version.value}"


options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
with grpc.secure_channel(target, credentials, options) as channel:
    prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    model = model_service_pb2_grpc.ModelServiceStub(channel)
    say("predict", prediction.Predict, predict("half_plus_two"), numbers)
    say("one version", prediction.Predict, predict("secret", version=1), numbers)
    say("a label", prediction.Predict, predict("secret", label="stable"), numbers)
    say("the other version", prediction.Predict, predict("secret", version=2))
    say("the latest", prediction.Predict, predict("secret"))
    say("version 0", prediction.Predict, predict("secret", version=0))
    say("an unknown model", prediction.Predict, predict("nothing"))
    say("compressed", prediction.Predict, predict("half_plus_two"), numbers, compression=grpc.Compression.Gzip)
    say("compressed, of the other version", prediction.Predict, predict("secret", version=2), compression=grpc.Compression.Gzip)
    say("large", prediction.Predict, predict("half_plus_two", [1.0] * 2_000_000), numbers)
    say("classify", prediction.Classify, examples(spec(classification_pb2.ClassificationRequest(), "half_plus_two")),
        lambda a: a.result.classifications[0].classes[0].score)
    say("regress", prediction.Regress, examples(spec(regression_pb2.RegressionRequest(), "half_plus_two")), lambda a: a.result.regressions[0].value)
    multi = examples(inference_pb2.MultiInferenceRequest())
    for method in "classify", "regress":
        spec(multi.tasks.add(method_name="tensorflow/serving/" + method), "half_plus_two")
    say("two tasks", prediction.MultiInference, multi, lambda a: len(a.results))
    spec(multi.tasks.add(method_name="tensorflow/serving/regress"), "secret", version=1)
    say("a task of another model", prediction.MultiInference, multi)
    say("metadata", prediction.GetModelMetadata, spec(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), "half_plus_two"),
        lambda a: a.model_spec.version.value)
    say("status", model.GetModelStatus, spec(get_model_status_pb2.GetModelStatusRequest(), "half_plus_two"), lambda a: a.model_version_status[0].version)
    say("status of another model", model.GetModelStatus, spec(get_model_status_pb2.GetModelStatusRequest(), "secret"))
    say("reload", model.HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest())
    say("profiler", channel.unary_unary("/tensorflow.ProfilerService/Profile"), b"")
    say("session", channel.unary_unary("/tensorflow.serving.SessionService/SessionRun"), b"")
    say("another service", channel.unary_unary("/inference.GRPCInferenceService/ModelInfer"), b"")

with grpc.secure_channel(target, tls) as channel:
    say("no token", prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict, predict("half_plus_two"))
