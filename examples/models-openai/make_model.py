"""Writes a tiny llama model whose words tell which model they come from: random weights, and only the given letters.

    make_model.py FILE NAME SEED LETTERS
"""
import sys

import gguf
import numpy as np

WIDTH, HEADS, INNER, LAYERS = 32, 2, 64, 2

file, name, seed, letters = sys.argv[1:]
tokens = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
tokens += [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
tokens += [(text, gguf.TokenType.NORMAL) for text in "▁abcdefghijklmnopqrstuvwxyz"]
texts = [text for text, _ in tokens]

out = gguf.GGUFWriter(file, "llama")
out.add_name(name)
out.add_context_length(512)
out.add_embedding_length(WIDTH)
out.add_block_count(LAYERS)
out.add_feed_forward_length(INNER)
out.add_head_count(HEADS)
out.add_head_count_kv(HEADS)
out.add_layer_norm_rms_eps(1e-5)
out.add_rope_dimension_count(WIDTH // HEADS)
out.add_vocab_size(len(tokens))
out.add_file_type(0)
out.add_tokenizer_model("llama")
out.add_token_list(texts)
out.add_token_scores([-float(n) for n in range(len(tokens))])
out.add_token_types([kind for _, kind in tokens])
out.add_bos_token_id(1)
out.add_eos_token_id(2)
out.add_unk_token_id(0)
out.add_chat_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:")

random = np.random.default_rng(int(seed))


def weights(name, *shape, scale=0.3):
    return name, (random.standard_normal(shape) * scale).astype(np.float32)


def add(name, values):
    out.add_tensor(name, values)


# The first coordinate is the same for all tokens, no layer writes to it, and the last
# matrix takes it for the letters and against all others.
name, values = weights("token_embd.weight", len(tokens), WIDTH, scale=1.2)
values[:, 0] = 4
add(name, values)
name, values = weights("output.weight", len(tokens), WIDTH, scale=0.6)
values[:, 0] = -9
values[[texts.index(letter) for letter in letters], 0] = 9
add(name, values)
add("output_norm.weight", np.ones(WIDTH, np.float32))
for layer in range(LAYERS):
    block = f"blk.{layer}."
    add(block + "attn_norm.weight", np.ones(WIDTH, np.float32))
    add(block + "ffn_norm.weight", np.ones(WIDTH, np.float32))
    for part in ("attn_q", "attn_k", "attn_v"):
        add(*weights(block + part + ".weight", WIDTH, WIDTH))
    for part in ("ffn_gate", "ffn_up"):
        add(*weights(block + part + ".weight", INNER, WIDTH))
    for part, inputs in (("attn_output", WIDTH), ("ffn_down", INNER)):
        name, values = weights(block + part + ".weight", WIDTH, inputs, scale=0.03)
        values[0, :] = 0
        add(name, values)

out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
