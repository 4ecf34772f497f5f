"""Memory plan: what goes where, in bytes, before anything is loaded. Integers only; knows no hardware and no tensor."""

from __future__ import annotations

from dataclasses import dataclass

from ridgeline.core.errors import ConfigError
from ridgeline.core.spec import ModelSpec
from ridgeline.core.types import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_STOP_IDS

SAMPLE_ROWS = 32
"""Rows of logits that are changed or sampled at once."""
TURNS = 64
"""Steps of a launch at most: the bound of --max-steps-per-visit."""
SCORE_ROWS = 64
"""Rows of logits whose log-probabilities are computed at once."""

_SAMPLING_BYTES = 64  # a logit of a row that draws: counted, changed, sorted, summed in float64, masked
_SORTING_BYTES = 32  # the same where all rows are sorted, in a captured step: values and ids, and those on the way
_HISTORY_BYTES = 48  # a token of a row with penalties: its id widened, and whether and as what it counts
_DRAWING_BYTES = 256  # a random number that a newcomer may need: its words, before they are multiplied and mixed
_SCORING_BYTES = 40  # a logit that is scored: widened, its logarithm, and the integers that order it
_SCORE_BYTES = 4 * (2 + 2 * MAX_LOGPROBS)  # what is kept of a scored position until the end of the launch
_LOGIT_BYTES = 4  # in float32
_TABLE_BYTES_PER_TOKEN = 16  # token, block, uniform
_TABLE_BYTES = 4 * MAX_STOP_IDS + 8 * MAX_LOGIT_BIAS
_GATHERED_TOKENS = 16384  # keys and values that attention holds at once, as they are and widened
_BUFFERS_BYTES = 64 << 20  # widened weights and the libraries' own
# What a driver takes for captured steps, beside the allocator's memory (records/2026-11-26-starts-h100): kernels that
# are loaded for the first one, and for each as many nodes as its layers need. Measured were 70 MiB, and for each of the
# others 0.57, 0.85 and 1.43 MiB at 12, 24 and 48 layers.
_FIRST_GRAPH_BYTES, _GRAPH_BYTES, _GRAPH_LAYER_BYTES = 72 << 20, 512 << 10, 24 << 10


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """free_bytes is what there was before the weights. graphs_bytes: of captured steps. kv_bytes: the cache, its
    scratch block included."""

    free_bytes: int
    weights_bytes: int
    workspace_bytes: int
    graphs_bytes: int
    kv_bytes: int
    block_bytes: int
    block_size: int
    num_blocks: int
    max_model_len: int

    def sequences(self, length: int) -> int:
        """How many sequences of this length fit at the same time."""
        return self.num_blocks // -(-length // self.block_size)

    def describe(self) -> str:
        half = max(1, self.max_model_len // 2)
        graphs = f"graphs {_size(self.graphs_bytes)}, " if self.graphs_bytes else ""
        return (
            f"memory: {_size(self.free_bytes)} free; weights {_size(self.weights_bytes)}, "
            f"workspace {_size(self.workspace_bytes)}, {graphs}KV cache {_size(self.kv_bytes)} = "
            f"{self.num_blocks} blocks of {self.block_size} tokens: {self.sequences(self.max_model_len)} sequences of "
            f"{self.max_model_len} tokens or {self.sequences(half)} of {half}"
        )


def workspace_bytes(spec: ModelSpec, batched_tokens: int, rows: int, max_model_len: int, value_bytes: int) -> int:
    """What a step needs beside weights and cache: an upper bound for any mix of rows.

    value_bytes: of an activation. Attention masks are float32, [queries, context].
    """
    tables = rows * (max_model_len * _TABLE_BYTES_PER_TOKEN + _TABLE_BYTES)
    activations = batched_tokens * (8 * spec.d_model + 2 * spec.d_inner) * value_bytes
    masks = batched_tokens * max_model_len * 4
    logits = rows * spec.vocab * (value_bytes + _LOGIT_BYTES)
    sampling = min(rows, SAMPLE_ROWS) * (spec.vocab * _SAMPLING_BYTES + max_model_len * _HISTORY_BYTES)
    scoring = min(max(rows, batched_tokens), SCORE_ROWS) * spec.vocab * (value_bytes + _SCORING_BYTES)
    scored = (batched_tokens + rows) * _SCORE_BYTES
    gathered = 4 * _GATHERED_TOKENS * spec.d_model * 4
    drawing = rows * max_model_len * _DRAWING_BYTES
    # Drawing numbers, sampling and scoring take turns.
    most = max(drawing, sampling, scoring)
    return tables + activations + masks + logits + most + scored + gathered + _BUFFERS_BYTES


def graph_bytes(spec: ModelSpec, rows: int, tokens: int, max_model_len: int, value_bytes: int, graphs: int) -> int:
    """What so many captured steps of up to so many rows and token positions hold beside the workspace: their memory is
    lent to nobody else. A smaller step that was captured first may have left pieces that are too small for a larger
    one, so what grows with the positions is counted twice."""
    tables = rows * max_model_len * 4
    activations = 2 * (rows + tokens) * (8 * spec.d_model + 2 * spec.d_inner) * value_bytes
    logits = rows * spec.vocab * (value_bytes + _LOGIT_BYTES)
    shaping = spec.vocab * (_SAMPLING_BYTES + _SORTING_BYTES) + max_model_len * _HISTORY_BYTES
    sampling = min(rows, SAMPLE_ROWS) * shaping
    scoring = min(rows, SCORE_ROWS) * spec.vocab * (value_bytes + _SCORING_BYTES)
    results = TURNS * rows * (3 * 4 + _SCORE_BYTES)
    driver = _FIRST_GRAPH_BYTES + graphs * (_GRAPH_BYTES + spec.layers * _GRAPH_LAYER_BYTES)
    return tables + activations + logits + max(sampling, scoring) + results + driver


def plan_memory(
    *,
    free_bytes: int,
    weight_bytes: int,
    block_bytes: int,
    workspace: int,
    graphs: int,
    positions: int,
    slots: int,
    useful_sequences: int,
    max_model_len: int,
    block_size: int,
    share_percent: int,
    kv_memory: int | None = None,
) -> MemoryPlan:
    """Divide the free memory. share_percent: of what weights, workspace and graphs leave, for the KV cache unless
    kv_memory says how many bytes. block_bytes: what a block of the cache occupies. positions, slots: of a step at most,
    which the workspace was computed from. useful_sequences: more of the longest are of no use to anybody. Raises
    ConfigError, with the numbers, for what cannot work.
    """
    weights = weight_bytes
    left = free_bytes - weights - workspace - graphs
    captured = f" with captured steps {_size(graphs)}" if graphs else ""
    taken = f"weights take {_size(weights)} and the workspace {_size(workspace)}{captured} of {_size(free_bytes)} free"
    if left <= 0 < free_bytes - weights:
        raise ConfigError(
            f"the workspace does not fit: {taken}. A step is planned for {positions} token positions of {slots} "
            f"requests; lower --max-num-seqs, --max-batch-size (static, dynamic) or --max-num-batched-tokens, "
            f"leave --packing padded out{', take --graphs eager' if graphs else ''}, or free some memory"
        )
    if left <= 0:
        raise ConfigError(f"the model does not fit: {taken}. Free some memory, or use a smaller model or dtype")
    if kv_memory is not None and kv_memory > left:
        raise ConfigError(f"--kv-memory {_size(kv_memory)}: only {_size(left)} are left; {taken}")
    longest = -(-max_model_len // block_size)
    budget = left * share_percent // 100 if kv_memory is None else kv_memory
    affordable = budget // block_bytes - 1  # one is scratch
    if affordable < longest:
        fits, needed = affordable * block_size, (longest + 1) * block_bytes
        lower = f"Lower --max-model-len to {fits} or less, or raise" if fits >= 2 else "Raise"
        raise ConfigError(
            f"the KV cache is too small: one sequence of --max-model-len {max_model_len} needs {_size(needed)}, and "
            f"{_size(budget)} are planned, {_size(needed - budget)} less ({taken}). {lower} --kv-memory or free memory"
        )
    num_blocks = min(affordable, useful_sequences * longest)
    return MemoryPlan(
        free_bytes=free_bytes,
        weights_bytes=weights,
        workspace_bytes=workspace,
        graphs_bytes=graphs,
        kv_bytes=(num_blocks + 1) * block_bytes,
        block_bytes=block_bytes,
        block_size=block_size,
        num_blocks=num_blocks,
        max_model_len=max_model_len,
    )


def _size(num_bytes: int) -> str:
    if num_bytes < 1 << 30:
        return f"{num_bytes / (1 << 20):.1f} MiB"
    return f"{num_bytes / (1 << 30):.2f} GiB"
