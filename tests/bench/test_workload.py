"""Workloads and arrivals: equal for equal seeds, of the lengths that were asked for; files that others wrote."""

from __future__ import annotations

import json
import random
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

from ridgeline.bench.arrivals import ARRIVALS
from ridgeline.bench.datasets import read_prompts, read_sharegpt
from ridgeline.bench.lengths import Lengths
from ridgeline.bench.records import Shape
from ridgeline.bench.workload import Workload
from ridgeline.core.errors import ConfigError


def draw(workload: Workload, count: int = 200, seed: int = 3, ratio: float = 1.0) -> list[Shape]:
    return list(islice(workload.shapes(seed, workload.read(), ratio), count))


@pytest.mark.parametrize("kind", ["uniform", "lognormal", "shared-prefix"])
@pytest.mark.parametrize("prompt_kind", ["text", "ids"])
def test_one_seed_gives_one_workload(kind: str, prompt_kind: str) -> None:
    workload = Workload(kind=kind, input_len=Lengths(8, 64), output_len=Lengths(4, 32), prompt_kind=prompt_kind)
    assert draw(workload) == draw(workload)
    assert draw(workload) != draw(workload, seed=4)


def test_lengths_are_those_asked_for() -> None:
    fixed = draw(Workload(input_len=Lengths(40, 40), output_len=Lengths(9, 9), prompt_kind="ids", vocab=11))
    assert {len(s.prompt) for s in fixed} == {40}
    assert {s.max_tokens for s in fixed} == {9}
    assert {token for s in fixed for token in s.prompt} == set(range(11))
    spread = draw(Workload(kind="uniform", input_len=Lengths(8, 16), output_len=Lengths(4, 6)), 500)
    assert {len(str(s.prompt).split()) for s in spread} == set(range(8, 17))
    assert {s.max_tokens for s in spread} == {4, 5, 6}


def test_lognormal_has_many_short_ones_and_few_long_ones() -> None:
    shapes = draw(Workload(kind="lognormal", input_len=Lengths(10, 1000), output_len=Lengths(1, 1)), 2000)
    lengths = [len(str(s.prompt).split()) for s in shapes]
    assert min(lengths) >= 10
    assert max(lengths) <= 1000
    assert 90 < median(lengths) < 111, "seed 3"
    assert fmean(lengths) > 1.2 * median(lengths)


def test_text_is_as_many_words_as_make_the_tokens() -> None:
    shape = draw(Workload(input_len=Lengths(100, 100)), 1, ratio=1.25)[0]
    assert len(str(shape.prompt).split()) == 80


@pytest.mark.parametrize("prompt_kind", ["text", "ids"])
def test_shared_prefixes_are_shared_and_tails_are_not(prompt_kind: str) -> None:
    shapes = draw(
        Workload(kind="shared-prefix", input_len=Lengths(5, 5), prefix_groups=3, prefix_len=20, prompt_kind=prompt_kind)
    )
    prompts = [tuple(s.prompt.split()) if isinstance(s.prompt, str) else s.prompt for s in shapes]
    assert {len(p) for p in prompts} == {25}
    assert len({p[:20] for p in prompts}) == 3
    assert len({p[20:] for p in prompts}) > 190


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\ntwo words\n")
    shapes = draw(Workload(kind="file", prompts=path, output_len=Lengths(7, 7)), 4)
    assert {s.prompt for s in shapes[:2]} == {s.prompt for s in shapes[2:]} == {"one", "two words"}
    path.write_text('{"prompt": "a", "max_tokens": 3}\n{"prompt": [1, 2]}\n')
    assert {(e.prompt, e.max_tokens) for e in read_prompts(path)} == {("a", 3), ((1, 2), None)}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no line with a prompt"),
        ('{"prompt": "a"}\n{"promt": "b"}', "line 2: expected an object with 'prompt'"),
        ('{"prompt": "a"}\nb', "line 2: not JSON"),
        ('{"prompt": []}', "not empty"),
        ('{"prompt": [true]}', "token ids"),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens is 0"),
    ],
)
def test_prompt_files_that_are_wrong_are_refused_with_the_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        Workload(kind="file", prompts=path).read()


def test_conversations(tmp_path: Path) -> None:
    def talk(*values: Any) -> dict[str, Any]:
        return {"conversations": [{"from": "human", "value": value} for value in values]}

    path = tmp_path / "talks.json"
    path.write_text(json.dumps([talk("Hello?", "one two three"), talk("alone"), talk("a", 3), {"id": 1}, "x"]))
    assert [e.prompt for e in read_sharegpt(path)] == ["Hello?"]
    of_answer = Workload(kind="sharegpt", prompts=path, output_len=Lengths(1, 100))
    assert draw(of_answer, 1, ratio=2.0) == [Shape("Hello?", 6)]
    with pytest.raises(ConfigError, match="1:2048"):
        Workload(kind="sharegpt", prompts=path)
    path.write_text(json.dumps([talk("alone")]))
    with pytest.raises(ConfigError, match="none of its 1 entries"):
        read_sharegpt(path)
    path.write_text("[")
    with pytest.raises(ConfigError, match="not JSON"):
        read_sharegpt(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_sharegpt(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "0", "9:3", "a", "-4", "1:2:3", "99999999999"])
def test_lengths_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--input-len"):
        Lengths.parse("--input-len", text)


def test_arrivals_keep_their_rate() -> None:
    def first(name: str, rate: float, count: int) -> list[float]:
        return list(islice(ARRIVALS[name](rate, random.Random(5)), count))

    assert first("constant", 4.0, 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert first("burst", 3.0, 7) == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]
    assert first("burst", 0.5, 3) == [0.0, 2.0, 4.0]
    poisson = first("poisson", 10.0, 4000)
    assert poisson == sorted(poisson) == first("poisson", 10.0, 4000)
    gaps = [b - a for a, b in pairwise(poisson)]
    assert fmean(gaps) == pytest.approx(0.1, rel=0.1), "seed 5"
