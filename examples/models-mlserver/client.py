"""Calls of tritonclient through the gateway to MLServer, over HTTP and gRPC: TOKEN=... python client.py HOST:PORT ROOT.PEM

Prints a line for each.
"""
import os
import sys

import numpy
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

target, root = sys.argv[1:]
headers = {"authorization": "Bearer " + os.environ["TOKEN"]}


def say(what, call, *args, show=lambda answer: "OK", **options):
    try:
        print(what + ":", show(call(*args, headers=dict(headers), **options)))
    except InferenceServerException as e:
        print(what + ":", e.status(), e.message())


def doubled(answer):
    y = answer.as_numpy("y").ravel().tolist()
    return f"{y if len(y) < 10 else len(y)} by version {answer.get_response()['model_version'] if http else answer.get_response().model_version}"


def infer(what, model, version="", n=2, show=doubled):
    x = kind.InferInput("x", [n], "FP32")
    x.set_data_from_numpy(numpy.arange(1, n + 1, dtype=numpy.float32), **({"binary_data": False} if http else {}))
    y = kind.InferRequestedOutput("y", **({"binary_data": False} if http else {}))
    say(what, client.infer, model, [x], model_version=version, outputs=[y], show=show)


for kind in tritonclient.http, tritonclient.grpc:
    http = kind is tritonclient.http
    print("-- HTTP" if http else "-- gRPC")
    if http:
        client = kind.InferenceServerClient(target, ssl=True, ssl_options={"ca_certs": root}, network_timeout=60)
    else:
        client = kind.InferenceServerClient(target, ssl=True, root_certificates=root)
    say("live", client.is_server_live, show=str)
    say("ready", client.is_model_ready, "double", show=str)
    infer("infer", "double")
    infer("a version that is a word", "double", "v1")
    infer("one version", "secret", "1")
    infer("the other version", "secret", "2")
    infer("no version", "secret")
    infer("an unknown model", "nothing")
    infer("large", "double", n=200_000)
    say("metadata", client.get_model_metadata, "double", show=lambda a: a["name"] if http else a.name)
    say("metadata of another", client.get_model_metadata, "secret")
    say("load", client.load_model, "idle")
    say("unload", client.unload_model, "double")
    client.close()
