"""What a person sees while a stage runs: a bar on a terminal, one plain flushed line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from medgan.runs import utc_now

SECONDS_BETWEEN_LINES = 30.0
# XNAT holds a run's log as one string in memory. With a line in 30 s for the first four hours and then one in every 500th part of the time so
# far (five minutes after two days), a month has 3,100 lines and a year 4,300, below 1 MB at 230 bytes each. status.json follows every tick.
LINES_PER_AGE = 500

Step = Callable[[int, int], None]
"""Called as `step(done, total)` by long functions; rooms take one and know nothing of terminals."""


def nothing(done: int, total: int) -> None:
    """A `Step` that shows nothing."""


class PlainLine:
    """Plain lines `TIME PROGRESS name=value ...`, at most one per 30 s, later fewer, but always the first and the last."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream or sys.stderr
        self.clock = clock
        self._first = clock()
        self._last: float | None = None

    def __call__(self, fields: dict[str, str], *, final: bool = False) -> None:
        """Write the fields as one line, or nothing when the last line is too young."""
        now = self.clock()
        apart = max(SECONDS_BETWEEN_LINES, (now - self._first) / LINES_PER_AGE)
        if not final and self._last is not None and now - self._last < apart:
            return
        self._last = now
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        print(f"{utc_now()} PROGRESS {words}", file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """A length of time for people: `42s`, `3m20s`, `1h37m`, `2d04h`."""
    whole = round(max(seconds, 0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


@contextmanager
def bar(title: str) -> Iterator[Step]:
    """A progress bar called `title` on a terminal, plain PROGRESS lines elsewhere; yields its `Step`."""
    if not sys.stderr.isatty():
        line = PlainLine()

        def plain(done: int, total: int) -> None:
            percent = 100 * done // max(total, 1)
            line({"stage": title.replace(" ", "-"), "done": f"{done}/{total}", "pct": str(percent)}, final=done >= total)

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)

        def step(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield step


@contextmanager
def hushed(title: str) -> Iterator[Step]:  # noqa: ARG001
    """What a rank that does not speak has in place of a bar."""
    yield nothing


Fields = Callable[[dict[str, str]], None]
"""Called at every tick of a training with what its line shows; `pct` is the part done."""


@contextmanager
def watch(title: str, log: Path) -> Iterator[Fields]:
    """What a person sees of a training: a bar on a terminal, PROGRESS lines elsewhere; every line goes to `log` too."""
    with log.open("a", encoding="utf-8", buffering=1) as file:
        written = PlainLine(file)
        if not sys.stderr.isatty():
            plain = PlainLine()

            def both(fields: dict[str, str]) -> None:
                final = fields.get("pct") == "100"
                plain(fields, final=final)
                written(fields, final=True)

            yield both
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[shown]}"))
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=100, shown="")

            def show(fields: dict[str, str]) -> None:
                shown = "  ".join(f"{name} {fields[name]}" for name in ("kimg", "eta", "ada_p", "best") if name in fields)
                progress.update(task, completed=float(fields["pct"]), shown=shown)
                written(fields, final=True)

            yield show
