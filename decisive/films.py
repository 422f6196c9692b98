"""Films of episodes: one world, several policies side by side, or a world and its energy.

Recording and composing are apart: `record` runs in worker processes and returns a `Clip`, small
enough to send back; `side_by_side` writes the clips of several policies as one film.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.episodes import Actor, Episode, PolicyActor
from decisive.evaluation import EvaluationConfig
from decisive.landscape import best_push_landscape, draw_landscape, implicit, landscape
from decisive.options import env_options
from decisive.pictures import (
    GAP,
    INK,
    MARGIN,
    MUTED,
    Page,
    Pixels,
    beside,
    clipped,
    halved,
)
from decisive.video import VideoWriter

SIZE = (300, 400)
"""Height and width of a panel."""
HEADER, FOOTER = 84, 42
"""Pixels above and below the panels."""
ARM_WHITE = (0.95, 0.95, 0.96, 1.0)
STEP_SECONDS = 0.1


@dataclass(frozen=True)
class Clip:
    """The frames of one episode, compressed (flat colours: to a tenth), and how it went.

    Attributes:
        frames: zlib-compressed `(H, W, 3)` pixels.
        shape: of a frame.
        seconds: simulated time of each frame.
        episode: the row of the episode.
    """

    frames: tuple[bytes, ...]
    shape: tuple[int, int, int]
    seconds: tuple[float, ...]
    episode: Episode

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def frame(self, index: int) -> Pixels:
        """One frame; beyond the end, the last."""
        data = zlib.decompress(self.frames[min(index, len(self) - 1)])
        return np.frombuffer(data, np.uint8).reshape(self.shape)


class Watched:
    """An actor with somebody looking on: called with every decision before it is carried out."""

    def __init__(self, actor: Actor, look: Callable[[NDArray[np.floating]], None]) -> None:
        """Wrap an actor."""
        self.actor = actor
        self.look = look

    def reset(self, env: gym.Env, seed: int) -> None:
        """See `Actor.reset`."""
        self.actor.reset(env, seed)

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """See `Actor.act`."""
        action = self.actor.act(obs, info)
        self.look(action)
        return action


def film_options(config: EvaluationConfig, size: tuple[int, int]) -> dict[str, Any]:
    """Environment options for a film: the full arm and the size, where the environment has them."""
    known = env_options(config.env)
    options = dict(config.options)
    if "arm" in known:
        options.setdefault("arm", "xarm6")
    if "render_size" in known:
        options["render_size"] = size
    return options


def record(
    config: EvaluationConfig,
    seed: int,
    size: tuple[int, int] = SIZE,
    every: int = 1,
    energy: bool = False,
    only: int | None = None,
) -> Clip:
    """Run one episode and keep its pictures.

    Args:
        config: environment, options and policy; the arm is the full one unless they say otherwise.
        seed: of the episode.
        size: `(height, width)` of the view of the world.
        every: of the control steps (0.1 s), show each such.
        energy: whether the policy's energy is drawn beside the world.
        only: keep this frame alone, drawn finely (at twice the size, then halved).
    """
    fine = 1 if only is None else 2
    drawn = (fine * size[0], fine * size[1])
    runner = replace(config, options=film_options(config, drawn)).runner("rgb_array")
    base: Any = runner.env.unwrapped
    inside = getattr(base, "control", "") == "push" and hasattr(base, "on_control_step")
    frames: list[bytes] = []
    seconds: list[float] = []
    panels: list[Pixels] = []
    ticks = shown = 0

    def keep() -> None:
        nonlocal shown
        shown += 1
        if only is not None and shown - 1 != only:
            return
        view = np.asarray(base.render(), np.uint8)
        if only is not None:
            view = halved(view)
        picture = beside([view, *panels])
        frames.append(zlib.compress(picture.tobytes(), 1))
        seconds.append(ticks * STEP_SECONDS)

    def decide(action: NDArray[np.floating]) -> None:
        if energy and isinstance(runner.actor, Watched):
            policy = implicit(getattr(runner.actor.actor, "policy", runner.actor.actor))
            panels[:] = energy_panels(policy, action, size, base)
        if not inside or not shown:
            if ticks % every == 0:
                keep()
            tick(0 if inside else 1)

    def tick(steps: int = 1) -> None:
        nonlocal ticks
        ticks += steps
        if inside and steps and ticks % every == 0:
            keep()

    if energy and not isinstance(runner.actor, PolicyActor):
        runner.close()
        raise ValueError(f"{config.policy} has no energy to draw; use an implicit policy (ibc)")
    try:
        _whiten(base)
        runner.actor = Watched(runner.actor, decide)
        if inside:
            base.on_control_step = tick
        episode = runner.run(seed)
        keep()
    finally:
        runner.close()
    if not frames:
        raise ValueError(f"the film has {shown} frames, so frame {only} is not in it")
    height = size[0]
    shape = (height, len(zlib.decompress(frames[0])) // (3 * height), 3)
    return Clip(tuple(frames), shape, tuple(seconds), episode)


def energy_panels(
    policy: Any, action: NDArray[np.floating], size: tuple[int, int], world: Any = None
) -> list[Pixels]:
    """The panels of a decision: one map for displacements, two for whole pushes.

    Args:
        policy: implicit; it has just decided.
        action: what it decided.
        size: `(height, width)` of the view beside them; the panels are square.
        world: the bare environment, whose blocks are outlined on the map of starts.

    Raises:
        ValueError: if the policy is explicit, or its actions are neither.
    """
    policy = implicit(policy)
    chosen = np.asarray(action, np.float32)
    square = (size[0], size[0])
    if policy.spec.action_dim == 2:
        grid = landscape(policy)
        return [draw_landscape(grid, chosen, square, "Energy of every displacement")]
    if policy.spec.action_dim != 4:
        raise ValueError(
            f"an energy landscape needs displacements (2-D) or pushes (4-D), got "
            f"{policy.spec.action_dim}-D actions"
        )
    blocks = None
    scene = getattr(world, "scene", None)
    if scene is not None:
        blocks = scene.block_poses()[:, :2].astype(np.float32)
    starts = best_push_landscape(policy, chosen)
    pushes = landscape(policy, None, 64, (2, 3), chosen)
    return [
        draw_landscape(
            starts, chosen, square, "Energy of every start", ("x", "y"), (0, 1), False, blocks
        ),
        draw_landscape(pushes, chosen, square, "Pushes from the best start", dims=(2, 3)),
    ]


def side_by_side(
    rows: Sequence[Sequence[Clip]],
    labels: Sequence[str],
    title: str,
    path: Path,
    fps: float,
    done_word: str = "done",
) -> None:
    """Write a film: the same episodes, one policy a column.

    Args:
        rows: per episode the clips of all policies.
        labels: name of each column.
        title: of the film.
        path: MP4 file.
        fps: frames per second.
        done_word: what a success is called, such as `inserted`.

    Raises:
        ValueError: if there are no episodes, or a row has not one clip per label.
    """
    if not rows or any(len(clips) != len(labels) for clips in rows):
        raise ValueError(f"a film needs episodes with {len(labels)} clips each")
    with VideoWriter(path, fps) as film:
        tally = [0] * len(labels)
        for number, clips in enumerate(rows):
            length = max(len(clip) for clip in clips)
            for index in range(length):
                over = [index >= len(clip) - 1 for clip in clips]
                frame = compose(clips, index, labels, title, tally, number, over, done_word)
                # The last one stays for a second, to see how it ended.
                film.add(frame, repeat=round(fps) if index == length - 1 else 1)
            tally = [n + bool(c.episode.success) for n, c in zip(tally, clips, strict=True)]


def compose(
    clips: Sequence[Clip],
    index: int,
    labels: Sequence[str],
    title: str,
    tally: Sequence[int],
    number: int,
    over: Sequence[bool],
    done_word: str,
) -> Pixels:
    """One frame of `side_by_side`; see there."""
    height = clips[0].shape[0]
    widths = [clip.shape[1] for clip in clips]
    page = Page(2 * MARGIN + sum(widths) + GAP * (len(clips) - 1), HEADER + height + FOOTER)
    page.write(MARGIN, 32, title, 20, INK, bold=True)
    page.write(page.image.width - MARGIN, 32, f"episode {number + 1}", 15, MUTED, anchor="rs")
    x = MARGIN
    columns = zip(clips, widths, labels, tally, over, strict=True)
    for clip, width, label, before, finished in columns:
        page.paste(clip.frame(index), x, HEADER)
        page.write(x, HEADER - 12, clipped(label, width, 16, bold=True), 16, INK, bold=True)
        success = bool(clip.episode.success) if finished else None
        so_far = before + (success is True)
        count = f"{so_far} of {number + finished}"
        line = HEADER + height + 26
        page.mark(x + 9, line - 5, success)
        seconds = clip.seconds[min(index, len(clip) - 1)]
        page.write(x + 26, line, f"{_word(clip, success, done_word)}  {seconds:.1f} s", 15, MUTED)
        if number + finished:
            page.write(x + width, line, count, 15, MUTED, anchor="rs")
        x += width + GAP
    return page.pixels()


def solo(clip: Clip, title: str, path: Path, fps: float, note: str = "") -> None:
    """Write a film of one clip, with a title above and a note below.

    Args:
        clip: what to show.
        title: of the film.
        path: MP4 file.
        fps: frames per second.
        note: how to read it.
    """
    with VideoWriter(path, fps) as film:
        for index, frame in enumerate(_solo_frames(clip, title, note)):
            film.add(frame, repeat=round(fps) if index == len(clip) - 1 else 1)


def _solo_frames(clip: Clip, title: str, note: str) -> Iterator[Pixels]:
    height, width = clip.shape[:2]
    for index in range(len(clip)):
        page = Page(2 * MARGIN + width, 52 + height + FOOTER)
        page.write(MARGIN, 32, clipped(title, width, 18, bold=True), 18, INK, bold=True)
        page.paste(clip.frame(index), MARGIN, 52)
        success = bool(clip.episode.success) if index == len(clip) - 1 else None
        line = 52 + height + 26
        page.mark(MARGIN + 9, line - 5, success)
        word = _word(clip, success, "done")
        page.write(MARGIN + 26, line, f"{word}  {clip.seconds[index]:.1f} s", 15, MUTED)
        page.write(page.image.width - MARGIN, line, note, 15, MUTED, anchor="rs")
        yield page.pixels()


def _word(clip: Clip, success: bool | None, done_word: str) -> str:
    if success is None:
        return "running"
    if success or clip.episode.score is None or clip.episode.score == 0.0:
        return done_word if success else "failed"
    return f"failed, {100 * clip.episode.score:.0f} % done"


def _whiten(base: Any) -> None:
    """Paint the arm white: its own four colours are those of the blocks."""
    if getattr(base, "arm", "") != "xarm6":
        return
    client = base.scene.client
    body, tool = base.scene.effector.tip_link
    for link in range(-1, tool):
        client.changeVisualShape(body, link, rgbaColor=ARM_WHITE)
