"""A page that greets, in parts, so that its answer is a stream."""
import sys
import time

import gradio


def greet(name):
    text = ""
    for word in ("Good", "morning,", name):
        text = f"{text} {word}".strip()
        yield text
        time.sleep(0.2)


page = gradio.Interface(fn=greet, inputs=gradio.Textbox(label="Name"), outputs=gradio.Textbox(label="Greeting"), title="Greeter")
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
