"""Writes requirements.lock: the exact version of everything that the project stands on.

The pins are the versions installed in the environment that runs this: upgrade there, run the tests,
then `make lock`. Only what setup.py asks for is pinned, directly or through others. CUDA libraries
are left out: each build of torch names its own, exactly.
"""

import ast
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# Exact versions of all dependencies, for CPython 3.11 and 3.12 on Linux. Written by `make lock`.
# torch is pinned without a local tag: CPU and CUDA builds satisfy it alike.
"""
LEFT_OUT = ("cuda-", "nvidia-", "triton", "pip")
# Builds the editable installation, without build isolation.
ALSO = ("setuptools",)


def wanted() -> list[str]:
    """Requirements of setup.py, core and all extras, read without running it."""
    constants: dict[str, Any] = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("CORE", "EXTRAS"):
                constants[name] = ast.literal_eval(node.value)
    extras: dict[str, list[str]] = constants["EXTRAS"]
    return [*constants["CORE"], *(line for lines in extras.values() for line in lines), *ALSO]


def applies(requirement: Requirement, extras: set[str]) -> bool:
    """Whether the requirement holds on a supported Python, for one of the extras asked for."""
    return requirement.marker is None or any(
        requirement.marker.evaluate(
            {"extra": extra, "python_version": version, "python_full_version": f"{version}.0"}
        )
        for extra in extras | {""}
        for version in ("3.11", "3.12")
    )


def closure(requirements: list[str]) -> tuple[dict[str, str], list[str]]:
    """Everything the requirements lead to.

    Returns:
        Name to version without local tag, sorted; and the names that are not installed here.
    """
    pins: dict[str, str] = {}
    missing: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(line) for line in requirements]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or name.startswith(LEFT_OUT):
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.add(name)
            continue
        pins[name] = distribution.version.split("+")[0]
        for line in distribution.requires or []:
            child = Requirement(line)
            if applies(child, set(requirement.extras)):
                queue.append(child)
    return dict(sorted(pins.items())), sorted(missing)


def main() -> int:
    """Write the lock; say what could not be pinned."""
    pins, missing = closure(wanted())
    direct = {canonicalize_name(Requirement(line).name) for line in wanted()}
    if absent := direct & set(missing):
        print(f"not installed here, so not locked: {', '.join(sorted(absent))}", file=sys.stderr)
        return 2
    beside = LOCK.with_suffix(".partial")
    beside.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in pins.items()))
    os.replace(beside, LOCK)
    print(f"{LOCK.name}: {len(pins)} packages")
    if missing:
        print(f"needed by others on some platform, not installed here: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
