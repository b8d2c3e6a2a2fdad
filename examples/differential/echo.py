"""Records each request that it was given whole, one line of JSON each in the file $RECORDS."""
import json
import os

records = os.open(os.environ["RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def app(environ, start_response):
    body = b""
    while piece := environ["wsgi.input"].read(1 << 16):
        body += piece
    length, coding = environ.get("CONTENT_LENGTH", ""), environ.get("HTTP_TRANSFER_ENCODING", "")
    if length and len(body) != int(length):
        raise ConnectionError("the request was cut")
    line = dict(method=environ["REQUEST_METHOD"], target=environ["RAW_URI"], host=environ["HTTP_HOST"],
                length=length, coding=coding, body=body.decode("latin-1"))
    os.write(records, json.dumps(line).encode() + b"\n")
    start_response("200 OK", [("X-Echo", "yes"), ("Content-Length", "0")])
    return [b""]
