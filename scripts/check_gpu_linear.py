"""Whether products for few rows are right on this GPU in bfloat16, and what a chain of them costs a token.

    PYTHONPATH=src python -m scripts.check_gpu_linear --out run.json
    PYTHONPATH=src TRITON_INTERPRET=1 python -m scripts.check_gpu_linear --dry-run

An error norm is |out - reference| / |reference|; the reference is plain torch in float32 on the same weights. All is
timed in graphs, over as many copies of the weights as exceed L2. "token" is every product of GPT-2 124M in its order,
with norms, residuals, head and the likeliest token, without attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from scripts.gpu_bench import Bench, Case, Fastest, Group, Numbers, main
from scripts.linear_cases import FORMATS, PLACES, Chain, error_norm, held, numbers_of
from torch import Tensor

from ridgeline.ops.dependent_triton import CAN_DEPEND
from ridgeline.ops.gemv import FewRows, Layer, few_rows, fused_linear, greedy_head
from ridgeline.ops.gemv_triton import Kernels, Tile
from ridgeline.ops.library import product
from ridgeline.ops.norm import layer_norm
from ridgeline.ops.sample import greedy

TILES = (Tile(), Tile(warps=8), Tile(parts=2), Tile(span=2), Tile(warps=8, span=2))
WIDER = (Tile(), Tile(parts=2), Tile(parts=2, span=2), Tile(span=2))
HEAD_TILES = (Tile(parts=2), Tile(parts=4), Tile(parts=8), Tile(parts=4, warps=8))
FLUSH_TO = 150_000_000


def kernels(bench: Bench, tile: Tile | None = None, dependent: bool = True) -> Kernels:
    """dependent: where the device can."""
    can = not bench.dry and CAN_DEPEND and torch.cuda.get_device_capability(bench.device) >= (9, 0)
    return Kernels(can and dependent) if tile is None else Kernels(can and dependent, lambda _, __: tile)


def parity(bench: Bench) -> Iterator[Case]:
    """Every place, rows and way of launching, in the formats that a model has."""
    yield "what is chosen", lambda: {"note": few_rows(bench.device, bench.half).note}
    for dependent in bench.pick((True, False), (False,)):
        way = "dependent" if dependent else "plain"
        for place in PLACES:
            for rows in bench.pick((1, 3, 8, 16), (2,)):
                yield f"{place}, {rows} rows, {way}", partial(_place_right, bench, place, rows, dependent)
    for name in FORMATS:
        yield f"mlp_in in {name}", partial(_place_right, bench, "mlp_in", bench.pick(3, 2), True, name)
    for d_in, d_out in bench.pick(((1600, 4800), (6400, 1600), (1280, 5120), (100, 37)), ((100, 37),)):
        yield f"{d_in} x {d_out}, 3 rows", partial(_shape_right, bench, d_in, d_out)
    for rows in bench.pick((1, 5, 16), (2,)):
        yield f"head, {rows} rows", partial(_head_right, bench, rows)
    for rows in bench.pick((1, 32, 256), (2,)):
        yield f"likeliest of {rows} rows", partial(_greedy_right, bench, rows)
    for activation in ("gelu_new", "gelu", "relu", None):
        yield f"library with {activation}", partial(_library_right, bench, activation)


def _place_right(bench: Bench, place: str, rows: int, dependent: bool, kind: str = "plain") -> Numbers:
    of, x, residual = held(bench, place, kind), bench.randn(rows, numbers_of(bench, place)[0]), None
    if place in ("attn_out", "mlp_out"):
        residual = bench.randn(rows, of.weight.d_out)
    return _right(kernels(bench, dependent=dependent), x, of, residual)


def _right(few: FewRows, x: Tensor, of: Layer, residual: Tensor | None) -> Numbers:
    found = [few.linear(x, of, residual) for _ in range(3)]
    error = error_norm(found[-1], fused_linear(x.float(), of, None if residual is None else residual.float()))
    return {"error norm": error, "right": error < 1e-2, "same again": torch.equal(found[0], found[-1])}


def _shape_right(bench: Bench, d_in: int, d_out: int) -> Numbers:
    return _right(kernels(bench), bench.randn(3, d_in), held(bench, "mlp_in", shape=(d_in, d_out)), None)


def _head_right(bench: Bench, rows: int) -> Numbers:
    of, x = held(bench, "head"), bench.randn(rows, numbers_of(bench, "head")[0])
    logits, chosen = kernels(bench).greedy_head(x, of)
    error = error_norm(logits, greedy_head(x.float(), of)[0])
    return {"error norm": error, "right": error < 1e-2, "likeliest": torch.equal(chosen, greedy(logits))}


def _greedy_right(bench: Bench, rows: int) -> Numbers:
    padded = bench.randn(rows, bench.pick(50304, 320))
    logits = padded[:, : bench.pick(50257, 300)]
    return {
        "padded": torch.equal(kernels(bench).greedy(logits), greedy(logits)),
        "plain": torch.equal(kernels(bench).greedy(logits.contiguous()), greedy(logits)),
        "float32": torch.equal(kernels(bench).greedy(logits.float()), greedy(logits)),
    }


def _library_right(bench: Bench, activation: str | None) -> Numbers:
    of = held(bench, "attn_out")
    assert of.bias is not None
    x, residual = bench.randn(64, of.weight.d_in), bench.randn(64, of.weight.d_out)
    expected = fused_linear(x.float(), Layer(of.weight, of.bias, None, activation), residual.float())
    error = error_norm(_added(product(x, of.weight.words, of.bias, activation), residual), expected)
    return {"error norm": error, "right": error < 1e-2}


def products(place: str, bench: Bench) -> Iterator[Case]:
    """Tiles against each other and the library, at each number of rows."""
    fastest = Fastest()
    shape = numbers_of(bench, place)
    layers = [held(bench, place) for _ in range(bench.pick(max(2, FLUSH_TO // (2 * shape[0] * shape[1])), 2))]
    for rows in bench.pick((1, 4, 8, 16), (2,)):
        what = f"{place}, {rows} rows"
        run = partial(_product_timed, bench, layers, rows, place in ("attn_out", "mlp_out"))
        yield f"{what}: torch", partial(run, _by_torch)
        if rows == 1:
            yield f"{what}: plain launch", partial(run, kernels(bench, Tile(), dependent=False).linear)
        for tile in bench.pick(TILES if rows < 4 else WIDER if rows < 16 else WIDER[:2], TILES[:1]):
            case = partial(run, kernels(bench, tile).linear)
            yield f"{what}: {tile}", partial(fastest.of, what, str(tile), case)
        yield f"fastest {what}", partial(fastest.told, what)


def _added(y: Tensor, residual: Tensor | None) -> Tensor:
    return y if residual is None else y.add_(residual)


Multiply = Callable[[Tensor, Layer, Tensor | None], Tensor]


def _by_torch(x: Tensor, of: Layer, residual: Tensor | None) -> Tensor:
    if of.norm is not None:
        x = layer_norm(x, of.norm.weight, of.norm.bias, of.norm.eps)
    return _added(product(x, of.weight.words, of.bias, of.activation), residual)


def _product_timed(bench: Bench, layers: list[Layer], rows: int, adds: bool, multiply: Multiply) -> Numbers:
    weight = layers[0].weight
    x, residual = bench.randn(rows, weight.d_in), bench.randn(rows, weight.d_out) if adds else None

    def run() -> None:
        for of in layers:
            multiply(x, of, residual)

    moved = weight.words.numel() * weight.words.element_size()
    return bench.timed(bench.capture(run), moved=moved, of=len(layers))


def token(kind: str, bench: Bench) -> Iterator[Case]:
    """All products of a token. The same tile for all of a layer's, and then what the kernels choose themselves."""
    chain, fastest = Chain(bench, kind), Fastest()
    for rows in bench.pick((1, 2, 4, 8, 16) if kind == "plain" else (1, 4, 8), (2,)):
        what = f"token, {kind}, {rows} rows"
        case = partial(chain.timed, rows)
        if kind == "plain":
            yield f"{what}: torch", partial(case, _by_torch, None)
            yield f"{what}: plain launch", partial(case, *_of(kernels(bench, dependent=False)))
        yield f"{what}: as chosen", partial(fastest.of, what, "as chosen", partial(case, *_of(kernels(bench))))
        for tile in bench.pick(() if kind != "plain" else TILES[:4] if rows < 4 else WIDER[:2], ()):
            few = Kernels(kernels(bench).dependent, partial(_tile_but_for_heads, tile))
            yield f"{what}: {tile}", partial(fastest.of, what, str(tile), partial(case, *_of(few)))
        yield f"fastest {what}", partial(fastest.told, what)


