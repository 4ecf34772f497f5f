"""Tokens for clients: text or a conversation to ids, ids to text, and what the tokenizer is. Knows no engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ridgeline.core.errors import BadRequest
from ridgeline.server.fields import DETOKENIZE, TOKENIZE, read_fields
from ridgeline.server.openai import check_model, encode_text, render
from ridgeline.server.service import Service
from ridgeline.server.words import spelled, word

Json = dict[str, Any]
Answered = tuple[Json, tuple[str, ...]]
"""The answer, and the fields that changed nothing."""


def tokenize(values: Json, service: Service) -> Answered:
    """Raises BadRequest, naming the parameter, and NotFound for another model."""
    given, ignored = read_fields(TOKENIZE, values, None, lenient=service.lenient)
    check_model(given.get("model"), service)
    if ("prompt" in given) == ("messages" in given):
        raise BadRequest("prompt: send either a prompt or messages", param="prompt", code="missing_required_parameter")
    if "prompt" in given:
        if "add_generation_prompt" in given:
            raise BadRequest("add_generation_prompt: only with messages", param="add_generation_prompt")
        name, text, special = "prompt", given["prompt"], given.get("add_special_tokens", True)
    else:
        closed = not given.get("add_generation_prompt", True)
        name, text = "messages", render(replace(given["messages"], closed=closed), service)
        special = given.get("add_special_tokens", False)
    ids = encode_text(name, name, text, service, add_special_tokens=special).tolist()
    answer: Json = {"tokens": ids, "count": len(ids), "max_model_len": service.info.max_model_len}
    if given.get("return_token_strs", False):
        answer["token_strs"] = [word(service.tokenizer, one) for one in ids]
    return answer, ignored


def detokenize(values: Json, service: Service) -> Answered:
    """Raises BadRequest, naming the parameter, and NotFound for another model."""
    given, ignored = read_fields(DETOKENIZE, values, "tokens", lenient=service.lenient)
    check_model(given.get("model"), service)
    vocab = service.info.vocab
    if not all(0 <= one < vocab for one in given["tokens"]):
        raise BadRequest(f"tokens: a token id is out of range; ids are 0 to {vocab - 1}", param="tokens")
    return {"prompt": spelled(service.tokenizer, given["tokens"])}, ignored


def tokenizer_info(service: Service) -> Json:
    """What a client needs to build prompts as the model knows them; null: the model has none."""
    roles = service.tokenizer.roles
    return {
        "eos_token": service.tokenizer.eos_text,
        "bos_token": roles.get("bos_token"),
        "pad_token": roles.get("pad_token"),
        "unk_token": roles.get("unk_token"),
        "chat_template": service.chat.source if service.chat is not None else None,
        "vocab_size": service.tokenizer.vocab_size,
        "max_model_len": service.info.max_model_len,
    }
