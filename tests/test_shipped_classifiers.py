"""The classifiers of tables that ship: small, scored, and as good as their cards on new scenes."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from envs.tabletop.clutter import ClutterConfig, ClutterScenes
from perception.checkpoint import load_classifier, shipped_classifiers

NAMES = [name for name in shipped_classifiers() if name.startswith("tabletop-")]
N = 150


@cache
def scenes() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Of the test's shapes and colours, with another seed than the held-out set of the cards."""
    with ClutterScenes(ClutterConfig(split="test", seed=7)) as drawn:
        pictures, labels = zip(*(drawn.draw(k) for k in range(N)), strict=True)
    return np.stack(pictures), np.stack(labels)


def test_one_ships_for_each_paper() -> None:
    assert NAMES == ["tabletop-coatnet", "tabletop-efficientnetv2", "tabletop-tokenlearner"]
    backbones = [load_classifier(name).backbone for name in NAMES]
    assert backbones == ["coatnet_mini", "efficientnetv2_b0_half", "vit_cifar_tokenlearner"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small_and_says_how_well_it_does(name: str) -> None:
    folder = shipped_classifiers()[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10e6
    told: Any = load_classifier(name).scores["tasks"]
    assert set(told) == {"object", "inserted", "zone"}
    for task, score in told.items():
        assert f"{task}: {score['accuracy']:.1%}" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_scenes_it_never_saw_are_told_as_well_as_its_card_says(name: str) -> None:
    saved = load_classifier(name)
    images, labels = scenes()
    with torch.no_grad():
        answers = saved.read(saved.model(saved.tensor(images)))
    for column, (task, classes) in enumerate(saved.tasks.items()):
        asked = labels[:, column] >= 0
        said = [
            classes.index(max(answer[task], key=answer[task].__getitem__)) for answer in answers
        ]
        right = np.asarray(said)[asked] == labels[asked, column]
        claimed = saved.scores["tasks"][task]["accuracy"]
        # Three standard errors of so few pictures, both ways.
        room = 3 * np.sqrt(claimed * (1 - claimed) / asked.sum())
        assert abs(right.mean() - claimed) < room, task
