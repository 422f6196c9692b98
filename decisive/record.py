"""`decisive record`: demonstrations of a scripted expert."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decisive.arguments import Flag, Settings, check_writable, parse
from decisive.data_files import is_file_name, write_demonstrations
from decisive.options import parse_options
from decisive.recording import RecordConfig, record
from learning.demonstrations import Demonstrations
from learning.minari_store import minari_root, with_version


@dataclass(frozen=True)
class Arguments:
    r"""Record demonstrations of a scripted expert.

    Writes a Minari data set, or the file named by --out. Failed episodes are left out and counted.
    Seeds are of their own stream: no evaluation reproduces a recorded episode. The data do not
    depend on --workers. A recording that was stopped goes on when the command is given again.

    Examples:
      decisive record --env decisive/BlockPush-v0 --expert diverse --episodes 200 --out push-diverse
      decisive record --env decisive/BlockInsertion-v0 --set slots=2 --noise 0.001 \
        --episodes 500 --workers 4 --out outputs/insertion.npz
    """

    env: str
    """Environment id, such as decisive/BlockPush-v0."""
    out: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """Name of a Minari data set (-v0 is added if it has no version), or a file .npz or .hdf5."""
    expert: Literal["consistent", "diverse"] = "consistent"
    """How the expert chooses among equally good ways: always alike, or as different people do."""
    episodes: int = 100
    """Successful episodes to record."""
    workers: int = 1
    """Parallel processes."""
    seed: int = 0
    """Seed of the first episode, in the stream of recordings."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on the executed action, in its unit (metres); the label
    stays clean, so the data show how to come back. 0.001 is good on the tabletop."""
    settings: Settings = ()
    """Environment option, such as slots=2; give --set once for each."""
    overwrite: Flag = False
    """Replace a data set of this name."""
    json: Flag = False
    """Print one JSON object instead of lines."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "record")
    config = RecordConfig(
        env=arguments.env,
        options=parse_options(arguments.env, arguments.settings),
        expert=arguments.expert,
        episodes=arguments.episodes,
        seed=arguments.seed,
        noise=arguments.noise,
        workers=arguments.workers,
    )
    name, staging = destination(arguments.out, arguments.overwrite)
    demos = record(config, staging)
    place = write_demonstrations(demos, name, arguments.overwrite)
    # Only now: until the data set is there, the shards are what a second try starts from.
    shutil.rmtree(staging)
    summary = summarize(demos, name, place)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        print(
            f"{summary['episodes']} episodes, {summary['rows']} actions; "
            f"{summary['failed']} of {summary['attempts']} attempts failed and were left out"
        )
        print(name)
        print(place)
    return 0


def destination(out: str, overwrite: bool) -> tuple[str, Path]:
    """Where a recording goes, checked before the work begins.

    Args:
        out: what the user typed.
        overwrite: whether something of that name may be replaced.

    Returns:
        The data set id or file name, and the folder for unfinished work.

    Raises:
        ValueError: if the name is taken or malformed.
        OSError: if it cannot be written.
    """
    if is_file_name(out):
        path = check_writable(out)
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; choose another name, or say --overwrite")
        return out, path.with_name(f".{path.name}.recording")
    name = with_version(out)
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", name):
        raise ValueError(
            f"--out must be a data set name like push-diverse or decisive/push/diverse-v0, or a "
            f"file ending in .npz or .hdf5; got {out!r}"
        )
    root = minari_root()
    if (root / name).exists() and not overwrite:
        raise ValueError(f"data set {name} exists; choose another name, or say --overwrite")
    check_writable(root / ".probe")
    return name, root / f".{name.replace('/', '.')}.recording"


def summarize(demos: Demonstrations, name: str, place: Path) -> dict[str, Any]:
    """What was recorded, as JSON."""
    return {
        "name": name,
        "path": str(place),
        "episodes": demos.n_episodes,
        "rows": len(demos),
        "attempts": demos.meta["attempts"],
        "failed": demos.meta["failed_episodes"],
        **{key: demos.meta[key] for key in ("env", "env_options", "expert", "noise", "seed")},
    }
