"""Prints the figures that run.py --json has written as a table for the README: python3 table.py FIGURES ROUNDS SECS"""
import json
import statistics
import sys

NAMES = {
    "a": "HTTP/1.1, bearer token",
    "am": "the same, 10,000 tokens in turn",
    "ac": "the same, a new token each time",
    "b": "the same, nobody checked",
    "c": "100 KiB up",
    "d": "1 MiB down",
    "e": "a full handshake for each request",
    "f": "HTTP/2, bearer token",
    "g": "one connection",
    "h": "gRPC, unary",
    "i": "idle connections",
    "l": "2000 requests a second, open loop",
    "s": "server-sent events",
}
TARGETS = {"nginx": "nginx", "haproxy": "HAProxy", "sallyport": "sallyport"}
# What is compared in a scenario, if not CPU per request: key of the figures, unit, decimals.
CPU = ("cpu_us", "CPU µs per request", 0)
OTHERS = {
    "g": [("add_p50", "added median latency, µs", 0)],
    "i": [("kib_per_conn", "KiB a connection", 1)],
    "l": [CPU, ("add_p50", "added median latency, µs", 0), ("add_p99", "added p99, µs", 0)],
    "s": [("cpu_us", "CPU µs per event", 0), ("add_p50", "added median latency, µs", 0)],
}


def median(rows, key):
    values = [r[key] for r in rows or [] if key in r]
    return statistics.median(values) if values else None


def failed(rows):
    """Whether a target that took part was down, or answered anything with an error."""
    return rows == [] or any(r.get("errors", 0) or r.get("non2xx", 0) for r in rows or [])


def main():
    figures, rounds, secs = sys.argv[1:]
    with open(figures) as f:
        scenarios = json.load(f)["scenarios"]
    print(f"Medians of {rounds} interleaved rounds of {secs} s each. nginx checks no token, HAProxy by `jwt_verify`.\n")
    print("| | figure | " + " | ".join(TARGETS.values()) + " |\n|---|---|" + "---:|" * len(TARGETS))
    flaws = []
    for name, s in scenarios.items():
        for key, unit, digits in OTHERS.get(name, [CPU]):
            cells = []
            for target in TARGETS:
                value = median(s["rows"].get(target), key)
                cells.append("-" if value is None else f"{value:.{digits}f}")
            print(f"| {NAMES.get(name, s['what'])} ({name}) | {unit} | " + " | ".join(cells) + " |")
        flaws += [f"{shown} in {name}" for target, shown in TARGETS.items() if failed(s["rows"].get(target))]
    if flaws:
        print("\nNot all answers were right: " + ", ".join(flaws) + ".")


main()
