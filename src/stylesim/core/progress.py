"""Show the progress, the rate and the remaining time of long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_EVERY = 10.0
"""Seconds between two lines if stderr is not a terminal."""


@contextmanager
def progress(
    title: str, total: int | None, *, unit: str = "images", show: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of units just done.

    A terminal shows a bar with rate and remaining time. Elsewhere (a log file, a cluster) a line is written to stderr
    every `LOG_EVERY` seconds.

    Args:
        title: What is being done.
        total: The number of units, if it is known.
        unit: Name of the units, in the plural.
        show: Whether to show anything.
    """
    if not show:
        yield lambda done: None
    elif sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        yield _Lines(title, total, unit)


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "", style="cyan")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


class _Lines:
    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.start = 0, time.monotonic()
        self.last_line = self.start

    def __call__(self, done: int) -> None:
        self.done += done
        now = time.monotonic()
        if now - self.last_line < LOG_EVERY:
            return
        self.last_line, rate = now, self.done / (now - self.start)
        total = f" of {self.total:,}" if self.total else ""
        remaining = f", {(self.total - self.done) / rate:,.0f} s left" if self.total and rate else ""
        print(
            f"{self.title}: {self.done:,}{total} {self.unit}, {rate:,.0f}/s{remaining}",
            file=sys.stderr,
            flush=True,
        )
