"""Options: every option once, with its default, its choices and the sentence that explains it.

The command line, a TOML file and the docs are made from these fields. Knows no argv, no environment and no object that
an option's name stands for (menu.py names those).
"""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ridgeline.core.spec import GPT2_SHAPES
from ridgeline.menu import MENU


def option(
    default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None
) -> Any:
    """A field of the configuration. low and high are inclusive bounds."""
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class ModelOptions:
    model: str | None = option(
        None,
        "A GPT-2 model: a name on the Hugging Face hub (gpt2, gpt2-medium, gpt2-large, gpt2-xl, distilgpt2), a local "
        "directory, or 'demo' (bundled). Left out: gpt2 if it is cached or can be downloaded, otherwise demo.",
    )
    random_weights: str | None = option(
        None,
        "Serve random weights of this shape instead of a checkpoint, for measuring.",
        choices=tuple(GPT2_SHAPES),
    )
    served_model_name: str | None = option(None, "The name clients use. Default: the model's own name.")
    dtype: str = option(
        "auto",
        "Number format of weights and KV cache. auto: bfloat16 where the hardware computes it natively, "
        "otherwise float32. With 16 bits on a CPU that does not compute them, a few rows are rounded otherwise than "
        "many are, so a token may depend on how many requests run.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    quantize: str = option(
        "none",
        "Weights in fewer bits, so that a step reads less; tokens change. none: as the checkpoint has them, in "
        "integers if `ridgeline quantize` saved it. int8: 8 bits a weight. int4: 4.25, with a multiplier for every "
        "16 inputs. fp8: 8-bit floats, on NVIDIA GPUs that have them. On a CPU "
        "activations are rounded to 8 bits too, and a C++ compiler should be installed; the first start compiles "
        "for some seconds. On a GPU it pays for few requests at a time.",
        choices=tuple(MENU["quantize"]),
    )
    device: str = option(
        "auto", "Where the model runs. auto: an NVIDIA GPU if torch can use one, otherwise the CPU.",
        choices=("auto", "cpu", "cuda"),
    )  # fmt: skip
    determinism: str = option(
        "off",
        "What a result may depend on in its last bits, which decide a token where two are as likely. off: on what else "
        "is in the batch. run: the same requests in the same steps give the same bits, as off does too today. batch: a "
        "result is bitwise the same whatever else runs, however prompts are cut, after preemption and a restart, at a "
        "price; see docs/determinism.md.",
        choices=tuple(MENU["determinism"]),
    )
    threads: int | None = option(
        None,
        "CPU threads that the model computes with. Default: the physical cores that this process may use, because the "
        "siblings of a core share its multipliers. A GPU has none to set, so there it is refused.",
        low=1,
        high=1024,
    )
    max_model_len: int | None = option(
        None, "Longest sequence, prompt and output together. Default: the model's number of positions.", low=2
    )
    seed: int = option(0, "Seed for random weights and for requests that bring none.", low=0, high=2**63 - 1)


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    batching: str = option(
        "continuous",
        "Who runs next. one: a request at a time. static: whoever waits when the device is free, up to the batch size; "
        "the batch runs until its last member ends. dynamic: static, but a batch that is not full waits up to the "
        "batch window for company. prefill-first: requests join at every step, and their prompts are computed before "
        "anybody decodes, up to 8 steps in a row. continuous: requests join and leave at every step, and those who run "
        "come first. gathered: as continuous, but newcomers are seated together, when they fill a sixteenth of the "
        "seats or have waited for 8 launches, so that prompts share launches; for throughput on a GPU.",
        choices=tuple(MENU["batching"]),
    )
    batch_window_ms: float = option(
        50.0, "dynamic: how long the oldest waiting request waits for company, in milliseconds.", low=0, high=60_000
    )
    max_batch_size: int = option(8, "static and dynamic: requests in a batch at most.", low=1, high=4096)
    packing: str = option(
        "ragged",
        "Rows of a step. padded: all as long as the longest (the waste is counted). ragged: end to end, no padding.",
        choices=tuple(MENU["packing"]),
    )
    graphs: str = option(
        "auto",
        "How a step is launched. eager: packed by the host and launched operation after operation. graph: as one "
        "captured CUDA graph, with what it needs already on the device, so the host's work does not grow with the "
        "model. Steps with prompts in them are captured too where rows lie end to end (--packing ragged) and the "
        "attention can plan them on the device, up to 8192 tokens. Eager all the same are steps whose prompts want "
        "log-probabilities, and all while a profile runs or with --nvtx. recorded: on a CPU, decode "
        "steps of native calls are recorded once for a number of rows and played as one; where PyTorch makes the "
        "products (many rows, with --quantize none) they stay eager. "
        "auto: graph on a GPU, where the attention can be captured; recorded on a CPU with native attention; "
        "otherwise eager. On a CPU nothing is captured, and graph only prepares the step on the device.",
        choices=("auto", *MENU["graphs"]),
    )
    chunked_prefill: bool | None = option(
        None,
        "Cut prompts that exceed what a step may compute (--max-num-batched-tokens) and compute them in several steps, "
        "so that a long prompt does not hold up those who decode. Default: on for prefill-first, continuous and "
        "gathered with a KV cache; the others compute prompts whole.",
    )
    kv_cache: str = option(
        "paged",
        "Keys and values of the tokens before. paged: kept in blocks, so a step computes one token a request. none: "
        "computed again at every step, which shows what a cache is worth.",
        choices=tuple(MENU["kv_cache"]),
    )
    kv_dtype: str = option(
        "auto",
        "Number format of keys and values. A step of many requests reads mostly these, so half the bytes are up to "
        "twice the tokens, and as much memory holds twice the sequences. auto: that of the weights.",
        choices=tuple(MENU["kv_dtype"]),
    )
    attention: str = option(
        "auto",
        "How queries meet the cached keys and values. auto: paged on a GPU, native on a CPU where it can be built and "
        "the model's heads suit it (the start log says why not), otherwise the reference. A server that must compile "
        "the native one first begins in plain torch and takes it between two steps. With --determinism batch the "
        "fastest of those that compute a request the same way in every batch.",
        choices=("auto", *MENU["attention"]),
    )
    prefix_cache: bool | None = option(
        None,
        "Find the blocks of a prompt's beginning that an earlier request computed (a system prompt, the turns of a "
        "chat). Blocks that nobody uses stay until their room is needed, the longest unused go first. Default: on with "
        "a paged KV cache, because it costs microseconds a request; turn it off to measure prompts that repeat.",
    )
    launches_in_flight: int = option(
        1,
        "Launches that the device may have before the first is collected: with 2 the next one is prepared while one "
        "computes, which hides the host's work behind the device's. A request that stops is then computed once more "
        "for nothing. On a CPU there is nothing to hide, because a launch returns when it is done.",
        low=1,
        high=3,
    )
    max_steps_per_visit: int = option(
        1,
        "Tokens that each running request may decode in one launch, without the host looking in between. More saves "
        "host time for small models and few requests; newcomers and streams wait longer. Fewer are taken while "
        "somebody waits for a place.",
        low=1,
        high=64,
    )


