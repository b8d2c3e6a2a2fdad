"""Asks a model through sallyport with the official SDKs of OpenAI and Anthropic.

    SALLYPORT_KEY=sp_... client.py https://localhost:8443 ca/root.pem [MODEL]

It prints a line for each call: its name and what the model said, or how the SDK reports the refusal.
"""
import os
import ssl
import sys

import anthropic
import openai

gateway, ca, model = (sys.argv[1:] + ["tiny"])[:3]
key = os.environ["SALLYPORT_KEY"]
trust = ssl.create_default_context(cafile=ca)
ai = openai.OpenAI(base_url=gateway + "/v1", api_key=key, max_retries=0, timeout=30,
                   http_client=openai.DefaultHttpxClient(verify=trust))
claude = anthropic.Anthropic(base_url=gateway, api_key=key, max_retries=0, timeout=30,
                             http_client=anthropic.DefaultHttpxClient(verify=trust))

hello = [{"role": "user", "content": "hi"}]
chat = {"model": model, "messages": hello, "max_tokens": 6}


def streamed(pieces):
    """Joins what came piece by piece, and says so if it did not."""
    pieces = [p for p in pieces if p]
    return "".join(pieces) if len(pieces) > 1 else "in one piece"


def chat_streamed():
    stream = ai.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    if chunks[-1].usage is None:
        return "no usage"
    return streamed(c.choices[0].delta.content for c in chunks if c.choices)


def responses_streamed():
    stream = ai.responses.create(model=model, input="hi", max_output_tokens=6, stream=True)
    return streamed(e.delta for e in stream if e.type == "response.output_text.delta")


def messages_streamed():
    with claude.messages.stream(**chat) as stream:
        return streamed(stream.text_stream)


for name, call in {
    "chat": lambda: ai.chat.completions.create(**chat).choices[0].message.content,
    "chat streamed": chat_streamed,
    "completion": lambda: ai.completions.create(model=model, prompt="hi", max_tokens=6).choices[0].text,
    "completion streamed": lambda: streamed(
        c.choices[0].text for c in ai.completions.create(model=model, prompt="hi", max_tokens=6, stream=True)),
    "embeddings": lambda: len(ai.embeddings.create(model=model, input=["hi"]).data[0].embedding),
    "responses": lambda: ai.responses.create(model=model, input="hi", max_output_tokens=6).output_text,
    "responses streamed": responses_streamed,
    "messages": lambda: claude.messages.create(**chat).content[0].text,
    "messages streamed": messages_streamed,
}.items():
    try:
        print(f"{name}: {call()}")
    except openai.APIStatusError as e:
        print(f"{name}: openai.{type(e).__name__} {e.status_code} {e.code}: {e.body['message']}")
    except anthropic.APIStatusError as e:
        print(f"{name}: anthropic.{type(e).__name__} {e.status_code}: {e.body['error']['message']}")
