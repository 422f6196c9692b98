"""`decisive data`: show, export and import demonstration data sets, and render labelled images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import tyro

from decisive import tables
from decisive.arguments import Flag, OptionalText, Settings, check_writable, parse
from decisive.data_files import is_file_name, write_demonstrations
from decisive.episodes import observation_shapes
from decisive.options import make_env, parse_options
from envs.d4rl.scores import REFERENCES
from learning.d4rl_tasks import TASKS
from learning.demonstrations import Demonstrations, load_demonstrations
from learning.minari_store import with_version
from learning.summary import summary

USAGE = """usage: decisive data info|export|import|render-tabletop|render-instances|render-tasks ...

Show, export and import demonstration data sets: Minari (HDF5), the plain .npz layout of
docs/data.md, and HDF5 as D4RL or robomimic writes it. A Minari data set of others that is not
here, such as D4RL/door/human-v2, is downloaded. And render labelled pictures and clips of a table
for classifiers, pictures with instance masks for segmenters, and pictures with targets of several
tasks for networks that share an encoder; and maps in which things move, for forecasts.

Examples:
  decisive data info push-diverse-v0
  decisive data info D4RL/door/human-v2
  decisive data export push-diverse-v0 push.npz
  decisive data import door-human_demos.npz door-human-v0
  decisive data render-tabletop --out outputs/tabletop/train --frames 20000 --workers 2
  decisive data render-instances --out outputs/instances/train --frames 4000 --workers 2
  decisive data render-tasks --out outputs/tasks/train --frames 2000 --workers 2
  decisive data render-captions --out outputs/captions/train --images 4000
  decisive data render-occupancy --out outputs/occupancy/train --sequences 200 --workers 2
  decisive data render-inspection --out outputs/inspection/train --frames 3000 --workers 2

`decisive data info --help` and so on list the options.
"""

Name = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True)
class Info:
    """Show what a data set holds.

    Examples:
      decisive data info push-diverse-v0
      decisive data info ../shared/data/adroit_dapg/door-human_demos.npz --json
    """

    name: Name
    """Minari data set, or a file .npz, .hdf5 or .h5."""
    json: Flag = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Export:
    """Write a data set to a file.

    Examples:
      decisive data export push-diverse-v0 push.npz
      decisive data export push-diverse-v0 push.hdf5 --episodes 50
    """

    name: Name
    """Minari data set, or a file."""
    out: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """File to write: .npz (docs/data.md), or .hdf5 or .h5 (as robomimic writes it)."""
    episodes: int | None = None
    """Only the first episodes."""
    overwrite: Flag = False
    """Replace a file of this name."""


@dataclass(frozen=True)
class Import:
    """Make a file a Minari data set.

    Examples:
      decisive data import door-human_demos.npz door-human-v0
      decisive data import door-human-v1.hdf5 door-human-v1
      decisive data import push.hdf5 push-v0 --env decisive/BlockPush-v0 --license CC-BY-4.0
    """

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """File .npz, .hdf5 or .h5 (D4RL or robomimic)."""
    name: Name
    """Id of the Minari data set; -v0 is added if it has no version."""
    env: OptionalText = None
    """Environment that the demonstrations are of: training then chooses checkpoints in it."""
    settings: Settings = ()
    """Option of that environment, such as slots=2; give --set once for each."""
    license: OptionalText = None
    """Licence of the data, for model cards."""
    overwrite: Flag = False
    """Replace a data set of this name."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    actions: dict[str, Callable[[Sequence[str]], None]] = {
        "info": _info,
        "export": _export,
        "import": _import,
        "render-tabletop": _render_tabletop,
        "render-instances": _render_instances,
        "render-tasks": _render_tasks,
        "render-occupancy": _render_occupancy,
        "render-captions": _render_captions,
        "render-inspection": _render_inspection,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        if argv:
            raise SystemExit(0)
        return 0
    if argv[0] not in actions:
        raise ValueError(f"expected one of {', '.join(actions)}, got {argv[0]!r}")
    actions[argv[0]](argv[1:])
    return 0


