"""Progress bars, drawn on stderr and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Meter(Protocol):
    """What a verb reports its progress to."""

    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Move on, with a short note shown at the right."""


class _Silent:
    def advance(self, steps: float = 1.0, note: str = "") -> None:
        """Draw nothing."""


@contextmanager
def progress(title: str, total: float | None) -> Iterator[Meter]:
    """A progress bar while the context lasts.

    Args:
        title: what is going on.
        total: how many steps make it complete; `None` if unknown.
    """
    if not sys.stderr.isatty():
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(title, total=total, note="")

        class _Bar:
            def advance(self, steps: float = 1.0, note: str = "") -> None:
                bar.advance(task, steps)
                if note:
                    bar.update(task, note=note)

        yield _Bar()
