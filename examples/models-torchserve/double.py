"""y = 2 x for a list of numbers, and which model computed it, as a handler of TorchServe.

A request with an input "stream" gets an answer for each number, and then that of the whole list.
"""
import json

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(requests, context):
    if requests is None:  # the call that loads the model
        return None
    lists = [numbers(r) for r in requests]
    if len(requests) == 1 and "stream" in requests[0]:
        for x in lists[0]:
            send_intermediate_predict_response([answer([x], context)], context.request_ids, "one of them", 200, context)
    return [answer(x, context) for x in lists]


def numbers(request):
    x = next((request[name] for name in ("body", "data") if name in request), [])
    if isinstance(x, (bytes, bytearray)):
        x = json.loads(x)
    return x if isinstance(x, list) else []


def answer(x, context):
    return {"model": context.model_name, "version": context.manifest["model"]["modelVersion"], "y": [2 * v for v in x]}
