"""A double of a server that transcribes, such as vLLM or Speaches: FastAPI, and the parser of forms that both use.

    uvicorn transcribe:app --port 8090

It hears nothing: the text says which model was asked, and how long the file was.
"""
from typing import Annotated

from fastapi import FastAPI, File, Form, UploadFile
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.post("/v1/audio/transcriptions")
@app.post("/v1/audio/translations")
async def transcribe(file: Annotated[UploadFile, File()], model: Annotated[str, Form()], stream: Annotated[bool, Form()] = False):
    text = f"{model} heard {file.size} bytes"
    if stream:
        return StreamingResponse(events(text), media_type="text/event-stream")
    return {"text": text}


def events(text):
    for word in text.split(" "):
        yield 'data: {"type": "transcript.text.delta", "delta": "%s "}\n\n' % word
    yield 'data: {"type": "transcript.text.done", "text": "%s"}\n\ndata: [DONE]\n\n' % text
