"""Progress of a command: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PLAIN_INTERVAL = 1.0  # seconds; plain lines come no faster, so that a log of 100,000 evaluations stays readable


def worker_time_text(seconds: float, left: int, workers: int) -> str:
    """What `left` evaluations take of one worker's time, `seconds` in all, and with so many workers at a time."""
    at_once = min(workers, left)
    shared = f", about {duration_text(seconds / at_once)} with {at_once} at a time" if at_once > 1 else ""
    return f"{duration_text(seconds)} of one worker's time{shared}"


def duration_text(seconds: float) -> str:
    """`1h02m`, `3m05s` or `12s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class Show(Protocol):
    """Shows one finished evaluation: what came of it in a line, and the best so far, if there is such a thing."""

    def __call__(self, line: str, best: str) -> None: ...


@contextmanager
def progress(console: Console, title: str, done: int, total: int) -> Iterator[Show]:
    """Show finished/total, the best so far, the rate and the time left, for the evaluations on top of `done`.

    title  what is going on, in a word; it stands before the bar.
    """
    start, finished = time.monotonic(), done
    last_line = 0.0

    def note(best: str) -> str:
        nonlocal finished
        finished += 1
        elapsed = time.monotonic() - start
        rate = (finished - done) / elapsed
        left = duration_text((total - finished) / rate)
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        return f"{f'best {best}  ' if best else ''}{speed}  left {left}"

    if console.is_terminal:
        with Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
            console=console, refresh_per_second=2,
        ) as bar:  # fmt: skip
            task = bar.add_task("", total=total, completed=done, note="the first results take a moment")

            def show_bar(line: str, best: str) -> None:
                text = note(best)
                bar.update(task, completed=finished, note=text)

            yield show_bar
    else:

        def show_line(line: str, best: str) -> None:
            nonlocal last_line
            text = note(best)
            if finished >= total or time.monotonic() - last_line >= PLAIN_INTERVAL:
                last_line = time.monotonic()
                console.print(f"[{finished}/{total}] {line}  {text}", markup=False, soft_wrap=True)

        yield show_line