@dataclass(frozen=True, slots=True)
class LimitOptions:
    max_num_seqs: int = option(256, "Requests that run at once at most.", low=1, high=65_536)
    max_num_batched_tokens: int | None = option(
        None,
        "Tokens a step computes at most; longer prompts are cut (see --chunked-prefill). Default: 2048 on a GPU, 512 "
        "on a CPU; at least the longest sequence and --max-num-seqs where prompts are computed whole, and a whole "
        "batch of them for one, static and dynamic. Without a KV cache, those for whom a step has no room sit it out.",
        low=1,
    )
    itl_target_ms: float | None = option(
        None,
        "How long a step may take, by what two steps took at the start, when prompts are computed beside requests that "
        "decode: a smaller part of a prompt keeps the time between their tokens (ITL) there, and its own first token "
        "comes later. Where decoding alone takes more than half of it, prompts get as much time as decoding. Prompts "
        "that nobody decodes beside, and --batching prefill-first, take what --max-num-batched-tokens allows. Default: "
        "50; none where --max-num-batched-tokens is given or with --determinism run.",
        low=1,
        high=60_000,
    )
    block_size: int | None = option(
        None,
        "Tokens in a block of the KV cache. Smaller wastes less at a sequence's end and shares shorter prefixes; "
        "larger needs fewer table entries. Default: what the attention reads best, 64 on a GPU and 16 elsewhere.",
        low=1,
        high=1024,
    )
    kv_memory: str | None = option(
        None,
        "Memory for the KV cache, for example 4GiB. Default: planned from the memory that is really free, for up to "
        "--max-num-seqs of the longest sequences, and as many again for the prefix cache.",
    )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    host: str = option("localhost", "Address to listen on. localhost: 127.0.0.1 and, where present, ::1.")
    port: int = option(8000, "Port to listen on; 0 takes a free one.", low=0, high=65_535)
    in_process: bool = option(
        False,
        "Run the engine in the server's own process, for debuggers and profilers; an engine that dies then ends "
        "the server. Default: a process of its own.",
    )
    engine_restarts: int = option(
        10,
        "An engine process that dies is started again, after 1, 2, 4 ... 30 seconds, at most this many times within an "
        "hour; then the server ends with code 1. 0: it ends at the first.",
        low=0,
        high=1000,
    )
    drain_timeout: float = option(
        30.0,
        "Seconds that requests in flight have to end after SIGTERM or Ctrl-C; newcomers are answered 503 meanwhile. A "
        "second signal ends the server at once.",
        low=0,
        high=86_400,
    )
    nvtx: bool = option(
        False,
        "Name the places of the model (qkv, attention, mlp_in ...) as NVTX ranges, for nsys and ncu; needs a GPU. Each "
        "costs the host a little time; left out, there are none. See docs/profiling.md.",
    )
    profile_dir: str | None = option(
        None,
        "Where POST /v1/profile writes its traces; the newest 8 are kept. Default: `profiles` in Ridgeline's cache "
        "folder. An admin key is needed to ask for one.",
    )
    recorder: str = option(
        "on",
        "The flight recorder: which requests were in the last 4096 steps, and what became of them, for the page, GET "
        "/v1/recording and the report of an engine that died. It costs a few microseconds a step and some 6 MB. off: "
        "nothing is recorded.",
        choices=tuple(MENU["recorder"]),
    )
    open_metrics: bool = option(False, "With keys: /metrics needs none.")
    open_page: bool = option(
        False, "With keys: the page at / and the documentation need none; the page asks for one before it generates."
    )
    log_format: str = option("text", "Lines on stderr: text, or one JSON object a line.", choices=("text", "json"))
    log_level: str = option(
        "info", "What is logged at least; info has a line for every request.",
        choices=("info", "warn", "error"),
    )  # fmt: skip
    log_prompts: bool = option(False, "Log the prompts of requests too. They may be private.")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    max_queued_requests: int | None = option(
        None,
        "Generations that wait for their first token at most (n for each prompt of a request); more are answered 429. "
        "Default: 4 times --max-num-seqs, so a burst that fills the batch four times over is served and not refused.",
        low=1,
    )
    max_queued_tokens: int | None = option(
        None,
        "Prompt tokens of generations that wait for their first token at most; more are answered 429. Default: 1024 "
        "for each of --max-queued-requests.",
        low=1,
    )
    max_concurrent_per_key: int | None = option(
        None, "Generations of one API key under way at most; more are answered 429. Default: no bound.", low=1
    )
    request_timeout_s: float | None = option(
        None,
        "Seconds a request may take, from its head on, its body included; then it is ended and answered 408. Default: "
        "no bound.",
        low=0.001,
    )
    body_timeout_s: float = option(
        30.0,
        "Seconds a client may take to send the head of a request, and as many again for its body.",
        low=0.01,
        high=3600,
    )
    slow_reader_timeout_s: float = option(
        60.0, "A client that takes nothing of its answer for that many seconds is cut off.", low=0.01, high=86_400
    )
    max_connections: int | None = option(
        None,
        "Open connections at most; more are answered 503. Default: as many as the process may open files, less 64.",
        low=1,
    )
    api_key_file: str | None = option(
        None,
        "A file of API keys, one a line, optionally as name:key (the name goes to the log); # begins a comment. With "
        "keys every route but /health needs one. RIDGELINE_API_KEYS, separated by commas, does the same.",
    )
    admin_key_file: str | None = option(
        None,
        "A file of admin keys, in the format of --api-key-file. They open the routes that an operator needs "
        "(/v1/profile), which are closed without any, and everything that an API key opens. RIDGELINE_ADMIN_KEYS, "
        "separated by commas, does the same. Admin keys alone leave the other routes open.",
    )
    lenient: bool = option(
        False, "Accept fields of a request that nobody knows and name them in a header. Default: they are refused."
    )


SECTIONS: dict[str, type[Any]] = {
    "model": ModelOptions,
    "batching": BatchingOptions,
    "limits": LimitOptions,
    "server": ServerOptions,
    "clients": ClientOptions,
}


def flag_of(name: str) -> str:
    """As it is written on the command line."""
    return "--" + name.replace("_", "-")


@cache
def _hints(section: type[Any]) -> dict[str, Any]:
    """Evaluated once: commands have 315 options between them, and each evaluation takes 0.4 ms."""
    return typing.get_type_hints(section)


def kind_of(section: type[Any], name: str) -> type[Any]:
    """The plain type of a field, without `| None`."""
    hint = _hints(section)[name]  # type: ignore[arg-type]  # a class can be hashed
    if isinstance(hint, types.UnionType):
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    assert isinstance(hint, type)
    return hint
