"""Signed calls through the gateway, by grpcio: python client.py HOST:PORT ROOT.PEM KEY-ID KEY-FILE

Prints a line for each. sallyport_client.py must stand beside it, or on PYTHONPATH.
With --one METHOD it makes that call alone, and prints how it ended; --authority is the host that the gateway
knows, if HOST:PORT leads elsewhere.
"""
import argparse
import asyncio

import grpc

from sallyport_client import NotVerified, SallyportAuth, SigningAioChannel, SigningChannel

SERVICE = "/tensorflow.serving.PredictionService/"
parser = argparse.ArgumentParser()
for name in ("target", "root", "key_id", "key"):
    parser.add_argument(name)
parser.add_argument("--authority")
parser.add_argument("--one")
args = parser.parse_args()
authority = args.authority or args.target
options = [
    ("grpc.enable_retries", 0),  # each attempt needs a signature of its own
    ("grpc.default_authority", authority),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def predict_request(text):
    """A PredictRequest for the model m, as its protobuf class would serialize it."""
    length, n = b"", len(text)
    while n > 127:
        length, n = length + bytes([n & 127 | 128]), n >> 7
    return b"\x0a\x03\x0a\x01m\x1a" + length + bytes([n]) + text


def outcome(call, *given, **options):
    """How a call ends: its answers, or its status, or why it is not to be believed."""
    try:
        answer = call(*given, timeout=60, **options)
        return "OK " + (answer.decode() if isinstance(answer, bytes) else " ".join(a.decode() for a in answer))
    except NotVerified as e:
        return "%s %s" % (type(e).__name__, e.code)
    except grpc.RpcError as e:
        return "%s %s" % (e.code().name, e.details())


async def asynchronous():
    """The same by grpc.aio."""
    plain = grpc.aio.secure_channel(args.target, tls, options)
    async with SigningAioChannel(plain, auth, authority, headers_only=True) as channel:
        answer = await channel.unary_unary(SERVICE + "Predict", predict_request)(b"hello", timeout=20)
        counted = [m async for m in channel.unary_stream(SERVICE + "Count")(b"3", timeout=20)]
        chat = channel.stream_stream(SERVICE + "Chat")(timeout=20)
        await chat.write(b"one")
        said = await chat.read()
        await chat.done_writing()
        ended = await chat.read() is grpc.aio.EOF
        try:
            await channel.unary_unary(SERVICE + "Fail")(b"m", timeout=20)
        except grpc.RpcError as e:
            return answer == predict_request(b"hello"), b" ".join(counted), said, ended, e.code().name


with open(args.root, "rb") as f:
    tls = grpc.ssl_channel_credentials(f.read())
auth = SallyportAuth.from_file(args.key_id, args.key)
with grpc.secure_channel(args.target, tls, options) as plain, SigningChannel(plain, auth, authority, headers_only=True) as channel:
    if args.one:
        kind = channel.unary_stream if args.one == "Count" else channel.unary_unary
        print(outcome(kind(SERVICE + args.one), predict_request(b"5") if args.one == "Predict" else b"5"))
        raise SystemExit
    predict = channel.unary_unary(SERVICE + "Predict", predict_request)
    answer, call = predict.with_call(b"hello", timeout=20)
    print("predict:", answer == predict_request(b"hello"), dict(call.trailing_metadata())["x-caller"])
    print("future:", predict.future(b"hello", timeout=20).result() == answer)
    large = bytes(32 << 20)
    print("32 MiB:", predict(large, timeout=60) == predict_request(large))
    print("count:", outcome(channel.unary_stream(SERVICE + "Count"), b"5"))
    print("chat:", outcome(channel.stream_stream(SERVICE + "Chat"), iter([b"one", b"two"])))
    print("compressed:", outcome(channel.unary_unary(SERVICE + "Compressed"), b"a" * 50))
    print("fail:", outcome(channel.unary_unary(SERVICE + "Fail"), b"m"))
    print("no such method:", outcome(channel.unary_unary(SERVICE + "Nothing"), b"").split()[0])
    print("other service:", outcome(channel.unary_unary("/tensorflow.ProfilerService/Profile"), b""))
    print("no signature:", outcome(plain.unary_unary(SERVICE + "Count"), b"5"))
print("aio:", *asyncio.run(asynchronous()))
