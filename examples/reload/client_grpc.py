"""Calls the gRPC server until its standard input ends, beside a stream that it holds open:

    TOKEN=... python client_grpc.py HOST:PORT ROOT.PEM

Prints a line for each call that failed, how many there were, and how the stream ended.
"""
import os
import sys
import threading

import grpc

SERVICE = "/tensorflow.serving.PredictionService/"
target, root = sys.argv[1:3]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
with open(root, "rb") as f:
    tls = grpc.ssl_channel_credentials(f.read())
token = grpc.access_token_call_credentials(os.environ["TOKEN"])
asked = failed = 0
with grpc.secure_channel(target, grpc.composite_channel_credentials(tls, token)) as channel:
    said = threading.Event()

    def messages():
        yield b"hello"
        said.wait()

    chat = channel.stream_stream(SERVICE + "Chat")(messages())
    print("streams", next(chat).decode(), flush=True)
    predict = channel.unary_unary(SERVICE + "Predict")
    while not ended.is_set():
        asked += 1
        try:
            if predict(b"hello", timeout=30) == b"hello":
                continue
            print("failed: another answer", flush=True)
        except grpc.RpcError as e:
            print("failed:", e.code().name, e.details(), flush=True)
        failed += 1
    said.set()
    try:
        left = list(chat)
        print("the stream ended", chat.code().name, flush=True)
    except grpc.RpcError as e:
        print("the stream ended", e.code().name, e.details(), flush=True)
print(f"asked {'some' if asked else 'none'}, {failed} failed", flush=True)
