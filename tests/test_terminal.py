"""What the operator sees of a download, on a terminal and in a log."""

from __future__ import annotations

import io

from rich.console import Console

from ridgeline.core.progress import Progress
from ridgeline.terminal import Terminal


def test_a_log_gets_a_line_for_every_ten_percent() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, width=80))
    for done in range(101):
        terminal.progress(Progress("downloading gpt2", done * 10**6, 100 * 10**6))
    lines = out.getvalue().splitlines()
    assert lines[0] == "downloading gpt2: 0 % of 100 MB"
    assert [int(line.split()[2]) for line in lines] == list(range(0, 101, 10))


def test_a_terminal_gets_a_bar_that_goes_when_it_is_over() -> None:
    out = io.StringIO()
    terminal = Terminal(Console(file=out, force_terminal=True, width=100))
    terminal.progress(Progress("downloading gpt2", 0, 0))  # the size is not known yet
    terminal.progress(Progress("downloading gpt2", 250_000_000, 500_000_000))
    terminal.progress(Progress("downloading gpt2", 500_000_000, 500_000_000))
    terminal.done()
    terminal.progress(Progress("downloading gpt2", 1, 2))  # from a thread that was given up
    terminal.say("a [line] after it")
    drawn = out.getvalue()
    assert "downloading gpt2" in drawn
    assert "500.0/500.0 MB" in drawn
    terminal.say("\x1b[2J a model's \x9b name")
    drawn = out.getvalue().replace("\ufffd[2J a model's \ufffd name\n", "")
    assert drawn.endswith("a [line] after it\n")
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1  # the cursor comes back
