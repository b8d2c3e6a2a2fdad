"""A model server that speaks gRPC, and nothing else: python serve.py HOST:PORT [CLIENTS-CA CERT KEY]

It stands on grpcio, as Python model servers do; TensorFlow Serving and Triton stand on the same core. The messages
are bytes, so that no .proto is needed. It knows nothing of tokens. With the three files it speaks TLS, and talks to nobody
without a certificate of CLIENTS-CA, as TensorFlow Serving does with client_verify: true in its --ssl_config_file.
"""

import sys
import threading
import time
from concurrent import futures

import grpc


def echo(request, context):
    """Returns what was sent, and in the trailers who sent it according to the gateway."""
    told = dict(context.invocation_metadata())
    context.set_trailing_metadata((
        ("x-caller", told.get("x-sallyport-principal", "nobody")),
        ("x-time-left", str(int(context.time_remaining() or -1))),
        ("x-authorization", told.get("authorization", "none")),
        ("x-gateway", b",".join(context.auth_context().get("x509_subject_alternative_name", [b"none"])).decode()),
    ))
    return request


def count(request, context):
    """As many messages as it is asked for, one every 20 ms."""
    for n in range(int(request)):
        yield str(n).encode()
        time.sleep(0.02)


def total(requests, context):
    """The sizes of all messages, added up."""
    return str(sum(len(r) for r in requests)).encode()


def chat(requests, context):
    """Answers each message before it reads the next."""
    for r in requests:
        yield b"re: " + r


def hang(request, context):
    """Answers nothing until the caller gives up, and says so."""
    gone = threading.Event()
    context.add_callback(gone.set)
    print("hangs", request.decode(), flush=True)
    try:
        yield b"hanging"
        gone.wait(60)
    finally:  # grpcio closes the generator if the call ends before it asks for more
        print("gave up", request.decode(), flush=True)


def compressed(request, context):
    """Compresses its answer if the caller takes that."""
    context.set_compression(grpc.Compression.Gzip)
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such model: " + request.decode() + " \u00fc")


METHODS = {
    "Predict": grpc.unary_unary_rpc_method_handler(echo),
    "Compressed": grpc.unary_unary_rpc_method_handler(compressed),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Hang": grpc.unary_stream_rpc_method_handler(hang),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}

server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=40),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", METHODS),))
address, *files = sys.argv[1:]
if files:
    root, cert, key = (open(name, "rb").read() for name in files)
    port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, cert)], root, require_client_auth=True))
else:
    port = server.add_insecure_port(address)
if port == 0:
    sys.exit("cannot listen on " + address)
server.start()
print("serves", flush=True)
server.wait_for_termination()
