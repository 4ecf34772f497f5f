"""The tables of fields: every field that a request may have, how it is read and what the documentation says about it.

One table a route, so that /openapi.json cannot say anything else than the parser does. Knows JSON values, no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ridgeline.core.errors import BadRequest, did_you_mean
from ridgeline.core.params import MAX_SEED, MAX_STOPS, MAX_TOP_K, SamplingParams
from ridgeline.core.types import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_STOP_IDS
from ridgeline.server import readers as read
from ridgeline.server.chat import MESSAGES_SCHEMA, read_messages
from ridgeline.server.readers import MAX_PROMPTS, brief

MAX_N = 128
MAX_GENERATIONS = 128
"""Prompts times best_of of one request at most."""
_NAMED = 32  # unknown fields that the header names; it has to stay a header

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """read(name, value) returns the value in our types or raises BadRequest naming the field."""

    read: read.Read
    schema: Schema
    help: str


Fields = dict[str, Field]


def _flag(help: str, *, default: bool = False) -> Field:
    return Field(read.boolean, {"type": "boolean", "default": default}, help)


def _refused(schema: Schema, *accepted: Any) -> Field:
    return Field(read.only(*accepted), schema, "Not implemented: only the values that ask for nothing are accepted.")


def _ids_schema(least: int, most: int | None = None) -> Schema:
    ids: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": least}
    return ids if most is None else ids | {"maxItems": most}


_TEXT: Schema = {"type": "string", "minLength": 1}
_STOP: Schema = _TEXT | {"maxLength": read.MAX_STOP_CHARS}
_IDS = _ids_schema(1)
_PROMPT: Schema = {
    "oneOf": [
        _TEXT | {"title": "text"},
        {"type": "array", "title": "several texts", "items": _TEXT, "minItems": 1, "maxItems": MAX_PROMPTS},
        _IDS | {"title": "token ids"},
        {"type": "array", "title": "several lists of token ids", "items": _IDS, "minItems": 1, "maxItems": MAX_PROMPTS},
    ]
}
_STREAM_OPTIONS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "include_usage": {
            "type": ["boolean", "null"],
            "description": "Send one more chunk at the end, with `usage` and no choice.",
        },
        "continuous_usage_stats": {
            "type": ["boolean", "null"],
            "description": "Only with include_usage: every chunk has the `usage` so far.",
        },
    },
}
_BIAS: Schema = {
    "type": "object",
    "maxProperties": MAX_LOGIT_BIAS,
    "propertyNames": {"pattern": "^[0-9]{1,10}$"},
    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
}
_PENALTY: Schema = {"type": "number", "minimum": -2, "maximum": 2, "default": 0}

_MODEL = Field(read.string, {"type": "string"}, "Which model; may be left out, as one is served.")
_NEW_TOKENS = "Prompt and new tokens together must fit the model's `max_model_len`."

_GENERATION: Fields = {
    "model": _MODEL,
    "min_tokens": Field(
        read.integer,
        {"type": "integer", "minimum": 0, "default": 0},
        "The model's own end and stop tokens are not chosen before that many.",
    ),
    "temperature": Field(
        read.number,
        {"type": "number", "minimum": 0, "maximum": 2},
        "0 always takes the likeliest token; the higher, the freer. Default: the model's own, otherwise 1.",
    ),
    "top_p": Field(
        read.number,
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "Choose among the likeliest tokens that together have this probability; 1 is off.",
    ),
    "top_k": Field(
        read.top_k,
        {"type": "integer", "minimum": -1, "maximum": MAX_TOP_K},
        "Choose among that many of the likeliest; 0 or -1 is off.",
    ),
    "min_p": Field(
        read.number,
        {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        "Drop tokens below that share of the likeliest one's probability; 0 is off.",
    ),
    "presence_penalty": Field(read.number, _PENALTY, "Taken from the logits of tokens that the output has."),
    "frequency_penalty": Field(read.number, _PENALTY, "Taken from a token's logit for each time the output has it."),
    "repetition_penalty": Field(
        read.number,
        {"type": "number", "exclusiveMinimum": 0, "maximum": 10, "default": 1},
        "Makes tokens of prompt and output less likely above 1, likelier below; 1 is off.",
    ),
    "logit_bias": Field(read.logit_bias, _BIAS, "Token ids, as strings, and what is added to their logits."),
    "seed": Field(
        read.integer,
        {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "Same seed, same tokens, whatever else the server does. Every prompt of a list uses it as if it came alone; "
        "the first of `n` choices uses it too, the others derive theirs from it.",
    ),
    "stop": Field(
        read.stop,
        {"oneOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": MAX_STOPS}]},
        f"Up to {MAX_STOPS} strings that end the text and are not part of it.",
    ),
    "stop_token_ids": Field(
        read.ids,
        _ids_schema(0, MAX_STOP_IDS),
        f"Tokens that end the text and are not part of it; at most {MAX_STOP_IDS} with the model's own.",
    ),
    "ignore_eos": _flag("Go on past the model's own end."),
    "n": Field(
        read.between(1, MAX_N),
        {"type": "integer", "minimum": 1, "maximum": MAX_N, "default": 1},
        f"Choices for each prompt. Prompts times generations: at most {MAX_GENERATIONS}.",
    ),
    "stream": _flag("Send the text as it is made, as server-sent events."),
    "stream_options": Field(
        read.record(include_usage=read.boolean, continuous_usage_stats=read.boolean),
        _STREAM_OPTIONS,
        "Only with `stream`.",
    ),
    "return_token_ids": _flag(
        "Add `token_ids` and `prompt_token_ids` to the choices. In a stream the latter come with the first chunk."
    ),
    "timings": _flag("Add to each choice where its time went: waiting, prefill, decode, and the batch it was in."),
    "cache_salt": Field(
        read.short_string,
        {"type": "string", "maxLength": read.MAX_NAME_CHARS},
        "The prefix cache is shared only among requests with the same salt.",
    ),
    "timeout_s": Field(
        read.seconds,
        {"type": "number", "exclusiveMinimum": 0, "maximum": read.MAX_TIMEOUT_S},
        "Seconds from the request's arrival; then it is ended, with 408 or, in a stream, an error event.",
    ),
    "priority": _refused({"const": 0}, 0),
}

_NO_EFFECT = "Accepted; changes nothing, and is named in the response header `x-ridgeline-ignored`."
IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
_IGNORED: Fields = {name: Field(read.anything, {}, _NO_EFFECT) for name in IGNORED}

COMPLETION: Fields = {
    "prompt": Field(
        read.prompt,
        _PROMPT,
        "What to continue: text, token ids, or a list of either; a list gives that many choices, in its order.",
    ),
    "max_tokens": Field(
        read.integer,
        {"type": "integer", "minimum": 0},
        "New tokens at most; 0 makes none, for the log-probabilities of the prompt. Default: 16, unless the model's "
        f"generation_config.json says otherwise. {_NEW_TOKENS}",
    ),
    **_GENERATION,
    "best_of": Field(
        read.between(1, MAX_N),
        {"type": "integer", "minimum": 1, "maximum": MAX_N},
        "Make that many and return the `n` with the highest mean log-probability; not with `stream`. Default: `n`.",
    ),
    "echo": _flag("Begin the text, and the log-probabilities, with the prompt."),
    "logprobs": Field(
        read.between(0, MAX_LOGPROBS),
        {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS},
        "Report each token's log-probability, and that many of the likeliest tokens beside it. They are the model's, "
        "before temperature, penalties and bias.",
    ),
    "suffix": _refused({"const": ""}, ""),
    **_IGNORED,
}

_AT_LEAST_1 = read.between(1, 2**63 - 1)
CHAT: Fields = {
    "messages": Field(
        read_messages, MESSAGES_SCHEMA, "The conversation, rendered with the model's chat template; only text."
    ),
    "max_completion_tokens": Field(
        _AT_LEAST_1, {"type": "integer", "minimum": 1}, f"New tokens at most; default: what fits. {_NEW_TOKENS}"
    ),
    "max_tokens": Field(_AT_LEAST_1, {"type": "integer", "minimum": 1}, "The older name of max_completion_tokens."),
    **_GENERATION,
    "logprobs": _flag("Report each token's log-probability: the model's, before temperature, penalties and bias."),
    "top_logprobs": Field(
        read.between(0, MAX_LOGPROBS),
        {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS},
        "Report that many of the likeliest tokens beside each token; only with `logprobs`.",
    ),
    "response_format": _refused({"const": {"type": "text"}}, {"type": "text"}),
    "tools": _refused({"type": "array", "maxItems": 0}, []),
    "functions": _refused({"type": "array", "maxItems": 0}, []),
    "tool_choice": _refused({"enum": ["none", "auto"]}, "none", "auto"),
    "function_call": _refused({"enum": ["none", "auto"]}, "none", "auto"),
    "parallel_tool_calls": _refused({"type": "boolean"}, True, False),
    "modalities": _refused({"const": ["text"]}, ["text"]),
    "audio": _refused({"type": "null"}),
    "prediction": _refused({"type": "null"}),
    "web_search_options": _refused({"type": "null"}),
    "reasoning_effort": _refused({"const": "none"}, "none"),
    "verbosity": _refused({"const": "medium"}, "medium"),
    **_IGNORED,
}

_SPECIAL = "Add what the tokenizer puts around a text. Default: true for a prompt, false for messages."
TOKENIZE: Fields = {
    "model": _MODEL,
    "prompt": Field(read.string, {"type": "string"}, "The text; either this or `messages`."),
    "messages": Field(read_messages, MESSAGES_SCHEMA, "A conversation, rendered with the model's chat template."),
    "add_generation_prompt": _flag("messages: end with what the model's turn begins with.", default=True),
    "add_special_tokens": Field(read.boolean, {"type": "boolean"}, _SPECIAL),
    "return_token_strs": _flag("Add `token_strs`."),
}
DETOKENIZE: Fields = {
    "model": _MODEL,
    "tokens": Field(read.ids, _ids_schema(0), "Token ids."),
}

MAX_PROFILE_S, MAX_PROFILE_STEPS = 300, 2000
PROFILE_S, PROFILE_STEPS = 30.0, 100
PROFILE: Fields = {
    "action": Field(
        read.one_of("start", "stop"),
        {"enum": ["start", "stop"]},
        "start: begin to record every step of the engine. stop: end it, write the trace, and say where it lies.",
    ),
    "max_seconds": Field(
        read.seconds_up_to(MAX_PROFILE_S),
        {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_PROFILE_S, "default": PROFILE_S},
        "Only with start: it ends by itself after that time.",
    ),
    "max_steps": Field(
        read.between(1, MAX_PROFILE_STEPS),
        {"type": "integer", "minimum": 1, "maximum": MAX_PROFILE_STEPS, "default": PROFILE_STEPS},
        "Only with start: it ends by itself after so many steps of the engine.",
    ),
    "shapes": Field(read.boolean, {"type": "boolean", "default": False}, "Only with start: record operands' shapes."),
}

SAMPLING = tuple(name for name in COMPLETION if name in SamplingParams.__dataclass_fields__ and name != "logprobs")


def read_fields(
    table: Fields, values: Mapping[str, Any], required: str | None, *, lenient: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Every field that is there and not null, read; and the names of those that changed nothing.

    Raises BadRequest for the first that is wrong or, unless lenient, unknown.
    """
    unknown = [name for name in values if name not in table]
    if unknown and not lenient:
        shown = brief(unknown[0])
        near = did_you_mean(unknown[0][:40], table)
        raise BadRequest(f"{shown}: unknown field{near}", param=shown, code="unknown_parameter")
    given = {
        name: table[name].read(name, value) for name, value in values.items() if value is not None and name in table
    }
    if required is not None and required not in given:
        raise BadRequest(f"{required}: is required", param=required, code="missing_required_parameter")
    return given, tuple([name for name in IGNORED if name in given] + [brief(name) for name in unknown[:_NAMED]])
