"""ChatTemplate: a conversation to the text that a model was trained on. Knows no tokenizer, no model and no request.

The template is the model's own Jinja program, so it comes from outside and runs in a sandbox. What it may use is what
Hugging Face transformers gives it (`apply_chat_template`), so that a conversation becomes the same text here as there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ridgeline.core.errors import BadRequest, ModelError
from ridgeline.core.folder import CHAT_TEMPLATE, SETTINGS, SETTINGS_BYTES
from ridgeline.core.jsonfile import Fields, read_object, read_text

MAX_SOURCE_BYTES = 2**18  # ten times the longest template of a published model
MAX_CHARS = 2**23
MESSAGE_CHARS = 300
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatTemplate:
    """Make one with `ChatTemplate.load(folder)`.

    source: the Jinja program. tokens: the special tokens that it can name, by name (`bos_token`). now: the clock of
    templates that write today's date. Raises ModelError for a source that is no template.

    Bounded are the source, the text that comes out and the products that it may compute, not the time it takes: as
    with the weights, who serves a model trusts it that far.
    """

    def __init__(
        self, source: str, tokens: Mapping[str, str] | None = None, now: Callable[[], datetime] = datetime.now
    ) -> None:
        self.source = source
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation])
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda pattern: now().strftime(pattern),
            "dict": _mapping,
            "namespace": _Names,
            **(tokens or {}),
        }
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # of Jinja, and of Python's compiler for what nests too deep
            why = f"{type(error).__name__}: {_line(error)}"
            raise ModelError(f"the chat template is not usable ({why}); correct it or remove it") from error

    @staticmethod
    def load(folder: Path) -> ChatTemplate | None:
        """The model's template, None where it has none: chat_template.jinja, or tokenizer_config.json's chat_template,
        of several the one named `default`. The files are untrusted; raises ModelError."""
        settings = read_object(folder / SETTINGS, max_bytes=SETTINGS_BYTES) if (folder / SETTINGS).is_file() else {}
        fields = Fields(folder / SETTINGS, settings)
        path = folder / CHAT_TEMPLATE
        if path.is_file():
            source: str | None = read_text(path, max_bytes=MAX_SOURCE_BYTES)
        else:
            path, source = fields.path, _default_of(fields)
        if source is None:
            return None
        tokens = {name: text for name in TOKENS if (text := _token(settings.get(name))) is not None}
        try:
            return ChatTemplate(source, tokens)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The conversation as text; encode it without adding special tokens, as the text has its own.

        messages: JSON objects with `role` and mostly `content`. add_generation_prompt: end with what the model's turn
        begins with. variables: others that the template knows, for example tools. Raises BadRequest for messages that
        the template refuses or cannot handle.
        """
        for index, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise BadRequest(f"messages[{index}]: must be an object with a role", param="messages")
        given = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt} | variables
        try:
            return self._bounded(given | {"messages": [dict(message) for message in messages]})
        except BadRequest:
            raise
        except _Refused as error:
            raise BadRequest(f"messages: the model's chat template says: {_line(error)}", "messages") from error
        except Exception as error:  # whatever a foreign program may raise over messages that it did not expect
            why = f"{type(error).__name__}: {_line(error)}"
            raise BadRequest(f"messages: the model's chat template cannot render them ({why})", "messages") from error

    def _bounded(self, variables: Mapping[str, Any]) -> str:
        parts, size = [], 0
        for part in self._template.generate(variables):
            parts.append(part)
            size += len(part)
            if size > MAX_CHARS:
                raise BadRequest(f"messages: more than {MAX_CHARS:,} characters as a prompt", param="messages")
        return "".join(parts)


class _Refused(jinja2.TemplateError):
    """The template called raise_exception."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox; besides, a product may not be larger than a text may be."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if _product_size(operator, left, right) > MAX_CHARS:
            raise SecurityError(f"a product larger than {MAX_CHARS:,}")
        return super().call_binop(context, operator, left, right)


def _product_size(operator: str, left: Any, right: Any) -> int:
    """Characters or items of a repeated sequence, bits of a product of whole numbers; others cannot grow."""
    lengths = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
    counts = [value for value in (left, right) if isinstance(value, int)]
    if len(lengths) == len(counts) == 1:
        return lengths[0] * counts[0]
    if len(counts) == 2:
        return counts[0].bit_length() * (counts[1] if operator == "**" else 1)
    return 0


class _Names(Namespace):
    """namespace(): names with an underscore reach into Python and are refused."""

    def __init__(self, *pairs: Any, **named: Any) -> None:
        values = dict(*pairs, **named)
        for name in values:
            _check_name(name)
        super().__init__(values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _Generation(Extension):
    """{% generation %} marks, for training, what the model said; here it is its content and nothing else."""

    tags = {"generation"}  # noqa: RUF012  (so Jinja has it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace with a field {name!r}")


def _mapping(*pairs: Any, **named: Any) -> dict[Any, Any]:
    """dict(), as a function, because a type has methods that the sandbox would have to know."""
    return dict(*pairs, **named)


def _raise(message: object) -> NoReturn:
    raise _Refused(str(message))


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own escapes for HTML, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _default_of(fields: Fields) -> str | None:
    """tokenizer_config.json's template: a string, or a list of objects with a name and a template."""
    value = fields.values.get("chat_template")
    if isinstance(value, list):
        if not all(isinstance(item, dict) and isinstance(item.get("template"), str) for item in value):
            raise fields.refuse("chat_template", "but every item needs a name and a template; correct the file")
        value = next((item["template"] for item in value if item.get("name") == "default"), None)
    if value is not None and not isinstance(value, str):
        raise fields.refuse("chat_template", "but must be a string or a list of named templates; correct the file")
    if value is not None and len(value) > MAX_SOURCE_BYTES:
        raise fields.refuse("chat_template", f"but may have {MAX_SOURCE_BYTES:,} characters at most")
    return value


def _token(value: object) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _line(error: Exception) -> str:
    """An error's text, short and on one line."""
    return " ".join(str(error).split())[:MESSAGE_CHARS]
