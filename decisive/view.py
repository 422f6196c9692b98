"""`decisive view`: watch an episode, with the energy landscape beside it for implicit policies."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro

from decisive.arguments import Flag, Settings, check_writable, parse
from decisive.episodes import BUILT_IN, Episode
from decisive.evaluation import EvaluationConfig
from decisive.films import record, solo
from decisive.options import env_options, parse_options

NOTE = "bright: low energy · ring: the decision"


@dataclass(frozen=True)
class Arguments:
    r"""Watch one episode: as a film, or with --human in a window.

    For an implicit policy the film shows its energy beside the world. With displacements that is
    one map, over the action space; with whole pushes two: the best push from every start, and
    every push from the chosen start. Down in a map is away from the robot, as in the picture.
    With --tokens it shows an image instead, and which of its pixels a classifier's tokens look at:
    `decisive view --tokens --help`. With --boxes, the things in an image and their masks:
    `decisive view --boxes --help`. With --tasks, what multi-task networks say of an image:
    `decisive view --tasks --help`.

    Examples:
      decisive view --env decisive/BlockInsertion-v0 --policy block-insertion-ibc --out view.mp4
      decisive view --env decisive/BlockSorting-v0 --policy block-sorting-push-ibc \
        --set control=push --seed 3
      decisive view --env decisive/BlockPush-v0 --policy expert --human
    """

    env: str
    """Environment id, such as decisive/BlockPush-v0."""
    policy: str
    """Checkpoint folder, name of a shipped policy, 'expert' or 'random'."""
    seed: int = 0
    """Seed of the episode."""
    expert_mode: Literal["consistent", "diverse"] = "consistent"
    """How the expert chooses among equally good ways."""
    settings: Settings = ()
    """Environment option, such as slots=2; give --set once for each."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "view.mp4"
    """MP4 file."""
    height: int = 360
    """Height of the view of the world in pixels; it is a third wider than high."""
    every: int = 1
    """Show every so many control steps (0.1 s)."""
    no_energy: Flag = False
    """Leave the landscape out."""
    human: Flag = False
    """Open the simulator's window instead of writing a film."""
    json: Annotated[Flag, tyro.conf.arg(help="Print one JSON object instead of a line.")] = False

    def __post_init__(self) -> None:
        """Reject what cannot be filmed."""
        if not 120 <= self.height <= 1080:
            raise ValueError(f"--height must be in 120..1080 pixels, got {self.height}")
        if not self.human and not self.out.lower().endswith(".mp4"):
            raise ValueError(f"--out must name a film ending in .mp4, got {self.out}")
        if not 1 <= self.every <= 100:
            raise ValueError(f"--every must be in 1..100 control steps, got {self.every}")


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if "--tokens" in argv:
        from decisive import view_tokens

        return view_tokens.main([word for word in argv if word != "--tokens"])
    if "--boxes" in argv:
        from decisive import view_boxes

        return view_boxes.main([word for word in argv if word != "--boxes"])
    if "--tasks" in argv:
        from decisive import view_tasks

        return view_tasks.main([word for word in argv if word != "--tasks"])
    arguments = parse(Arguments, argv, "view")
    config = EvaluationConfig(
        env=arguments.env,
        policy=arguments.policy,
        episodes=1,
        seed=arguments.seed,
        options=parse_options(arguments.env, arguments.settings),
        expert_mode=arguments.expert_mode,
    )
    out = None
    if arguments.human:
        episode = watch(config)
    else:
        out = str(check_writable(arguments.out))
        episode = film(config, arguments)
    if arguments.json:
        print(json.dumps({"env": config.env, "policy": config.policy, **episode.row(), "out": out}))
        return 0
    outcome = "success" if episode.success else "no success"
    print(f"{outcome} after {episode.length} steps" + (f": {out}" if out else ""))
    return 0


def film(config: EvaluationConfig, arguments: Arguments) -> Episode:
    """Write the film of the episode."""
    energy = not arguments.no_energy and has_energy(config.policy)
    size = (arguments.height, round(arguments.height * 4 / 3 / 2) * 2)
    clip = record(config, config.seed, size, arguments.every, energy)
    title = f"{config.env.removeprefix('decisive/')} · {_short(config.policy)}"
    fps = max(1.0, min(30.0, 10.0 / arguments.every if arguments.every < 5 else 10.0))
    solo(clip, title, check_writable(arguments.out), fps, NOTE if energy else "")
    return clip.episode


def watch(config: EvaluationConfig) -> Episode:
    """Show the episode in the simulator's window, in real time.

    Raises:
        ValueError: without a display, or for an environment that has no window.
    """
    if "render_mode" not in env_options(config.env):
        raise ValueError(f"{config.env} has no window; leave --human out for a film")
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        raise ValueError("--human needs a display (DISPLAY is not set); leave it out for a film")
    runner = config.runner("human")
    base: Any = runner.env.unwrapped
    due = time.perf_counter()

    def wait(_: gym.Env | None = None) -> None:
        nonlocal due
        due = max(due + 0.1, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))

    try:
        inside = hasattr(base, "on_control_step")
        if inside:
            base.on_control_step = wait
        return runner.run(config.seed, on_step=None if inside else wait)
    finally:
        runner.close()


def has_energy(policy: str) -> bool:
    """Whether a landscape can be drawn for what `--policy` names."""
    if policy in BUILT_IN:
        return False
    from agents import load_policy

    loaded = load_policy(policy)
    return loaded.method == "ibc" and loaded.spec.action_dim in (2, 4)


def _short(policy: str) -> str:
    return os.path.basename(os.path.normpath(policy))
