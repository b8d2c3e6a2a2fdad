"""Calls of each kind through the gateway, by grpcio: TOKEN=... python client.py HOST:PORT ROOT.PEM

Prints a line for each.
"""

import os
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

SERVICE = "/tensorflow.serving.PredictionService/"
target, root = sys.argv[1:3]
with open(root, "rb") as f:
    tls = grpc.ssl_channel_credentials(f.read())
token = grpc.access_token_call_credentials(os.environ["TOKEN"])
options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def code(call, *args, **kw):
    """The status of a call and the text that came with it."""
    try:
        result = call(*args, timeout=kw.get("timeout", 20))
        list(result) if kw.get("stream") else result
        return "OK"
    except grpc.RpcError as e:
        return f"{e.code().name} {e.details()}"


def reason(error):
    """The reason and the request id among the details of a status."""
    said = {}
    for detail in rpc_status.from_call(error).details:
        for kind in error_details_pb2.ErrorInfo, error_details_pb2.RequestInfo:
            message = kind()
            if detail.Unpack(message):
                said[kind.DESCRIPTOR.name] = message
    info, request = said["ErrorInfo"], said["RequestInfo"]
    sent = dict(error.trailing_metadata())["x-request-id"]
    return f"{info.reason} {info.domain}, its own request id: {request.request_id == sent}"


with grpc.secure_channel(target, grpc.composite_channel_credentials(tls, token), options) as channel:
    predict = channel.unary_unary(SERVICE + "Predict")
    answer, call = predict.with_call(b"hello", timeout=20)
    trailers = dict(call.trailing_metadata())
    print("predict:", answer.decode(), trailers["x-caller"], "authorization", trailers["x-authorization"])
    print("time left:", 15 < int(trailers["x-time-left"]) <= 20)
    large = bytes(16 << 20)
    print("16 MiB:", predict(large, timeout=60) == large)
    print("count:", b" ".join(channel.unary_stream(SERVICE + "Count")(b"5", timeout=20)).decode())
    print("total:", channel.stream_unary(SERVICE + "Total")((bytes(n) for n in range(100)), timeout=20).decode())

    said = []
    answers = channel.stream_stream(SERVICE + "Chat")(iter(lambda: said.append(len(said)) or b"message %d" % len(said), b"message 4"), timeout=20)
    print("chat:", ", ".join(a.decode() for a in answers))

    hang = channel.unary_stream(SERVICE + "Hang")(b"cancelled", timeout=20)
    print("hang:", next(hang).decode())
    hang.cancel()
    print("cancelled:", hang.code().name)
    print("deadline:", code(channel.unary_stream(SERVICE + "Hang"), b"deadline", timeout=0.3, stream=True).split()[0])

    print("fail:", code(channel.unary_unary(SERVICE + "Fail"), b"m"))
    print("no such method:", code(channel.unary_unary(SERVICE + "Nothing"), b"").split()[0])
    print("other service:", code(channel.unary_unary("/tensorflow.ProfilerService/Profile"), b""))

with grpc.secure_channel(target, tls, options) as channel:
    print("no token:", code(channel.unary_unary(SERVICE + "Predict"), b"x"))
    try:
        channel.unary_unary(SERVICE + "Predict")(b"x", timeout=20)
    except grpc.RpcError as e:
        print("reason:", reason(e))
