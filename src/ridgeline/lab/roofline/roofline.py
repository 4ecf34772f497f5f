"""Roofline: a ledger drawn into a folder, as a page, as pictures and as the run file behind them. Measures nothing."""

from __future__ import annotations

from pathlib import Path

from ridgeline.bench.words import human_bytes
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import write_run
from ridgeline.lab import report
from ridgeline.lab.ledger.file import Ledger, to_document
from ridgeline.lab.roofline.plot import draw
from ridgeline.lab.roofline.printed import save
from ridgeline.lab.roofline.roofs import Point, Roofline
from ridgeline.lab.roofline.words import amount, readings, ridge_words, warnings

PAGE, RUN_FILE, PICTURES = "index.html", "roofline.json", ("roofline.svg", "roofline.png")
HEADINGS = (
    "operation", "step", "FLOP/byte", "GFLOP/s", "of its roof", "MFLOP", "bytes", "floor us", "timed us", "binds",
)  # fmt: skip


def make_folder(out: Path) -> None:
    """Before minutes of measuring, not after. Raises ConfigError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {out}: it cannot be made ({error.strerror or error})") from error


def write(ledger: Ledger, out: Path) -> tuple[Roofline, tuple[Path, ...]]:
    """The files' paths, the page first. Raises ConfigError."""
    roofline = Roofline.of(ledger)
    paths = tuple(out / name for name in (PAGE, RUN_FILE, *PICTURES))
    try:
        write_run(out / RUN_FILE, to_document(ledger))
        (out / PAGE).write_text(render(roofline), encoding="utf-8")
        save(roofline, tuple(out / name for name in PICTURES))
    except OSError as error:
        raise ConfigError(f"--output {out}: it cannot be written ({error.strerror or error})") from error
    return roofline, paths


def render(roofline: Roofline) -> str:
    """The page."""
    ledger, ceilings = roofline.ledger, roofline.ceilings
    context = max((step.context for step in ledger.steps if step.phase == "decode"), default=None)
    reads = f"; decode at a context of {context} tokens" if context is not None else ""
    remarks = [f"Ceilings: {note}" for note in ceilings.notes]
    if ceilings.datasheet is not None:
        remarks.append(
            f"Dashed lines marked datasheet are the vendor's figures for {ceilings.datasheet.name} "
            f"({ceilings.datasheet.source}); nothing is divided by them."
        )
    if ledger.interrupted:
        remarks.append("The run was interrupted.")
    return report.render(
        "Roofline",
        f"{ledger.model} ({ledger.formats.weight_bits:g}-bit weights, {ledger.formats.compute} arithmetic) on "
        f"{ceilings.device}{reads}.",
        [_section(roofline)],
        ledger.provenance,
        warnings(roofline),
        remarks,
    )


def _section(roofline: Roofline) -> report.Section:
    points = (*roofline.steps, *roofline.places)
    return report.Section(
        key="roofline",
        title="Which ceiling is over each operation?",
        question=(
            "Across: how much arithmetic an operation does for each byte it must move, from shapes. Up: how much of it "
            "was done in a second, timed. Diagonals are measured bandwidths, flat lines measured rates of matrix "
            "products. Nothing gets above the diagonal of the level its bytes come from, nor above the roof of its "
            "number format; the distance below is what could be gained. "
            "Larger marks are larger batches, stars are a prefill; a click in the legend hides a region. The "
            f"{ridge_words(roofline)}."
        ),
        figure=draw(roofline),
        readings=readings(roofline),
        headings=HEADINGS,
        rows=tuple(map(row, points)),
    )


def row(point: Point) -> tuple[str, ...]:
    return (
        point.where,
        point.of_step,
        amount(point.intensity),
        f"{point.flops_per_s / 1e9:,.2f}",
        f"{point.share * 100:.1f} %",
        f"{point.flops / 1e6:,.2f}",
        human_bytes(point.bytes),
        f"{point.floor_ns / 1e3:,.1f}",
        f"{point.timed_ns.median / 1e3:,.1f}",
        point.binds,
    )
