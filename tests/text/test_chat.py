"""Chat templates: the same text as transformers makes, and a foreign program that stays in its bounds."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Library

from ridgeline.core.errors import BadRequest, ModelError
from ridgeline.text.chat import ChatTemplate
from ridgeline.text.tokenizer import Tokenizer
from tests.tiny_gpt2 import write_tiny_tokenizer

CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{% endif %}"""

# Headers, a trimmed content, a default system message with today's date, and the begin of text once.
HEADERS = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "You are helpful in " ~ date_string %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

# Turns must alternate, and a namespace counts them.
INSTRUCT = """{{ bos_token }}{% set ns = namespace(turns=0) %}{% for message in messages %}
{%- if (message['role'] == 'user') != (ns.turns % 2 == 0) -%}
    {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
{%- endif -%}
{%- set ns.turns = ns.turns + 1 -%}
{%- if message['role'] == 'user' -%}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- else -%}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{% endif %}
{%- endfor %}"""

# Tools as JSON, contents in parts, loop controls, a macro, and tool calls of earlier turns.
TOOLS = """{%- macro text_of(content) -%}
    {%- if content is string %}{{ content }}{% else %}
    {%- for part in content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}
{%- endmacro %}
{%- if tools %}
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
{% endif %}
{%- for message in messages %}
    {%- if message.role == 'developer' %}{% continue %}{% endif %}
<|{{ message.role }}|>{{ text_of(message.content or '') }}
    {%- for call in message.tool_calls or [] %}
{{ dict(name=call.function.name, arguments=call.function.arguments) | tojson(indent=2) }}
    {%- endfor %}
    {%- if loop.index >= 40 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

PLAIN = [
    {"role": "user", "content": 'Who wrote <Faust> & "Götz"?'},
    {"role": "assistant", "content": "Goethe.\n"},
    {"role": "user", "content": "  Thanks, 世界 🙂  "},
]
WITH_SYSTEM = [{"role": "system", "content": " Be short. "}, *PLAIN]
CALLS = [
    {"role": "developer", "content": "left out"},
    {"role": "user", "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Zürich?"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "w", "arguments": {"at": "Zürich"}}}]},
    {"role": "tool", "content": "<12 °C & rain>"},
]  # fmt: skip
WEATHER = {"type": "function", "function": {"name": "w", "description": 'What\'s <it> like & "how" is it?'}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_tokenizer(tmp_path, vocab=300)
    library = Library.from_file(str(tmp_path / "tokenizer.json"))
    marks = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    library.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    begin = library.token_to_id("<s>")
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    library.save(str(tmp_path / "tokenizer.json"))
    settings(tmp_path, bos_token={"__type": "AddedToken", "content": "<s>"}, eos_token="</s>")
    return tmp_path


def settings(folder: Path, **values: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def loaded(folder: Path, template: Any) -> ChatTemplate:
    settings(folder, chat_template=template)
    chat = ChatTemplate.load(folder)
    assert chat is not None
    return chat


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize(
    ("template", "messages", "variables"),
    [
        (CHATML, WITH_SYSTEM, {}),
        (HEADERS, WITH_SYSTEM, {}),
        (HEADERS, PLAIN, {}),
        (HEADERS, PLAIN, {"tools": [WEATHER], "date_string": "26 Jul 2024"}),
        (INSTRUCT, PLAIN, {}),
        (TOOLS, PLAIN, {}),
        (TOOLS, CALLS, {"tools": [WEATHER, WEATHER]}),
    ],
    ids=["chatml", "headers-system", "headers", "headers-tools", "instruct", "no-tools", "tools"],
)
def test_a_conversation_becomes_the_text_that_transformers_makes(
    folder: Path, template: str, messages: list[Any], variables: dict[str, Any], add_generation_prompt: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = loaded(folder, template)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    text = ours.render(messages, add_generation_prompt=add_generation_prompt, **variables)
    expected = theirs.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, **variables
    )
    assert text == expected
    ids = theirs.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, **variables)["input_ids"]
    assert Tokenizer.load(folder).encode(text, add_special_tokens=False).tolist() == ids


def test_special_tokens_in_the_text_are_recognised_and_none_is_added_twice(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    begin, start = (tokenizer.encode(mark, add_special_tokens=False).tolist() for mark in ("<s>", "<|im_start|>"))
    assert len(begin) == len(start) == 1
    assert tokenizer.encode("<|im_start|>user", add_special_tokens=False).tolist()[:1] == start
    assert tokenizer.encode("<|im_start|>user").tolist()[:2] == begin + start


def test_where_a_template_is_found(folder: Path) -> None:
    assert ChatTemplate.load(folder) is None
    assert loaded(folder, "in the settings").render([]) == "in the settings"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    assert loaded(folder, named).render([]) == "plain"
    (folder / "chat_template.jinja").write_text("a file of its own: {{ eos_token }}")
    found = ChatTemplate.load(folder)
    assert found is not None
    assert found.render([]) == found.source.replace("{{ eos_token }}", "</s>")
    (folder / "tokenizer_config.json").unlink()
    found = ChatTemplate.load(folder)
    assert found is not None
    assert found.render([]) == "a file of its own: "


def test_a_list_without_a_default_is_no_template(folder: Path) -> None:
    settings(folder, chat_template=[{"name": "rag", "template": "x"}])
    assert ChatTemplate.load(folder) is None


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in messages %}",
        "{{ nonsense( }}",
        "{% include 'other' %}{% endif %}",
        "{% for a in 'a' %}" * 60 + "{% endfor %}" * 60,
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "x" * (2**18 + 1),
        17,
        [{"name": "default"}],
        ["default"],
    ],
    ids=lambda template: repr(template)[:24],
)
def test_what_is_no_template_is_the_operators_matter_and_names_the_file(folder: Path, template: Any) -> None:
    settings(folder, chat_template=template)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        ChatTemplate.load(folder)


def test_a_refusal_of_the_template_is_the_clients_matter() -> None:
    with pytest.raises(BadRequest, match="template says: Conversation roles must alternate") as caught:
        ChatTemplate(INSTRUCT).render([{"role": "assistant", "content": "hello"}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": "parts"}]}],
        [{"content": "nobody"}],
        [{"role": 3, "content": "x"}],
        ["just text"],
    ],
    ids=str,
)
def test_messages_that_the_template_cannot_take_are_the_clients_matter(messages: list[Any]) -> None:
    with pytest.raises(BadRequest, match="messages") as caught:
        ChatTemplate(CHATML).render(messages)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ [0] * 10000000000 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% for i in range(10 ** 12) %}{% endfor %}",
        "{{ messages.append(1) }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_template_is_stopped(source: str) -> None:
    try:
        text = ChatTemplate(source).render([{"role": "user", "content": "x"}])
    except (BadRequest, ModelError):
        return
    assert text == "", "an attribute that the sandbox hides is undefined"


def test_rendering_leaves_the_messages_alone_and_arithmetic_works() -> None:
    messages = [{"role": "user", "content": "x"}]
    template = ChatTemplate("{{ 60 * 60 * 24 * 365 * 100 }} {{ 2 ** 40 }} {{ '-' * 3 }} {{ 1.5 * 2 }}")
    assert template.render(messages) == "3153600000 1099511627776 --- 3.0"
    assert messages == [{"role": "user", "content": "x"}]


def test_the_date_is_the_clocks() -> None:
    template = ChatTemplate("{{ strftime_now('%d %B %Y') }}", now=lambda: datetime(2031, 2, 3))
    assert template.render([]) == "03 February 2031"
