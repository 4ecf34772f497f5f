"""Peer: transformers' generate, the naive loop that people begin with, on the same weights. Knows no engine.

Greedy, one prompt at a time, as `model.generate` does it with its own cache. It is a yardstick and a second opinion on
the tokens; nothing of Ridgeline's arithmetic is in it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ridgeline.build import EngineOrder, Loaded
from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import ModelSpec
from ridgeline.models.gpt2 import Source
from ridgeline.models.gpt2_weights import RandomSource, tensor_names

LEAST = (4, 57)
INSTALL = 'pip install "transformers>=4.57,<6"'


def available() -> str | None:
    """None, or a sentence that says why there is no such peer here and how to get it."""
    if importlib.util.find_spec("transformers") is None:
        return f"transformers is not installed; install it with: {INSTALL}"
    found = metadata.version("transformers")
    if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < LEAST:
        return f"transformers {found} is too old for this comparison; install another with: {INSTALL}"
    return None


class Generate:
    """transformers' GPT-2 on the device of `loaded`, in its number format for weights.

    Where that format is not what the device computes in (bfloat16 on a CPU without such arithmetic), transformers
    computes in it all the same. Raises ConfigError where `available` says why not, and for a checkpoint that
    transformers cannot read.
    """

    def __init__(self, order: EngineOrder, loaded: Loaded) -> None:
        reason = available()
        if reason is not None:
            raise ConfigError(reason)
        from transformers.utils import logging

        logging.disable_progress_bar()  # the caller has a bar of its own
        device = loaded.device
        if order.weights is not None:
            self._model = _from_folder(order.weights, order.spec(), device.dtype)
        else:
            self._model = _filled(order.spec(), RandomSource(order.config.model.seed, device), device.dtype)
        self._model = self._model.to(device.torch_device).eval()
        # An end in either config would stop a row, or be forbidden where a number of tokens is asked for.
        self._model.config.eos_token_id = None
        self._device = device

    def run(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> list[list[int]]:
        """Exactly new[i] tokens after prompts[i], past the model's own end; the device is done when it returns."""
        made = [self._one(prompt, count) for prompt, count in zip(prompts, new, strict=True)]
        self._device.synchronize()
        return made

    def _one(self, prompt: Sequence[int], count: int) -> list[int]:
        from transformers import GenerationConfig

        ids = torch.tensor([list(prompt)], device=self._device.torch_device)  # [1, tokens]
        how = GenerationConfig(do_sample=False, max_new_tokens=count, pad_token_id=0)
        self._model.generation_config = how  # what a call leaves open is filled in from here
        with torch.inference_mode():
            out = self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
        made: list[int] = out[0, len(prompt) :].tolist()
        assert len(made) == count, f"{len(made)} tokens instead of {count}"
        return made


def _attention(spec: ModelSpec) -> str:
    """transformers 4's fused attention scales scores as GPT-2 does, whatever the config says."""
    return "sdpa" if spec.scale_attention and not spec.scale_by_layer else "eager"


def _from_folder(folder: Path, spec: ModelSpec, dtype: torch.dtype) -> Any:
    from transformers import GPT2LMHeadModel

    options = {"attn_implementation": _attention(spec), "local_files_only": True, "use_safetensors": True}
    try:
        return GPT2LMHeadModel.from_pretrained(folder, dtype=dtype, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(f"{folder}: transformers cannot read what Ridgeline can ({error})") from error


def _filled(spec: ModelSpec, source: Source[Tensor], dtype: torch.dtype) -> Any:
    """A GPT2LMHeadModel with the source's weights. Matrices of a block are Conv1D there: [d_in, d_out]."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(_config(spec)).to(dtype)
    with torch.no_grad():
        for name in tensor_names(spec):
            place = model.get_parameter(name if name.startswith("lm_head") else f"transformer.{name}")
            if place.ndim == 1:
                place.copy_(source.vector(name, place.shape[0]))
            elif name.startswith("h."):
                place.copy_(source.matrix(name, place.shape[1], place.shape[0]).t())
            else:
                place.copy_(source.table(name, *place.shape))
    return model


def _config(spec: ModelSpec) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        n_layer=spec.layers, n_embd=spec.d_model, n_head=spec.heads, n_inner=spec.d_inner, vocab_size=spec.vocab,
        n_positions=spec.max_positions, layer_norm_epsilon=spec.norm_eps, activation_function=spec.activation,
        tie_word_embeddings=spec.tied_head, scale_attn_weights=spec.scale_attention,
        scale_attn_by_inverse_layer_idx=spec.scale_by_layer, bos_token_id=None, eos_token_id=None,
        attn_implementation=_attention(spec),
    )  # fmt: skip
