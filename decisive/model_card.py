"""Model cards: what a checkpoint was trained on, by which command, how it scored, where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decisive import provenance


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the facts of the training.

    Attributes:
        method: `ibc`, `mse`, ...
        parameters: number of trained parameters.
        data: names of the data sets, as given.
        meta: meta of the (joined) demonstrations.
        command: the command that trained it.
        versions: versions of the libraries.
        commit: git commit of the source.
        selection: what the score of a checkpoint means; empty without episodes.
    """

    method: str
    parameters: int
    data: Sequence[str]
    meta: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    commit: str | None
    selection: str


def card(facts: CardFacts, training: Mapping[str, Any]) -> str:
    """The model card of a checkpoint, in Markdown.

    Args:
        facts: what does not change during training.
        training: what the training loop tells: `step`, `score`, `cpu_seconds`, `episodes`, `rows`.
    """
    meta = facts.meta
    env = meta.get("env")
    score = training.get("score")
    lines = [
        f"# {facts.method} policy for {env or 'recorded data without an environment'}",
        "",
        f"{facts.parameters:,} parameters. Trained with Decisive.",
        "",
        "## Data",
        "",
        *(f"- `{name}`" for name in facts.data),
        f"- {training['episodes']} episodes, {training['rows']} actions; "
        f"demonstrator: {meta.get('expert', 'not stated')}; "
        f"noise on the executed action: {meta.get('noise', 'not stated')}",
        *(_environment_lines(meta)),
        f"- licence of the data: {meta.get('license', 'not stated by the data set')}",
        "",
        "## Command",
        "",
        "```",
        facts.command or "(trained through the Python API)",
        "```",
        "",
        f"Commit `{facts.commit or 'unknown'}`; "
        + ", ".join(f"{name} {version}" for name, version in facts.versions.items())
        + ".",
        f"{training['step']} steps, {training['cpu_seconds']:.0f} CPU-seconds of training steps.",
        "",
        "## Scores",
        "",
    ]
    if score is None:
        lines += ["No episodes were run during training; this checkpoint is the last one."]
    else:
        lines += [
            f"{facts.selection}: {score:.3f}. It chose the checkpoint, so it flatters it: quote "
            "`decisive evaluate`, whose episodes are other ones.",
        ]
    lines += [
        "",
        "## Limits",
        "",
        "Imitates the demonstrations above and was tried in simulation only, with the options "
        "above. It knows nothing of people, obstacles or other objects. A robot needs a safety "
        "gate between this policy and its motors.",
        "",
    ]
    return "\n".join(lines)


def command_lines(command: str, training: Mapping[str, Any] | None = None) -> list[str]:
    """The section of a card that says how to make the checkpoint again.

    Args:
        command: that trained it.
        training: what the training tells: `step`, `cpu_seconds`, `device`; None for several.
    """
    versions = ", ".join(f"{key} {value}" for key, value in provenance.versions().items())
    made = f"Commit `{provenance.commit() or 'unknown'}`; {versions}."
    if training is not None:
        made += f" {training['step']} steps, {training['cpu_seconds']:.0f} CPU-seconds of training "
        made += f"steps on {training['device']}."
    return ["## Command", "", "```", command, "```", "", made, ""]


def _environment_lines(meta: Mapping[str, Any]) -> list[str]:
    parts = meta.get("parts") or [meta]
    told = [line for part in parts if part.get("env") for line in _part_lines(part)]
    return list(dict.fromkeys(told))


def _part_lines(part: Mapping[str, Any]) -> list[str]:
    """The environment of a recording, and the command that makes the same recording again."""
    options = part.get("env_options") or {}
    lines = [f"- environment `{part['env']}`, options `{json.dumps(options)}`"]
    if all(key in part for key in ("attempts", "failed_episodes", "expert", "noise", "seed")):
        words = [f"--set {name}={value}" for name, value in options.items()]
        episodes = part["attempts"] - part["failed_episodes"]
        command = (
            f"decisive record --env {part['env']} --expert {part['expert']} --episodes {episodes} "
            f"--noise {part['noise']:g} --seed {part['seed']} {' '.join([*words, '--out NAME'])}"
        )
        lines.append(f"- recorded by `{command}` at commit `{part.get('commit', 'unknown')}`")
    return lines