def _info(argv: Sequence[str]) -> None:
    arguments = parse(Info, argv, "data info")
    demos = load_demonstrations(arguments.name)
    told = summary(demos)
    told["d4rl_score"] = _d4rl_score(demos)
    if arguments.json:
        print(json.dumps(told, indent=2))
        return
    length, actions = told["length"], told["actions"]
    returns = ", ".join(f"{name} {value:.4g}" for name, value in told["return"].items())
    rows = {
        "episodes": told["episodes"],
        "actions": told["steps"],
        "steps an episode": f"{length['min']:g} to {length['max']:g}, median {length['median']:g}",
        "return": returns,
        **{
            f"observation {key}": f"{tuple(value['shape'])} {value['dtype']}"
            for key, value in told["observations"].items()
        },
        "action": f"({actions['dim']},) from [{_row(actions['low'])}] to [{_row(actions['high'])}]",
        "actions at a bound": tables.percent(told["at_bound_share"]) + " %",
        "actions clipped": tables.percent(told["clipped_share"]) + " %",
        "in memory": f"{told['bytes'] / 2**20:.1f} MiB",
    }
    if told["terminated_share"] is not None:
        rows["ended by themselves"] = tables.percent(told["terminated_share"]) + " %"
    if told["d4rl_score"] is not None:
        rows["D4RL score"] = f"{told['d4rl_score']:.1f} (of the mean return)"
    hidden = ("observation_fields", "action_fields", "parts", "versions")
    rows |= {key: value for key, value in told["meta"].items() if key not in hidden}
    tables.show(tables.facts_table(rows, arguments.name))


def _d4rl_score(demos: Demonstrations) -> float | None:
    """D4RL's score of the mean return; None for other tasks.

    None for the kitchen too: its data are labelled, in every step, with the number of things done,
    so that their returns have another scale than those of episodes.
    """
    names = {task.env: task.name for task in TASKS if task.name != "kitchen"}
    name = names.get(demos.meta.get("env", ""))
    if name is None:
        return None
    mean = float(demos.rewards.sum(dtype=np.float64)) / demos.n_episodes
    return REFERENCES[name].normalized(mean)


def _row(values: Sequence[float | None]) -> str:
    shown = ["inf" if value is None else f"{value:.3g}" for value in values[:6]]
    return ", ".join(shown) + (", ..." if len(values) > 6 else "")


def _export(argv: Sequence[str]) -> None:
    arguments = parse(Export, argv, "data export")
    if not is_file_name(arguments.out):
        raise ValueError(f"name a file ending in .npz or .hdf5 (or .h5), got {arguments.out!r}")
    check_writable(arguments.out)
    demos = load_demonstrations(arguments.name)
    if arguments.episodes is not None:
        demos = demos.episodes(arguments.episodes)
    print(write_demonstrations(demos, arguments.out, arguments.overwrite))


def _import(argv: Sequence[str]) -> None:
    arguments = parse(Import, argv, "data import")
    demos = load_demonstrations(arguments.file)
    told: dict[str, Any] = {}
    if arguments.env is not None:
        told["env"] = arguments.env
        told["env_options"] = parse_options(arguments.env, arguments.settings)
    elif arguments.settings:
        raise ValueError("--set needs --env: which environment's option is it?")
    if arguments.license is not None:
        told["license"] = arguments.license
    if is_file_name(arguments.name):
        raise ValueError(f"name a Minari data set, not a file: {arguments.name!r}")
    demos = replace(demos, meta={**demos.meta, **told})
    if arguments.env is not None:
        _check_spaces(demos, arguments.env, told["env_options"])
    print(write_demonstrations(demos, with_version(arguments.name), arguments.overwrite))


def _render_tabletop(argv: Sequence[str]) -> None:
    from decisive import render_tabletop  # It needs the simulator; the others do not.

    render_tabletop.main(argv)


def _render_instances(argv: Sequence[str]) -> None:
    from decisive import render_instances

    render_instances.main(argv)


def _render_tasks(argv: Sequence[str]) -> None:
    from decisive import render_tasks

    render_tasks.main(argv)


def _render_captions(argv: Sequence[str]) -> None:
    from decisive import render_captions

    render_captions.main(argv)


def _render_occupancy(argv: Sequence[str]) -> None:
    from decisive import render_occupancy

    render_occupancy.main(argv)


def _render_inspection(argv: Sequence[str]) -> None:
    from decisive import render_inspection

    render_inspection.main(argv)


def _check_spaces(demos: Demonstrations, env_id: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` where demonstrations cannot be of an environment."""
    env = make_env(env_id, options)
    try:
        theirs = observation_shapes(env.observation_space), env.action_space.shape
    finally:
        env.close()
    mine = (
        {key: tuple(rows.shape[1:]) for key, rows in demos.observations.items()},
        demos.actions.shape[1:],
    )
    if mine != theirs:
        raise ValueError(
            f"the data hold observations {mine[0]} and actions {mine[1]}, {env_id} with these "
            f"options gives {theirs[0]} and takes {theirs[1]}; give another --env or --set"
        )
