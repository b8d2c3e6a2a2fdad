"""Calls of requests and grpcio through the gateway to TorchServe: TOKEN=... python client.py HOST:PORT ROOT.PEM

Prints a line for each. The stubs are made of the .proto files in TorchServe's own jar.
"""
import json
import os
import sys
import tempfile
import zipfile

import grpc
import requests
import ts

target, root = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["TOKEN"]


def rest(what, method, path, body=None, show=lambda answer: "OK", **options):
    answer = session.request(method, f"https://{target}{path}", json=body, verify=root, timeout=30, **options)
    said = answer.json()
    print(what + ":", answer.status_code, show(said) if answer.ok else f"{said['type']} {said['message']}")


def doubled(answer):
    y = answer["y"]
    return f"{y if len(y) < 10 else len(y)} by {answer['model']} {answer['version']}"


def names(answer):
    return [m["modelName"] for m in answer["models"]]


print("-- REST")
x = [1.0, 2.0]
rest("ping", "GET", "/ping", show=lambda a: a["status"])
rest("predict", "POST", "/predictions/double", x, doubled)
rest("explain", "POST", "/explanations/double", x, doubled)
rest("as a form", "POST", "/predictions/double", files={"data": "[1.0, 2.0]"}, show=doubled)
rest("KServe V1", "POST", "/v1/models/double:predict", {"instances": x}, show=lambda a: a["model"])
rest("SageMaker", "POST", "/invocations?model_name=double", x, doubled)
rest("large", "POST", "/predictions/double", [1.0] * 200_000, doubled)
rest("one version", "POST", "/predictions/secret/1.0", x, doubled)
rest("the other version", "POST", "/predictions/secret/2.0", x)
rest("the default version", "POST", "/predictions/secret", x)
rest("SageMaker, of another", "POST", "/invocations?model_name=secret", x)
rest("an alias", "POST", "/secret/predict", x)
rest("an unknown model", "POST", "/predictions/nothing", x)
rest("list", "GET", "/models", show=names)
rest("describe", "GET", "/models/double", show=lambda a: a[0]["modelName"])
rest("describe another", "GET", "/models/secret")
rest("register", "POST", "/models?url=idle-1.0.mar")
rest("register from elsewhere", "POST", "/models?url=https://127.0.0.1/x.mar")
rest("scale", "PUT", "/models/double?min_worker=2")
rest("set default", "PUT", "/models/secret/2.0/set-default")
rest("unregister", "DELETE", "/models/double")

print("-- gRPC")
protos = tempfile.TemporaryDirectory()
with zipfile.ZipFile(os.path.join(os.path.dirname(ts.__file__), "frontend", "model-server.jar")) as jar:
    for name in "proto/inference.proto", "proto/management.proto", "google/rpc/status.proto":
        jar.extract(name, protos.name)
sys.path += [protos.name, os.path.join(protos.name, "proto")]
inference, inference_grpc = grpc.protos_and_services("inference.proto")
management, management_grpc = grpc.protos_and_services("management.proto")

with open(root, "rb") as f:
    tls = grpc.ssl_channel_credentials(f.read())
credentials = grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(os.environ["TOKEN"]))
channel = grpc.secure_channel(target, credentials)
serving, managing = inference_grpc.InferenceAPIsServiceStub(channel), management_grpc.ManagementAPIsServiceStub(channel)


def say(what, call, request, show=lambda answer: "OK", **options):
    try:
        print(what + ":", show(call(request, timeout=30, **options)))
    except grpc.RpcError as e:
        print(what + ":", e.code().name, e.details())


def prediction(model, values=x, stream=False, **options):
    values = {"data": json.dumps(values).encode(), **({"stream": b"yes"} if stream else {})}
    return inference.PredictionsRequest(model_name=model, input=values, **options)


def of(answer):
    return doubled(json.loads(answer.prediction))


say("ping", serving.Ping, management.ListModelsRequest(), show=lambda a: json.loads(a.health)["status"])
say("predict", serving.Predictions, prediction("double"), of)
say("gzip", serving.Predictions, prediction("double"), of, compression=grpc.Compression.Gzip)
say("stream", serving.StreamPredictions, prediction("double", stream=True), lambda answers: [of(a) for a in answers])
say("large", serving.Predictions, prediction("double", [1.0] * 200_000), of)
say("one version", serving.Predictions, prediction("secret", model_version="1.0"), of)
say("the other version", serving.Predictions, prediction("secret", model_version="2.0"))
say("the default version", serving.Predictions, prediction("secret"))
say("gzip, of the other version", serving.Predictions, prediction("secret", model_version="2.0"), compression=grpc.Compression.Gzip)
say("stream of another", serving.StreamPredictions, prediction("secret", stream=True), list)
say("an unknown model", serving.Predictions, prediction("nothing"))
say("list", managing.ListModels, management.ListModelsRequest(limit=100),  # TorchServe lists nothing without a limit
    lambda a: names(json.loads(a.msg)))
say("describe", managing.DescribeModel, management.DescribeModelRequest(model_name="double"), lambda a: json.loads(a.msg)[0]["modelName"])
say("describe another", managing.DescribeModel, management.DescribeModelRequest(model_name="secret"))
say("register", managing.RegisterModel, management.RegisterModelRequest(url="idle-1.0.mar"))
say("scale", managing.ScaleWorker, management.ScaleWorkerRequest(model_name="double", min_worker=2))
say("set default", managing.SetDefault, management.SetDefaultRequest(model_name="secret", model_version="2.0"))
say("unregister", managing.UnregisterModel, management.UnregisterModelRequest(model_name="double"))
