#!/usr/bin/env python3
"""Opens pages of real model servers in Chromium through a gateway, and prints the table of PAGES.md.

    render.py SALLYPORT VENVS [PAGE...]

SALLYPORT is the gateway's binary. VENVS is a folder with one virtual environment for each page, named
as in PAGES below and made with its packages; what is not there is left out. Screenshots go to
VENVS/shots. Needs Debian's chromium; everything runs on loopback, and only what it started is ended.
"""
import base64, json, os, pathlib, re, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request

OWN = "default-src 'self'; object-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"

FASTAPI = '''
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
app = FastAPIOffline(title="Churn")
cdn = FastAPI(title="Churn", docs_url="/docs")
app.mount("/plain", cdn)
@app.get("/predict")
def predict(x: float) -> float: return x
'''
GRADIO = '''
import gradio as gr, sys
gr.Interface(fn=lambda name: "Hello " + name, inputs="text", outputs="text", title="Churn").launch(
    server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
'''
STREAMLIT = '''
import streamlit as st
st.title("Churn")
st.slider("months", 0, 60)
'''
BENTOML = '''
import bentoml
@bentoml.service
class Churn:
    @bentoml.api
    def predict(self, months: int) -> float:
        return months / 60
'''
BOARD = '''
import os
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
w = EventFileWriter("runs")
for step in range(20):
    w.add_event(event_pb2.Event(wall_time=1e9 + step, step=step, summary=summary_pb2.Summary(
        value=[summary_pb2.Summary.Value(tag="loss", simple_value=1 / (step + 1))])))
w.close()
'''

# A page: packages, files, commands (the last one serves), path, text that shows that it is rendered,
# lines of the route and of the upstream that it needs in any case, and a policy that it works with.
PAGES = {
    "fastapi": dict(packages="fastapi fastapi-offline uvicorn", files={"app.py": FASTAPI}, path="/docs", want="/predict",
        run=["uvicorn app:app --host 127.0.0.1 --port {port}"], policy=OWN),
    # As FastAPI is by itself: Swagger's files come from elsewhere.
    "fastapi-cdn": dict(venv="fastapi", packages="fastapi fastapi-offline uvicorn", files={"app.py": FASTAPI}, path="/plain/docs", want="/predict",
        run=["uvicorn app:app --host 127.0.0.1 --port {port}"],
        policy=OWN.replace("'unsafe-inline'", "'unsafe-inline' https://cdn.jsdelivr.net").replace("data:", "data: https://fastapi.tiangolo.com")),
    "gradio": dict(packages="gradio", files={"app.py": GRADIO}, path="/", want="Submit", run=["python app.py {port}"],
        policy=OWN.replace("script-src 'self'", "script-src 'self' 'unsafe-eval'")),
    "streamlit": dict(packages="streamlit", files={"app.py": STREAMLIT}, path="/", want="months", route="websocket: true", upstream="host: client",
        run=["streamlit run app.py --server.headless true --server.address 127.0.0.1 --server.port {port} --browser.gatherUsageStats false"],
        policy=OWN + "; font-src 'self' data:"),
    "bentoml": dict(packages="bentoml", files={"service.py": BENTOML}, path="/", want="/predict",
        run=["bentoml serve service:Churn --host 127.0.0.1 --port {port}"], policy=OWN),
    "mlflow": dict(packages="mlflow", files={}, path="/#/experiments", want="Default",
        run=["mlflow server --workers 1 --host 127.0.0.1 --port {port} --cors-allowed-origins {origins}"], policy=OWN),
    "jupyter": dict(packages="jupyter-server jupyterlab", files={}, path="/lab", want="Launcher", route="websocket: true", upstream="host: client",
        run=["jupyter-lab --no-browser --allow-root --ip 127.0.0.1 --port {port} --ServerApp.allow_remote_access=True "
             "--IdentityProvider.token= --ServerApp.root_dir=."],
        policy=OWN),
    "tensorboard": dict(packages="tensorboard 'setuptools<81'", files={"board.py": BOARD}, path="/", want="loss",
        run=["python board.py", "tensorboard --logdir runs --host 127.0.0.1 --port {port} --load_fast=false"], policy=OWN),
}

