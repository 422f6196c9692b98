"""Multi-task networks on disk: who serves what, answers in units, and what is refused."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_cases import TARGETS, saved, squares, tiny

from learning.checkpoint import CheckpointError
from perception.checkpoint import SavedClassifier, image_tensor
from perception.multi_task import subset
from perception.multi_task_checkpoint import METHOD, load_tasks, save_tasks
from perception.multi_task_networks import FlatTasks, TaskNetworks, check_groups, unflatten
from perception.multi_task_set import Target

PICTURES = squares(3).images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints") / "small"
    save_tasks(made, saved(scores={"images": 3}), "# For tests\n")
    return made


# Networks beside each other


def test_each_task_is_answered_by_the_network_that_serves_it() -> None:
    pair = [tiny(1, subset(TARGETS, ("segmentation", "count"))), tiny(2)]
    serves = {"count": 1, "segmentation": 0, "depth": 1, "normals": 1, "edges": 1}
    both = TaskNetworks(pair, serves).eval()
    assert both.groups == (("segmentation", "count"), tuple(TARGETS))
    assert both.served(0) == ("segmentation",)
    images = torch.randn(2, 3, 16, 16)
    told = both(images)
    assert list(told) == list(serves)
    for task, k in serves.items():
        torch.testing.assert_close(told[task], pair[k].eval()(images)[task])
    assert not torch.equal(told["count"], pair[0](images)["count"])


def test_only_heads_that_are_asked_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny()
    told = net(torch.randn(1, 3, 16, 16), ["edges", "count"])
    assert list(told) == ["edges", "count"]
    monkeypatch.setattr(net.heads["depth"], "forward", lambda *words: 1 / 0)
    net(torch.randn(1, 3, 16, 16), ["edges"])
    with pytest.raises(ZeroDivisionError):
        net(torch.randn(1, 3, 16, 16))


def test_every_parameter_of_a_served_task_gets_a_gradient_and_no_other() -> None:
    model = saved().model.train()
    told = model(torch.randn(4, 3, 16, 16))
    sum(one.square().mean() for one in told.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    groups = (("segmentation", "count"), ("depth", "normals", "edges", "count"))
    model = saved(groups).model
    sum(one.square().mean() for one in model(torch.randn(4, 3, 16, 16)).values()).backward()  # type: ignore[union-attr]
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert idle
    assert all(name.startswith("networks.1.heads.count.") for name in idle)


def test_rows_are_cut_back_into_what_was_put_in() -> None:
    one = saved()
    images = one.tensor(PICTURES)
    with torch.inference_mode():
        rows, told = FlatTasks(one.model)(images), one.model(images)
    assert rows.shape == (3, (3 + 1 + 3 + 1) * 256 + 1)
    for task, output in unflatten(rows, one.targets, one.size).items():
        assert torch.equal(output, told[task])
    with pytest.raises(ValueError, match=r"rows must be \(B, 2049\), got \(3, 2048\)"):
        unflatten(rows[:, 1:], one.targets, one.size)


@pytest.mark.parametrize(
    ("groups", "serves", "said"),
    [
        ([], {}, "1 to 64 networks, got 0"),
        ([("a",)], {"a": 1}, "a must be served by one of 1 networks, got 1"),
        ([("a",)], {"a": True}, "served by one of 1 networks, got True"),
        ([("a",), ("b", "c")], {"a": 1, "b": 1}, "a is served by network 1, which has b, c"),
        ([("a",), ("a", "b")], {"a": 0}, r"network 1 \(a\+b\) serves no task; leave it out"),
    ],
)
def test_groups_that_serve_otherwise_than_they_say_are_refused(
    groups: Any, serves: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        check_groups(groups, serves)


# Answers


def test_answers_are_as_by_hand() -> None:
    one = saved()
    logit = math.log(3.0)
    outputs = {
        "segmentation": torch.tensor([[[[0.0, 1.0]], [[2.0, 0.5]], [[1.0, 3.0]]]]),
        "depth": torch.tensor([[[[0.0, -2.0]]]]),
        "normals": torch.tensor([[[[0.0, 3.0]], [[0.0, 0.0]], [[-2.0, -4.0]]]]),
        "edges": torch.tensor([[[[logit, -logit]]]]),
        "count": torch.tensor([[3.0]]),
    }
    told = one.read(outputs)
    assert told["segmentation"].tolist() == [[[1, 2]]]
    assert told["segmentation"].dtype == np.uint8
    # 0.55 m on average, a deviation of 0.05.
    np.testing.assert_allclose(told["depth"], [[[0.55, 0.45]]], rtol=1e-6)
    np.testing.assert_allclose(told["normals"], [[[[0, 0, -1], [0.6, 0, -0.8]]]], rtol=1e-6)
    np.testing.assert_allclose(told["edges"], [[[0.75, 0.25]]], rtol=1e-6)
    np.testing.assert_allclose(told["count"], [[3.0]], rtol=1e-6)
    assert {told[task].dtype for task in ("depth", "normals", "edges", "count")} == {
        np.dtype(np.float32)
    }


def test_extreme_logits_are_certain_without_a_warning() -> None:
    one = saved()
    outputs = {task: out.clone() for task, out in one.model(one.tensor(PICTURES)).items()}
    outputs["edges"] = torch.full((3, 1, 16, 16), -1e30)
    assert one.read(outputs)["edges"].max() < 1e-6
    outputs["normals"] = torch.zeros(3, 3, 16, 16)
    assert not one.read(outputs)["normals"].any()  # a network that points nowhere


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 2))
def test_pictures_of_any_size_have_answers_of_one_size(height: int, width: int, n: int) -> None:
    rng = np.random.default_rng(height * 41 + width)
    told = ONE.ask(rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8))
    shapes = {task: answer.shape for task, answer in told.items()}
    assert shapes.pop("count") == (n, 1)
    assert shapes.pop("normals") == (n, 16, 16, 3)
    assert set(shapes.values()) == {(n, 16, 16)}
    np.testing.assert_allclose(np.linalg.norm(told["normals"], axis=-1), 1, rtol=1e-4)


ONE = saved()


def test_images_are_brought_to_the_networks_as_to_classifiers() -> None:
    one = saved()
    classes = {"kind": ("a", "b")}
    other = SavedClassifier(torch.nn.Identity(), "", {}, classes, one.size, one.mean, one.std)
    assert torch.equal(one.tensor(PICTURES), other.tensor(PICTURES))
    whole = image_tensor(PICTURES, (16, 16), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(whole.permute(0, 2, 3, 1).numpy() * 255, PICTURES, atol=1e-3)


def test_pictures_and_outputs_that_cannot_be_are_refused() -> None:
    nan = np.full((1, 4, 4, 3), np.nan, np.float32)
    for pictures, said in (
        (nan, "must be finite"),
        (PICTURES[0], "single image takes images"),
        (PICTURES[..., :1], r"must be \(B, H, W, 3\)"),
        (np.zeros((1, 0, 4, 3), np.uint8), "must have pixels"),
        (PICTURES.astype(np.float32), "must be from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=said):
            ONE.ask(pictures)
    told = ONE.model(ONE.tensor(PICTURES))
    for task, output, said in (
        ("depth", told["depth"] * math.nan, "depth must be finite"),
        ("depth", told["depth"][:, 0], r"depth must be \(B, 1, H, W\)"),
        ("count", told["depth"], r"count must be \(B, 1\)"),
        ("segmentation", told["normals"][:, :2], r"segmentation must be \(B, 3, H, W\)"),
    ):
        with pytest.raises(ValueError, match=said):
            ONE.read({**told, task: output})
    with pytest.raises(ValueError, match="edges is missing"):
        ONE.read({task: output for task, output in told.items() if task != "edges"})


# On disk


def test_what_is_saved_comes_back_and_says_the_same(folder: Path) -> None:
    one, other = saved(scores={"images": 3}), load_tasks(folder)
    for name in ("size", "mean", "std", "statistics", "scores", "targets"):
        assert getattr(other, name) == getattr(one, name)
    assert other.model.groups == one.model.groups
    assert list(other.model.serves.items()) == list(one.model.serves.items())
    assert not other.model.training
    told, expected = other.ask(PICTURES), one.ask(PICTURES)
    for task in TARGETS:
        np.testing.assert_array_equal(told[task], expected[task])


def test_a_task_may_be_learned_by_one_network_and_served_by_another(tmp_path: Path) -> None:
    groups = (("depth", "normals", "edges", "count"), ("segmentation", "count"))
    serves = {"segmentation": 1, "depth": 0, "normals": 0, "edges": 0, "count": 1}
    save_tasks(tmp_path / "a", saved(groups, serves), "")
    other = load_tasks(tmp_path / "a")
    assert other.model.groups == groups
    assert other.model.serves == serves
    other = load_tasks_after(tmp_path / "a", lambda told: told["config"]["serves"].pop("count"))
    assert "count" not in other.targets


def load_tasks_after(folder: Path, change: Callable[[Any], Any]) -> Any:
    path = folder / "config.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    return load_tasks(folder)


def put(*place: Any) -> Callable[[Any], None]:
    """Set a value of the document; the last of the words."""

    def change(told: Any) -> None:
        *way, key, value = place
        for step in way:
            told = told[step]
        told[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("method", "classifier"), f"holds 'classifier', not a {METHOD}"),
        (put("config", {}), "must hold 'networks'"),
        (put("config", "networks", {}), "networks must be a list"),
        (put("config", "networks", [{}] * 65), "at most 64"),
        (put("config", "networks", 0, 7), "not the config of a multi-task network"),
        (put("config", "networks", 0, "backbone", "resnet"), "backbone must be one of"),
        (put("config", "networks", 0, "width", "wide"), "invalid literal"),
        (put("config", "networks", 0, "backbone_options", "depth", 2), "tensors missing"),
        (put("config", "networks", 0, "tasks", ["weight"]), "must hold 'weight'"),
        (put("config", "serves", "depth", 0), "depth is served by network 0"),
        (put("config", "serves", "depth", 7), "depth must be served by one of 2 networks"),
        (put("config", "serves", []), "not the config of a multi-task network"),
        (put("spec", "targets", "depth", {"kind": "metres"}), "kind must be one of"),
        (put("spec", "targets", "depth", {"colour": 1}), "unexpected keyword"),
        (put("spec", "targets", "count", {"kind": "numbers", "names": ["a", "b"]}), "must be"),
        (put("spec", "size", [16]), "size must be a height and a width"),
        (put("spec", "size", [16, 10**9]), "size must be a height and a width"),
        (put("spec", "std", [1, 0, 1]), "std must be positive"),
        (put("spec", "mean", [0.5]), "mean and std must have a number for each channel"),
        (put("spec", "statistics", {}), "statistics of depth must be a mean and a deviation"),
        (put("spec", "statistics", "depth", [0, 0]), "positive deviation"),
        (put("spec", "statistics", "depth", "ab"), "must be a mean and a deviation"),
        (put("spec", 3), "'spec' must be a dict"),
    ],
)
def test_broken_folders_are_refused_in_one_line(
    folder: Path, tmp_path: Path, change: Callable[[Any], None], said: str
) -> None:
    save_tasks(tmp_path / "x", load_tasks(folder), "")
    with pytest.raises(CheckpointError) as caught:
        load_tasks_after(tmp_path / "x", change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to all values of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*way, key)
        if isinstance(item, dict | list):
            yield from places(item, (*way, key))


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.data())
def test_documents_with_any_value_replaced_are_read_or_refused(
    folder: Path, tmp_path: Path, data: st.DataObject
) -> None:
    if not (tmp_path / "x").exists():
        shutil.copytree(folder, tmp_path / "x")
    told = json.loads((folder / "config.json").read_text())
    way = data.draw(st.sampled_from(list(places(told))))
    odd = [None, True, -1, 0, 1.5, "", "depth", [], [1], [[]], {}, {"a": []}]
    put(*way, data.draw(st.sampled_from(odd)))(told)
    (tmp_path / "x" / "config.json").write_text(json.dumps(told))
    try:
        one = load_tasks(tmp_path / "x")
    except CheckpointError as error:
        line = str(error)
    else:
        one.ask(PICTURES)
        line = ""
    assert "\n" not in line


def test_names_that_are_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a shipped multi-task network"):
        load_tasks("absent")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_tasks(tmp_path)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    one = saved()
    other = saved()
    with torch.no_grad():
        next(other.model.parameters()).fill_(math.nan)
    with pytest.raises(CheckpointError, match="NaN"):
        save_tasks(tmp_path / "a", other, "")
    net: Any = one.model.networks[0]
    net.heads["edges"].mix[3] = torch.nn.Conv2d(4, 2, 1)
    with pytest.raises(CheckpointError, match="other names or shapes"):
        save_tasks(tmp_path / "a", one, "")
    assert not (tmp_path / "a").exists()


def test_tasks_that_cannot_be_answered_are_refused() -> None:
    with pytest.raises(ValueError, match="three channels"):
        saved(mean=(0.5,), std=(1.0,))
    net = tiny(targets={"kind": Target("classes", tuple(map(str, range(257))))})
    with pytest.raises(ValueError, match="at most 256 classes"):
        replace(saved(), model=TaskNetworks([net], {"kind": 0}))
