"""D4RL's Adroit and Kitchen tasks: what names, sizes and Minari's metadata tell of a data set.

A name is a guess, so an environment is told only where the sizes of the arrays agree with it. This
is a table of facts about published data; nothing here builds an environment.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class D4rlTask:
    """One layout of a task's data.

    Attributes:
        name: D4RL's short name, the first word of its data sets.
        env: the environment of this project.
        minari_env: the environment that Minari's data sets name, without its version.
        n_obs: numbers in an observation.
        n_actions: numbers in an action.
        options: options of `env` that this layout needs.
    """

    name: str
    env: str
    minari_env: str
    n_obs: int
    n_actions: int
    options: dict[str, Any] = field(default_factory=dict)


# Sizes: Farama-Foundation/D4RL@89141a68 and gymnasium-robotics 1.4.2. D4RL's kitchen observes 30
# positions and 30 goals; Minari's positions and velocities.
TASKS: tuple[D4rlTask, ...] = (
    D4rlTask("pen", "decisive/AdroitPen-v0", "AdroitHandPen", 45, 24),
    D4rlTask("hammer", "decisive/AdroitHammer-v0", "AdroitHandHammer", 46, 26),
    D4rlTask("door", "decisive/AdroitDoor-v0", "AdroitHandDoor", 39, 28),
    D4rlTask("relocate", "decisive/AdroitRelocate-v0", "AdroitHandRelocate", 39, 30),
    D4rlTask("kitchen", "decisive/FrankaKitchen-v0", "FrankaKitchen", 60, 9),
    D4rlTask("kitchen", "decisive/FrankaKitchen-v0", "FrankaKitchen", 59, 9, {"layout": "minari"}),
)

# Words of file names by the kind of data, the first match counts: the cloned sets of v0 are called
# pen-demos-v0-bc-combined, the human ones pen-v0_demos_clipped.
_ADROIT_KINDS = (
    ("cloned", {"cloned", "combined"}),
    ("expert", {"expert"}),
    ("human", {"human", "demos"}),
)
_KITCHEN_KINDS = ("complete", "partial", "mixed")
# The names under which D4RL published the kitchen sets.
_KITCHEN_FILES = {
    "mini_kitchen_microwave_kettle_light_slider": "complete",
    "kitchen_microwave_kettle_light_slider": "partial",
    "kitchen_microwave_kettle_bottomburner_light": "mixed",
}
_KITCHEN_GOALS = {
    frozenset({"microwave", "kettle", "light switch", "slide cabinet"}): "complete",
    frozenset({"microwave", "kettle", "bottom burner", "light switch"}): "mixed",
}


def dataset_of_name(stem: str) -> str | None:
    """D4RL's name of the data set that a file name tells.

    Args:
        stem: file name without its ending, such as `door-v0_demos_clipped`.

    Returns:
        Such as `door-human-v0`, without a version where there is none; None where the name does not
        tell.
    """
    words = re.split(r"[-_]", stem.lower())
    version = next((f"-{word}" for word in words if re.fullmatch(r"v\d{1,3}", word)), "")
    published = _KITCHEN_FILES.get(re.sub(r"-v\d+$", "", stem.lower()))
    if published:
        return f"kitchen-{published}{version}"
    if words[0] == "kitchen":
        kinds = [kind for kind in _KITCHEN_KINDS if kind in words]
    elif any(words[0] == task.name for task in TASKS):
        kinds = [kind for kind, names in _ADROIT_KINDS if names & set(words)]
    else:
        kinds = []
    return f"{words[0]}-{kinds[0]}{version}" if kinds else None


def environment_of_name(stem: str, n_obs: int, n_actions: int) -> dict[str, Any]:
    """Entries `env` and `env_options` of meta by a file name and the sizes.

    Args:
        stem: file name without its ending.
        n_obs: numbers in an observation.
        n_actions: numbers in an action.

    Returns:
        Both entries, or none where the name does not tell or the sizes are those of another task.
    """
    name, _, kind = (dataset_of_name(stem) or "").partition("-")
    return _entries(
        [task for task in TASKS if task.name == name], kind.split("-")[0], n_obs, n_actions
    )


def environment_of_spec(spec: str, dataset_id: str, n_obs: int, n_actions: int) -> dict[str, Any]:
    """Entries `env` and `env_options` of meta by Minari's `env_spec`.

    The kitchen's `complete` and `partial` sets ask for the same four things; the data set's id
    tells them apart.

    Args:
        spec: the JSON text that Gymnasium makes of a specification.
        dataset_id: Minari's id of the data set, or an empty text.
        n_obs: numbers in an observation.
        n_actions: numbers in an action.

    Returns:
        Both entries, or none where the environment is not D4RL's or the sizes are of another.

    Raises:
        ValueError: if the text is not the JSON of an object.
    """
    try:
        told = json.loads(spec)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata 'env_spec' is not valid JSON: {error}") from None
    if not isinstance(told, dict):
        raise ValueError(f"metadata 'env_spec' must be an object, got {type(told).__name__}")
    name = re.sub(r"-v\d+$", "", str(told.get("id", "")))
    kwargs = told.get("kwargs")
    goals = kwargs.get("tasks_to_complete") if isinstance(kwargs, dict) else None
    kind = ""
    if isinstance(goals, list):
        kind = _KITCHEN_GOALS.get(frozenset(str(goal) for goal in goals), "")
    if kind == "complete" and "partial" in dataset_id:
        kind = "partial"
    return _entries([task for task in TASKS if task.minari_env == name], kind, n_obs, n_actions)


def _entries(tasks: list[D4rlTask], kind: str, n_obs: int, n_actions: int) -> dict[str, Any]:
    for task in tasks:
        if (task.n_obs, task.n_actions) == (n_obs, n_actions):
            options = dict(task.options)
            if task.name == "kitchen":
                if kind not in _KITCHEN_KINDS:
                    return {}
                options["tasks"] = kind
            return {"env": task.env, "env_options": options}
    return {}
