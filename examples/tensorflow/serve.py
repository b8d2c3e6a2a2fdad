"""Computes half_plus_two with TensorFlow behind TensorFlow Serving's own gRPC API.

serve.py --models DIR --grpc 127.0.0.1:8500 --rest-socket PATH

DIR is what make_model.py wrote. The gRPC port speaks the official protos
(tensorflow-serving-api). The socket is for rest_front: each connection carries
one request, which is turned into one gRPC call to that port (rest.py).
Each call is printed before it is answered: "called METHOD", and "of MODEL VERSION"
for each model that it reaches.
"""
import argparse
import os
from concurrent import futures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import grpc
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
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

import rest

LABELS = {"stable": min}  # which of a model's versions a label stands for


class Refusal(Exception):
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def load(folder):
    """The versions of the model in a folder."""
    versions = {}
    for version in os.listdir(folder):
        if version.isdigit():
            path = os.path.join(folder, version)
            meta = saved_model_pb2.SavedModel()
            with open(os.path.join(path, "saved_model.pb"), "rb") as f:
                meta.ParseFromString(f.read())
            versions[int(version)] = (tf.saved_model.load(path), meta.meta_graphs[0].signature_def)
    return versions


class Models:
    """The models in a folder, loaded at start."""

    def __init__(self, folder):
        self.loaded = {name: load(os.path.join(folder, name)) for name in sorted(n for n in os.listdir(folder) if not n.startswith("."))}

    def version(self, spec):
        """The version that a ModelSpec asks for: the latest, unless it says."""
        version = self.choose(spec)
        print("of", spec.name, version, flush=True)
        return version

    def choose(self, spec):
        if not spec.name:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Missing model name in request.")
        versions = self.loaded.get(spec.name, {})
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            if not versions:
                raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
            if spec.version_label not in LABELS:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}")
            return LABELS[spec.version_label](versions)
        if choice == "version":
            if spec.version.value not in versions:
                raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({spec.name}, {spec.version.value})")
            return spec.version.value
        if not versions:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
        return max(versions)

    def signature(self, spec, default):
        """The function that a ModelSpec asks for, and the spec that tells what was taken."""
        version = self.version(spec)
        model, defs = self.loaded[spec.name][version]
        name = spec.signature_name or default
        if name not in defs:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f'Serving signature name: "{name}" not found in signature def')
        taken = type(spec)(name=spec.name, signature_name=name)
        taken.version.value = version
        return model.signatures[name], taken


def refusing(method):
    """Turns a Refusal, and what TensorFlow itself refuses, into a gRPC status."""

    def call(self, request, context):
        print("called", method.__name__, flush=True)
        try:
            return method(self, request)
        except Refusal as e:
            context.abort(e.code, str(e))
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as e:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))

    return call


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self.models = models

    @refusing
    def Predict(self, request):
        run, spec = self.models.signature(request.model_spec, "serving_default")
        answer = predict_pb2.PredictResponse(model_spec=spec)
        for name, tensor in run(**{k: tf.constant(tf.make_ndarray(t)) for k, t in request.inputs.items()}).items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
            flat = answer.outputs[name]
            if flat.dtype == tf.float32.as_datatype_enum:  # the REST side reads values, not tensor_content
                flat.ClearField("tensor_content")
                flat.ClearField("float_val")
                flat.float_val.extend(tensor.numpy().ravel().tolist())
        return answer

    def run_examples(self, request, default):
        run, spec = self.models.signature(request.model_spec, default)
        examples = [e.SerializeToString() for e in request.input.example_list.examples]
        if not examples:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")
        return next(iter(run(inputs=tf.constant(examples)).values())).numpy().ravel().tolist(), spec

    @refusing
    def Classify(self, request):
        values, spec = self.run_examples(request, "classify_x_to_y")
        answer = classification_pb2.ClassificationResponse(model_spec=spec)
        for v in values:
            answer.result.classifications.add().classes.add(score=v)
        return answer

    @refusing
    def Regress(self, request):
        values, spec = self.run_examples(request, "regress_x_to_y")
        answer = regression_pb2.RegressionResponse(model_spec=spec)
        for v in values:
            answer.result.regressions.add(value=v)
        return answer

    @refusing
    def MultiInference(self, request):
        if len({t.model_spec.name for t in request.tasks}) > 1:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        answer = inference_pb2.MultiInferenceResponse()
        for task in request.tasks:
            one = {"tensorflow/serving/classify": classification_pb2.ClassificationRequest, "tensorflow/serving/regress": regression_pb2.RegressionRequest}.get(task.method_name)
            if one is None:
                raise Refusal(grpc.StatusCode.UNIMPLEMENTED, "Unsupported signature method_name: " + task.method_name)
            kind = task.method_name.rsplit("/", 1)[1]
            values, spec = self.run_examples(one(model_spec=task.model_spec, input=request.input), kind + "_x_to_y")
            result = answer.results.add(model_spec=spec)
            for v in values:
                if kind == "classify":
                    result.classification_result.classifications.add().classes.add(score=v)
                else:
                    result.regression_result.regressions.add(value=v)
        return answer

    @refusing
    def GetModelMetadata(self, request):
        version = self.models.version(request.model_spec)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name = request.model_spec.name
        answer.model_spec.version.value = version
        defs = get_model_metadata_pb2.SignatureDefMap()
        for name, d in self.models.loaded[request.model_spec.name][version][1].items():
            defs.signature_def[name].CopyFrom(d)
        answer.metadata["signature_def"].Pack(defs)
        return answer


class Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models):
        self.models = models

    @refusing
    def GetModelStatus(self, request):
        if not request.HasField("model_spec"):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        spec = request.model_spec
        versions = sorted(self.models.loaded.get(spec.name, {}), reverse=True)
        if spec.WhichOneof("version_choice"):
            versions = [self.models.choose(spec)]
        if not versions:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        answer = get_model_status_pb2.GetModelStatusResponse()
        for v in versions:
            s = answer.model_version_status.add(version=v, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE)
            s.status.error_code = 0
            print("of", spec.name, v, flush=True)
        return answer

    @refusing
    def HandleReloadConfigRequest(self, request):
        """Replaces the whole list of models, as TensorFlow Serving does."""
        self.models.loaded = {c.name: load(c.base_path) for c in request.config.model_config_list.config}
        return model_management_pb2.ReloadConfigResponse()


def profile(request, context):
    """Stands for the profiler, which TensorFlow Serving has on the same port. It only says that it was reached."""
    print("called Profile", flush=True)
    return b""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--models", required=True)
    p.add_argument("--grpc", default="127.0.0.1:8500")
    p.add_argument("--rest-socket", required=True)
    a = p.parse_args()
    models = Models(a.models)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(models), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(models), server)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tensorflow.ProfilerService", {"Profile": grpc.unary_unary_rpc_method_handler(profile)}),))
    if server.add_insecure_port(a.grpc) == 0:
        raise SystemExit(f"cannot listen on {a.grpc}")
    server.start()
    print(f"gRPC on {a.grpc}, models: {', '.join(models.loaded)}", flush=True)
    rest.serve(a.rest_socket, a.grpc)


if __name__ == "__main__":
    main()
