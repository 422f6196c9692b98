"""KIP: what it learns, that it resumes bit by bit, and the files it leaves."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_cases import bars, waves
from torch import Tensor

from learning.checkpoint import CheckpointError
from learning.distillation import (
    Distilled,
    KernelConfig,
    KipConfig,
    KipResult,
    distil,
    kernel,
    load_distilled,
    save_distilled,
    shipped_sets,
)
from learning.distillation.distilled import score
from learning.distillation.examples import Examples, demonstration_examples, image_examples
from learning.distillation.finite_network import (
    FiniteConfig,
    finite_network,
    largest_rate,
    score_finite,
)
from learning.distillation.kip import Support, kip_loss
from learning.distillation.natural import (
    NaturalScore,
    growing_sizes,
    natural_curve,
    natural_equivalent,
)
from learning.distillation.preprocessing import Preprocessing, fit_preprocessing
from learning.distillation.subsets import choose
from learning.image_set import data_folder, mnist

FC = KernelConfig(1)
CONV = KernelConfig(convs=(1,), prepend=True)
QUICK = KipConfig(
    steps=20, batch_size=60, lr=0.1, validate_every=20, save_every=10, device="cpu", seed=1
)
Sets = tuple[Examples, Examples, Preprocessing]


@pytest.fixture(scope="module")
def sets() -> Sets:
    train, held = image_examples(bars(300)), image_examples(bars(200, seed=1))
    return train, held, fit_preprocessing(train.points)


def run(sets: Sets, out: Path, config: KipConfig = QUICK, **options: Any) -> KipResult:
    train, held, preprocessing = sets
    first = choose(train.at(preprocessing(train.points)), "random", 3, 0)
    kernel = options.pop("kernel", FC)
    options.setdefault("progress", False)
    return distil(kernel, train, held, preprocessing, first, config, out, **options)


def accuracy(sets: Sets, distilled: Distilled) -> float:
    _, held, preprocessing = sets
    return score(distilled.ridge(), held, preprocessing(held.points)).value


def start(sets: Sets, config: KernelConfig = FC) -> Distilled:
    """The natural points that a run starts from."""
    train, _, preprocessing = sets
    prepared = train.at(preprocessing(train.points))
    kept = prepared.take(choose(prepared, "random", 3, 0))
    names, offset, scale = train.names, train.offset, train.scale
    return Distilled(kept.points, kept.targets, config, preprocessing, names, True, offset, scale)


@pytest.mark.learning
def test_three_learned_points_tell_more_than_three_natural_ones(sets: Sets, tmp_path: Path) -> None:
    result = run(sets, tmp_path, replace(QUICK, steps=150))
    assert result.step == 150
    before, after = accuracy(sets, start(sets)), accuracy(sets, result.distilled)
    assert after > before + 0.1
    assert after > 0.75


@pytest.mark.learning
@pytest.mark.parametrize("max_bytes", [2**29, 2**21])
def test_a_convolutional_kernel_learns_as_well(sets: Sets, tmp_path: Path, max_bytes: int) -> None:
    # In google-research/kip the convolutional builder fails, and nothing bounds its memory.
    config = replace(QUICK, steps=3, batch_size=6, validate_samples=20, max_bytes=max_bytes)
    result = run(sets, tmp_path, config, kernel=CONV)
    moved = (result.distilled.points - start(sets).points).abs().amax((1, 2, 3))
    assert bool((moved > 0.01).all())


def test_tiles_change_nothing_but_rounding(sets: Sets, tmp_path: Path) -> None:
    config = replace(QUICK, steps=2, batch_size=6, validate_samples=9)
    whole = run(sets, tmp_path / "whole", config, kernel=CONV)
    small = replace(config, max_bytes=2**21)
    parts = run(sets, tmp_path / "parts", small, kernel=CONV)
    assert torch.allclose(whole.distilled.points, parts.distilled.points, rtol=1e-6, atol=1e-8)


def test_points_and_labels_get_gradients(sets: Sets) -> None:
    first = start(sets)
    support = Support(first.points.double(), first.labels.double(), learn_labels=True)
    train, _, preprocessing = sets
    points = preprocessing(train.points[::5]).double()
    loss = kip_loss(FC, support, points, train.targets[::5].double(), 1e-6)
    loss.backward()
    for parameter in support.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad.flatten(1).abs().sum(1) > 0).all())


def test_the_loss_is_the_regression_of_the_paper(sets: Sets) -> None:
    first = start(sets)
    support = Support(first.points.double(), first.labels.double(), learn_labels=False)
    _, held, preprocessing = sets
    targets = held.targets.double()
    points = preprocessing(held.points).double()
    found = float(kip_loss(FC, support, points, targets, 1e-6).detach())
    error = (first.ridge().mean(points) - targets).square().mean()
    assert found == pytest.approx(0.5 * float(error), rel=1e-9)


def test_labels_stay_where_they_are_not_learned(sets: Sets, tmp_path: Path) -> None:
    fixed = run(sets, tmp_path / "fixed", replace(QUICK, learn_labels=False)).distilled
    assert torch.allclose(fixed.labels, start(sets).labels.double())
    learned = run(sets, tmp_path / "learned").distilled
    assert float((learned.labels - fixed.labels).abs().max()) > 0.01


class Killed(Exception):
    """What a test ends a run with."""


@pytest.mark.parametrize("augment", [False, True])
def test_a_killed_run_goes_on_bit_by_bit(sets: Sets, tmp_path: Path, augment: bool) -> None:
    config = replace(QUICK, augment=augment, shift=0.15)
    whole = run(sets, tmp_path / "whole", config).distilled

    saves: list[int] = []

    def kill(_: Distilled, __: Path, facts: dict[str, Any]) -> None:
        saves.append(facts["step"])
        if len(saves) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(sets, tmp_path / "killed", config, save=kill)
    found = run(sets, tmp_path / "killed", config)
    assert found.history[0]["step"] == 20
    assert torch.equal(found.distilled.points, whole.points)
    assert torch.equal(found.distilled.labels, whole.labels)
    other = run(sets, tmp_path / "other", replace(config, seed=2)).distilled
    assert not torch.equal(other.points, whole.points)


def test_another_runs_folder_is_refused(sets: Sets, tmp_path: Path) -> None:
    run(sets, tmp_path)
    with pytest.raises(
        ValueError, match=r"other config \(regulariser 1e-06, now 0.001\); use another"
    ):
        run(sets, tmp_path, replace(QUICK, regulariser=1e-3))
    with pytest.raises(ValueError, match="other kernel"):
        run(sets, tmp_path, kernel=KernelConfig(2))
    run(sets, tmp_path, kernel=KernelConfig(2), resume=False)


@pytest.mark.learning
def test_continuous_targets_are_learned(tmp_path: Path) -> None:
    train = demonstration_examples(waves(30))
    held = demonstration_examples(waves(8, seed=1), like=train)
    fitted = fit_preprocessing(train.points)
    prepared = train.at(fitted(train.points))
    first = choose(prepared, "random", 12, 0)
    config = replace(QUICK, steps=200, lr=0.05, batch_size=200)
    result = distil(KernelConfig(2), train, held, fitted, first, config, tmp_path, progress=False)
    found = score(result.distilled.ridge(), held, fitted(held.points))
    kept = prepared.take(first)
    names, offset, scale = train.names, train.offset, train.scale
    natural = Distilled(
        kept.points, kept.targets, KernelConfig(2), fitted, names, False, offset, scale
    )
    plain = score(natural.ridge(), held, fitted(held.points))
    assert found.explained is not None
    assert plain.explained is not None
    assert found.explained > plain.explained
    assert found.explained > 0.85
    assert found.rmse is not None
    assert found.accuracy is None
    # Errors are in units of the actions, of which the second is a tenth of the first.
    assert found.rmse[1] < 0.2 * found.rmse[0] + 0.05


def test_augmentation_is_for_images(tmp_path: Path) -> None:
    train = demonstration_examples(waves())
    fitted = fit_preprocessing(train.points)
    with pytest.raises(ValueError, match="augmentation is for images"):
        distil(FC, train, train, fitted, torch.arange(3), replace(QUICK, augment=True), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": 1.0}, "shift must be in"),
        ({"regulariser": float("nan")}, "regulariser"),
        ({"steps": 0}, "steps must be positive"),
    ],
)
def test_settings_that_cannot_distil_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KipConfig(**changes)


# Files


@pytest.mark.parametrize("zca", [False, True])
def test_a_set_comes_back_and_predicts_alike(sets: Sets, tmp_path: Path, zca: bool) -> None:
    train, held, _ = sets
    preprocessing = fit_preprocessing(train.points, zca)
    one = replace(start(sets, CONV), preprocessing=preprocessing)
    save_distilled(tmp_path / "set", one, {"seed": 0}, "# Card\n")
    found, training = load_distilled(tmp_path / "set")
    assert training == {"seed": 0}
    assert found.kernel == CONV
    assert found.names == one.names
    images = held.points[:9]
    expected = one.ridge().mean(preprocessing(images).double())
    assert torch.equal(found.ridge().mean(found.preprocessing(images).double()), expected)


def test_a_set_of_few_pixels_comes_back_and_takes_large_images(sets: Sets, tmp_path: Path) -> None:
    train, held, _ = sets
    fitted = fit_preprocessing(train.points, pixels=4)
    config = replace(QUICK, steps=2, batch_size=6, validate_samples=9)
    first = choose(train.at(fitted(train.points)), "random", 3, 0)
    result = distil(CONV, train, held, fitted, first, config, tmp_path, progress=False)
    assert result.distilled.points.shape == (3, 1, 4, 4)
    save_distilled(tmp_path / "set", result.distilled, {}, "# Card\n", torch.float64)
    found, _ = load_distilled(tmp_path / "set")
    assert found.preprocessing.pixels == 4
    large = found.preprocessing(held.points[:9]).double()
    assert large.shape == (9, 1, 4, 4)
    expected = result.distilled.ridge().mean(fitted(held.points[:9]).double())
    assert torch.equal(found.ridge().mean(large), expected)


def test_few_pixels_for_many_poolings_are_refused_at_once(sets: Sets, tmp_path: Path) -> None:
    train, held, _ = sets
    fitted = fit_preprocessing(train.points, pixels=1)
    with pytest.raises(ValueError, match="at least 2 x 2"):
        distil(CONV, train, held, fitted, torch.arange(3), QUICK, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_half_precision_costs_little(sets: Sets, tmp_path: Path) -> None:
    one = start(sets)
    save_distilled(tmp_path / "set", one, {}, "# Card\n", torch.float16)
    found, _ = load_distilled(tmp_path / "set")
    assert found.points.dtype == torch.float16
    assert abs(accuracy(sets, found) - accuracy(sets, one)) <= 0.01


def change(folder: Path, place: str, value: Any) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    *groups, leaf = place.split(".")
    target = document
    for group in groups:
        target = target[group]
    target[leaf] = value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("method", "ibc"),
        ("config.kernel", {"depth": -1, "convs": []}),
        ("config.kernel", {"depth": 1}),
        ("config.kernel.shape", 3),
        ("config.kernel", {**asdict(FC), "convs": [1] * 5}),
        ("config.regulariser", "small"),
        ("config.pixels", 0),
        ("config.pixels", "8"),
        ("spec.names", ["one"]),
        ("spec", {}),
    ],
)
def test_damaged_sets_are_refused_in_one_line(
    sets: Sets, tmp_path: Path, place: str, value: Any
) -> None:
    save_distilled(tmp_path / "set", start(sets), {}, "# Card\n")
    change(tmp_path / "set", place, value)
    with pytest.raises(CheckpointError) as caught:
        load_distilled(tmp_path / "set")
    assert "\n" not in str(caught.value)


@pytest.mark.data
@pytest.mark.parametrize("name", shipped_sets())
def test_a_shipped_set_scores_what_its_card_says(name: str) -> None:
    if not (data_folder() / "mnist" / "mnist.npz").is_file():
        pytest.skip("MNIST is not here (DECISIVE_DATA)")
    found, facts = load_distilled(name)
    held = image_examples(mnist(split="test"))
    scores = score(found.ridge(), held, found.preprocessing(held.points))
    # They are stored in half precision.
    assert scores.accuracy == pytest.approx(facts["accuracy"], abs=5e-4)
    assert f"{100 * facts['accuracy']:.2f}%" in (shipped_sets()[name] / "README.md").read_text()


def test_sets_are_shipped() -> None:
    assert set(shipped_sets()) == {"mnist-fc1-10", "mnist-fc1-100", "mnist-fc3-100"}
    with pytest.raises(
        CheckpointError, match="shipped: mnist-fc1-10, mnist-fc1-100, mnist-fc3-100"
    ):
        load_distilled("mnist-fc1-1000")


# How many natural points


def test_the_natural_equivalent_is_read_off_the_curve() -> None:
    curve = [NaturalScore(10, (0.4, 0.6)), NaturalScore(40, (0.7,)), NaturalScore(160, (0.9,))]
    assert natural_equivalent(0.5, curve) == 10
    # Half way between 10 and 40 points on a logarithmic axis is 20.
    assert natural_equivalent(0.6, curve) == pytest.approx(20)
    assert natural_equivalent(0.7, curve) == pytest.approx(40)
    assert natural_equivalent(0.95, curve) is None
    assert growing_sizes(10, 10, 85) == [10, 20, 40, 80]
    assert growing_sizes(30, 10, 30) == [30]


def test_more_natural_points_score_higher(sets: Sets) -> None:
    train, held, fitted = sets
    ready = train.at(fitted(train.points)), held.at(fitted(held.points))
    curve = natural_curve(FC, *ready, sizes=(3, 150), seeds=(0, 1, 2))
    assert len(set(curve[0].values)) > 1
    assert curve[1].mean > curve[0].mean + 0.1
    assert curve == natural_curve(FC, *ready, sizes=(3, 150), seeds=(0, 1, 2))


# Finite networks


def eigenvalue(network: torch.nn.Module, x: Tensor) -> float:
    """The largest of the tangent kernel, row by row."""
    rows = []
    for value in network(x).flatten():
        grads = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    jacobian = torch.stack(rows)
    return float(torch.linalg.eigvalsh(jacobian @ jacobian.T).max())


def test_the_largest_rate_is_that_of_the_tangent_kernel(sets: Sets) -> None:
    train, _, fitted = sets
    x = fitted(train.points[::50]).flatten(1)
    network = finite_network(FC, tuple(x.shape[1:]), 3, FiniteConfig(width=32))
    expected = 2 * 1.9 * x.shape[0] * 3 / eigenvalue(network, x)
    assert largest_rate(network, x, 0.9) == pytest.approx(expected, rel=0.02)


def test_a_finite_network_learns_its_points(sets: Sets) -> None:
    train, _, fitted = sets
    some = train.at(fitted(train.points)).take(list(range(0, 300, 10)))
    config = FiniteConfig(width=128, steps=150, l2=0.0)
    assert score_finite(FC, some.points, some.targets, some, config) == 1.0


@pytest.mark.parametrize(
    "kernel", [CONV, KernelConfig(convs=(1, 2), head="mean")], ids=["flatten", "mean"]
)
def test_a_convolutional_network_learns_its_points(sets: Sets, kernel: KernelConfig) -> None:
    train, _, fitted = sets
    some = train.at(fitted(train.points)).take(list(range(0, 300, 30)))
    config = FiniteConfig(width=16, steps=200, l2=0.0)
    assert score_finite(kernel, some.points, some.targets, some, config) == 1.0
    network = finite_network(kernel, (1, 8, 8), 3, config)
    network(some.points).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
    with pytest.raises(ValueError, match="a convolutional kernel needs images"):
        finite_network(kernel, (64,), 3, config)


@pytest.mark.parametrize("head", ["flatten", "mean"])
def test_a_finite_convolutional_network_starts_as_its_kernel_says(sets: Sets, head: Any) -> None:
    # Outputs of many networks have the covariance of the NNGP kernel.
    kernel_config = KernelConfig(convs=(1, 1), head=head, kind="nngp")
    x = sets[2](sets[0].points[::150])
    outputs = [
        finite_network(kernel_config, (1, 8, 8), 400, FiniteConfig(width=64, seed=seed))(x)
        for seed in range(30)
    ]
    found = torch.stack([one @ one.T / one.shape[1] for one in outputs]).mean(0).detach()
    assert torch.allclose(found, kernel(kernel_config, x), rtol=0.15)
