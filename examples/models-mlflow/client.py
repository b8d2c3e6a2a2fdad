"""Asks the model through sallyport with MLflow's forms of a table.

    SALLYPORT_KEY=sp_... client.py https://localhost:8443 ca/root.pem

It prints a line for each form: its name, the status, and the answer or the reason. The last two hold Python objects, which a server
runs code to read, and the gateway refuses them.
"""
import os
import pickle
import sys

import pandas
import requests

gateway, ca = sys.argv[1:]
session = requests.Session()
session.headers["Authorization"] = "Bearer " + os.environ["SALLYPORT_KEY"]

table = pandas.DataFrame({"a": [1.0, 3.0], "b": [2.0, 5.0]})
for name, body, kind in (
    ("split", '{"dataframe_split": ' + table.to_json(orient="split", index=False) + "}", "application/json"),
    ("records", '{"dataframe_records": ' + table.to_json(orient="records") + "}", "application/json"),
    ("instances", '{"instances": ' + table.to_json(orient="records") + "}", "application/json; charset=utf-8"),
    ("csv", table.to_csv(index=False), "text/csv"),
    ("pickle", pickle.dumps(table), "application/x-python-pickle"),
    ("joblib", pickle.dumps(table), "Application/X-Joblib; version=1"),
):
    answer = session.post(gateway + "/invocations", data=body, headers={"Content-Type": kind},
                          verify=ca, timeout=30)
    print(f"{name}: {answer.status_code} {answer.text.strip() if answer.ok else answer.json()['reason']}")
print("ping:", session.get(gateway + "/ping", verify=ca, timeout=30).status_code)
