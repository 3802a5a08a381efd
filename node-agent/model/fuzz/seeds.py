#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets out of e2e/golden: small ones, since a fuzzer changes them byte by byte.

seeds.py GOLDEN OUT    writes OUT/gguf, OUT/safetensors, OUT/tokenizer and OUT/template
"""
import json
import struct
import sys
from pathlib import Path

# Tokens of a vocabulary that is cut: the bytes, and some words made of them.
N_TOKENS = 320
SIZES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PART = b"\xff"


class Header:
    """The header of a GGUF file: its keys with their types, and the bytes of its tensors' list."""

    def __init__(self, data):
        self.data, self.at = data, 8
        n_tensors, n_keys = self.take("Q"), self.take("Q")
        self.keys = {}
        for _ in range(n_keys):
            name, kind = self.string(), self.take("I")
            self.keys[name] = (kind, self.value(kind))
        start = self.at
        for _ in range(n_tensors):
            self.string()
            n_dimensions = self.take("I")
            self.at += 8 * n_dimensions + 12
        self.n_tensors, self.list = n_tensors, data[start : self.at]

    def take(self, form):
        found, = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n : self.at]

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            of, n = self.take("I"), self.take("Q")
            return of, [self.value(of) for _ in range(n)]
        return self.take(SIZES[kind])

    def bytes(self, with_tensors):
        out = b"GGUF" + struct.pack("<IQQ", 3, self.n_tensors if with_tensors else 0, len(self.keys))
        for name, (kind, value) in self.keys.items():
            out += text(name) + struct.pack("<I", kind) + written(kind, value)
        return (out + self.list) if with_tensors else out


def text(of):
    return struct.pack("<Q", len(of)) + of


def written(kind, value):
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        of, items = value
        return struct.pack("<IQ", of, len(items)) + b"".join(written(of, item) for item in items)
    return struct.pack("<" + SIZES[kind], value)


def cut(header):
    """The same tokenizer with fewer tokens."""
    keys = {name: value for name, value in header.keys.items() if name.startswith(b"tokenizer.ggml.")}
    tokens = keys[b"tokenizer.ggml.tokens"][1][1]
    special = [at for at, token in enumerate(tokens) if at >= N_TOKENS and token.startswith(b"<")][:8]
    kept = list(range(min(N_TOKENS, len(tokens)))) + special
    place = {old: new for new, old in enumerate(kept)}
    for name, (kind, value) in list(keys.items()):
        if kind == ARRAY and len(value[1]) == len(tokens) and not name.endswith(b"merges"):
            keys[name] = kind, (value[0], [value[1][at] for at in kept])
        elif name.endswith(b"_token_id"):
            keys[name] = kind, place.get(value, 0)
        elif name.endswith(b"merges"):
            known = {tokens[at] for at in kept}
            fits = [merge for merge in value[1] if merge.replace(b" ", b"", 1) in known and set(merge.split(b" ")) <= known]
            keys[name] = kind, (value[0], fits)
    header.keys = keys


def safetensors_header(path):
    data = path.read_bytes()
    n, = struct.unpack_from("<Q", data)
    return data[8 : 8 + n]


def main(golden, out):
    def write(target, name, data):
        (out / target).mkdir(parents=True, exist_ok=True)
        (out / target / name).write_bytes(data)

    for path in sorted((golden / "tiny").glob("*.gguf")):
        write("gguf", path.stem, Header(path.read_bytes()).bytes(with_tensors=True))
    for path in sorted((golden / "tokenizers").glob("*.gguf")):
        header = Header(path.read_bytes())
        cut(header)
        write("tokenizer", path.stem, header.bytes(with_tensors=False))
    for folder in sorted((golden / "tiny").glob("*_hf")):
        read = lambda name: (folder / name).read_bytes() if (folder / name).exists() else b""
        write("tokenizer", folder.name, read("tokenizer.json") + PART + read("tokenizer_config.json"))
        weights = [safetensors_header(path) for path in sorted(folder.glob("*.safetensors"))]
        config = json.loads(read("config.json"))
        write("safetensors", folder.name + "_weights", struct.pack("<Q", len(weights[0])) + weights[0])
        index = {"weight_map": {}}
        for at, header in enumerate(weights):
            for tensor in json.loads(header):
                index["weight_map"][tensor] = f"model-{at + 1:05}-of-00003.safetensors"
        head = config["hidden_size"] // config["num_attention_heads"]
        scalings = {
            "plain": None,
            "linear": {"type": "linear", "factor": 4.0},
            "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 64},
            "longrope": {"type": "longrope", "long_factor": [1.5] * (head // 2), "short_factor": [1.0] * (head // 2)},
        }
        for name, scaling in scalings.items():
            if scaling:
                config["rope_scaling"] = scaling
            parts = [json.dumps(config).encode(), json.dumps(index).encode(), b'{"eos_token_id": [1, 2]}',
                     read("tokenizer_config.json")]
            write("safetensors", f"{folder.name}_{name}", PART.join(parts + weights))
    templates = json.loads((golden / "templates.json").read_text())["templates"]
    for name, template in templates.items():
        write("template", name, template.encode() + PART + template.encode() + PART + b"<|im_end|> Hello")
        write("template", name + "_alone", template.encode())


main(Path(sys.argv[1]), Path(sys.argv[2]))
