"""`decisive train tasks`: the groups it takes, its checkpoint and card, and what it refuses."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_cases import TARGETS, squares, write

from decisive import cli
from decisive.task_groups import TaskGroups, groups_of_affinity, read_groups
from decisive.train_tasks import score_lines
from perception.multi_task import MultiTaskConfig, MultiTaskNet, subset
from perception.multi_task_checkpoint import load_tasks
from perception.multi_task_training import MultiTaskTrainConfig, train_tasks

STUDY = Path(__file__).parents[1] / "docs" / "benchmarks" / "task-groups"
ALL = STUDY / "segmentation+depth+normals+edges+count-0.json"
GROUPS = "segmentation+edges,depth+normals+count"

# As the network of the other tests: a step takes milliseconds.
SMALL = ("--backbone", "vit_micro", "--set-model", "width=4")
for _setting in ("patch=4", "image=16", "depth=1", "width=16", "heads=2"):
    SMALL += ("--set-model", f"backbone_options.{_setting}")
QUICK = ("device=cpu", "tensorboard=false", "batch_size=4", "norm_batches=1")


# Groups


def test_groups_are_read_from_words_and_the_first_serves() -> None:
    told = read_groups("segmentation+edges, count ,depth+count")
    assert told.groups == (("segmentation", "edges"), ("count",), ("depth", "count"))
    assert told.serves == {"segmentation": 0, "edges": 0, "count": 1, "depth": 2}


def test_groups_are_read_from_what_group_tasks_prints(tmp_path: Path, capsys) -> None:
    assert cli.main(["group-tasks", str(ALL), "--groups", "3", "--json"]) == 0
    path = tmp_path / "groups.json"
    path.write_text(capsys.readouterr().out)
    told = read_groups(str(path))
    assert told == TaskGroups(
        (("segmentation", "edges"), ("depth", "normals", "count"), ("segmentation", "count")),
        {"segmentation": 0, "depth": 1, "normals": 1, "edges": 0, "count": 2},
        "chosen by decisive group-tasks",
    )
    chosen = groups_of_affinity(str(ALL), 3, "zero")
    assert (chosen.groups, chosen.serves) == (told.groups, told.serves)
    assert "at most 3 networks" in chosen.source
    alone = groups_of_affinity(str(ALL), 5, "diagonal")
    assert set(alone.groups) == {(task,) for task in TARGETS}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "must be tasks joined by"),
        ("a+,b", "must be tasks joined by"),
        ("a,,b", "must be tasks joined by"),
        ("a+a", r"different tasks, got 'a\+a'"),
        ("a+b,b+a", "two are the same"),
        ("a+b,b", "b would serve nothing"),
    ],
)
def test_groups_that_cannot_be_are_refused(words: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_groups(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "groups.json: "),
        ("[]", 'must hold "groups" and "served_by"'),
        ('{"groups": [["a"]]}', 'must hold "groups" and "served_by"'),
        ('{"groups": [["a"]], "served_by": {"a": 1}}', "must be served by one of the groups"),
        ('{"groups": [["a"]], "served_by": {"b": 0}}', "served by a, which lacks it"),
        ('{"groups": [["a"]], "served_by": {}}', "a is served by no group"),
    ],
)
def test_files_that_hold_no_groups_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_groups(str(path))
    assert "\n" not in str(caught.value)


# The verb


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    place = tmp_path_factory.mktemp("sets")
    train = write(place / "train", squares(16))
    return "--data", train, "--held-out", write(place / "held", squares(6, seed=1))


def train(sets: tuple[str, ...], out: Path, *words: str, small: tuple[str, ...] = SMALL) -> int:
    quick = [word for one in QUICK for word in ("--set-train", one)]
    return cli.main(["train", "tasks", *sets, "--out", str(out), *small, *quick, *words])


@pytest.mark.learning
def test_the_verb_writes_a_checkpoint_with_a_card(sets, tmp_path: Path, capsys) -> None:
    assert train(sets, tmp_path, "--groups", GROUPS, "--steps", "3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    one = load_tasks(tmp_path)
    assert told["folder"] == str(tmp_path / "last")
    assert told["steps"] == [3, 3]
    assert one.model.groups == (("segmentation", "edges"), ("depth", "normals", "count"))
    assert one.model.serves == told["serves"] == {
        "segmentation": 0, "edges": 0, "depth": 1, "normals": 1, "count": 1,
    }  # fmt: skip
    assert one.targets == TARGETS
    assert one.size == (16, 16)
    assert one.scores == told["scores"]
    assert one.scores["images"] == 6
    # Scores are those of what was saved, on the held-out pictures.
    held = squares(6, seed=1)
    answers = one.ask(held.images)
    wrong = (answers["segmentation"] != held.arrays["segmentation"]).mean()
    assert one.scores["tasks"]["segmentation"]["error"] == pytest.approx(wrong, abs=1e-3)
    off = np.abs(answers["depth"] - held.arrays["depth"]).mean()
    assert one.scores["tasks"]["depth"]["error"] == pytest.approx(off, rel=1e-3)
    card = (tmp_path / "last" / "README.md").read_text()
    for said in ("decisive train tasks", "Limits", "synthetic", "16 synthetic images"):
        assert said in card
    assert "- depth, normals, count: vit_micro" in card
    assert all(line in card for line in score_lines(one.scores))


@pytest.mark.learning
def test_networks_are_those_of_their_own_trainings(sets, tmp_path: Path) -> None:
    assert train(sets, tmp_path / "a", "--groups", GROUPS, "--steps", "3", "--seed", "2") == 0
    one: Any = load_tasks(tmp_path / "a").model.networks[1]
    torch.manual_seed(2)
    options = {"patch": 4, "image": 16, "depth": 1, "width": 16, "heads": 2}
    net = MultiTaskNet(
        MultiTaskConfig("vit_micro", options, 4), subset(TARGETS, ("depth", "normals", "count"))
    )
    config = MultiTaskTrainConfig(
        steps=3, seed=2, device="cpu", tensorboard=False, batch_size=4, norm_batches=1
    )
    train_tasks(net, squares(16), squares(6, seed=1), config, tmp_path / "b")
    for name, value in net.state_dict().items():
        assert torch.equal(one.state_dict()[name], value), name


@pytest.mark.learning
def test_a_second_call_goes_on_and_networks_are_shared_by_choices(
    sets, tmp_path: Path, capsys
) -> None:
    words = ("--groups", GROUPS, "--steps", "2")
    assert train(sets, tmp_path, *words) == 0
    first = capsys.readouterr().out
    assert "network 2 of 2: depth+normals+count" in first
    assert "4 steps in" in first
    tensors = (tmp_path / "last" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "last")
    shutil.rmtree(tmp_path / "networks" / "segmentation+edges")  # as if stopped in between
    assert train(sets, tmp_path, *words) == 0
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == tensors
    capsys.readouterr()
    assert train(sets, tmp_path, "--groups", GROUPS, "--steps", "3") == 2
    assert "holds a run with other config" in capsys.readouterr().err
    # The second choice takes up the network that both have.
    assert train(sets, tmp_path, "--groups", "depth+normals+count,edges", "--steps", "2") == 0
    assert load_tasks(tmp_path).model.groups == (("depth", "normals", "count"), ("edges",))
    assert train(sets, tmp_path, "--groups", GROUPS, "--steps", "1", "--fresh") == 0


@pytest.mark.learning
def test_affinities_choose_the_groups(sets, tmp_path: Path, capsys) -> None:
    words = ("--affinity", str(ALL), "--networks", "3", "--cpu-minutes", "0.001")
    assert train(sets, tmp_path, *words) == 0
    assert "network 3 serves count (learned beside segmentation)" in capsys.readouterr().out
    one = load_tasks(tmp_path)
    assert one.model.serves == {"segmentation": 0, "depth": 1, "normals": 1, "edges": 0, "count": 2}
    card = (tmp_path / "last" / "README.md").read_text()
    assert "Groups: chosen by affinities for at most 3 networks" in card
    assert "- count (learned beside segmentation): vit_micro" in card


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say which tasks share a network"),
        (("--groups", "a", "--affinity", "m.json", "--networks", "2"), "say which tasks share"),
        (("--affinity", "m.json"), "--affinity and --networks go together"),
        (("--groups", "depth", "--networks", "2"), "--affinity and --networks go together"),
        (("--affinity", "absent.json", "--networks", "2"), "absent.json"),
        (("--groups", "absent.json"), "absent.json"),
        (("--groups", "depth+smell"), "unknown task 'smell'; known: segmentation, depth"),
        (("--groups", "depth,depth"), "two are the same"),
        (("--groups", "depth", "--steps", "0"), "steps must be positive"),
        (("--groups", "depth", "--set-model", "depth=3"), "settings of the networks do not fit"),
        (("--groups", "depth", "--set-model", "width=0"), "width must be at least 1"),
        (("--groups", "depth", "--set-train", "speed=3"), "unknown training setting"),
        (("--groups", "depth", "--backbone", "resnet"), "backbone must be one of"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(sets, tmp_path: Path, capsys, words, said) -> None:
    small = () if "--backbone" in words or "depth=3" in words else SMALL
    assert train(sets, tmp_path / "run", *words, small=small) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run" / "last").exists()


def test_folders_that_are_no_sets_are_refused(sets, tmp_path: Path, capsys) -> None:
    words = ["--data", str(tmp_path), *sets[2:], "--groups", "depth", "--out", str(tmp_path / "x")]
    assert cli.main(["train", "tasks", *words]) == 2
    assert "no set of tasks in this folder" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_training_of_the_study_without_affinities_is_refused(tmp_path: Path, capsys) -> None:
    for told in ({"affinities": {}}, {"affinities": []}, {"affinities": {"look-ahead": {}}}):
        path = tmp_path / "cell.json"
        path.write_text(json.dumps({"plan": {"tasks": ["a", "b"]}, **told}))
        assert cli.main(["group-tasks", str(path), "--groups", "1"]) == 2
        assert "no look-ahead was measured in this training" in capsys.readouterr().err
