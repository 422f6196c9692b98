"""Networks of several tasks: losses by hand, sets in folders, trainings that measure and resume."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_cases import TARGETS, TINY, squares, tiny, write

from perception.multi_task import (
    MultiTaskConfig,
    MultiTaskNet,
    subset,
    task_errors,
    task_losses,
)
from perception.multi_task_set import Target, TaskSet, open_task_set, write_task_set
from perception.multi_task_training import (
    MultiTaskTrainConfig,
    TaskBatches,
    mirrored,
    train_tasks,
)

QUICK: dict[str, Any] = {
    "batch_size": 4,
    "device": "cpu",
    "tensorboard": False,
    "norm_batches": 1,
    "warmup_steps": 0,
}


# Losses


def loss_of(kind: Target, output: Any, truth: Any, scale: tuple[float, float] = (0.0, 1.0)) -> Any:
    outputs, targets = {"t": torch.tensor(output)}, {"t": torch.tensor(truth)}
    told = task_losses(outputs, targets, {"t": kind}, {"t": scale})["t"]
    return float(told), task_errors(outputs, targets, {"t": kind}, {"t": scale})["t"]


def test_losses_and_errors_of_classes_and_masks_are_as_by_hand() -> None:
    # One pixel with odds of 3 to 1 for the true class, one with 1 to 3 against it.
    logits = [[[[math.log(3.0), 0.0]], [[0.0, math.log(3.0)]]]]
    loss, error = loss_of(Target("classes", ("a", "b")), logits, [[[0, 0]]])
    assert loss == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert error == 0.5
    # Of three pixels two are true, and one of them and a false one are found: F1 is a half.
    odds = math.log(3.0)
    loss, error = loss_of(Target("mask"), [[[[odds, -odds, odds]]]], [[[True, True, False]]])
    assert loss == pytest.approx((math.log(4 / 3) + 2 * math.log(4)) / 3)
    assert error == pytest.approx(0.5)


def test_losses_and_errors_of_values_numbers_and_directions_are_as_by_hand() -> None:
    # In units of the deviation, 2, around the mean, 10.
    told = loss_of(Target("values"), [[[[0.5, -1.0]]]], [[[10.0, 10.0]]], (10.0, 2.0))
    assert told == pytest.approx((0.75, 1.5))
    told = loss_of(Target("numbers", ("n",)), [[0.5]], [[12.0]], (10.0, 2.0))
    assert told == pytest.approx((0.25, 1.0))
    # Of any length: at 60 degrees.
    output = [[[[1.0]], [[math.sqrt(3)]], [[0.0]]]]
    loss, error = loss_of(Target("directions"), output, [[[[1.0, 0.0, 0.0]]]])
    assert loss == pytest.approx(0.5)
    assert error == pytest.approx(60.0)


def test_a_mask_without_anything_found_has_an_error_of_one() -> None:
    assert loss_of(Target("mask"), [[[[-1.0]]]], [[[True]]])[1] == 1.0
    assert loss_of(Target("mask"), [[[[-1.0]]]], [[[False]]])[1] == 1.0
    assert loss_of(Target("mask"), [[[[1.0]]]], [[[True]]])[1] == 0.0


# Network


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("efficientnetv2_b0_quarter", {"drop_path": 0.0}),
        ("spinenet_mini", {}),
        ("vit_micro", {"patch": 8, "image": 64, "depth": 1, "width": 16, "heads": 2}),
        ("coatnet_mini", {"depths": (1, 1, 1, 1), "widths": (8, 16, 32, 32)}),
    ],
)
def test_any_backbone_serves_all_tasks_and_every_parameter_learns(backbone, options) -> None:
    net = tiny(config=MultiTaskConfig(backbone, options, width=4))
    outputs = net(torch.randn(2, 3, 64, 64))
    assert {task: tuple(out.shape) for task, out in outputs.items()} == {
        "segmentation": (2, 3, 64, 64),
        "depth": (2, 1, 64, 64),
        "normals": (2, 3, 64, 64),
        "edges": (2, 1, 64, 64),
        "count": (2, 1),
    }
    torch.stack([out.square().mean() for out in outputs.values()]).sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not idle


def test_tasks_share_the_encoder_and_nothing_else() -> None:
    net = tiny()
    outputs = net(torch.randn(2, 3, 16, 16))
    shared = {id(p) for p in net.shared()}
    for task in TARGETS:
        net.zero_grad()
        outputs[task].square().mean().backward(retain_graph=True)
        reached = {id(p) for p in net.parameters() if p.grad is not None}
        assert reached - shared == {id(p) for p in net.heads[task].parameters()}
        assert reached & shared


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="backbone must be one of"):
        MultiTaskConfig("resnet")
    with pytest.raises(ValueError, match="width must be at least 1"):
        MultiTaskConfig(width=0)
    with pytest.raises(ValueError, match="needs at least one task"):
        MultiTaskNet(TINY, {})
    with pytest.raises(ValueError, match="takes clips"):
        MultiTaskNet(MultiTaskConfig("vivit_micro", {}), TARGETS)
    for tasks, said in (
        (["depht"], "unknown task 'depht'; known: segmentation, depth"),
        ([], "one or more"),
        (["depth", "depth"], "different names"),
    ):
        with pytest.raises(ValueError, match=said):
            subset(TARGETS, tasks)
    assert list(subset(TARGETS, ["count", "depth"])) == ["depth", "count"]


# Sets


def test_a_set_comes_back_from_its_folder(tmp_path: Path) -> None:
    data = squares()
    first, second = (
        (data.images[rows], {task: array[rows] for task, array in data.arrays.items()})
        for rows in (slice(0, 5), slice(5, 12))
    )
    write_task_set(
        tmp_path / "set", [first, second], 12, (16, 16), data.targets, data.source, data.facts
    )
    found = open_task_set(tmp_path / "set")
    assert (found.targets, found.source, found.facts) == (data.targets, data.source, data.facts)
    np.testing.assert_array_equal(found.images, data.images)
    for task, array in data.arrays.items():
        np.testing.assert_array_equal(found.arrays[task], array)
    assert isinstance(found.images, np.memmap)


def test_chunks_that_do_not_fit_leave_nothing(tmp_path: Path) -> None:
    data = squares(4)
    chunk = (data.images, data.arrays)
    for n, said in ((5, "5 images together, got 4"), (3, "must hold 3 images")):
        with pytest.raises(ValueError, match=said):
            write_task_set(tmp_path / "set", [chunk], n, (16, 16), data.targets, "", {})
    with pytest.raises(ValueError, match="must hold 4 images"):
        write_task_set(tmp_path / "set", [chunk], 4, (8, 8), data.targets, "", {})
    assert not list(tmp_path.iterdir())


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    data = squares(4)
    depth = np.array(data.arrays["depth"])
    depth[1, 2, 3] = np.nan
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"depth": depth}, "depth must be finite"),
        ({"depth": depth.astype(np.float64)}, r"depth must be float32 \(4, 16, 16\), got float64"),
        ({"edges": data.arrays["edges"][:3]}, r"edges must be bool \(4, 16, 16\)"),
        ({"segmentation": data.arrays["segmentation"] + np.uint8(3)}, "must be 0 to 2, got"),
    ]
    for change, said in wrong:
        with pytest.raises(ValueError, match=said):
            replace(data, arrays={**data.arrays, **change})
    with pytest.raises(ValueError, match="arrays must be of"):
        replace(data, arrays={"depth": data.arrays["depth"]})
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\)"):
        replace(data, images=data.images[0])


def test_targets_that_are_none_are_refused() -> None:
    kind: Any = "guess"
    for values, said in (
        ((kind,), "kind must be one of"),
        (("classes", ("one",)), "2 names or more"),
        (("values", ("x",)), "no names"),
        (("numbers",), "1 names or more"),
    ):
        with pytest.raises(ValueError, match=said):
            Target(*values)
    for name in ("images", "Depth", "a/b", "", "../x"):
        with pytest.raises(ValueError, match="small letters"):
            TaskSet(squares(1).images, {name: np.zeros(1)}, {name: Target("mask")}, "")


def test_damaged_folders_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no set of tasks in this folder"):
        open_task_set(tmp_path)
    write(tmp_path / "good", squares(4))

    def damaged(change: Any) -> str:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        change(tmp_path / "bad")
        with pytest.raises(ValueError, match=r".+") as caught:
            open_task_set(tmp_path / "bad")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def edited(**values: Any) -> Any:
        def change(folder: Path) -> None:
            document = json.loads((folder / "set.json").read_text())
            (folder / "set.json").write_text(json.dumps({**document, **values}))

        return change

    assert "depth.npy is not there" in damaged(lambda f: (f / "depth.npy").unlink())
    assert "depth.npy is damaged" in damaged(lambda f: (f / "depth.npy").write_bytes(b"x"))
    assert "not JSON" in damaged(lambda f: (f / "set.json").write_text("{"))
    assert "not a set of tasks" in damaged(edited(holds="instances"))
    assert "format must be 1, got 2" in damaged(edited(format=2))
    assert "source must be text" in damaged(edited(source=None))
    assert "not a set of tasks" in damaged(edited(targets={"depth": {"sort": "values"}}))
    assert "at least one task" in damaged(edited(targets={}))
    assert "small letters" in damaged(edited(targets={"../depth": {"kind": "values"}}))


# Batches


def test_mirrored_directions_point_the_other_way() -> None:
    data = squares(6)
    config = MultiTaskTrainConfig(steps=1, **QUICK)
    batches = TaskBatches(data, tiny(), config, torch.device("cpu"))
    plain = TaskBatches(data, tiny(), replace(config, flip=False), torch.device("cpu"))
    images, targets = batches.train(0)
    same, was = plain.train(0)
    flipped = [not torch.equal(a, b) for a, b in zip(images, same, strict=True)]
    assert True in flipped
    assert False in flipped
    for k, turned in enumerate(flipped):
        normals, old = targets["normals"][k], was["normals"][k]
        if turned:
            assert torch.equal(images[k], same[k].flip(-1))
            assert torch.equal(targets["depth"][k], was["depth"][k].flip(-1))
            assert torch.equal(normals[..., 0], -old.flip(1)[..., 0])
            assert torch.equal(normals[..., 1:], old.flip(1)[..., 1:])
        else:
            assert torch.equal(normals, old)
        assert torch.equal(targets["count"][k], was["count"][k])


def test_an_epoch_sees_every_image_once() -> None:
    config = MultiTaskTrainConfig(steps=1, **QUICK)
    batches = TaskBatches(squares(12), tiny(), config, torch.device("cpu"))
    seen = np.concatenate([batches.rows(step) for step in range(6)])
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert batches.statistics["depth"][0] == pytest.approx(0.59, abs=0.02)
    x = torch.arange(8.0).view(2, 2, 2)
    turned = mirrored(x, torch.tensor([True, False]), -1)
    assert turned.tolist() == [[[1, 0], [3, 2]], [[4, 5], [6, 7]]]


# Training


def run(out: Path, steps: int = 6, seed: int = 0, **changes: Any) -> tuple[MultiTaskNet, Any]:
    net = tiny(seed)
    config = MultiTaskTrainConfig(steps=steps, seed=seed, **{**QUICK, **changes})
    return net, train_tasks(net, squares(), squares(seed=1), config, out, progress=False)


def test_measuring_changes_no_weight(tmp_path: Path) -> None:
    plain, without = run(tmp_path / "a")
    methods = ("look-ahead", "first-order")
    net, result = run(tmp_path / "b", affinity_every=2, affinity_methods=methods)
    assert without.losses == result.losses
    assert not without.affinities
    for name, value in plain.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    assert set(result.affinities) == set(methods)
    for measured in result.affinities.values():
        assert measured.measurements == 3
        assert measured.matrix.shape == (5, 5)
        assert 0 < measured.cpu_seconds < result.cpu_seconds
    assert not hasattr(net, "meters")


def test_a_stopped_training_goes_on_bit_by_bit_with_its_affinities(
    tmp_path: Path, monkeypatch
) -> None:
    from perception import multi_task_training as module

    measuring: dict[str, Any] = {"affinity_every": 2, "save_every": 3}
    _, whole = run(tmp_path / "whole", **measuring)

    class StopError(Exception):
        pass

    step = module._Run.step

    def stopping(self: Any, fraction: float) -> Any:
        if self.at.step == 4:
            raise StopError
        return step(self, fraction)

    monkeypatch.setattr(module._Run, "step", stopping)
    with pytest.raises(StopError):
        run(tmp_path / "cut", **measuring)
    monkeypatch.setattr(module._Run, "step", step)
    _, gone_on = run(tmp_path / "cut", **measuring)
    assert gone_on.losses == whole.losses
    first, second = (r.affinities["look-ahead"] for r in (whole, gone_on))
    assert first.measurements == second.measurements == 3
    np.testing.assert_array_equal(first.matrix, second.matrix)


@pytest.mark.learning
def test_a_subset_of_the_tasks_learns(tmp_path: Path) -> None:
    targets = subset(TARGETS, ["segmentation", "count"])
    net = tiny(targets=targets)
    config = MultiTaskTrainConfig(steps=150, flip=False, **{**QUICK, "batch_size": 16})
    data = squares(64)
    before = train_tasks(
        tiny(targets=targets),
        data,
        squares(32, seed=1),
        replace(config, steps=1),
        tmp_path / "one",
        progress=False,
    )
    result = train_tasks(net, data, squares(32, seed=1), config, tmp_path / "run", progress=False)
    assert set(result.losses) == set(result.errors) == {"segmentation", "count"}
    assert result.losses["segmentation"] < 0.5 * before.losses["segmentation"]
    assert result.errors["count"] < 0.5 * before.errors["count"]


def test_trainings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"norm_batches": -1}, "norm_batches must be at least 0"),
        ({"affinity_every": -1}, "affinity_every must be at least 0"),
        ({"precision": "half"}, "precision must be auto"),
        ({"affinity_methods": ()}, "affinity_methods must be of look-ahead, first-order"),
        ({"affinity_methods": ("guess",)}, "affinity_methods must be of"),
        ({"return_temperature": 1.0}, "images have no return"),
    ]
    for values, said in wrong:
        with pytest.raises(ValueError, match=said):
            MultiTaskTrainConfig(steps=1, **values)
    config = MultiTaskTrainConfig(steps=1, **QUICK)
    few = squares(tasks=("depth", "count"))
    with pytest.raises(ValueError, match="must have the task segmentation"):
        train_tasks(tiny(), squares(), few, config, tmp_path / "run", progress=False)
    one = tiny(targets=subset(TARGETS, ["depth"]))
    with pytest.raises(ValueError, match="at least 2 tasks, got 1"):
        train_tasks(one, squares(), squares(), replace(config, affinity_every=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