SETS = ["talisman", "default", "written"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answered(port, path=None, limit=240):
    """Waits until something listens; with a path, until it answers anything at all."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if path:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
            else:
                socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"no answer on port {port}")


class Browser:
    """A headless Chromium, told what to do over a pipe of its DevTools protocol."""

    def __init__(self, profile):
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Copies above 10 stay open over the exec; 3 and 4 are where Chromium reads and writes.
        command = ["bash", "-c", f"exec \"$@\" 3<&{theirs_in} 4>&{theirs_out}", "-", "chromium", "--headless", "--no-sandbox",
            "--disable-gpu", "--disable-background-networking", "--no-first-run", "--ignore-certificate-errors",
            "--window-size=1100,800", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in), os.close(theirs_out)
        self.to, self.read_fd, self.rest, self.last, self.events = ours_out, ours_in, b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in "Page", "Runtime", "Log", "Network":
            self.call(domain + ".enable")

    def message(self):
        while b"\0" not in self.rest:
            piece = os.read(self.read_fd, 1 << 20)
            if not piece:
                raise SystemExit("chromium ended")
            self.rest += piece
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, **params):
        self.last += 1
        ask = {"id": self.last, "method": method, "params": params}
        if hasattr(self, "session"):
            ask["sessionId"] = self.session
        os.write(self.to, json.dumps(ask).encode() + b"\0")
        while True:
            m = self.message()
            if m.get("id") == self.last:
                return m.get("result", {})
            self.events.append(m)

    def text(self):
        """The text of the page, with that in open shadow roots, in which some pages live."""
        script = """(function all(n) { let t = ''; for (const c of n.childNodes) {
            if (c.nodeType === 3) t += c.data + ' ';
            else if (c.nodeType === 1 && !/^(SCRIPT|STYLE|NOSCRIPT|TEMPLATE)$/.test(c.tagName)) { t += all(c); if (c.shadowRoot) t += all(c.shadowRoot); } }
            return t })(document.body)"""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True).get("result", {}).get("value") or ""

    def open(self, url, want, shot, limit=25):
        """Opens a page and waits for a text in it; returns whether it came, and what went wrong meanwhile."""
        self.call("Page.navigate", url="about:blank")
        self.events = []
        self.call("Page.navigate", url=url)
        end, seen = time.monotonic() + limit, False
        while time.monotonic() < end and not seen:
            time.sleep(0.5)
            seen = want in self.text()
        time.sleep(2)  # what follows the first picture may fail too
        text = self.text()
        png = self.call("Page.captureScreenshot", format="png").get("data", "")
        shot.write_bytes(base64.b64decode(png))
        return seen, len(text.split()), self.faults()

    def faults(self):
        policy, network, others, urls = set(), set(), set(), {}
        for m in self.events:
            p = m.get("params", {})
            match m.get("method"):
                case "Log.entryAdded":
                    t = p["entry"]["text"]
                    if "Content Security Policy" in t:
                        policy.add(t)
                    elif p["entry"]["level"] == "error":
                        network.add(t + " " + re.sub(r"^https://[^/]*", "", p["entry"].get("url", "")))
                case "Runtime.consoleAPICalled" if p["type"] == "error":
                    others.add(" ".join(str(a.get("value", a.get("description", ""))) for a in p["args"]))
                case "Runtime.exceptionThrown":
                    d = p["exceptionDetails"]
                    others.add(d.get("exception", {}).get("description", d["text"]).split("\n")[0])
                case "Network.webSocketCreated":
                    urls[p["requestId"]] = p["url"]
                case "Network.webSocketFrameError":
                    network.add("WebSocket " + p["errorMessage"])
                case "Network.webSocketHandshakeResponseReceived":
                    if p["response"]["status"] not in (101, 200):  # 200 over HTTP/2
                        network.add(f"WebSocket {p['response']['status']}")
        return policy, network, others

    def close(self):
        self.process.terminate()
        self.process.wait()


def verdict(seen, words, policy):
    """What the text shows. Only the screenshot shows whether a page is as it should be."""
    if not seen:
        return "blank" if words < 5 else "other text"
    return "parts blocked" if policy else "renders"


def render(name, page, binary, venvs, browser, shots):
    venv = venvs / page.get("venv", name)
    if not (venv / "bin/python").exists():
        print(f"| {name} | not installed: {page['packages']} |")
        return
    work = pathlib.Path(tempfile.mkdtemp(prefix="pages-"))
    port, https = free_port(), free_port()
    for file, content in page["files"].items():
        (work / file).write_text(content)
    environment = dict(os.environ, PATH=f"{venv}/bin:{os.environ['PATH']}", HOME=str(work))
    origins = ",".join(f"https://{s}.localhost:{https}" for s in SETS)
    commands = [c.format(port=port, origins=origins).split() for c in page["run"]]
    for c in commands[:-1]:
        subprocess.run(c, cwd=work, env=environment, check=True, stderr=subprocess.DEVNULL)
    log = open(work / "log", "w")
    running = [subprocess.Popen(commands[-1], cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True)]
    routes = ""
    for s in SETS:
        headers = json.dumps({"content-security-policy": page["policy"]}) if s == "written" else s
        routes += f"  - {{host: {s}.localhost, upstream: page, callers: anonymous, rules: [{{allow: '*'}}], security_headers: {headers}"
        routes += f", {page['route']}}}\n" if "route" in page else "}\n"
    hosts = ", ".join(s + ".localhost" for s in SETS)
    upstream = f", {page['upstream']}" if "upstream" in page else ""
    (work / "gateway.yaml").write_text(f"""listen: {{https: '127.0.0.1:{https}', http: off, health: off, control: off}}
tls: {{local: {{dir: ca, hosts: [{hosts}]}}}}
upstreams: {{page: {{rest: 'http://127.0.0.1:{port}'{upstream}}}}}
routes:
{routes}""")
    try:
        answered(port, page["path"])
        gate = open(work / "gateway.log", "w")
        running.append(subprocess.Popen([binary, "serve", "-c", "gateway.yaml"], cwd=work, stdout=gate, stderr=gate, start_new_session=True))
        answered(https)
        for s in SETS:
            seen, words, (policy, network, others) = browser.open(
                f"https://{s}.localhost:{https}{page['path']}", page["want"], shots / f"{name}-{s}.png")
            print(f"| {name} | {s} | {verdict(seen, words, policy)} | {words} words | "
                  f"{len(policy)} policy | {len(network)} network | {len(others)} script |", flush=True)
            for kind, all in ("policy", policy), ("network", network), ("script", others):
                for t in sorted(all)[:4]:
                    print(f"    {kind}: {t[:260]}")
    finally:
        for p in reversed(running):
            os.killpg(p.pid, signal.SIGTERM)
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
        shutil.rmtree(work, ignore_errors=True)


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    binary, venvs = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2]).resolve()
    shots = venvs / "shots"
    shots.mkdir(exist_ok=True)
    profile = tempfile.mkdtemp(prefix="pages-")
    browser = Browser(profile)
    try:
        for name in sys.argv[3:] or PAGES:
            render(name, PAGES[name], binary, venvs, browser, shots)
    finally:
        browser.close()
        shutil.rmtree(profile, ignore_errors=True)


if __name__ == "__main__":
    main()
