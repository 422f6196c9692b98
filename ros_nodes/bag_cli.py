"""`decisive ros bag`: data sets as rosbag2, and bags as data sets. Needs `rosbags`, and no ROS."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from decisive.arguments import Flag, OptionalText, Settings, parse
from decisive.data_files import write_demonstrations
from decisive.options import parse_options
from decisive.record import destination
from learning.demonstrations import load_demonstrations

USAGE = """usage: decisive ros bag import|export ...

Recordings of a robot (rosbag2, MCAP or sqlite3) to data sets, and data sets to such recordings.
ROS 2 need not be installed.

Examples:
  decisive ros bag import recordings/monday push-v0 --env decisive/BlockPush-v0
  decisive ros bag export push-diverse-v0 bags/push

`decisive ros bag import --help` and so on list the options; docs/ros2.md tells the rest.
"""

Words = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class Import:
    r"""Make a data set of a recorded bag, as the recorder would have made it.

    A bag that `export` wrote needs no options. Others need an environment, or fields and features.

    Examples:
      decisive ros bag import recordings/monday push-v0 --env decisive/BlockPush-v0
      decisive ros bag import monday.mcap cups.npz --field "cup_xy 2 point m" \
        --feature "cup_xy = pose:cup xy"
    """

    bag: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="BAG")]
    """Folder of the bag, or a file .mcap or .db3."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Id of the Minari data set (-v0 is added if it has no version), or a file .npz or .hdf5."""
    env: OptionalText = None
    """Environment that the data shall be of."""
    settings: Settings = ()
    """Option of that environment, such as slots=2; give --set once for each."""
    features: Annotated[Words, tyro.conf.arg(name="feature", metavar="FIELD=SOURCE:TOPIC")] = ()
    """Where a field comes from, such as "block_xy = pose:objects/block xy"; once for each."""
    fields: Annotated[Words, tyro.conf.arg(name="field", metavar="FIELD")] = ()
    """Without --env: a field of the state, NAME SIZE KIND UNIT; once for each."""
    command: Literal["twist", "trajectory", "positions"] = "twist"
    """What the robot took: TwistStamped, JointTrajectory or Float64MultiArray."""
    namespace: str = ""
    """Namespace of the topics in the bag."""
    rate: float = 10.0
    """Rows per second."""
    lockstep: Flag = False
    """The bag is of a simulator that waits for every command."""
    keep_failures: Flag = False
    """Keep episodes that say that they did not succeed."""
    license: OptionalText = None
    """Licence of the data, for model cards."""
    overwrite: Flag = False
    """Replace a data set of this name."""
    json: Flag = False
    """Print one JSON object instead of lines."""


@dataclass(frozen=True)
class Export:
    """Write a data set as a rosbag2, which `ros2 bag play` plays.

    Examples:
      decisive ros bag export push-diverse-v0 bags/push
      decisive ros bag export push.npz bags/push --storage sqlite3 --episodes 5
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Minari data set, or a file."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FOLDER")]
    """Folder of the bag."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    """Format of its file."""
    episodes: int | None = None
    """Only the first episodes."""
    features: Annotated[Words, tyro.conf.arg(name="feature", metavar="FIELD=SOURCE:TOPIC")] = ()
    """Where a field goes, such as "block_xy = pose:objects/block xy"; once for each."""
    overwrite: Flag = False
    """Replace a bag of this name."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    verbs: dict[str, Callable[[Sequence[str]], int]] = {"import": _import, "export": _export}
    if argv[0] not in verbs:
        raise ValueError(f"ros bag needs one of {', '.join(verbs)}; got {argv[0]!r}")
    return verbs[argv[0]](argv[1:])


def _require_rosbags() -> None:
    if importlib.util.find_spec("rosbags") is None:
        raise ValueError("bags need the package rosbags; install the extra ros, or rosbags itself")


def _import(argv: Sequence[str]) -> int:
    arguments = parse(Import, argv, "ros bag import")
    _require_rosbags()
    from robots.episode_layout import PairingConfig
    from robots.matching import REFERENCE, Feature
    from ros_nodes.rosbag import ImportConfig, import_bag

    env = arguments.env or ""
    if arguments.settings and not env:
        raise ValueError("--set needs --env: which environment's option is it?")
    name, _ = destination(arguments.out, arguments.overwrite)
    config = ImportConfig(
        env=env,
        options=parse_options(env, arguments.settings) if env else {},
        features=arguments.features,
        fields=arguments.fields,
        command=arguments.command,
        namespace=arguments.namespace,
        keep_failures=arguments.keep_failures,
        license=arguments.license or "",
        pairing=PairingConfig(
            # Replaced by those of the data set.
            (Feature("", REFERENCE),),
            rate=arguments.rate,
            lockstep=arguments.lockstep,
            longest=3600.0,
        ),
    )
    demos = import_bag(arguments.bag, config)
    told: dict[str, Any] = {
        "name": name,
        "path": str(write_demonstrations(demos, name, arguments.overwrite)),
        "episodes": demos.n_episodes,
        "rows": len(demos),
        "failed": demos.meta.get("failed_episodes", 0),
    }
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    print(
        f"{told['episodes']} episodes, {told['rows']} actions; {told['failed']} episodes left out"
    )
    print(told["path"])
    return 0


def _export(argv: Sequence[str]) -> int:
    arguments = parse(Export, argv, "ros bag export")
    _require_rosbags()
    from ros_nodes.rosbag import export_bag

    demos = load_demonstrations(arguments.name)
    if arguments.episodes is not None:
        demos = demos.episodes(arguments.episodes)
    print(
        export_bag(demos, arguments.out, arguments.storage, arguments.features, arguments.overwrite)
    )
    return 0
