"""Serves double (1.0) and secret (2.0, the default, and 1.0) with TorchServe: serve.py FOLDER REST MANAGEMENT METRICS GRPC GRPC_MANAGEMENT

The numbers are ports on loopback. FOLDER is where the archives of the models are written, and one of idle, which is
not registered.
"""
import os
import subprocess
import sys

import ts

folder, *ports = sys.argv[1:]
rest, management, metrics, grpc, grpc_management = ports
folder = os.path.abspath(folder)
here = os.path.dirname(os.path.abspath(__file__))
store, scratch = os.path.join(folder, "store"), os.path.join(folder, "scratch")
os.makedirs(store)
os.makedirs(scratch)

for name, version in ("double", "1.0"), ("secret", "1.0"), ("secret", "2.0"), ("idle", "1.0"):
    subprocess.run([os.path.join(os.path.dirname(sys.executable), "torch-model-archiver"), "--model-name", name, "--version", version,
                    "--handler", os.path.join(here, "double.py"), "--export-path", store], check=True)
    os.rename(os.path.join(store, name + ".mar"), os.path.join(store, f"{name}-{version}.mar"))

with open(os.path.join(folder, "config.properties"), "w") as f:
    f.write(f"""inference_address=http://127.0.0.1:{rest}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_address=127.0.0.1
grpc_management_address=127.0.0.1
grpc_inference_port={grpc}
grpc_management_port={grpc_management}
load_models=double-1.0.mar,secret-2.0.mar,secret-1.0.mar
default_workers_per_model=1
number_of_gpu=0
disable_system_metrics=true
""")

# What `torchserve --start --foreground --enable-model-api --disable-token-auth --ncs` runs: that writes a file that
# allows one TorchServe for all users of the machine.
os.environ["PYTHONPATH"] = os.path.join(here, "stub")
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.chdir(folder)  # it writes logs here
home = os.path.dirname(os.path.dirname(ts.__file__))
os.execvp("java", ["java", "-Xmx256m", "-Djava.io.tmpdir=" + scratch, "-Dmodel_server_home=" + home, "-cp", os.path.join(home, "ts", "frontend", "*"),
                   "org.pytorch.serve.ModelServer", "--python", sys.executable, "-f", "config.properties", "-s", store, "-ncs",
                   "--enable-model-api", "--disable-token-auth"])