def _of(few: Kernels) -> tuple[Multiply, Callable[[Tensor, Layer], tuple[Tensor, Tensor]]]:
    return few.linear, few.greedy_head


def _tile_but_for_heads(tile: Tile, weight: object, _: int) -> Tile:
    return Tile(parts=4) if getattr(weight, "d_out", 0) > 16384 else tile


def head(bench: Bench) -> Iterator[Case]:
    """The head with its norm, with and without the likeliest token; and the likeliest alone."""
    fastest, of = Fastest(), [held(bench, "head") for _ in range(2)]
    padded = [torch.nn.functional.pad(o.weight.words, (0, 0, 0, -o.weight.d_out % 64)) for o in of]
    for rows in bench.pick((1, 2, 4, 8, 16, 64, 256), (2,)):
        x, what = bench.randn(rows, of[0].weight.d_in), f"head, {rows} rows"
        yield f"{what}: torch, norm, product, argmax", partial(_head_by_torch, bench, x, of, padded, True)
        yield f"{what}: torch, norm and product", partial(_head_by_torch, bench, x, of, padded, False)
        for tile in bench.pick(HEAD_TILES if rows < 4 else HEAD_TILES[:2] if rows <= 16 else (), HEAD_TILES[:1]):
            few = kernels(bench, tile)
            case = partial(_repeated, bench, [partial(few.greedy_head, x, o) for o in of])
            yield f"{what}: {tile}, likeliest too", partial(fastest.of, what, str(tile), case)
            yield f"{what}: {tile}", partial(_repeated, bench, [partial(few.linear, x, o) for o in of])
        if rows <= 16:
            yield f"fastest {what}", partial(fastest.told, what)
        logits = bench.randn(rows, padded[0].shape[0])[:, : of[0].weight.d_out]
        for name, run in (("torch", greedy), ("torch, as float32", _greedy_wide), ("Triton", kernels(bench).greedy)):
            yield f"likeliest of {rows} rows: {name}", partial(_repeated, bench, [partial(run, logits)] * 2)


