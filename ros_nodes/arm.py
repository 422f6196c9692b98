"""The arm that several nodes must agree about: its parameters, and its kinematics."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robots.kinematics import Chain
from ros_nodes.parameters import Parameter

ARM_PARAMETERS = (
    Parameter("urdf", "", "description of an arm with turning joints: a file, or package://PACKAGE/"
              "FILE of a ROS or Python package; empty: none is known, axes are those of the table"),
    Parameter("base_link", "base_link", "link of the arm in whose frame poses are"),
    Parameter("tip_link", "tool0", "link of the arm that carries the tool"),
    Parameter("tool", [0.0, 0.0, 0.0], "position in m of the tool's tip in the frame of tip_link"),
)  # fmt: skip
SCHEME = "package://"


def read_arm(values: Mapping[str, Any]) -> Chain | None:
    """The arm of a node's parameters.

    Returns:
        The chain from `base_link` to the tip of the tool; None without a `urdf`.

    Raises:
        ValueError: if the file does not hold it.
        OSError: if it cannot be read.
    """
    if not values["urdf"]:
        return None
    path = locate(values["urdf"])
    return Chain.from_urdf(path, values["base_link"], values["tip_link"], values["tool"])


def order(chain: Chain, joints: list[str]) -> list[int]:
    """Where each of the named joints is in the chain.

    Raises:
        ValueError: if these are not the chain's joints.
    """
    if sorted(joints) != sorted(chain.names):
        raise ValueError(f"`joints` must name those of the arm, {list(chain.names)}; got {joints}")
    return [chain.names.index(name) for name in joints]


def locate(name: str) -> Path:
    """The file that a path or a `package://` address names.

    Packages are looked for where a sourced ROS 2 has them, then among Python's.

    Raises:
        ValueError: for a package that is not there.
    """
    if not name.startswith(SCHEME):
        return Path(name).expanduser()
    package, _, rest = name.removeprefix(SCHEME).partition("/")
    if not package.isidentifier():
        raise ValueError(f"{name}: {package!r} is no name of a package; give the path of the file")
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        share = Path(prefix) / "share" / package
        if share.is_dir():
            return share / rest
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        return Path(folder) / rest
    raise ValueError(f"{name}: there is no package {package!r}; give the path of the file")
