"""A model folder's description: config.json and generation_config.json. Knows their fields; reads no weights.

Everything in the folder is untrusted: whatever is wrong is a ModelError that names the file, the field and what to do.

A field of config.json that changes the arithmetic is honoured or refused by name. `reorder_and_upcast_attn` is
neither: it asks for attention scores in float32 where the model runs in half precision, which every attention backend
here does anyway, and in float32 it changes nothing but rounding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline.core.errors import BadRequest, ModelError
from ridgeline.core.folder import CONFIG, GENERATION
from ridgeline.core.jsonfile import Fields, read_object
from ridgeline.core.params import SamplingParams
from ridgeline.core.quantisation import FIELD, saved_scheme
from ridgeline.core.spec import Activation, ModelSpec
from ridgeline.core.types import MAX_STOP_IDS

MODEL_TYPE, ARCHITECTURE = "gpt2", "GPT2LMHeadModel"

# gelu_pytorch_tanh is the same formula as gelu_new under torch's name.
ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu": "gelu",
    "relu": "relu",
}
# A second name that transformers accepts for the same field.
ALIASES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
}
# Fields that change the arithmetic and are not implemented, with the values under which they change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (None, False),
    "is_encoder_decoder": (None, False),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": (None, {}, []),
    "position_embedding_type": (None, "absolute"),
    "use_bias": (None, True),
    "bias": (None, True),
    "multi_query": (None, False),
}
# GPT-2 has none of these. A config that carries one, and switches it on, describes another computation.
LOOKS_ARITHMETIC = re.compile(
    r"(^|_)(rope|rotary|alibi|sliding_window|key_value_heads|kv_heads|n?experts?|moe|softcap(ping)?|multipliers?"
    r"|scal(e|es|ing)|norm|quantization|lora|adapters?|qk)(_|$)"
)
HONOURED = frozenset({FIELD, "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "layer_norm_epsilon"})
MAX_PARAMETERS = 10**11


def read_spec(folder: Path) -> ModelSpec:
    """The shape that a folder's config.json describes. Raises ModelError."""
    path = folder / CONFIG
    values = read_object(path)
    _check_family(path, values)
    fields = Fields(path, _with_aliases(path, values))
    _check_neutral(fields)
    saved_scheme(folder)
    d_model, heads = fields.integer("n_embd", 1, 2**16), fields.integer("n_head", 1, 2**12)
    if d_model % heads:
        raise ModelError(f"{path}: n_embd {d_model} is not divisible by n_head {heads}; correct the file")
    spec = ModelSpec(
        layers=fields.integer("n_layer", 1, 2**10),
        d_model=d_model,
        heads=heads,
        d_inner=fields.integer("n_inner", 1, 2**20, default=4 * d_model),
        vocab=fields.integer("vocab_size", 2, 2**20),
        max_positions=fields.integer("n_positions", 2, 2**20),
        norm_eps=fields.number("layer_norm_epsilon", 1e-12, 1.0, default=1e-5),
        activation=_activation(fields),
        tied_head=fields.flag("tie_word_embeddings", default=True),
        scale_attention=fields.flag("scale_attn_weights", default=True),
        scale_by_layer=fields.flag("scale_attn_by_inverse_layer_idx", default=False),
    )
    _check_together(fields, spec)
    return spec


def _check_family(path: Path, values: dict[str, Any]) -> None:
    kind, names = values.get("model_type"), values.get("architectures")
    if kind is None and names is None:
        raise ModelError(f"{path}: has neither model_type nor architectures; a GPT-2 has model_type '{MODEL_TYPE}'")
    if kind not in (None, MODEL_TYPE):
        raise Fields(path, values).refuse("model_type", f"but only '{MODEL_TYPE}' can be served; choose a GPT-2 model")
    if names is not None and not (isinstance(names, list) and ARCHITECTURE in names):
        must = f"but only '{ARCHITECTURE}' can be served; choose a GPT-2 with its language-model head"
        raise Fields(path, values).refuse("architectures", must)


