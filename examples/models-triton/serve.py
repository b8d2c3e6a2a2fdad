"""Serves double (1), secret (1 and 2) and idle, which is not loaded, with Triton: serve.py FOLDER REST_PORT GRPC_PORT

Triton is the program in the wheel of nvidia-pytriton. FOLDER is where the model repository is written, and the
folder of backends, to which the stub for this Python belongs.
"""
import os
import shutil
import sys
import sysconfig

import pytriton

CONFIG = """backend: "python"
max_batch_size: 0
input [{name: "x" data_type: TYPE_FP32 dims: [-1]}]
output [{name: "y" data_type: TYPE_FP32 dims: [-1]}]
instance_group [{kind: KIND_CPU count: 1}]
version_policy: {all: {}}
"""
folder, rest, grpc = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
packages = os.path.dirname(os.path.dirname(pytriton.__file__))
triton = os.path.join(packages, "pytriton", "tritonserver")

for name, versions in ("double", "1"), ("secret", "12"), ("idle", "1"):
    for version in versions:
        os.makedirs(os.path.join(folder, "models", name, version))
        shutil.copy(os.path.join(here, "double.py"), os.path.join(folder, "models", name, version, "model.py"))
    with open(os.path.join(folder, "models", name, "config.pbtxt"), "w") as f:
        f.write(CONFIG)

backend = os.path.join(folder, "backends", "python")
os.makedirs(backend)
python = "%d.%d" % sys.version_info[:2]
for source in os.path.join(triton, "backends", "python"), os.path.join(triton, "python_backend_stubs", python):
    for file in os.listdir(source):
        os.symlink(os.path.join(source, file), os.path.join(backend, file))

os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # the stub runs python3
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([os.path.join(packages, "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")])
os.environ["PYTHONPATH"] = packages
os.execv(os.path.join(triton, "bin", "tritonserver"), [
    "tritonserver", "--model-repository=" + os.path.join(folder, "models"), "--backend-directory=" + os.path.dirname(backend),
    "--model-control-mode=explicit", "--load-model=double", "--load-model=secret", "--exit-timeout-secs=5",
    "--http-address=127.0.0.1", "--http-port=" + rest, "--grpc-address=127.0.0.1", "--grpc-port=" + grpc, "--allow-metrics=false",
])
