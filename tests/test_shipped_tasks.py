"""The multi-task networks that ship: small, scored, and as good as their card on new scenes."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from test_train_tasks import ALL

from decisive.task_groups import groups_of_affinity
from decisive.train_tasks import score_lines
from envs.tabletop.task_pictures import CLASSES, TaskPictureConfig, TaskScenes
from perception.multi_task import task_errors
from perception.multi_task_checkpoint import SavedTasks, load_tasks, shipped_tasks

NAME = "tabletop-tasks"
N = 100


@cache
def scenes() -> list[Any]:
    """Of the test's shapes and colours, with another seed than the held-out set of the card."""
    with TaskScenes(TaskPictureConfig(split="test", seed=7)) as drawn:
        return [drawn.draw(k) for k in range(N)]


@cache
def shipped() -> SavedTasks:
    return load_tasks(NAME)


def test_it_is_small_and_says_how_well_it_does() -> None:
    assert list(shipped_tasks()) == [NAME]
    folder = shipped_tasks()[NAME]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 5e6
    card = (folder / "README.md").read_text()
    assert all(line in card for line in score_lines(shipped().scores))


def test_its_groups_are_those_that_affinities_choose() -> None:
    chosen = groups_of_affinity(str(ALL), 3, "zero")
    assert shipped().model.groups == chosen.groups
    assert shipped().model.serves == chosen.serves
    assert shipped().targets["segmentation"].names == CLASSES


def errors() -> dict[str, np.ndarray]:
    """Of each scene, by task."""
    saved, found = shipped(), {task: [] for task in shipped().targets}  # type: ignore[var-annotated]
    for scene in scenes():
        with torch.inference_mode():
            outputs = saved.model(saved.tensor(scene.image[None]))
        truth = {
            "segmentation": scene.segmentation,
            "depth": scene.depth,
            "normals": scene.normals,
            "edges": scene.edges,
            "count": np.array([scene.count], np.float32),
        }
        tensors = {
            task: torch.from_numpy(np.ascontiguousarray(x))[None] for task, x in truth.items()
        }
        for task, error in task_errors(outputs, tensors, saved.targets, saved.statistics).items():
            found[task].append(error)
    return {task: np.array(values) for task, values in found.items()}


def test_scenes_it_never_saw_are_told_as_well_as_its_card_says() -> None:
    for task, values in errors().items():
        claimed = shipped().scores["tasks"][task]["error"]
        room = 3 * values.std() / np.sqrt(N)  # three standard errors, both ways
        assert abs(values.mean() - claimed) < room, (task, values.mean(), claimed, room)


@pytest.mark.parametrize("size", [(48, 64), (200, 200)])
def test_pictures_of_other_sizes_are_told_alike(size: tuple[int, int]) -> None:
    """The same scene, stretched as a camera of other pixels would show it."""
    from PIL import Image

    scene = scenes()[0]
    stretched = np.asarray(Image.fromarray(scene.image).resize(size[::-1]))
    told, other = shipped().ask(scene.image[None]), shipped().ask(stretched[None])
    assert (told["segmentation"] == other["segmentation"]).mean() > 0.9
    assert abs(told["count"] - other["count"]).max() < 1.0