def _with_aliases(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, alias in ALIASES.items():
        first, second = values.get(name), values.get(alias)
        if first is not None and second is not None and first != second:
            raise ModelError(f"{path}: {name} and {alias} are two names of one size and disagree; correct the file")
        merged[name] = second if first is None else first
    return merged


def _check_neutral(fields: Fields) -> None:
    for name, value in fields.values.items():
        if name in NEUTRAL:
            if value not in NEUTRAL[name]:
                raise fields.refuse(name, "which changes the computation and is not implemented; choose another model")
        elif name not in HONOURED and LOOKS_ARITHMETIC.search(name) and value not in (None, False, {}, []):
            raise fields.refuse(
                name, "which is no field of GPT-2 and looks like a change of its arithmetic; remove it if it is not"
            )


def _activation(fields: Fields) -> Activation:
    name = fields.text("activation_function", default="gelu_new")
    if name not in ACTIVATIONS:
        raise fields.refuse("activation_function", f"but only {', '.join(ACTIVATIONS)} are implemented")
    return ACTIVATIONS[name]


def _check_together(fields: Fields, spec: ModelSpec) -> None:
    if fields.integer("n_ctx", 1, 2**20, default=spec.max_positions) != spec.max_positions:
        raise fields.refuse(
            "n_ctx", f"but n_positions is {spec.max_positions}; set both to the number of rows of the weight wpe"
        )
    if spec.parameters > MAX_PARAMETERS:
        raise ModelError(
            f"{fields.path}: n_layer, n_embd, n_inner, vocab_size and n_positions together describe "
            f"{spec.parameters:,} parameters, more than any GPT-2 ({MAX_PARAMETERS:,} at most); correct the file"
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """How the model's makers want it run. eos_ids: tokens that end a text, all inside the vocabulary.

    ignored: fields of generation_config.json that ask for something that is not implemented; the caller says the note.
    """

    eos_ids: tuple[int, ...]
    defaults: SamplingParams
    ignored: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """One sentence for the operator where something is ignored."""
        if not self.ignored:
            return None
        return f"{GENERATION} asks for {', '.join(self.ignored)}, not implemented yet: the model runs without."


# Fields that would change a generation and are not implemented, with their values that change nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "num_beams": (None, 1),
    "typical_p": (None, 1, 1.0),
    "min_p": (None, 0, 0.0),
    "max_length": (None, 20),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
}


def read_generation(folder: Path) -> Generation:
    """End tokens and defaults from generation_config.json, which may be absent; then config.json names the end token.

    Raises ModelError.
    """
    spec, path = read_spec(folder), folder / GENERATION
    config = Fields(folder / CONFIG, read_object(folder / CONFIG))
    fields = Fields(path, read_object(path) if path.is_file() else {})
    where = fields if fields.values.get("eos_token_id") is not None else config
    ignored = tuple(name for name, neutral in UNSUPPORTED.items() if fields.values.get(name) not in neutral)
    return Generation(_eos_ids(where, spec.vocab), _defaults(fields), ignored)


def _eos_ids(fields: Fields, vocab: int) -> tuple[int, ...]:
    value = fields.values.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if len(ids) > MAX_STOP_IDS or any(type(i) is not int or not 0 <= i < vocab for i in ids):
        many = f"one token id or a list of at most {MAX_STOP_IDS}"
        must = f"but must be {many}, each from 0 to {vocab - 1} (vocab_size is {vocab})"
        raise fields.refuse("eos_token_id", must)
    return tuple(dict.fromkeys(ids))


def _defaults(fields: Fields) -> SamplingParams:
    values: dict[str, Any] = {"max_new_tokens": fields.integer("max_new_tokens", 1, 2**31 - 1, default=16)}
    if not fields.flag("do_sample", default=False):
        return SamplingParams.from_generation_config(values)
    values |= {
        "do_sample": True,
        "temperature": fields.number("temperature", 0.0, 2.0, default=1.0),
        "top_p": fields.number("top_p", 0.0, 1.0, default=1.0),
        "top_k": fields.integer("top_k", 0, 2**31 - 1, default=0),
    }
    try:
        return SamplingParams.from_generation_config(values)
    except BadRequest as error:
        raise ModelError(f"{fields.path}: {error}; correct the file") from error
