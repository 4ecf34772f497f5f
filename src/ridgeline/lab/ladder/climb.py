"""Climb: `ridgeline ladder` from an order to the files in a folder, resumable, in a time box. Knows no argv.

DIR/ladder.json is written after every round; a run that was interrupted goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ridgeline.bench.order import LEAST_ROUNDS
from ridgeline.core.errors import ConfigError
from ridgeline.core.records import provenance, write_run
from ridgeline.core.report import reported
from ridgeline.lab.ladder import file as ladderfile
from ridgeline.lab.ladder import page as ladderpage
from ridgeline.lab.ladder.judging import QUICK_TOKENS, TOKENS, judge
from ridgeline.lab.ladder.ladder import Climb, Rounds
from ridgeline.lab.ladder.rungs import PEER, Rung, changed, ladder, selected
from ridgeline.lab.ladder.seams import Progress, Seams
from ridgeline.lab.ladder.stage import GUARD_REPEATS, Stage, Step
from ridgeline.lab.ladder.verdict import is_wrong
from ridgeline.lab.ladder.work import ARRIVAL_SHARE, CAPTURED_SHARE, Sizes, Speed, fitting, shares
from ridgeline.lab.report import page

if TYPE_CHECKING:
    from ridgeline.build import EngineOrder

BOX_S, QUICK_BOX_S = 280.0, 60.0
CAPTURED_BOX_S, QUICK_CAPTURED_BOX_S = 460.0, 150.0
"""What a whole run should take at most, about. Where steps are captured, most of it compiles and captures."""
_QUALITY_SHARE = 0.2
"""Of the whole time, kept for what comes after the rounds where a rung is lossy."""
EXIT_WRONG, EXIT_INTERRUPTED = 1, 130
# So long the first of a batch waits for company: the others of a full batch have come by then, on average.
_WINDOW_GAPS = 8
_WARM_TURNS = 2
"""Before the rounds: each rung serves its first requests twice."""
COUNTED_SERIAL = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """rungs: their names; empty: all. seed: of the load. fresh: forget what an earlier run has measured. box_s: time
    for a whole run; None: as the device needs."""

    rounds: int = LEAST_ROUNDS
    rungs: Sequence[str] = ()
    seed: int = 0
    quick: bool = False
    fresh: bool = False
    box_s: float | None = None

    def time_box_s(self, captures: bool) -> float:
        if self.box_s is not None:
            return self.box_s
        if captures:
            return QUICK_CAPTURED_BOX_S if self.quick else CAPTURED_BOX_S
        return QUICK_BOX_S if self.quick else BOX_S

    def chosen(self) -> tuple[list[Rung], list[str]]:
        """All rungs, and the names of those that are wanted. Raises ConfigError."""
        if self.rounds < LEAST_ROUNDS:
            raise ConfigError(
                f"--rounds: {self.rounds} is too few to tell a difference from chance; at least {LEAST_ROUNDS}"
            )
        rungs = ladder()
        return rungs, selected(rungs, self.rungs)


def run(
    order: EngineOrder,
    asked: Asked,
    output: Path,
    command: list[str],
    progress: Progress,
    console: Console,
    seams: Seams,
) -> int:
    """Climb, and write DIR/ladder.json, ladder.md and index.html. The exit code: 1 where a rung made wrong tokens, 130
    for Ctrl-C, after which the same command goes on. Raises ConfigError."""
    asked.chosen()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output}: it cannot be made ({error})") from error
    climber = Climber(order, asked, output, provenance(command), progress, seams)
    try:
        climber.climb()
    except KeyboardInterrupt:
        kept = len(climber.document["results"]["rounds"]) if climber.document else 0
        console.print(f"Interrupted; {kept} rounds are kept, and the same command goes on from them.", highlight=False)
        return EXIT_INTERRUPTED
    return tell(climber.document, output, console)


def tell(document: Mapping[str, Any], output: Path, console: Console) -> int:
    """The table on the console; the run file with its report, the page and the Markdown table in the folder. Returns
    the exit code."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        run = reported(document, ladderpage.told(document))
        write_run(output / ladderfile.NAME, run)
        (output / "index.html").write_text(page(run), encoding="utf-8")
        (output / "ladder.md").write_text(ladderpage.markdown(document), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {output}: it cannot be written ({error})") from error
    ladderpage.show(document, console)
    console.print(f"Page: {output / 'index.html'}", markup=False, highlight=False, soft_wrap=True)
    wrong = [rung["title"] for rung in document["results"]["rungs"] if is_wrong(document["results"], rung["name"])]
    if wrong:
        console.print(f"WRONG tokens: {', '.join(wrong)}", markup=False, highlight=False, soft_wrap=True)
    return EXIT_WRONG if wrong else 0


class Climber:
    """document: as the run file has it, and empty until it is known what will be measured."""

    def __init__(
        self, order: EngineOrder, asked: Asked, output: Path, about: dict[str, Any], progress: Progress, seams: Seams,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._order, self._asked, self._path, self._about, self._progress, self._seams = (
            order, asked, output / ladderfile.NAME, about, progress, seams,
        )  # fmt: skip
        self._clock, self._begun_s = clock, clock()
        self.document: dict[str, Any] = {}

    def climb(self) -> None:
        rungs, wanted = self._asked.chosen()
        config = self._config(wanted)
        old = None
        if self._path.exists() and not self._asked.fresh:
            old = ladderfile.read(self._path)
            ladderfile.check_same(self._path, old, config, self._about)
            if old["finished"]:
                self.document = old
                return
        self._progress("loading the model", 0, 0)
        stage = Stage(self._order, self._seams)
        results = self._sized(stage) if old is None else old["results"]
        steps = self._steps(stage, rungs, wanted, results)
        self._agree(results, steps)
        document = old or {"format": ladderfile.FORMAT, "kind": ladderfile.KIND, "provenance": self._about}
        self.document = document | {"config": config, "finished": False, "results": results}
        self._box_s = self._asked.time_box_s(stage.captures)
        climb = self._climb(stage, steps, results)
        climb = self._measure(climb, results)
        self._judge(stage, steps, results)
        self._count(stage, climb, results)
        self.document["finished"] = True
        self._save()

    def _config(self, wanted: Sequence[str]) -> dict[str, Any]:
        asked = self._asked
        options = asdict(self._order.config.model)
        return {
            "model": self._order.name, "options": options, "rungs": list(wanted), "rounds": asked.rounds,
            "load_seed": asked.seed, "quick": asked.quick, "time_box_s": asked.box_s,
        }  # fmt: skip

    def _sized(self, stage: Stage) -> dict[str, Any]:
        """What a first look at the speed makes of the load."""
        self._progress("probing the speed", 0, 0)
        speed = stage.probe()
        box_s = self._asked.time_box_s(stage.captures)
        sizes = fitting(speed, stage.positions, self._asked.rounds + _WARM_TURNS, box_s)
        alone_ns = stage.alone_ns(sizes)
        gap_ns = round(alone_ns * (CAPTURED_SHARE if stage.captures else ARRIVAL_SHARE))
        window_ms = round(_WINDOW_GAPS * gap_ns / 1e6, 1)
        return {
            "probe": asdict(speed),
            "sizes": asdict(sizes),
            "load": {"alone_ns": alone_ns, "gap_ns": gap_ns, "window_ms": window_ms},
            "requests": {}, "rungs": [], "rounds": [], "voided": [], "quality": {}, "counted": {},
        }  # fmt: skip

    def _steps(
        self, stage: Stage, rungs: Sequence[Rung], wanted: Sequence[str], results: Mapping[str, Any]
    ) -> list[Step]:
        sizes = Sizes.of(results["sizes"])
        steps: list[Step] = []
        for step in stage.steps(rungs, wanted, sizes, results["load"]["window_ms"]):
            self._progress(f"building: {step.rung.title}", len(steps), len(wanted))
            steps.append(step)
        if not any(step.place is not None and step.rung.name != PEER for step in steps):
            raise ConfigError("--rungs: none of these can be climbed here; the reference needs one engine at least")
        return steps

    def _agree(self, results: dict[str, Any], steps: Sequence[Step]) -> None:
        """Rungs as the run file has them. Raises ConfigError where an interrupted run had others."""
        described = [
            {
                "name": step.rung.name, "title": step.rung.title, "change": dict(step.rung.change),
                "lossy": step.rung.lossy, "skipped": step.skipped, "dtype": step.dtype,
                "requests": None if step.place is None else results["requests"].get(step.rung.name),
                "batching": asdict(step.config.batching),
            }
            for step in steps
        ]  # fmt: skip
        had = {rung["name"] for rung in results["rungs"] if rung["skipped"] is None}
        have = {step.rung.name for step in steps if step.place is not None}
        if results["rungs"] and had != have:
            other = ", ".join(sorted(had ^ have))
            raise ConfigError(
                f"{self._path}: {other} could be climbed then or now, not both; measure anew with --fresh"
            )
        results["rungs"] = described

    def _climb(self, stage: Stage, steps: Sequence[Step], results: dict[str, Any]) -> Climb:
        places = [step.place for step in steps if step.place is not None]
        engines = [step for step in steps if step.place is not None and step.rung.name != PEER]
        references = {
            step.rung.name: stage.reference(step) for step in engines if step.rung.lossy or step is engines[0]
        }
        turns, kept = self._asked.rounds + 1, results["rounds"]

        def show(what: str, done: int) -> None:
            turn = "" if what.startswith("warm-up") else f"round {len(kept) + 1} of {turns - 1}: "
            finished = (len(kept) + 1) * len(places) if turn else 0
            self._progress(turn + what, finished + done, turns * len(places))

        sizes = Sizes.of(results["sizes"])
        return Climb(
            places, references, stage.guard(sizes, Speed(**results["probe"])), sizes, results["requests"], stage.vocab,
            results["load"]["gap_ns"], self._asked.seed, show,
        )  # fmt: skip

    def _measure(self, climb: Climb, results: dict[str, Any]) -> Climb:
        """Returns the climb with the load that was measured."""
        if len(results["rounds"]) >= self._asked.rounds:
            return climb
        paces = climb.warm_up()
        if not results["requests"]:
            climb = self._shared(climb, paces, results)
        Rounds(results["rounds"], results["voided"]).climb(
            climb, self._asked.rounds, self._save, lambda: self._left_s() <= self._kept_s(results)
        )
        return climb

    def _shared(self, climb: Climb, paces: Mapping[str, float], results: dict[str, Any]) -> Climb:
        """Requests for every rung, so that the rounds end in the time that is left."""
        left_s = self._left_s() - self._kept_s(results)
        guards_s = (len(climb.places) + 1) * climb.guard() * GUARD_REPEATS / 1e9
        alone = {place.name: paces[place.name] for place in climb.places if place.alone}
        batched = {name: pace for name, pace in paces.items() if name not in alone}
        turns = self._asked.rounds + 1  # one may drift, or is counted
        found = shares(alone, batched, climb.sizes.block, max(0.0, left_s / turns - guards_s))
        sizes = replace(climb.sizes, blocks=-(-max(found.values()) // climb.sizes.block))
        for rung in results["rungs"]:
            rung["requests"] = found.get(rung["name"])
        results |= {"requests": found, "sizes": asdict(sizes)}
        return replace(climb, requests=found, sizes=sizes)

    def _kept_s(self, results: Mapping[str, Any]) -> float:
        """For what comes after the rounds."""
        lossy = any(rung["lossy"] and rung["skipped"] is None for rung in results["rungs"])
        return _QUALITY_SHARE * self._box_s if lossy else 0.0

    def _left_s(self) -> float:
        return self._box_s - (self._clock() - self._begun_s)

    def _late(self) -> bool:
        return self._left_s() <= 0

    def _judge(self, stage: Stage, steps: Sequence[Step], results: dict[str, Any]) -> None:
        exact = changed(stage.base, {"kv_cache": "paged"})
        for step in steps:
            if step.place is None or not step.rung.lossy or step.rung.name in results["quality"]:
                continue
            title = step.rung.title
            if self._late():
                reason = f"the time of {self._box_s:g} s was over; give --time-box a longer one"
                results["quality"][step.rung.name] = {"reason": reason}
                continue

            def show(what: str, done: int, whole: int, title: str = title) -> None:
                self._progress(f"quality of {title}: {what}", done, whole)

            tokens = QUICK_TOKENS if self._asked.quick else TOKENS
            found = judge(stage.order, exact, step.config, self._seams, tokens, show)
            results["quality"][step.rung.name] = found
            self._save()

    def _count(self, stage: Stage, climb: Climb, results: dict[str, Any]) -> None:
        """In a pass of its own, because a profiler that is attached costs time."""
        counters = self._seams.counters(stage.loaded.device)
        results["uncounted"] = counters.missing
        if not counters.can_count:
            return
        for place in climb.places:
            if place.name in results["counted"] or self._late():
                continue
            self._progress(f"counting: {place.name}", len(results["counted"]), len(climb.places))
            # Far from the rounds' own serials, whatever their number.
            serial = COUNTED_SERIAL * (1 + len(results["counted"]))
            results["counted"][place.name] = climb.counted(place, counters, serial)
            self._save()

    def _save(self) -> None:
        try:
            write_run(self._path, self.document)
        except OSError as error:
            raise ConfigError(f"{self._path}: it cannot be written ({error})") from error
