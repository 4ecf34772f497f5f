"""Write a small random GPT-2 checkpoint folder as the Hugging Face hub has them. Needs numpy and tokenizers, no torch.

    folder = write_tiny_gpt2(tmp_path / "tiny", seed=1, layers=2, heads=4, d_model=32)

The folder loads with transformers (`GPT2LMHeadModel.from_pretrained(folder)`) and with Ridgeline. Like the hub's gpt2
it has names without `transformer.`, `h.N.attn.bias` mask buffers, and linear weights stored as [in, out] (Conv1D).
The same arguments always give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

Floats = NDArray[np.float32]

END_OF_TEXT = "<|endoftext|>"
CORPUS = """It was a bright cold day in the valley, and the river ran high under the old stone bridge. The miller's
daughter had gone down to the water with her brother, who was twelve years old and afraid of nothing. "Look there,"
said the boy; "there is a light in the tower again." She looked, and for a long while neither of them spoke. They had
been told, as all the children of the village had been told, that nobody lived in the tower and nobody ever would.
In 1843 a stranger had come over the hills with 3 horses and a heavy chest; he asked the way, thanked them kindly, and
was never seen again. But the light was there, yellow and quite steady, and it moved slowly from window to window."""


def write_tiny_gpt2(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    heads: int = 2,
    d_model: int = 32,
    d_inner: int | None = None,
    vocab: int = 384,
    positions: int = 256,
    tied: bool = True,
    prefix: bool = False,
    masks: bool = True,
    shards: int = 1,
    dtype: str = "float32",
    tokenizer: str = "tokenizer.json",
    std: float = 0.25,
    config: dict[str, Any] | None = None,
) -> Path:
    """Create the folder and write config, generation config, tokenizer and weights into it; returns the folder.

    d_inner: None is 4 * d_model, as null in the config. vocab: rows of the embedding; the tokenizer has at most as many
    ids (257 at least). prefix: names begin with `transformer.`. masks: write the `h.N.attn.bias` buffers. shards: more
    than 1 writes an index. dtype: "float32" or "bfloat16". tokenizer: "tokenizer.json" or "vocab.json" (with
    merges.txt). std: spread of the weights; large enough that greedy decoding does not settle on one token.
    config: more fields of config.json, or other values for those that are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields: dict[str, Any] = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": layers,
        "n_head": heads,
        "n_embd": d_model,
        "n_inner": d_inner,
        "n_positions": positions,
        "n_ctx": positions,
        "vocab_size": vocab,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "attn_pdrop": 0.1,
        "initializer_range": 0.02,
        "summary_type": "cls_index",
    }
    _write_json(folder / "config.json", fields | (config or {}))
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    write_tiny_tokenizer(folder, vocab=vocab, layout=tokenizer)
    tensors = random_weights(
        seed=seed, layers=layers, d_model=d_model, d_inner=d_inner or 4 * d_model, vocab=vocab, positions=positions,
        std=std,
    )  # fmt: skip
    if not tied:
        rng = np.random.default_rng((seed, 1))
        tensors["lm_head.weight"] = rng.normal(0, std, (vocab, d_model)).astype(np.float32)
    if masks:
        causal = np.tril(np.ones((1, 1, positions, positions), np.float32))
        tensors |= {f"h.{n}.attn.bias": causal for n in range(layers)}
    if prefix:
        tensors = {name if name.startswith("lm_head") else f"transformer.{name}": t for name, t in tensors.items()}
    _write_weights(folder, tensors, shards, dtype)
    return folder


def random_weights(
    *, seed: int, layers: int, d_model: int, d_inner: int, vocab: int, positions: int, std: float
) -> dict[str, Floats]:
    """Names and layouts of the hub's gpt2, without buffers and head. Linear weights are [in, out]."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Floats:
        return rng.normal(0, std, shape).astype(np.float32)

    def norm(name: str) -> dict[str, Floats]:
        return {f"{name}.weight": 1 + normal(d_model), f"{name}.bias": normal(d_model)}

    def linear(name: str, d_in: int, d_out: int) -> dict[str, Floats]:
        return {f"{name}.weight": normal(d_in, d_out), f"{name}.bias": normal(d_out)}

    tensors = {"wte.weight": normal(vocab, d_model), "wpe.weight": normal(positions, d_model)}
    for n in range(layers):
        tensors |= norm(f"h.{n}.ln_1") | norm(f"h.{n}.ln_2")
        tensors |= linear(f"h.{n}.attn.c_attn", d_model, 3 * d_model) | linear(f"h.{n}.attn.c_proj", d_model, d_model)
        tensors |= linear(f"h.{n}.mlp.c_fc", d_model, d_inner) | linear(f"h.{n}.mlp.c_proj", d_inner, d_model)
    return tensors | norm("ln_f")


def write_tiny_tokenizer(folder: Path, *, vocab: int, layout: str = "tokenizer.json") -> None:
    """A byte-level BPE of at most `vocab` tokens, trained on a paragraph; `<|endoftext|>` is id 0."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator([CORPUS], trainer)
    if layout == "tokenizer.json":
        library.save(str(folder / "tokenizer.json"))
    else:
        assert layout == "vocab.json", layout
        library.model.save(str(folder))
    names = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2TokenizerFast"} | names)


def write_safetensors(path: Path, tensors: dict[str, Floats], dtype: str = "float32") -> None:
    """The format is 8 bytes of header length, a JSON header, then the data; bfloat16 is rounded to nearest even."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor, "<f4").tobytes() if dtype == "float32" else _bfloat16(tensor)
        kind = {"float32": "F32", "bfloat16": "BF16"}[dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def _bfloat16(tensor: Floats) -> bytes:
    bits = np.ascontiguousarray(tensor, "<f4").view("<u4")
    rounded: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return rounded.tobytes()


def _write_weights(folder: Path, tensors: dict[str, Floats], shards: int, dtype: str) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
        return
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        mine = names[i::shards]
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in mine}, dtype)
        weight_map |= dict.fromkeys(mine, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
