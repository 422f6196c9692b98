"""Where a number came from: versions, commit, command and machine, for every results file."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from decisive import __version__

_DISTRIBUTIONS = ("torch", "numpy", "gymnasium", "pybullet", "mujoco")


def versions() -> dict[str, str]:
    """Versions of the project, Python and the libraries that decide a result."""
    found = {"decisive": __version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Git commit of the source, `-dirty` appended when tracked files differ from it.

    Files under docs/ do not count: a benchmark writes its own tables there while it runs. `None`
    where the project is not run from a git checkout of its own.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    if not head or changes is None:
        return None
    return f"{head}-dirty" if changes else head


def _git(root: Path, *words: str) -> str | None:
    """What git says, `None` if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command(verb: str, argv: Sequence[str]) -> str:
    """The command line as a user would type it."""
    return shlex.join(["decisive", verb, *argv])


def generated(command: str, config: Any) -> dict[str, Any]:
    """What a folder of rendered pictures tells of its making.

    Args:
        command: that made it.
        config: dataclass of the scenes.
    """
    made = {"generator": command, "synthetic": True, **asdict(config)}
    return {**made, "versions": versions(), "commit": commit()}


def machine() -> dict[str, str | int]:
    """Processor name, its cores, and the system."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # not Linux
        pass
    return {"cpu": name, "cores": os.cpu_count() or 1, "system": platform.system()}
