"""Steps with prompts on this GPU: captured against launched one by one, packed prefill against the matrix rate, both
policies offline, and what everything of the sampler costs in a captured step.

    PYTHONPATH=src python -m scripts.check_gpu_mixed --out run.json
    PYTHONPATH=src python -m scripts.check_gpu_mixed --quick

GPT-2 124M's shape with random weights. A step is timed by the host's clock from the plan to the tokens: `us` with one
launch in flight, `two in flight` with two. `launch us` is the host's part. Prefill is one step of whole prompts; its
FLOP are those of the matrices, of causal attention and of the head on each prompt's last row.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from scripts.gpu_bench import Bench, Case, Group, Numbers, main

from ridgeline.attention.base import AnyAttention
from ridgeline.attention.paged import Paged
from ridgeline.core.config import Config
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import NO_BLOCKS, NO_TOKENS, Join, Plan, Sampling
from ridgeline.device.base import Device
from ridgeline.device.choose import choose
from ridgeline.device.cpu import CpuDevice
from ridgeline.models.gpt2 import GPT2
from ridgeline.models.gpt2_weights import random_gpt2
from ridgeline.models.linear import Dense
from ridgeline.models.linear_cuda import CudaDense
from ridgeline.ops.gemv import few_rows
from ridgeline.runner.graphs import Graphs, NoGraphs
from ridgeline.runner.inputs import Ragged
from ridgeline.runner.runner import Runner
from ridgeline.runner.slots import Sizes

GPT2_124M = ModelSpec(layers=12, d_model=768, heads=12, d_inner=3072, vocab=50257, max_positions=1024)
TINY = ModelSpec(layers=2, d_model=32, heads=4, d_inner=64, vocab=97, max_positions=64)
REPEATS, TOP = 20, 14


def device_of(bench: Bench) -> Device:
    if bench.dry:
        return CpuDevice(torch.float32, threads=1, native_bfloat16=False)
    return choose("cuda", "bfloat16")


def model_of(bench: Bench, device: Device) -> GPT2:
    scheme = (
        Dense.of(device, None)
        if bench.dry
        else CudaDense(few_rows(device.torch_device, device.compute), device.compute)
    )
    return random_gpt2(bench.pick(GPT2_124M, TINY), 0, scheme, device)


class Held:
    """A runner whose slots are all taken; what the cache holds is random, the same in every runner of a shape."""

    def __init__(self, model: GPT2, device: Device, slots: int, graphs: Any, step_tokens: int, asked: Sampling) -> None:
        gc.collect()  # the one before needs gigabytes
        length = model.spec.max_positions
        attention: AnyAttention = Paged()
        sizes = Sizes(slots, length, slots * -(-length // 64), 64, step_tokens)
        self.runner = Runner(model, attention, Ragged(), device, sizes, graphs=graphs)
        torch.manual_seed(0)
        for pages in self.runner.store.layers:  # type: ignore[attr-defined]
            pages.values.normal_()
        width, rng = sizes.table_width, np.random.default_rng(0)
        self._joins = tuple(
            Join(slot, rng.integers(0, model.spec.vocab, length - 2).astype(np.int32), NO_TOKENS,
                 tuple(range(slot * width, (slot + 1) * width)), length, asked)
            for slot in range(slots)
        )  # fmt: skip

    def plan(self, starts: list[int], counts: list[int], horizon: int = 1) -> Plan:
        joins, self._joins = self._joins, ()
        rows, ones = np.arange(len(starts)), np.ones(len(starts), np.int64)
        given = np.array(starts), np.array(counts), ones * horizon
        return Plan(1, rows, *given, joins, (), NO_BLOCKS, seats=len(starts), horizon=horizon)

    def tokens(self, plan: Callable[[], Plan]) -> list[int]:
        """What a step makes, the second time: by then what it needed is captured."""
        self.runner.collect(self.runner.launch(plan()))
        self.runner.between()
        made: list[int] = self.runner.collect(self.runner.launch(plan())).tokens[:, 0].tolist()
        return made

    def timed(self, plan: Plan, repeats: int) -> Numbers:
        whole, host = list[float](), list[float]()
        for _ in range(repeats):
            self.runner.between()
            begun = time.perf_counter()
            flight = self.runner.launch(plan)
            host.append(time.perf_counter() - begun)
            self.runner.collect(flight)
            whole.append(time.perf_counter() - begun)
        begun, flight = time.perf_counter(), self.runner.launch(plan)
        for _ in range(repeats):
            later = self.runner.launch(plan)
            self.runner.collect(flight)
            flight = later
        self.runner.collect(flight)
        both = (time.perf_counter() - begun) / (repeats + 1)
        return {
            "us": round(statistics.median(whole) * 1e6, 1), "least": round(min(whole) * 1e6, 1),
            "launch us": round(statistics.median(host) * 1e6, 1), "two in flight us": round(both * 1e6, 1),
            "launched": type(flight).__name__,
        }  # fmt: skip


def mixed(bench: Bench) -> Iterator[Case]:
    """Rows that decode at a context of 480, and one prompt."""
    device = device_of(bench)
    with torch.inference_mode():
        model = model_of(bench, device)
    slots, context = bench.pick(256, 4), bench.pick(480, 20)
    tokens: dict[tuple[str, int], list[int]] = {}
    for name, graphs in (("captured", Graphs), ("one by one", NoGraphs)):
        for prompt in (0, *bench.pick((32, 128, 512), (5, 12))):
            what = f"{slots - 1} rows and a prompt of {prompt}" if prompt else f"{slots} rows"

            def case(name: str = name, graphs: Any = graphs, prompt: int = prompt) -> Numbers:
                held = Held(model, device, slots, graphs, 2048, Sampling())
                starts, counts = [context] * slots, [1] * slots
                if prompt:
                    starts[-1], counts[-1] = 0, prompt
                made = tokens[name, prompt] = held.tokens(lambda: held.plan(starts, counts))
                found = held.timed(held.plan(starts, counts), bench.pick(REPEATS, 2))
                other = tokens.get(("captured", prompt))
                return found | {"same tokens": f"{sum(map(int.__eq__, made, other or made))} of {slots}"}

            yield f"{what}, {name}", case


def prefill(bench: Bench) -> Iterator[Case]:
    """8192 tokens of whole prompts in one step."""
    device = device_of(bench)
    with torch.inference_mode():
        model = model_of(bench, device)
    rate: list[float] = []
    yield "matrix rate, bfloat16, 8192^3", partial(_rate, bench, rate)
    total = bench.pick(8192, 96)
    for length in bench.pick((512, 1023), (12, 48)):
        rows = total // length
        for name, graphs in (("one by one", NoGraphs), ("captured", Graphs)):
            yield (
                f"{rows} prompts of {length}, {name}",
                partial(_prefilled, bench, model, device, rows, length, graphs, rate),
            )
        yield f"{rows} prompts of {length}: where the time goes", partial(_profiled, bench, model, device, rows, length)


def _rate(bench: Bench, rate: list[float]) -> Numbers:
    n = bench.pick(8192, 64)
    a, b = bench.randn(n, n), bench.randn(n, n)
    found = bench.timed(partial(torch.mm, a, b), flops=2 * n**3)
    rate.append(found["TFLOP/s"])
    return found


def _flops(spec: ModelSpec, rows: int, length: int) -> int:
    matrices = 2 * spec.layers * (4 * spec.d_model**2 + 2 * spec.d_model * spec.d_inner) * rows * length
    attention = 4 * spec.layers * spec.d_model * rows * length * (length + 1) // 2
    return matrices + attention + 2 * rows * spec.d_model * spec.vocab


def _prefilled(
    bench: Bench, model: GPT2, device: Device, rows: int, length: int, graphs: Any, rate: list[float]
) -> Numbers:
    held = Held(model, device, rows, graphs, rows * length, Sampling())
    held.tokens(lambda: held.plan([0] * rows, [length] * rows))
    found = held.timed(held.plan([0] * rows, [length] * rows), bench.pick(REPEATS, 2))
    us = found["two in flight us"]
    found |= {
        "tokens/s": round(rows * length / us * 1e6),
        "TFLOP/s": round(_flops(model.spec, rows, length) / us / 1e6, 2),
    }
    if rate:
        found["of the matrix rate"] = round(found["TFLOP/s"] / max(rate[0], 1e-9), 3)
    return found


def _profiled(bench: Bench, model: GPT2, device: Device, rows: int, length: int) -> Numbers:
    """Microseconds of a step by kernel, the largest first, with the number of launches."""
    from torch.profiler import ProfilerActivity, profile

    held = Held(model, device, rows, NoGraphs, rows * length, Sampling())
    plan = held.plan([0] * rows, [length] * rows)
    held.tokens(lambda: plan)
    plan = held.plan([0] * rows, [length] * rows)
    with profile(activities=[bench.pick(ProfilerActivity.CUDA, ProfilerActivity.CPU)]) as trace:
        held.runner.collect(held.runner.launch(plan))
        device.synchronize()
    name = bench.pick("self_device_time_total", "self_cpu_time_total")
    spent = sorted(((getattr(row, name), row.count, row.key) for row in trace.key_averages()), reverse=True)
    top = {f"{key[:70]} x{count}": round(us, 1) for us, count, key in spent[:TOP] if us > 0}
    return {"all us": round(sum(us for us, _, _ in spent), 1)} | top


def sampling(bench: Bench) -> Iterator[Case]:
    """A captured decode step of 64 rows, by what its rows ask for; and the same one by one."""
    device = device_of(bench)
    with torch.inference_mode():
        model = model_of(bench, device)
    slots, context = bench.pick(64, 4), bench.pick(480, 20)
    shaped = {"temperature": 1.0, "top_p": 0.9, "frequency_penalty": 0.3, "repetition_penalty": 1.1}
    wishes: dict[str, dict[str, Any]] = {
        "greedy": {},
        "draws": {"temperature": 1.0},
        "top_p and penalties": shaped,
        "top_p, penalties and 5 log-probabilities": shaped | {"logprobs": 5},
    }
    for what, wish in wishes.items():
        for name, graphs in (("captured", Graphs), ("one by one", NoGraphs)):

            def case(wish: dict[str, Any] = wish, graphs: Any = graphs) -> Numbers:
                held = Held(model, device, slots, graphs, 2048, Sampling(seed=1, **wish))
                at = [context] * slots
                held.tokens(lambda: held.plan(at, [1] * slots))
                found = held.timed(held.plan(at, [1] * slots), bench.pick(REPEATS, 2))
                return found | {"tokens/s": round(slots / found["two in flight us"] * 1e6)}

            yield f"{slots} rows, {what}, {name}", case


def offline(policy: str, bench: Bench) -> Iterator[Case]:
    """As `ridgeline bench offline` does it; launches by what they were."""
    for requests in bench.pick((512, 2048), (3,)):
        yield f"{requests} requests, {policy}", partial(_offline, bench, policy, requests)


def _offline(bench: Bench, policy: str, requests: int) -> Numbers:
    from ridgeline.bench.lengths import Lengths
    from ridgeline.build import EngineOrder
    from ridgeline.lab.offline import OfflineOrder, each_load
    from ridgeline.lab.rig import Workbench

    config = Config.of(
        random_weights=bench.pick("gpt2", "distilgpt2"), batching=policy, max_steps_per_visit=8, launches_in_flight=2,
        device=bench.pick("auto", "cpu"), seed=0,
    )  # fmt: skip
    bounds = bench.pick(((32, 512), (32, 256)), ((4, 20), (4, 10)))
    asked = OfflineOrder(requests, Lengths(*bounds[0]), Lengths(*bounds[1]), 0, 1)
    kinds: Counter[str] = Counter()
    launch = Runner.launch

    def counted(runner: Runner, plan: Plan) -> Any:
        flight = launch(runner, plan)
        kinds[type(flight).__name__] += 1
        return flight

    setattr(Runner, "launch", counted)  # noqa: B010
    try:
        workbench = Workbench.open(EngineOrder(config, "gpt2", None), lambda *_: None)
        begun = time.perf_counter()
        load = next(islice(each_load(workbench, asked, lambda *_: None), 1))
    finally:
        setattr(Runner, "launch", launch)  # noqa: B010
    return {
        "out tokens/s": round(load.rates["out_tokens_per_s"]), "seconds": round(load.seconds, 3), "steps": load.steps,
        "rows": round(load.batch, 1), "warm up and capture s": round(time.perf_counter() - begun - load.seconds, 1),
        "launches with warm up": dict(kinds),
    }  # fmt: skip


TIMED: dict[str, Group] = {
    "mixed": mixed,
    "prefill": prefill,
    "sampling": sampling,
    "offline continuous": partial(offline, "continuous"),
    "offline gathered": partial(offline, "gathered"),
}

if __name__ == "__main__":
    main("scripts.check_gpu_mixed", __doc__ or "", TIMED, {}, [], timeout_s=150)
