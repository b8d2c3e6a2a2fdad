"""Asks a model through sallyport with Ollama's own client, and with OpenAI's.

    SALLYPORT_KEY=sp_... client.py https://localhost:8443 ca/root.pem [MODEL]

It prints a line for each call: its name and what the model said, or how the client reports the refusal.
"""
import os
import ssl
import sys

import ollama
import openai

gateway, ca, model = (sys.argv[1:] + ["tiny"])[:3]
key = os.environ["SALLYPORT_KEY"]
trust = ssl.create_default_context(cafile=ca)
own = ollama.Client(host=gateway, verify=trust, headers={"Authorization": "Bearer " + key})
ai = openai.OpenAI(base_url=gateway + "/v1", api_key=key, max_retries=0, timeout=30,
                   http_client=openai.DefaultHttpxClient(verify=trust))

hello = [{"role": "user", "content": "hi"}]
brief = {"num_predict": 4, "temperature": 0}
calls = {
    "chat": lambda: own.chat(model=model, messages=hello, options=brief).message.content,
    "chat streamed": lambda: "".join(p.message.content for p in own.chat(model=model, messages=hello, options=brief, stream=True)),
    "generate": lambda: own.generate(model=model, prompt="hi", options=brief).response,
    "embed": lambda: len(own.embed(model=model, input="hi").embeddings[0]),
    "show": lambda: own.show(model).details.family,
    "openai chat": lambda: ai.chat.completions.create(model=model, messages=hello, max_tokens=4).choices[0].message.content,
    "openai chat streamed": lambda: "".join(
        c.choices[0].delta.content or "" for c in ai.chat.completions.create(model=model, messages=hello, max_tokens=4, stream=True)),
    "openai model": lambda: ai.models.retrieve(model).object,
}
management = {
    "pull": lambda: own.pull(model),
    "push": lambda: own.push(model),
    "copy": lambda: own.copy(model, "mine"),
    "create": lambda: own.create(model="mine", from_=model),
    "delete": lambda: own.delete(model),
}
for name, call in (calls | management).items():
    try:
        print(f"{name}: {call()}")
    except ollama.ResponseError as e:
        print(f"{name}: ollama.ResponseError {e.status_code}: {e.error}")
    except openai.APIStatusError as e:
        print(f"{name}: openai.{type(e).__name__} {e.status_code}")
