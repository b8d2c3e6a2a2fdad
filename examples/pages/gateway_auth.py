"""People whom the gateway names, for MLflow's accounts: authorization_function in mlflow_auth.ini."""
import secrets

from flask import Response, request
from werkzeug.datastructures import Authorization

from mlflow.server.auth import store


def named_by_gateway():
    name = request.headers.get("X-WEBAUTH-USER")
    if not name:
        return Response("The gateway names nobody.", 401)
    if not store.has_user(name):
        store.create_user(name, secrets.token_urlsafe(32))  # nobody knows this password
    return Authorization("gateway", {"username": name})
