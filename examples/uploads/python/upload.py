"""Uploads zeros with a library, and prints the status of each answer, or what came in its place.

    python upload.py requests|chunked|session|httpx|httpx2|triton|triton-grpc URL MIB TIMES
"""
import os
import sys


def answers(library, url, size, times):
    body = bytes(size)
    ca = os.environ["SSL_CERT_FILE"]

    def pieces():
        for i in range(0, size, 65536):
            yield body[i : i + 65536]

    if library in ("requests", "chunked"):
        import requests

        for _ in range(times):
            yield lambda: requests.post(url, data=body if library == "requests" else pieces(), verify=ca, timeout=120).status_code
    elif library == "session":
        import requests

        session = requests.Session()
        for _ in range(times):
            yield lambda: session.post(url, data=body, verify=ca, timeout=120).status_code
        yield lambda: f"{sum(p.num_connections for p in pools_of(session))} connections"
    elif library in ("httpx", "httpx2"):
        import ssl

        import httpx

        context = ssl.create_default_context(cafile=ca)
        for _ in range(times):
            with httpx.Client(verify=context, http1=library == "httpx", http2=library == "httpx2", timeout=120) as client:
                # httpcore takes quadratic time for one large piece over HTTP/2.
                yield lambda: client.post(url, content=pieces() if library == "httpx2" else body).status_code
    elif library in ("triton", "triton-grpc"):
        import numpy
        from urllib.parse import urlsplit

        where = urlsplit(url)
        if library == "triton":
            import gevent.ssl
            import tritonclient.http as triton

            make = lambda: triton.InferenceServerClient(where.netloc + where.path, ssl=True, connection_timeout=120, network_timeout=120, ssl_context_factory=lambda: gevent.ssl.create_default_context(cafile=ca))
        else:
            import tritonclient.grpc as triton

            # gRPC has no paths of its own, so the last part of the URL names a host.
            host = where.path.strip("/") + ".localhost"
            make = lambda: triton.InferenceServerClient(where.netloc, ssl=True, root_certificates=ca, channel_args=[("grpc.ssl_target_name_override", host)])
        tensor = triton.InferInput("x", [size], "UINT8")
        tensor.set_data_from_numpy(numpy.zeros(size, numpy.uint8))

        def infer():
            try:
                make().infer("m", [tensor])
            except triton.InferenceServerException as e:
                if e.status() is None:
                    raise
                return e.status()

        for _ in range(times):
            yield infer


def pools_of(session):
    pools = session.get_adapter("https://").poolmanager.pools
    return [pools[key] for key in pools.keys()]


def main():
    library, url, mib, times = sys.argv[1:]
    for answer in answers(library, url, int(float(mib) * 1024 * 1024), int(times)):
        try:
            print(answer(), flush=True)
        except Exception as e:
            print(f"{type(e).__name__}: {e}".replace("\n", " "), flush=True)


main()
