"""Writes the model of wine.py as an MLflow model: make_model.py FOLDER"""
import sys

import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema

table = Schema([ColSpec("double", "a"), ColSpec("double", "b")])
mlflow.pyfunc.save_model(
    sys.argv[1],
    python_model="wine.py",
    signature=ModelSignature(table, Schema([ColSpec("double")])),
    pip_requirements=[],
)
