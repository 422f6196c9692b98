"""What is distilled: targets, batches, preprocessing, and the subsets it is compared with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from distill_cases import bars, waves
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learning.distillation.examples import (
    Draw,
    Examples,
    demonstration_examples,
    held_out,
    image_examples,
)
from learning.distillation.preprocessing import averaged, fit_preprocessing
from learning.distillation.subsets import CHOOSERS, choose, herding_rows, kmeans, kmeans_rows


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(points: Tensor, classes: list[int], n_classes: int = 3) -> Examples:
    kinds = torch.tensor(classes)
    names = tuple(f"class {k}" for k in range(n_classes))
    one_hot = torch.nn.functional.one_hot(kinds, n_classes).float() - 1 / n_classes
    offset, scale = torch.full((n_classes,), 1 / n_classes), torch.ones(n_classes)
    return Examples(points, one_hot, kinds, names, offset, scale, "synthetic")


# Examples


def test_labels_are_centred_for_any_number_of_classes() -> None:
    found = image_examples(bars(30))
    assert found.points.shape == (30, 1, 8, 8)
    assert found.targets.shape == (30, 3)
    assert torch.allclose(found.targets.sum(1), torch.zeros(30), atol=1e-6)
    assert sorted(set(found.targets[0].tolist())) == pytest.approx([-1 / 3, 2 / 3])
    restored = found.targets * found.scale + found.offset
    assert restored.argmax(1).tolist() == bars(30).labels[:, 0].tolist()


def test_images_without_a_label_are_left_out() -> None:
    data = bars(30)
    labels = data.labels.copy()
    labels[:5] = -1
    assert len(image_examples(replace(data, labels=labels))) == 25
    with pytest.raises(ValueError, match="no image has a label of 'bar'"):
        image_examples(replace(data, labels=np.full_like(labels, -1)))


def test_one_class_alone_is_refused() -> None:
    data = bars(30)
    rows = np.flatnonzero(data.labels[:, 0] == 1)
    with pytest.raises(ValueError, match="all labels are of one class, 'level'"):
        image_examples(data.take(rows))


def test_a_task_is_named_where_there_are_several() -> None:
    data = bars(30)
    two = replace(
        data,
        labels=np.concatenate((data.labels, data.labels[::-1]), 1),
        tasks={**data.tasks, "other": ("a", "b", "c")},
    )
    with pytest.raises(ValueError, match="name one of bar, other"):
        image_examples(two)
    assert image_examples(two, "other").names == ("a", "b", "c")
    with pytest.raises(ValueError, match="no task 'colour'; the tasks are bar, other"):
        image_examples(two, "colour")


def test_actions_are_standardised_and_come_back() -> None:
    demos = waves()
    found = demonstration_examples(demos)
    assert torch.allclose(found.targets.mean(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(found.targets.std(0, unbiased=False), torch.ones(2), atol=1e-5)
    back = (found.targets * found.scale + found.offset).numpy()
    assert np.allclose(back, demos.actions, atol=1e-6)
    other = demonstration_examples(waves(seed=1), like=found)
    assert torch.equal(other.scale, found.scale)


def test_actions_that_never_change_are_refused() -> None:
    demos = waves()
    with pytest.raises(ValueError, match="all actions are equal"):
        demonstration_examples(replace(demos, actions=np.zeros_like(demos.actions)))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="points must be finite"):
        made(torch.full((4, 2), torch.nan), [0, 1, 2, 0])


def test_what_is_held_out_is_not_in_the_rest() -> None:
    points = torch.arange(30.0)[:, None]
    rest, held = held_out(made(points, [0, 1, 2] * 10), 0.2, seed=0)
    assert (len(rest), len(held)) == (24, 6)
    assert sorted(torch.cat((rest.points, held.points))[:, 0].tolist()) == points[:, 0].tolist()


# Batches


def test_a_file_sorted_by_class_gives_batches_of_all_classes() -> None:
    found = image_examples(bars(300))
    assert found.classes is not None
    assert len(found.classes[:50].unique()) == 1  # the trap: the first rows are of one class
    rows = Draw(found).rows(50, seeded())
    counts = torch.bincount(found.classes[rows], minlength=3).tolist()
    assert sorted(counts) == [16, 17, 17]
    assert len(rows.unique()) == 50


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(0, 5))
def test_a_batch_is_balanced_and_repeats_no_row_before_it_must(n: int, seed: int) -> None:
    classes = [0] * 40 + [1] * 60 + [2] * 25
    examples = made(torch.zeros(125, 1), classes)
    rows = Draw(examples).rows(n, seeded(seed))
    counts = torch.bincount(torch.tensor(classes)[rows], minlength=3)
    assert len(rows) == n
    assert int(counts.max() - counts.min()) <= 1
    # Only where a class has too few is a row met again, and never much oftener than another.
    repeats = torch.bincount(rows, minlength=125)
    for kind, size in enumerate((40, 60, 25)):
        own = repeats[torch.tensor(classes) == kind]
        assert int(own.max()) <= -(-int(counts[kind]) // size)


# Preprocessing


def test_channels_are_standardised() -> None:
    images = torch.rand(50, 3, 4, 5, generator=seeded()) * torch.tensor([1, 2, 4])[:, None, None]
    fitted = fit_preprocessing(images)
    found = fitted(images)
    assert torch.allclose(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5)
    assert torch.allclose(fitted.undo(found), images, atol=1e-5)


def test_images_are_averaged_over_areas_by_hand() -> None:
    # Three pixels to two: each new one covers one old pixel and half of the middle one.
    row = torch.tensor([[[[3.0, 6.0, 12.0]]]])
    found = averaged(row.expand(1, 1, 3, 3), 2)
    assert torch.allclose(found[0, 0], torch.tensor([[4.0, 10.0]]).expand(2, 2))
    blocks = torch.arange(16.0).view(1, 1, 4, 4)
    pooled = torch.nn.functional.avg_pool2d(blocks, 2)
    assert torch.allclose(averaged(blocks, 2), pooled)
    assert averaged(blocks, 4) is blocks


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_averaging_keeps_the_mean_and_constant_images(pixels: int, more: int, wide: int) -> None:
    images = torch.rand(2, 3, pixels + more, pixels + wide, generator=seeded(), dtype=torch.float64)
    found = averaged(images, pixels)
    assert found.shape == (2, 3, pixels, pixels)
    assert torch.allclose(found.mean((2, 3)), images.mean((2, 3)), rtol=1e-12)
    ones = averaged(torch.ones_like(images), pixels)
    assert torch.allclose(ones, torch.ones_like(ones), rtol=1e-12)


def test_preprocessing_remembers_its_pixels() -> None:
    images = torch.rand(50, 3, 9, 7, generator=seeded())
    fitted = fit_preprocessing(images, pixels=4)
    found = fitted(images)
    assert found.shape == (50, 3, 4, 4)
    assert torch.allclose(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    small = averaged(images, 4)
    assert torch.allclose(fitted.undo(found), small, atol=1e-5)
    assert torch.equal(fitted(small), found)
    assert fit_preprocessing(images, zca=True, pixels=4)(images).shape == (50, 3, 4, 4)


def test_images_of_too_few_pixels_and_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 8 x 8 can be averaged .* got \(1, 9, 7\)"):
        fit_preprocessing(torch.rand(4, 1, 9, 7, generator=seeded()), pixels=8)
    with pytest.raises(ValueError, match=r"got \(4,\)"):
        fit_preprocessing(torch.rand(9, 4, generator=seeded()), pixels=2)
    fitted = fit_preprocessing(torch.rand(4, 1, 9, 7, generator=seeded()))
    with pytest.raises(ValueError, match="pixels must be at least 1"):
        replace(fitted, pixels=0)


def test_numbers_of_a_state_that_never_change_do_no_harm() -> None:
    states = torch.from_numpy(waves().observations["state"])
    found = fit_preprocessing(states)(states)
    assert torch.isfinite(found).all()
    assert torch.allclose(found[:, 3], torch.zeros(len(found)))
    assert torch.allclose(found[:, 0].std(unbiased=False), torch.ones(()), atol=1e-5)


def test_constant_images_are_refused() -> None:
    with pytest.raises(ValueError, match="all points are equal"):
        fit_preprocessing(torch.full((9, 1, 4, 4), 0.3))
    with pytest.raises(ValueError, match="ZCA is for images"):
        fit_preprocessing(torch.rand(9, 4, generator=seeded()), zca=True)


def test_zca_is_the_root_of_the_regularised_covariance() -> None:
    images = torch.rand(400, 1, 3, 4, generator=seeded())
    images[:, 0, 1] = images[:, 0, 0] + 0.1 * images[:, 0, 1]
    fitted = fit_preprocessing(images, zca=True, zca_regulariser=0.1)
    w = fitted.whitening
    assert w is not None
    assert torch.allclose(w, w.T, atol=1e-5)
    flat = ((images - fitted.mean) / fitted.std).flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    flat = flat / flat.norm(dim=1, keepdim=True)
    c = flat.T @ flat / 400
    expected = torch.linalg.inv(c + 0.1 * c.trace() / 12 * torch.eye(12))
    assert torch.allclose(w.double() @ w.double(), expected, rtol=1e-3, atol=1e-3)
    # Undone, an image is itself but for its own brightness and contrast.
    back = fitted.undo(fitted(images)).flatten(1).double()
    assert torch.allclose(back, flat, atol=1e-3)


# Subsets


def test_kmeans_finds_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = 0.1 * torch.randn(60, 2, generator=seeded())
    points = centres.repeat(20, 1) + noise
    found = kmeans(points, 3, seeded(1))
    order = (found @ torch.tensor([1.0, 2.0])).argsort()
    expected = torch.stack([points[k::3].mean(0) for k in range(3)])
    assert torch.allclose(found[order], expected, atol=1e-4)
    rows = kmeans_rows(points, 3, seeded(1))
    assert sorted((rows % 3).tolist()) == [0, 1, 2]


def test_kmeans_of_equal_points_still_gives_different_rows() -> None:
    rows = kmeans_rows(torch.zeros(5, 2), 3, seeded())
    assert len(rows.unique()) == 3


def test_herding_by_hand() -> None:
    # The mean is 3. First 3 itself, then of 0, 1, 8 the one whose mean with 3 is nearest to 3: 1.
    # Then (3 + 1 + x) / 3: 4 for 8 and 4/3 for 0: 8.
    points = torch.tensor([[0.0], [1.0], [3.0], [8.0]])
    assert herding_rows(points, 4, seeded()).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("method", CHOOSERS)
def test_subsets_are_balanced_repeatable_and_without_repetition(method: str) -> None:
    examples = image_examples(bars(90))
    rows = choose(examples, method, 12, seed=3)
    assert examples.classes is not None
    assert examples.classes[rows].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(rows.unique()) == 12
    assert torch.equal(rows, choose(examples, method, 12, seed=3))


def test_subsets_that_cannot_be_are_refused() -> None:
    examples = image_examples(bars(30))
    with pytest.raises(ValueError, match="10 points cannot be shared by 3 classes"):
        choose(examples, "random", 10, 0)
    with pytest.raises(ValueError, match="20 points of each class are asked for, one class has"):
        choose(examples, "random", 60, 0)
    with pytest.raises(ValueError, match="unknown subset 'best'; known: random"):
        choose(examples, "best", 3, 0)
