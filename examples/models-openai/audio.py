"""Sends audio through sallyport with the official SDK of OpenAI.

    SALLYPORT_KEY=sp_... audio.py https://localhost:8443 ca/root.pem [MODEL]

It prints a line for each call: its name and the text, or how the SDK reports the refusal.
"""
import io
import os
import ssl
import sys

import openai

gateway, ca, model = (sys.argv[1:] + ["whisper"])[:3]
ai = openai.OpenAI(base_url=gateway + "/v1", api_key=os.environ["SALLYPORT_KEY"], max_retries=0, timeout=60,
                   http_client=openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=ca)))


def wave(size):
    return "a.wav", io.BytesIO(b"RIFF" + bytes(size - 4)), "audio/wav"


def streamed():
    events = list(ai.audio.transcriptions.create(model=model, file=wave(1000), stream=True))
    return "".join(e.delta for e in events if e.type == "transcript.text.delta").strip()


for name, call in {
    "transcription": lambda: ai.audio.transcriptions.create(model=model, file=wave(1000)).text,
    "with a prompt": lambda: ai.audio.transcriptions.create(model=model, file=wave(1000), language="en", prompt='model="whisper-large"\r\n').text,
    "streamed": streamed,
    "30 MiB": lambda: ai.audio.transcriptions.create(model=model, file=wave(30 << 20)).text,
}.items():
    try:
        print(f"{name}: {call()}")
    except openai.APIStatusError as e:
        print(f"{name}: openai.{type(e).__name__} {e.status_code} {e.code}")
