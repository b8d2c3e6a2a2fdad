"""Asks for predictions by gRPC with a client certificate: grpc_client.py HOST:PORT ROOT.PEM CERT KEY"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

target, *files = sys.argv[1:]
root, cert, key = (open(name, "rb").read() for name in files)
request = predict_pb2.PredictRequest()
request.model_spec.name = "half_plus_two"
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0, 5.0]))
with grpc.secure_channel(target, grpc.ssl_channel_credentials(root, key, cert)) as channel:
    try:
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
        print(tf.make_ndarray(next(iter(answer.outputs.values()))).ravel().tolist())
    except grpc.RpcError as e:
        print(e.code().name, e.details())
