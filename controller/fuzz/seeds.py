#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets: a message or a body of each kind, small, since a fuzzer changes them byte by byte.

seeds.py GOLDEN OUT    writes OUT/frames, OUT/hub_messages, OUT/join_request, OUT/join_token and OUT/gateway_bodies
"""
import base64
import json
import struct
import subprocess
import sys
from pathlib import Path

ASSIGNMENT = {
    "namespace": "default", "name": "d-0-g1-0", "ring": 1, "generation": 1, "planDigest": "x", "stage": 0,
    "holds": {"embedding": True, "from": 0, "to": 2, "head": False},
    "peers": [
        {"stage": 0, "phone": "a", "ways": [{"by": "direct", "address": "10.0.0.1:1"}], "key": "sha256:00", "layers": {"from": 0, "to": 2}},
        {"stage": 1, "phone": "b", "ways": [{"by": "relayed"}], "key": "sha256:01", "layers": None},
    ],
    "manifestDigest": "00", "contextLength": 8, "maxSessions": 1, "sessionGroups": 0, "activationType": "f16", "numericsClass": "cpu-f32-r1/f16/kv-f16",
    "standby": {"from": 0, "to": 4},
    "follows": {"generation": 1, "owners": [{"phone": "a", "ways": [], "key": "", "layers": {"from": 0, "to": 2}}]},
    "successors": [{"phone": "b", "key": "k", "layers": {"from": 0, "to": 1}}], "encoder": {"last": 0, "firstDecoder": 1},
}
TO_HUB = [
    {"type": "enrol", "version": {"major": 3, "minor": 0}, "phone": "a", "token": "aaaaaa." + "b" * 32, "request": "-----BEGIN"},
    {"type": "renew", "request": "-----BEGIN"},
    {"type": "call", "phone": "b"},
    {"type": "answer", "call": 7},
    {"type": "metrics", "id": 1, "text": "# HELP"},
    {"type": "join", "version": {"major": 3, "minor": 0}, "phone": "a", "agentVersion": "0", "ringAddress": "10.0.0.1:1", "capacityBytes": 1,
     "allocatableBytes": 1, "backend": "cpu", "device": "d", "numerics": "cpu-f32-r1", "kvCaches": ["f16"], "metricsAddress": "", "instance": "1",
     "speeds": [{"backend": "cpu", "device": "d", "numerics": "cpu-f32-r1", "gflops": 1.0, "batchGflops": 1.0, "gigabytesPerSecond": 1.0}]},
    {"type": "heartbeat", "batteryPercent": 50, "charging": True, "temperatureCelsius": 20.5,
     "segments": [{"namespace": "default", "name": "d", "phase": "ready", "bytesLoaded": 1, "bytesTotal": 1, "secondsPerLayer": 0.1, "layersTimed": 2,
                   "sessions": 0, "message": None}],
     "links": [{"peer": "b", "roundTripSeconds": 0.1, "bytesPerSecond": 1e6, "isRelayed": True}], "linksDown": [{"peer": "b", "reason": "silent"}]},
]
TO_AGENT = [
    {"type": "enrolled", "chain": "", "roots": "", "timeSeconds": 1, "goodUntilSeconds": 2},
    {"type": "welcome", "version": {"major": 3, "minor": 0}, "weightsUrl": "https://10.0.0.1:1", "heartbeatSeconds": 1.0, "timeSeconds": 1},
    {"type": "refused", "reason": "no", "remedy": "enrol"},
    {"type": "called", "call": 7},
    {"type": "tellMetrics", "id": 1},
    {"type": "assignments", "segments": [ASSIGNMENT]},
    {"type": "neighbours", "phones": [{"phone": "b", "ways": [{"by": "direct", "address": "10.0.0.1:1"}, {"by": "relayed"}], "key": "k"}]},
]
BODIES = [
    (0, {"model": "m", "prompt": "a", "max_tokens": 4, "temperature": 0, "stop": ["x"], "logprobs": 2, "stream": True, "seed": 1, "echo": True}),
    (0, {"model": "m", "prompt": [[1, 2], [3]], "presence_penalty": 1, "frequency_penalty": -1, "top_p": 0.5, "min_p": 0.1, "top_k": 3, "ignore_eos": True}),
    (1, {"model": "m", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}],
         "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "logprobs": True, "top_logprobs": 2, "stream_options": {"include_usage": True}}),
    (1, {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                                    {"role": "tool", "tool_call_id": "1", "content": "c"}], "add_generation_prompt": False, "continue_final_message": True}),
    (2, {"model": "m", "prompt": "a<|im_start|>", "add_special_tokens": True}),
    (2, {"model": "m", "messages": [{"role": "user", "content": "a"}]}),
    (3, {"model": "m", "tokens": [1, 2, 3]}),
]


def frame(kind, body=b"", position=0, count=0):
    """As the table at the head of node-agent/protocol/src/codec.rs."""
    return struct.pack("<IBBBBQQIIII", 36 + len(body), kind, 0, 0, 0, 1, 2, 3, 4, position, count) + body


def request():
    """A certificate signing request, in PEM and as its bytes."""
    made = subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a",
         "-addext", "subjectAltName=DNS:a,URI:spiffe://x/phone/a"],
        capture_output=True, check=True, text=True).stdout
    return [made.encode(), base64.b64decode("".join(made.splitlines()[1:-1]))]


def main():
    out = Path(sys.argv[2])
    kinds = range(1, 33)
    messages = [json.dumps(message).encode() for message in TO_HUB + TO_AGENT]
    seeds = {
        "frames": [b"\xff" + frame(kind) for kind in kinds]
        + [b"\x07" + frame(kind, struct.pack("<4I", 1, 2, 3, 4), 1, 4) for kind in kinds]
        + [b"\xff" + frame(kind, message) for kind in kinds for message in messages[:1] + messages[-1:]],
        "hub_messages": messages,
        "join_request": request(),
        "join_token": [b"aaaaaa." + b"b" * 32, b"sha256:" + b"0" * 64, b"spiffe://polyphony.local/phone/a", b"spiffe://a.b-c/hub/controller"],
        "gateway_bodies": [bytes([path]) + json.dumps(body).encode() for path, body in BODIES],
    }
    for target, inputs in seeds.items():
        folder = out / target
        folder.mkdir(parents=True)
        for number, data in enumerate(inputs):
            (folder / str(number)).write_bytes(data)


main()
