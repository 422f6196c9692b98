"""The classifiers that come with the package, on pictures that neither training nor scoring saw."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from envs.tabletop.clutter import NO_LABEL, TASKS, ClutterConfig, ClutterScenes
from perception.checkpoint import load_classifier, shipped_classifiers

NAMES = ("tabletop-coatnet", "tabletop-efficientnetv2", "tabletop-tokenlearner")
Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    with ClutterScenes(ClutterConfig(split="test", seed=77)) as scenes:
        drawn = [scenes.draw(k) for k in range(120)]
    return np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])


def test_the_promised_classifiers_ship() -> None:
    assert tuple(sorted(shipped_classifiers())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_classifier_scores_as_its_card_says(name: str, pictures: Pictures) -> None:
    saved = load_classifier(name)
    images, labels = pictures
    assert sum(f.stat().st_size for f in shipped_classifiers()[name].iterdir()) < 10e6
    assert dict(saved.tasks) == dict(TASKS)
    with torch.no_grad():
        answers = saved.read(saved.model(saved.tensor(images)).numpy())
    for column, (task, classes) in enumerate(TASKS.items()):
        known = labels[:, column] != NO_LABEL
        right = [
            max(answer[task], key=lambda c: answer[task][c]) == classes[label]
            for answer, label in zip(answers, labels[:, column], strict=True)
            if label != NO_LABEL
        ]
        promised = saved.scores["tasks"][task]["accuracy"]
        # Four standard errors of what the card says, for so many pictures.
        slack = 4 * np.sqrt(promised * (1 - promised) / known.sum()) + 0.02
        assert np.mean(right) > max(promised - slack, 1.2 / len(classes)), task
