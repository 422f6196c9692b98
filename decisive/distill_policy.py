"""Policies that are fitted in closed form: what `decisive train` and `decisive distill` write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents import make_policy, save_policy
from agents.kernel_ridge import KernelPolicy
from agents.kernel_ridge.points import as_examples, points_of
from decisive.distill_card import card
from decisive.distill_data import Prepared
from learning.atomic import write_file
from learning.demonstrations import Demonstrations, load_demonstrations
from learning.distillation.distilled import Distilled
from learning.distillation.preprocessing import Preprocessing
from learning.loop import TrainResult

SaveFunction = Callable[[KernelPolicy, Path, dict[str, Any]], None]


def fit_and_save(
    policy: KernelPolicy, demos: Demonstrations, out: Path, save: SaveFunction, seconds: float
) -> TrainResult:
    """Score a fitted kernel policy by its held-out episodes, and write it.

    There are no steps, and so no choice of a checkpoint and no episodes to choose one by. Writes
    `out/last` and `out/metrics.jsonl`.

    Args:
        policy: made by `agents.make_policy`.
        demos: what it was made of.
        out: folder of the run.
        save: writes a checkpoint.
        seconds: CPU-seconds that fitting took.

    Raises:
        OSError: if the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    row: dict[str, Any] = {"step": 0, **held_out_scores(policy, demos)}
    seconds += time.process_time() - began
    row["cpu_seconds"] = round(seconds, 3)
    training = {
        "step": 0,
        "score": None,
        "cpu_seconds": seconds,
        "device": "cpu",
        "episodes": demos.n_episodes,
        "rows": len(demos),
        "data": demos.meta,
        "held_out": {key: value for key, value in row.items() if key.startswith("validation/")},
    }
    save(policy, out / "last", training)
    write_file(out / "metrics.jsonl", (json.dumps(row) + "\n").encode())
    return TrainResult(0, None, seconds, [row], out / "last")


@torch.no_grad()
def held_out_scores(policy: KernelPolicy, demos: Demonstrations) -> dict[str, float]:
    """How well held-out episodes are told, and how often the gate fires there.

    Args:
        policy: a fitted one.
        demos: those it was fitted to; it held the same episodes out.

    Returns:
        `validation/action_error` (mean distance of first actions, raw units),
        `validation/explained` (share of the variance of normalised actions) and
        `validation/beyond` (share of states beyond the gate); empty without held-out episodes.
    """
    _, held = demos.split(policy.config.holdout, policy.config.seed)
    if held is None:
        return {}
    points, labels = points_of(policy, held)
    found = policy.predict(points, torch.Generator(), None).double()
    explained = 1 - (found - labels).square().sum() / (labels - labels.mean(0)).square().sum()
    n = policy.spec.action_dim
    error = policy.action_normalizer.inverse(found[:, :n].float())
    error = error - policy.action_normalizer.inverse(labels[:, :n].float())
    scores = {
        "validation/action_error": float(error.norm(dim=1).mean()),
        "validation/explained": float(explained),
    }
    if policy.beyond is not None:
        scores["validation/beyond"] = float(np.mean(policy.beyond))
    policy.reset()
    return scores


def prepare_seen(name: str, settings: Mapping[str, Any]) -> tuple[Prepared, KernelPolicy]:
    """Demonstrations as a kernel policy sees them, to be distilled.

    Args:
        name: of the demonstrations.
        settings: of the policy.

    Returns:
        The examples, whose points are the policy's and whose targets its normalised actions; and
        the policy, which has no points worth mention yet but its normalisers and probes.

    Raises:
        ValueError: one line, if there are no such data or settings.
        OSError: if a file cannot be read.
    """
    demos = load_demonstrations(name)
    bare = {"points": 1, "keep": "random", "solve": False}
    policy = make_policy("kernel", demos, {**settings, **bare})
    assert isinstance(policy, KernelPolicy)
    policy.eval()
    rest, held = demos.split(policy.config.holdout, policy.config.seed)
    if held is None:
        raise ValueError(f"{name} holds one episode: there is nothing to be scored by")
    source = f"demonstrations of {demos.meta.get('env', 'an unknown environment')}"
    train = as_examples(*points_of(policy, rest), source)
    points, labels = points_of(policy, held)
    scored = replace(
        train, points=points, targets=(labels - train.offset.double()).float(), classes=None
    )
    same = Preprocessing(torch.zeros(policy.code_dim), torch.ones(policy.code_dim))
    return Prepared(train, scored, same, train.points, points, mirrors=False), policy


def write_policy(
    policy: KernelPolicy,
    distilled: Distilled,
    out: Path,
    told: Mapping[str, Any],
    data: Prepared,
    command: str,
) -> str:
    """Write the policy that distilled points make, to `out/policy`.

    Args:
        policy: whose eyes the points were seen with; it is refitted.
        distilled: the points.
        out: folder of the run.
        told: results, as JSON.
        data: what was distilled.
        command: that made it.

    Returns:
        The folder.
    """
    actions = distilled.labels.double() * distilled.scale + distilled.offset
    policy.refit(distilled.points, actions)
    text = card(distilled, told, data, command, policy=True)
    save_policy(policy, out / "policy", dict(told), text)
    return str(out / "policy")
