"""config.json and generation_config.json: honoured field by field, or refused with the field's name."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.core.checkpoint import read_generation, read_spec
from ridgeline.core.errors import ModelError
from ridgeline.core.params import SamplingParams
from ridgeline.core.spec import GPT2_SHAPES, ModelSpec

# The config of the hub's gpt2, as it is there.
GPT2: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}


def folder_with(folder: Path, config: object, generation: object = None) -> Path:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def spec_of(folder: Path, **changes: Any) -> ModelSpec:
    return read_spec(folder_with(folder, GPT2 | changes))


def test_the_hubs_gpt2_is_gpt2(tmp_path: Path) -> None:
    assert spec_of(tmp_path) == GPT2_SHAPES["gpt2"]


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"n_inner": 1000}, "d_inner", 1000),
        ({"n_inner": None}, "d_inner", 3072),
        ({"layer_norm_epsilon": 1e-6}, "norm_eps", 1e-6),
        ({"activation_function": "relu"}, "activation", "relu"),
        ({"activation_function": "gelu"}, "activation", "gelu"),
        ({"activation_function": "gelu_pytorch_tanh"}, "activation", "gelu_new"),
        ({"activation_function": None}, "activation", "gelu_new"),
        ({"tie_word_embeddings": False}, "tied_head", False),
        ({"scale_attn_weights": False}, "scale_attention", False),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_by_layer", True),
        ({"n_positions": 2048, "n_ctx": None}, "max_positions", 2048),
        ({"vocab_size": 50304}, "vocab", 50304),
        ({"n_layer": None, "num_hidden_layers": 3}, "layers", 3),
        ({"hidden_size": 768}, "d_model", 768),
        # Accepted without an effect.
        ({"reorder_and_upcast_attn": True}, "layers", 12),
        ({"add_cross_attention": False, "pruned_heads": {}, "quantization_config": None}, "layers", 12),
        ({"rope_scaling": None, "dtype": "bfloat16", "use_cache": True, "future_field": [1]}, "layers", 12),
        ({"model_type": None}, "layers", 12),
        ({"architectures": None}, "layers", 12),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_field_is_honoured(tmp_path: Path, changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(spec_of(tmp_path, **changes), field) == value


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"model_type": ["gpt2"]}, "model_type"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "architectures"),
        ({"architectures": "GPT2LMHeadModel"}, "architectures"),
        ({"model_type": None, "architectures": None}, "neither model_type nor architectures"),
        ({"activation_function": "gelu_fast"}, "activation_function is 'gelu_fast'.*gelu_new"),
        ({"activation_function": 3}, "activation_function"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"n_experts": 8}, "n_experts"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier"),
        ({"n_embd": 770}, "n_embd 770 is not divisible by n_head 12"),
        ({"n_embd": None}, "n_embd is missing"),
        ({"n_embd": "768"}, "n_embd is '768'"),
        ({"n_embd": 768.0}, "n_embd"),
        ({"n_layer": True}, "n_layer"),
        ({"n_layer": 0}, "n_layer"),
        ({"n_layer": -1}, "n_layer"),
        ({"n_layer": 10**9}, "n_layer"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"n_layer": 1000, "n_embd": 60_000}, "parameters, more than any GPT-2"),
        ({"n_ctx": 512}, "n_ctx is 512.*n_positions is 1024"),
        ({"hidden_size": 512}, "n_embd and hidden_size"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": 10**400}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": math.nan}, "NaN"),
        ({"layer_norm_epsilon": math.inf}, "Infinity"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"scale_attn_weights": 1}, "scale_attn_weights"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_field_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=f"config.json.*{says}"):
        spec_of(tmp_path, **changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "must hold an object"),
        ("{" + " " * 2**20 + "}", "larger than"),
        ("[" * 200_000, "not valid JSON"),
        ('{"n_layer": ' + "9" * 5000 + "}", "config.json"),
        ('{"layer_norm_epsilon": 1e999, "model_type": "gpt2", "n_embd": 8, "n_head": 1}', "config.json"),
    ],
    ids=["empty", "cut off", "array", "huge", "deep", "digits", "overflow"],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_spec(folder_with(tmp_path, text))


def test_a_missing_config_and_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: no such file"):
        read_spec(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelError, match=r"config\.json: not UTF-8"):
        read_spec(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*GPT2, "n_inner", "tie_word_embeddings", "scale_attn_weights", "hidden_size"]) | st.text(
    max_size=12
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=4), st.none() | st.dictionaries(NAMES, JSON, max_size=4))
def test_anything_else_is_a_spec_or_a_model_error(changes: dict[str, Any], generation: dict[str, Any] | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = folder_with(Path(name), GPT2 | changes, generation)
        try:
            spec, generated = read_spec(folder), read_generation(folder)
        except ModelError as error:
            complaint = str(error)
        else:
            complaint = "config.json"
            assert spec.head_dim * spec.heads == spec.d_model
            assert all(0 <= i < spec.vocab for i in generated.eos_ids)
        assert "config.json" in complaint


def test_what_transformers_writes_is_read_back(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=64, n_head=4, n_layer=3, n_inner=100, activation_function="relu")
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    expected = ModelSpec(3, 64, 4, 100, vocab=50257, max_positions=1024, activation="relu")
    assert read_spec(tmp_path) == expected
    assert read_generation(tmp_path).eos_ids == (50256,)


def test_the_end_tokens_come_from_the_generation_config_first(tmp_path: Path) -> None:
    def ids(generation: object, **changes: Any) -> tuple[int, ...]:
        (tmp_path / "generation_config.json").unlink(missing_ok=True)
        return read_generation(folder_with(tmp_path, GPT2 | changes, generation)).eos_ids

    assert ids({"eos_token_id": 7}) == (7,)
    assert ids({"eos_token_id": [7, 8, 7]}) == (7, 8)
    assert ids({}) == ids(None) == (50256,)
    assert ids({}, eos_token_id=[1, 2]) == (1, 2)
    assert ids({"eos_token_id": []}) == ids(None, eos_token_id=None) == ()


@pytest.mark.parametrize("value", [50257, -1, "50256", [1, None], 1.0, True, {"a": 1}, list(range(65))])
def test_an_end_token_outside_the_vocabulary_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ModelError, match=r"generation_config\.json: eos_token_id"):
        read_generation(folder_with(tmp_path, GPT2, {"eos_token_id": value}))


def test_the_makers_defaults_are_taken_where_they_sample(tmp_path: Path) -> None:
    values = {"temperature": 0.7, "top_k": 40, "top_p": 0.9}
    sampled = read_generation(folder_with(tmp_path, GPT2, values | {"do_sample": True}))
    assert sampled.defaults == SamplingParams(temperature=0.7, top_k=40, top_p=0.9)
    greedy = read_generation(folder_with(tmp_path, GPT2, values | {"do_sample": False}))
    assert greedy.defaults == SamplingParams()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "hot"}, {"temperature": 3}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1}, {"top_k": 1.5},
        {"do_sample": "yes"},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_default_is_refused_by_name(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=f"generation_config.json: {next(iter(wrong))}"):
        read_generation(folder_with(tmp_path, GPT2, {"do_sample": True} | wrong))


def test_what_is_asked_for_and_not_implemented_is_listed(tmp_path: Path) -> None:
    generation = read_generation(folder_with(tmp_path, GPT2, {"repetition_penalty": 1.2, "num_beams": 1, "min_p": 0.1}))
    assert generation.ignored == ("repetition_penalty", "min_p")
