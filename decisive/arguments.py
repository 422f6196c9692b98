"""Command lines of the verbs: one frozen dataclass each, read by tyro.

Only verb modules import this: worker processes have no use for it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

Flag = tyro.conf.FlagCreatePairsOff[bool]
"""A switch that is off unless named; there is no `--no-` twin."""

Settings = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set", metavar="NAME=VALUE")
]
"""Environment options, one `--set name=value` each."""

OptionalFile = Annotated[str | None, tyro.conf.arg(metavar="FILE")]
"""A file that is written only if named."""

OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT")]
"""A word that may be left out."""


def parse(config: type[T], argv: Sequence[str], verb: str) -> T:
    """Read the words after a verb into its dataclass.

    The docstring of the dataclass is the help text, printed as it stands, examples included.

    Args:
        config: the dataclass.
        argv: the words.
        verb: the verb, as the user types it.

    Raises:
        ValueError: for bad arguments, on one line where tyro would draw a box.
        SystemExit: after `--help`, with status 0.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                config,
                args=list(argv),
                prog=f"decisive {verb}",
                description=inspect.getdoc(config),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_flatten(complaint.getvalue())) from None


def _flatten(box: str) -> str:
    """One line from the box that tyro draws around an error."""
    lines: list[str] = []
    for raw in box.splitlines():
        line = raw.strip("│╭╮╰╯─ ").strip()
        if line.startswith("For full helptext"):
            break
        if line:
            lines.append(line)
    return f"{' '.join(lines)} (--help lists all options)"


def check_limits(arguments: object, **limits: tuple[int, int | None]) -> None:
    """Whether options lie in their limits.

    Args:
        arguments: holds them.
        limits: least and greatest by name; None for no greatest.

    Raises:
        ValueError: for one that does not.
    """
    for name, (least, greatest) in limits.items():
        value = getattr(arguments, name)
        if value < least or (greatest is not None and value > greatest):
            span = f"at least {least}" if greatest is None else f"in {least}..{greatest}"
            raise ValueError(f"--{name} must be {span}, got {value}")


def check_new_folder(name: str, overwrite: bool) -> Path:
    """A folder that can be written, and is not there or may be replaced.

    Raises:
        ValueError: if it is there and may not.
        OSError: if it cannot be made.
    """
    out = Path(name)
    check_writable(out.parent / f".{out.name}.probe")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; choose another name, or say --overwrite")
    return out


def check_writable(path: str | os.PathLike[str]) -> Path:
    """The path, after a test that a file of this name can be written.

    Long work should not end with "permission denied". Nothing that exists is touched.

    Raises:
        ValueError: if the path is a folder.
        OSError: if its folder cannot be made or written to.
    """
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name a file to write")
    target.parent.mkdir(parents=True, exist_ok=True)
    probe = target.with_name(f".{target.name}.{os.getpid()}.probe")
    probe.touch()
    probe.unlink()
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"{target} is there and may not be written")
    return target
