"""Recipes: how each method is trained on each task. The benchmarks and `train --recipe` use them.

A recipe is named `<task>-<method>`, like the shipped policies. Everything that differs from the
defaults of the policy's config and of `TrainConfig` stands here and nowhere else. All methods of a
task have the same budget of CPU-seconds and were tuned with equal effort, on the stream `select`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METHODS = ("mse", "mdn", "ibc", "binned", "diffusion")
CPU_SECONDS = 90.0
"""Budget of one training, in CPU-seconds of training steps, where a task says nothing else."""
RECORDED = 500
"""Demonstrations recorded, likewise."""


@dataclass(frozen=True)
class Task:
    """An environment with its options, and how it is demonstrated.

    Attributes:
        env: environment id.
        options: its options.
        title: what tables call it.
        noise: standard deviation of the noise on the recorded experts' executed actions, in the
            unit of the action (metres on the tabletop).
        recorded: demonstrations recorded; smaller cells use the first of them.
        cpu_seconds: budget of one training, the same for every method.
    """

    env: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.002
    recorded: int = RECORDED
    cpu_seconds: float = CPU_SECONDS


@dataclass(frozen=True)
class Recipe:
    """How one method is trained on one task.

    Attributes:
        task: a key of `TASKS`.
        method: a key of `agents.POLICIES`.
        policy: settings of the policy that differ from its defaults, nested as its config is.
        train: settings of `TrainConfig` that differ from its defaults.
        selection_episodes: episodes of the stream `select` at each choice of a checkpoint.
    """

    task: str
    method: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    selection_episodes: int = 20


TASKS: dict[str, Task] = {
    "block-push": Task("decisive/BlockPush-v0", "push", cpu_seconds=45.0),
    "block-push-multimodal": Task("decisive/BlockPushMultimodal-v0", "multimodal push"),
    "block-insertion": Task("decisive/BlockInsertion-v0", "insertion, one slot", noise=0.001),
    "block-insertion-two-slots": Task(
        "decisive/BlockInsertion-v0", "insertion, two slots", {"slots": 2}, noise=0.001
    ),
    "block-sorting": Task("decisive/BlockSorting-v0", "sorting, 4 + 4 blocks", cpu_seconds=180.0),
    # Where pushes go as planned, nobody shows the way out of where a learned one ends up: noise of
    # 5 mm instead of 2 took Implicit BC from 186 to 196 of 200, at 10 mm two experts of five fail.
    "block-push-multimodal-push": Task(
        "decisive/BlockPushMultimodal-v0",
        "multimodal push, push primitives",
        {"control": "push"},
        noise=0.005,
        cpu_seconds=180.0,
    ),
    "block-sorting-push": Task(
        "decisive/BlockSorting-v0", "sorting, push primitives", {"control": "push"}
    ),
    # Below: the full form only.
    # Its experts keep away from furniture: with noise of 0.3 they touch it once in 19,000 actions,
    # with 0.8 in 183 of 26,000. Narrow passages stay hard (Implicit BC 94 of 100, 95 before).
    "house-nav": Task(
        "decisive/HouseNav-v0", "routes through houses", noise=0.8, recorded=400, cpu_seconds=45.0
    ),
    "house-nav-goal": Task(
        "decisive/HouseNav-v0",
        "goals in the next room",
        {"guide": "goal"},
        noise=0.8,
        recorded=400,
        cpu_seconds=45.0,
    ),
    "block-push-push": Task("decisive/BlockPush-v0", "push, push primitives", {"control": "push"}),
    "block-insertion-push": Task(
        "decisive/BlockInsertion-v0", "insertion, push primitives", {"control": "push"}
    ),
    "block-insertion-half-millimetre": Task(
        "decisive/BlockInsertion-v0", "insertion, 0.5 mm", {"clearance": 0.5}
    ),
    "block-push-pixels": Task(
        "decisive/BlockPush-v0", "push from pixels", {"observation": "pixels"}, cpu_seconds=900.0
    ),
    "block-insertion-pixels": Task(
        "decisive/BlockInsertion-v0",
        "insertion from pixels",
        {"observation": "pixels"},
        noise=0.001,
        cpu_seconds=900.0,
    ),
    **{
        f"particle-{n}": Task(
            "decisive/Particle-v0",
            f"particle, {n} dimensions",
            {"n_dims": n},
            noise=0.003,
            recorded=2000,  # as in the paper
            cpu_seconds=150.0 if n >= 8 else 60.0,
        )
        for n in (1, 2, 4, 8, 16)
    },
}

# How each task is looked at: the same for every method.
_EYES: dict[str, Mapping[str, Any]] = {
    "block-push": {"focus": ("block",), "world": False},
    "block-push-multimodal": {"focus": ("block",), "world": False},
    "block-insertion": {"frame": "slot1", "relations": True},
    "block-insertion-two-slots": {"frame": "slot1", "relations": True},
    "block-insertion-half-millimetre": {"frame": "slot1", "relations": True},
    "block-sorting": {"views": ("blue", "yellow")},
    "block-push-push": {"views": ("block",), "world": False},
    "block-push-multimodal-push": {"views": ("block",), "world": False},
    "block-sorting-push": {"views": ("blue", "yellow")},
    "block-insertion-push": {"views": ("block",)},
    # Coming to the first goal and going from it look alike in one frame: which way the distance
    # changes is a product of vectors, and a difference of two frames (39 and 91 of 100).
    **{
        task: {"relations": True, "skip": True, "n_obs_steps": 2}
        for task in TASKS
        if task.startswith("particle")
    },
    **{task: {"conv_channels": (16, 32, 32, 32)} for task in TASKS if task.endswith("pixels")},
}

_METHODS: dict[str, Mapping[str, Any]] = {
    "mse": {"width": 256},
    "mdn": {"width": 256, "n_components": 8},
    "ibc": {
        "width": 256,
        "n_negatives": 32,
        "negatives": (("proposal", 0.75), ("uniform", 0.25)),
        "dfo": {"n_samples": 256, "n_iterations": 4, "noise_std": 0.1, "decay": 0.5},
    },
}
_VIEW_METHODS: dict[str, Mapping[str, Any]] = {
    "mse": {"width": 128},
    "mdn": {"width": 128, "n_components": 2, "min_std": 0.05},
    "ibc": {
        "width": 128,
        "action_noise": 0.002,
        "n_negatives": 8,
        "negatives": (("proposal", 0.75), ("uniform", 0.25)),
        "proposal": {"hidden": 0, "n_components": 2, "min_std": 0.2},
        "dfo": {"n_samples": 256, "n_iterations": 3, "noise_std": 0.02, "decay": 0.5},
    },
}


# Set points are copied from the state, to thousandths in 16 dimensions: linear experts.
_PARTICLE_METHODS: dict[str, Mapping[str, Any]] = {
    "mse": _METHODS["mse"],
    "mdn": {"width": 256, "n_components": 4, "min_std": 0.005, "linear_means": True},
    "ibc": {
        **_METHODS["ibc"],
        "proposal": {
            "hidden": 0,
            "n_components": 4,
            "min_std": 0.005,
            "linear_means": True,
            "modes_first": True,
            "shapes_code": True,
        },
    },
}


# Which block comes next is decided anew at every step: without a reason to go on, an argmin turns
# back half way from one to the other and never arrives (episodes with all sorted: 37 % without, 67
# % with).
_RESOLUTE: Mapping[str, Any] = {
    "persistence": 2.0,
    "persistence_width": 0.5,
    "dfo": {"n_samples": 128, "n_iterations": 3, "noise_std": 0.02, "decay": 0.5},
}


def _recipe(task: str, method: str) -> Recipe:
    eyes = _EYES.get(task, {})
    views = "views" in eyes
    if views and method not in _VIEW_METHODS:  # no heads for views: it sees the plain state
        eyes = {}
    methods = _METHODS
    if views:
        methods = _VIEW_METHODS
    elif task.startswith("particle"):
        methods = _PARTICLE_METHODS
    policy = {**methods.get(method, {}), **eyes}
    sorting = task == "block-sorting"
    if sorting and method == "ibc":
        policy |= _RESOLUTE
    small_batches = views or task.endswith("pixels")
    train: dict[str, Any] = {
        # Many small steps: at a minute and a half of CPU, updates are what an energy lacks.
        "batch_size": 64 if small_batches else 128 if method == "ibc" else 256,
        "lr": 1.5e-3 if views else 1e-3,
        "cpu_seconds": TASKS[task].cpu_seconds,
        # Two choices of a checkpoint, not ten: at this budget episodes cost as much as training.
        "evaluations": 2,
    }
    if sorting:  # 2,048 samples are 65,536 views
        train["validate_samples"] = 256
    return Recipe(task, method, policy, train, selection_episodes=10 if sorting else 20)


RECIPES: dict[str, Recipe] = {
    f"{task}-{method}": _recipe(task, method) for task in TASKS for method in METHODS
}
"""Every recipe by name. To tune one alone: `RECIPES["block-push-ibc"] = Recipe(...)` below."""


def find_recipe(name: str) -> Recipe:
    """A recipe of any benchmark by name.

    Raises:
        ValueError: if there is none; the known ones are listed.
    """
    from decisive.benchmarks.d4rl import RECIPES as OFFLINE  # it imports this module

    known = {**RECIPES, **OFFLINE}
    if name not in known:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(known)}")
    return known[name]
