"""How long `ridgeline serve --model FOLDER` takes from the start of its process to /ready, cold and warm, by laps.

    PYTHONPATH=src python -m scripts.check_gpu_start --out start.json
    PYTHONPATH=src python -m scripts.check_gpu_start --quick            # one start each, of a tiny shape

The folder has random weights of GPT-2's shape in float32, as checkpoints come. Cold: nothing is compiled yet (the
caches of Ridgeline and Triton are new folders for each start). Warm: the caches of a start before. Laps are those that
the server itself prints. --tokenizer: a folder with tokenizer.json, or vocab.json and merges.txt; default: the bundled
model's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ridgeline.core.records import provenance, write_run
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec
from ridgeline.models.gpt2_weights import tensor_names

TIMES, LONGEST_S = 3, 120.0
BUDGET_S = {"cold": 10.0, "warm": 6.0}
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
_LAP = re.compile(r"^\s+(\S.*?)\s{2,}([0-9.]+) s$")


def write_model(folder: Path, spec: ModelSpec, tokenizer: Path) -> None:
    """A checkpoint as the hub has it: linear weights as [d_in, d_out]."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.empty(shape_of(name, spec)) for name in tensor_names(spec)}
    for name, tensor in made.items():
        if ".ln_" in f".{name}" and name.endswith("weight"):
            tensor.fill_(1.0)
        elif name.endswith("bias"):
            tensor.zero_()
        else:
            tensor.normal_(0.0, 0.02, generator=generator)
    save_file(made, folder / "model.safetensors")
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
        "n_layer": spec.layers, "n_head": spec.heads, "n_embd": spec.d_model, "n_inner": spec.d_inner,
        "n_positions": spec.max_positions, "n_ctx": spec.max_positions, "vocab_size": spec.vocab,
        "layer_norm_epsilon": spec.norm_eps, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    for file in _TOKENIZER:
        if (tokenizer / file).is_file():
            shutil.copy(tokenizer / file, folder / file)


def shape_of(name: str, spec: ModelSpec) -> tuple[int, ...]:
    d, inner = spec.d_model, spec.d_inner
    matrices = {
        "wte": (spec.vocab, d), "wpe": (spec.max_positions, d), "attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d),
        "mlp.c_fc": (d, inner), "mlp.c_proj": (inner, d),
    }  # fmt: skip
    part, _, kind = re.sub(r"^h\.\d+\.", "", name).rpartition(".")
    if part not in matrices:
        return (d,)
    return matrices[part] if kind == "weight" else matrices[part][1:]


def start(folder: Path, caches: Path, options: list[str]) -> dict[str, Any]:
    """Seconds to /health, to /ready and until compiled kernels serve, what a request takes before and after that, and
    the laps that the server prints."""
    port = _free_port()
    environment = os.environ | {
        "RIDGELINE_CACHE_DIR": str(caches / "ridgeline"), "TRITON_CACHE_DIR": str(caches / "triton"),
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "ridgeline", "serve", "--model", str(folder), "--port", str(port), *options]
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
        try:
            health_s = _until(server, f"http://127.0.0.1:{port}/health", begun)
            ready_s = _until(server, f"http://127.0.0.1:{port}/ready", begun)
            first_s = _asked(port)
            kernels_s = _taken(server, f"http://127.0.0.1:{port}/ready", begun)
            later_s = _asked(port)
        finally:
            server.terminate()
            server.wait(30)
            said.seek(0)
            text = said.read()
    laps = {match[1]: float(match[2]) for match in map(_LAP.match, text.splitlines()) if match is not None}
    if ready_s is None:
        return {"error": text.strip()[-600:]}
    answers = {"first_answer_s": first_s, "kernels_s": kernels_s, "later_answer_s": later_s}
    return {"health_s": health_s, "ready_s": ready_s} | answers | {"laps_s": laps}


def _until(server: subprocess.Popen[bytes] | subprocess.Popen[str], url: str, begun: float) -> float | None:
    while server.poll() is None and time.perf_counter() - begun < LONGEST_S:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return round(time.perf_counter() - begun, 3)
        except OSError:  # not there yet, or 503
            time.sleep(0.01)
    return None


def _taken(server: subprocess.Popen[bytes] | subprocess.Popen[str], url: str, begun: float) -> float | None:
    """When nothing is compiled beside service any more."""
    while server.poll() is None and time.perf_counter() - begun < LONGEST_S:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if "beside" not in json.load(answer):
                return round(time.perf_counter() - begun, 3)
        time.sleep(0.05)
    return None


def _asked(port: int) -> float | None:
    """What the first request takes: what was not warmed up shows here."""
    body = json.dumps({"prompt": "It was a bright cold day", "max_tokens": 8, "temperature": 0}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"content-type": "application/json"}
    )
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
    except (urllib.error.URLError, OSError):
        return None
    return round(time.perf_counter() - begun, 3)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the run file")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shape", choices=list(GPT2_SHAPES), default="gpt2")
    parser.add_argument("--tokenizer", type=Path, help="a folder")
    parser.add_argument("options", nargs="*", help="after --: of `ridgeline serve`")
    asked = parser.parse_args()
    spec = GPT2_SHAPES[asked.shape]
    if asked.quick:
        spec = ModelSpec(
            layers=2, heads=2, d_model=64, d_inner=256, vocab=8192, max_positions=256, norm_eps=1e-5,
            activation="gelu_new",
        )  # fmt: skip
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"{asked.shape}-random"
        write_model(folder, spec, asked.tokenizer or Path(str(resources.files("ridgeline") / "assets" / "demo")))
        for which in range(1 if asked.quick else TIMES):
            for kind in ("cold", "warm"):
                found = {"kind": kind} | start(folder, Path(place) / f"caches-{which}", asked.options)
                found["in time"] = found.get("ready_s", LONGEST_S) <= BUDGET_S[kind]
                print(json.dumps(found), flush=True)
                results.append(found)
                if asked.out is not None:
                    config = {"shape": asked.shape, "quick": asked.quick, "options": asked.options}
                    write_run(asked.out, {"provenance": provenance(sys.argv), "config": config, "results": results})


if __name__ == "__main__":
    main()
