"""Writes half_plus_two (y = x / 2 + 2) as a real SavedModel: make_model.py DIR makes DIR/half_plus_two/123.

The signatures are those of the model of the same name in TensorFlow Serving's
own tests: predict (the default), regress_x_to_y and classify_x_to_y.
"""
import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow.compat.v1 as tf

VERSION = "123"


def build(path):
    graph = tf.Graph()
    with graph.as_default(), tf.Session() as session:
        a = tf.get_variable("a", initializer=0.5, use_resource=True)
        b = tf.get_variable("b", initializer=2.0, use_resource=True)

        def model(x):
            return tf.add(tf.multiply(a, x), b)

        examples = tf.placeholder(tf.string, [None], name="tf_example")
        parsed = tf.parse_example(examples, {"x": tf.FixedLenFeature([1], tf.float32)})["x"]
        x = tf.placeholder(tf.float32, [None], name="x")
        y = tf.identity(model(x), name="y")
        y_of_examples = tf.identity(model(parsed), name="y_of_examples")

        def info(**tensors):
            return {k: tf.saved_model.build_tensor_info(t) for k, t in tensors.items()}

        def signature(inputs, outputs, method):
            return tf.saved_model.build_signature_def(inputs, outputs, "tensorflow/serving/" + method)

        session.run(tf.global_variables_initializer())
        builder = tf.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, [tf.saved_model.tag_constants.SERVING], signature_def_map={
            "serving_default": signature(info(x=x), info(y=y), "predict"),
            "regress_x_to_y": signature(info(inputs=examples), info(outputs=y_of_examples), "regress"),
            "classify_x_to_y": signature(info(inputs=examples), info(scores=y_of_examples), "classify"),
        })
        builder.save()


def main():
    path = os.path.join(sys.argv[1], "half_plus_two", VERSION)
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return
    part = path + ".part"
    shutil.rmtree(part, ignore_errors=True)
    build(part)
    os.rename(part, path)


if __name__ == "__main__":
    main()
