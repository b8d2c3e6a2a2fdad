"""A page that counts, a number each second, so that its answer is a stream."""
import sys
import time

import gradio


def count(last):
    text = ""
    for number in range(1, int(last) + 1):
        text = f"{text} {number}".strip()
        yield text
        time.sleep(1)


page = gradio.Interface(fn=count, inputs=gradio.Textbox(label="Count to"), outputs=gradio.Textbox(label="Numbers"), title="Counter")
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