def _greedy_wide(logits: Tensor) -> Tensor:
    return greedy(logits.float())


def _head_by_torch(bench: Bench, x: Tensor, of: list[Layer], padded: list[Tensor], best: bool) -> Numbers:
    def one(o: Layer, weight: Tensor) -> None:
        assert o.norm is not None
        logits = product(layer_norm(x, o.norm.weight, o.norm.bias, o.norm.eps), weight)[:, : o.weight.d_out]
        if best:
            greedy(logits)

    return _repeated(bench, [partial(one, o, weight) for o, weight in zip(of, padded, strict=True)])


def _repeated(bench: Bench, runs: list[Callable[[], object]]) -> Numbers:
    def run() -> None:
        for each in runs:
            each()

    return bench.timed(bench.capture(run), of=len(runs))


def library(bench: Bench) -> Iterator[Case]:
    """Many rows: which epilogues pay."""
    for rows in bench.pick((16, 64, 256), (4,)):
        for place in PLACES:
            shape = numbers_of(bench, place)
            layers = [held(bench, place) for _ in range(bench.pick(max(2, FLUSH_TO // (2 * shape[0] * shape[1])), 2))]
            adds = place in ("attn_out", "mlp_out")
            run = partial(_product_timed, bench, layers, rows, adds)
            yield f"{place}, {rows} rows: norm, product and epilogue", partial(run, _by_torch)
            yield f"{place}, {rows} rows: product alone", partial(run, _bare)
            if adds:
                yield f"{place}, {rows} rows: residual by beta, without bias", partial(run, _by_beta)


def _bare(x: Tensor, of: Layer, _: Tensor | None) -> Tensor:
    return torch.mm(x, of.weight.words.t())


def _by_beta(x: Tensor, of: Layer, residual: Tensor | None) -> Tensor:
    assert residual is not None
    return residual.addmm_(x, of.weight.words.t(), alpha=1e-3)


UNTIMED: dict[str, Group] = {"parity": parity}
TIMED: dict[str, Group] = {
    **{f"token, {kind}": partial(token, kind) for kind in ("plain", *FORMATS)},
    **{f"products, {place}": partial(products, place) for place in PLACES},
    "head": head,
    "library": library,
}

if __name__ == "__main__":
    rehearsed = [name for name in TIMED if name != "library"]
    main("scripts.check_gpu_linear", __doc__ or "", TIMED, UNTIMED, rehearsed, timeout_s=90)
