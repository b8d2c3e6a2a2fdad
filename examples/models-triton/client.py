"""Calls of tritonclient through the gateway, over HTTP and gRPC: TOKEN=... python client.py HOST:PORT ROOT.PEM

Prints a line for each.
"""
import os
import queue
import sys

import numpy
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

target, root = sys.argv[1:]
headers = {"authorization": "Bearer " + os.environ["TOKEN"]}


def say(what, call, *args, show=lambda answer: "OK", **options):
    try:
        # A copy, because tritonclient adds the length of this tensor to it.
        print(what + ":", show(call(*args, headers=dict(headers), **options)))
    except InferenceServerException as e:
        print(what + ":", e.status(), e.message())


def doubled(answer):
    y = answer.as_numpy("y").tolist()
    return f"{y if len(y) < 10 else len(y)} by version {answer.get_response()['model_version'] if http else answer.get_response().model_version}"


def tensor(values, **options):
    x = kind.InferInput("x", [len(values)], "FP32")
    x.set_data_from_numpy(numpy.array(values, dtype=numpy.float32), **options)
    return [x]


for kind in tritonclient.http, tritonclient.grpc:
    http = kind is tritonclient.http
    print("-- HTTP" if http else "-- gRPC")
    if http:
        client = kind.InferenceServerClient(target, ssl=True, ssl_options={"ca_certs": root}, network_timeout=60)
        squeeze = lambda how: {"request_compression_algorithm": how, "response_compression_algorithm": how}
    else:
        client = kind.InferenceServerClient(target, ssl=True, root_certificates=root)
        squeeze = lambda how: {"compression_algorithm": how}
    x = [1.0, 2.0]
    say("live", client.is_server_live, show=str)
    say("ready", client.is_model_ready, "double", show=str)
    say("binary tensor", client.infer, "double", tensor(x), show=doubled)
    if http:
        say("JSON tensor", client.infer, "double", tensor(x, binary_data=False), show=doubled)
        say("JSON answer", client.infer, "double", tensor(x), outputs=[kind.InferRequestedOutput("y", binary_data=False)], show=doubled)
    for how in "gzip", "deflate":
        say(how, client.infer, "double", tensor(x), show=doubled, **squeeze(how))
    say("large", client.infer, "double", tensor([1.0] * 4_000_000), show=doubled)
    say("one version", client.infer, "secret", tensor(x), model_version="1", show=doubled)
    say("the other version", client.infer, "secret", tensor(x), model_version="2")
    say("the latest", client.infer, "secret", tensor(x))
    say("gzip, of the other version", client.infer, "secret", tensor(x), model_version="2", **squeeze("gzip"))
    say("an unknown model", client.infer, "nothing", tensor(x))
    say("metadata", client.get_model_metadata, "double", show=lambda a: a["name"] if http else a.name)
    say("config", client.get_model_config, "double", show=lambda a: a["name"] if http else a.config.name)
    say("statistics", client.get_inference_statistics, "double", show=lambda a: (a["model_stats"][0]["name"]) if http else a.model_stats[0].name)
    say("statistics of all", client.get_inference_statistics)
    say("metadata of another", client.get_model_metadata, "secret")
    say("load", client.load_model, "idle")
    say("load with files", client.load_model, "double", config="{}", files={"file:1/model.py": b"print()"})
    say("unload", client.unload_model, "double")
    say("register shared memory", client.register_system_shared_memory, "r", "/r", 8)
    say("shared memory", client.get_system_shared_memory_status)
    say("unregister CUDA memory", client.unregister_cuda_shared_memory)
    say("trace", client.update_trace_settings, settings={"trace_level": ["OFF"]})
    say("logging", client.update_log_settings, {"log_verbose_level": 1})
    if http:
        client.close()

answers = queue.Queue()
client.start_stream(lambda result, error: answers.put(error or doubled(result)), headers=dict(headers))
client.async_stream_infer("double", tensor(x))
print("stream:", answers.get(timeout=30))
client.async_stream_infer("secret", tensor(x), model_version="1")
print("stream, one version:", answers.get(timeout=30))
client.async_stream_infer("secret", tensor(x), model_version="2")
refused = answers.get(timeout=30)  # the stream ends with it
print("stream, the other version:", refused.status(), refused.message())
client.close()
