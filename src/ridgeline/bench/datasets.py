"""Datasets: prompts from files that somebody else wrote, checked. Knows no server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Example:
    """prompt: text or token ids. max_tokens: where the file says it. answer: what once followed, for its length."""

    prompt: str | tuple[int, ...]
    max_tokens: int | None = None
    answer: str | None = None


def read_prompts(path: Path) -> list[Example]:
    """One prompt a line, or JSON lines: {"prompt": text or ids, "max_tokens": optional}. Raises ConfigError.

    A file whose first line is a JSON object, or whose name ends in .jsonl, is read as JSON lines.
    """
    lines = [(i, line) for i, line in enumerate(_text(path).splitlines(), 1) if line.strip()]
    if not lines:
        raise ConfigError(f"--prompts {path}: it has no line with a prompt")
    if path.suffix == ".jsonl" or lines[0][1].lstrip().startswith("{"):
        return [_example(path, number, line) for number, line in lines]
    return [Example(line) for _, line in lines]


def read_sharegpt(path: Path) -> list[Example]:
    """[{"conversations": [{"from", "value"}, ...]}, ...]: the first turn is the prompt, the second gives the length.

    Conversations without two turns of text are left out, as other benches do. Raises ConfigError.
    """
    try:
        items = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--prompts {path}: not JSON ({error})") from error
    if not isinstance(items, list):
        raise ConfigError(f"--prompts {path}: expected a list of objects with 'conversations'")
    examples = [example for item in items if (example := _first_turns(item)) is not None]
    if not examples:
        raise ConfigError(
            f"--prompts {path}: none of its {len(items)} entries has 'conversations' with two turns of text "
            '({"from": ..., "value": ...})'
        )
    return examples


def _first_turns(item: Any) -> Example | None:
    turns = item.get("conversations") if isinstance(item, dict) else None
    if not isinstance(turns, list) or len(turns) < 2:
        return None
    values = [turn.get("value") if isinstance(turn, dict) else None for turn in turns[:2]]
    prompt, answer = values
    if not (isinstance(prompt, str) and isinstance(answer, str) and prompt.strip() and answer.strip()):
        return None
    return Example(prompt, answer=answer)


def _example(path: Path, number: int, line: str) -> Example:
    where = f"--prompts {path}, line {number}"
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON ({error})") from error
    if not isinstance(body, dict) or "prompt" not in body:
        raise ConfigError(f"{where}: expected an object with 'prompt'")
    prompt, max_tokens = body["prompt"], body.get("max_tokens")
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise ConfigError(f"{where}: max_tokens is {max_tokens!r}; it must be a whole number above 0")
    if isinstance(prompt, str) and prompt:
        return Example(prompt, max_tokens)
    if isinstance(prompt, list) and prompt and all(type(one) is int and one >= 0 for one in prompt):
        return Example(tuple(prompt), max_tokens)
    raise ConfigError(f"{where}: 'prompt' must be text or a list of token ids, and not empty")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts {path}: it cannot be read ({error})") from error
