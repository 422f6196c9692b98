"""Windows around defects: both of a pair alike, the defect in both, whole pictures at the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from decisive.benchmarks.triage_windows import Stage, learn_in_windows, shrunk, windows
from learning.image_set import ImageSet
from perception import create
from perception.abnormality import CLASSES, TASK

SIDE = 32


def pairs(n: int, seed: int = 0) -> tuple[ImageSet, np.ndarray]:
    """Noise, and the same noise with a bright square of 5 pixels somewhere."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 160, (n, SIDE, SIDE, 3), dtype=np.uint8)
    defects = np.zeros((n, SIDE, SIDE), bool)
    for j in range(0, n, 2):
        images[j + 1] = images[j]
        y, x = rng.integers(0, SIDE - 5, 2)
        defects[j + 1, y : y + 5, x : x + 5] = True
        images[j + 1][defects[j + 1]] = 250
    labels = np.arange(n, dtype=np.int64)[:, None] % 2
    return ImageSet(images, labels, {TASK: CLASSES}, "of a test", {}), defects


def test_windows_of_a_pair_differ_by_the_defect_alone() -> None:
    data, defects = pairs(20)
    found = windows(data, defects, 12, 3, 0)
    assert found.images.shape == (60, 12, 12, 3)
    np.testing.assert_array_equal(found.labels[:, 0], np.arange(60) % 2)
    for sound, faulty in zip(found.images[::2], found.images[1::2], strict=True):
        differ = (sound != faulty).any(2)
        assert differ.any()
        assert (faulty[differ] == 250).all()
        assert differ.sum() <= 25
    # Other draws of a pair lie elsewhere, and the seed decides where.
    assert (found.images[:20] != found.images[20:40]).any()
    np.testing.assert_array_equal(windows(data, defects, 12, 3, 0).images, found.images)
    assert (windows(data, defects, 12, 3, 1).images != found.images).any()


def test_a_window_as_large_as_the_picture_is_the_picture() -> None:
    data, defects = pairs(6)
    np.testing.assert_array_equal(windows(data, defects, SIDE, 1, 0).images, data.images)


def test_masks_shrink_with_their_pictures() -> None:
    data, defects = pairs(4)
    small, masks = shrunk(data, defects, 8)
    assert small.images.shape == (4, 8, 8, 3)
    expected = defects.reshape(4, 8, 4, 8, 4).any((2, 4))
    np.testing.assert_array_equal(masks, expected)
    means = data.images.reshape(4, 8, 4, 8, 4, 3).mean((2, 4))
    assert np.abs(small.images - means).max() <= 1
    assert shrunk(data, defects, SIDE)[0] is data


def test_what_is_no_pair_is_refused() -> None:
    data, defects = pairs(6)
    for masks in (defects[::-1], np.zeros_like(defects), defects | defects[[1, 0, 3, 2, 5, 4]]):
        with pytest.raises(ValueError, match="must be in pairs"):
            windows(data, masks, 8, 1, 0)
    with pytest.raises(ValueError, match="must be in pairs"):
        windows(data.take([0, 1, 2]), defects[:3], 8, 1, 0)
    with pytest.raises(ValueError, match="a window must be 1 to 32"):
        windows(data, defects, 33, 1, 0)
    for change, said in (
        ({"share": 0.0}, "share must be in"),
        ({"share": 1.5}, "share must be in"),
        ({"steps": 0}, "must be positive"),
        ({"draws": 0}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(Stage(0.5, 10, 1e-3), **change)


@pytest.mark.learning
def test_small_defects_are_learned_in_windows_and_kept_in_whole_pictures(tmp_path) -> None:
    train, defects = pairs(400)
    held_out, _ = pairs(100, 1)
    torch.manual_seed(0)
    model = create(
        "efficientnetv2_b0_quarter_fine", n_classes=2, drop_path=0.0, dropout=0.0, stem_stride=1
    )
    stages = (Stage(0.5, 60, 4e-3, 2), Stage(1.0, 40, 2e-3))
    result = learn_in_windows(model, train, held_out, defects, 0, tmp_path, stages)
    assert result.step == 100
    assert result.size == (SIDE, SIDE)
    assert result.scores.tasks[TASK].accuracy > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stage-0", "stage-1"]
