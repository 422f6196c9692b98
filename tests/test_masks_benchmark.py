"""The benchmark of mask heads: sizes by count, IoUs by hand, intervals, cells and what lacks."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from segmenter_cases import Scenes, discs, tiny
from torch import Tensor, nn

from decisive import cli
from decisive.benchmarks import masks_cells, masks_report
from decisive.benchmarks.masks import fits
from decisive.benchmarks.masks_arms import (
    CORE,
    FULL,
    HEADS,
    JITTER,
    QUALITIES,
    Arm,
    Cell,
    CocoArm,
    arms,
    build,
    config_of,
    masked_classes,
)
from decisive.benchmarks.masks_cells import InMemory, compact, head_size
from decisive.benchmarks.masks_intervals import Estimate, combined, scene_draws
from decisive.benchmarks.masks_picture import curve, picture, shown_arms
from decisive.benchmarks.masks_scores import (
    Given,
    box_quality,
    class_iou,
    conditions,
    filled_ious,
    instance_ious,
    stored,
)
from learning.instance_set import Scene
from perception.deep_mac.crops import crop_boxes
from perception.deep_mac.evaluation import iou_by_box_quality
from perception.deep_mac.instances import Segmenter

DEEP, SHALLOW = (Arm("deep-mac", "half", "ground-truth", h) for h in ("hourglass-52", "resnet-4"))


def plain(images: Tensor) -> Tensor:
    return images


# Arms


def test_shallow_heads_are_as_large_as_a_deep_one_by_count() -> None:
    deep, wide, widest = (
        head_size(n) for n in ("hourglass-20", "resnet-4-wide", "resnet-4-widest")
    )
    assert wide["multiply_adds"] == pytest.approx(deep["multiply_adds"], rel=0.01)
    assert widest["parameters"] == pytest.approx(deep["parameters"], rel=0.01)
    # Counted here again, layer by layer: 50 x 25, then 25 x 50 and three of 50 x 50 of 3 x 3, the
    # projected shortcut, and the last 1 x 1, for 32 x 32 cells.
    by_hand = 50 * 25 + 9 * (25 * 50 + 3 * 50 * 50) + 25 * 50 + 50
    assert wide["multiply_adds"] == 1024 * by_hand


def test_the_full_form_begins_with_the_core_form_and_every_name_is_one_cells() -> None:
    core, full = arms(), arms(full=True)
    assert full[: len(core)] == core
    assert len({arm.name for arm in full}) == len(full) > len(core)
    heads = {arm.head for arm in core if isinstance(arm, Arm) and arm.detector == "deep-mac"}
    assert heads == {"resnet-4", "resnet-4-wide", "hourglass-20", "hourglass-52"}
    for crops in ("ground-truth", "proposal"):
        for head in heads:
            assert Arm("deep-mac", "half", cast(Any, crops), head) in core
    assert all(arm.source in core for arm in core if isinstance(arm, CocoArm))


def test_every_detector_can_be_built_with_every_head() -> None:
    kinds = {(getattr(arm, "detector", "coco"), arm.head): arm for arm in arms(full=True)}
    assert len(kinds) == 3 * len(HEADS)
    for arm in kinds.values():
        with torch.device("meta"):
            model: Any = build(arm, 14, seed=0)
        assert model.config.head == HEADS[arm.head]
        assert model.config.n_classes == 14


def test_halves_share_no_class_and_leave_none_out() -> None:
    names = ("a", "b", "c", "d", "e")
    assert masked_classes(names, "half") == ("a", "c", "e")
    assert masked_classes(names, "other-half") == ("b", "d")
    assert masked_classes(names, "all") == names
    config = config_of(Cell(replace(DEEP, jitter=JITTER), 2), CORE, names)
    assert (config.masked_classes, config.masks.jitter, config.seed) == (("a", "c", "e"), JITTER, 2)
    assert config_of(Cell(CocoArm("random", "resnet-4"), 0), FULL, names).steps == FULL.coco_steps


def test_plans_hold_what_decides_and_no_more() -> None:
    scenes, photographs = Cell(DEEP, 0), Cell(CocoArm("random", "resnet-4"), 0)
    after = Cell(CocoArm("scenes", "resnet-4"), 0)
    for change, told in (
        ({"steps": 7}, (True, False, True)),
        ({"coco_size": 64}, (False, True, True)),
        ({"test_scenes": 7}, (True, False, False)),
    ):
        other = replace(CORE, **change)
        found = [c.plan(other) != c.plan(CORE) for c in (scenes, photographs, after)]
        assert tuple(found) == told, change


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("deep-mac", True), ("deep-mac/half/*", True), ("*/0", True), ("deep", False), ("*/1", False)],
)
def test_cells_are_named_by_patterns_and_beginnings(pattern: str, told: bool) -> None:
    assert fits("deep-mac/half/ground-truth/resnet-4/0", pattern) == told


# IoU in given boxes


class Bright(nn.Module):
    """Masks are what is bright in a box."""

    config: Any = None
    mask_size, stride = 64, 1

    def features(self, images: Tensor) -> Tensor:
        return images

    def masks(self, features: Tensor, boxes: Tensor, image_index: Tensor) -> Tensor:
        brightest = features.amax(1, keepdim=True)
        return 40 * (crop_boxes(brightest, boxes, image_index, 1, self.mask_size)[:, 0] - 0.5)


def apart() -> Scenes:
    """Two white rectangles far apart on black."""
    image = np.zeros((48, 48, 3), np.uint8)
    masks = np.zeros((2, 48, 48), bool)
    masks[0, 8:18, 6:22] = masks[1, 30:42, 30:38] = True
    image[masks.any(0)] = 255
    return Scenes([Scene.from_masks(image, masks, np.array([2, 0]))])


def test_ious_are_those_whose_means_box_quality_gives() -> None:
    model, scenes = tiny().eval(), discs(10)
    qualities = (0.8, 0.5)
    given = conditions(qualities)
    assert given.count(Given()) == 1
    ious = instance_ious(cast(Segmenter, model), plain, scenes, given, batch_size=4)
    expected = iou_by_box_quality(
        cast(Segmenter, model), plain, scenes, ("blue",), qualities=qualities, batch_size=8
    )
    kinds = np.concatenate([scene.classes for scene in scenes])
    told = box_quality(ious, lambda values: class_iou(values, kinds, scenes.classes, ("blue",)))
    assert set(told) == {"loosened", "shifted", "refined"}
    for manner in ("loosened", "shifted"):
        for quality, means in told[manner].items():
            assert means == pytest.approx(expected[manner][quality], abs=1e-6)
    assert list(told["refined"]) == ["1.0", "0.8", "0.5"]


def test_refined_boxes_are_tight_where_masks_are_right() -> None:
    given = [Given(), Given("loosened", 0.5), Given("loosened", 0.5, 1), Given("shifted", 0.5)]
    told = instance_ious(cast(Segmenter, Bright()), plain, apart(), given)
    assert set(told) == set(given)
    assert told[given[0]].min() > 0.99
    assert told[given[2]].min() > 0.95
    # Half of the union lies in a shifted box at least, and never all of it.
    assert told[given[3]].max() < 0.9


def test_filled_boxes_and_class_means_by_hand() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :4, :4] = masks[1, 0, 5] = masks[1, 3, 6] = masks[2, 6, :] = True
    scene = Scene.from_masks(image, masks, np.array([0, 0, 2]))
    filled = filled_ious(Scenes([scene]))
    assert filled.tolist() == [1, 0.25, 1]
    kinds = scene.classes
    assert class_iou(filled, kinds, ("a", "b", "c"), ("c",)) == {"seen": 0.625, "unseen": 1}
    assert class_iou(filled, kinds, ("a", "b", "c"), ("b",)) == {"seen": 0.8125}


def test_single_instances_are_kept_in_few_words() -> None:
    scenes = apart()
    told = stored({Given(): np.array([0.12345, 1.0])}, InMemory(scenes))
    assert told == {"per_scene": [2], "class": [2, 0], "iou_per_mille": [123, 1000]}
    text = compact({"a": told, "b": [], "text": "as it is"})
    assert json.loads(text) == {"a": told, "b": [], "text": "as it is"}
    assert '"iou_per_mille": [ 123, 1000 ]' in text


# Intervals


def result(values: Sequence[float], kinds: Sequence[int] = (0, 0, 1, 1), **changes: Any) -> Any:
    """Of two scenes with two instances each; class `b` has no masks in training."""
    ious, classes = np.array(values), np.array(kinds)
    mean = class_iou(ious, classes, ("a", "b"), ("b",))
    curves = {str(q): {part: iou * q for part, iou in mean.items()} for q in (1.0, *QUALITIES)}
    return {
        "given_boxes": mean,
        "found": {"box_ap": 0.5, "mask_ap_seen": 0.4, "mask_ap_unseen": 0.3},
        "by_box_quality": dict.fromkeys(("loosened", "refined", "shifted"), curves),
        "instances": {
            "per_scene": [2, 2],
            "class": list(kinds),
            "iou_per_mille": [round(1000 * value) for value in values],
        },
        "classes": ["a", "b"],
        "unseen": ["b"],
        "head": {"parameters": 10, "multiply_adds": 34_000_000},
        "cpu_seconds": 60.0,
        "total_cpu_seconds": 120.0,
        **changes,
    }


def test_two_seeds_have_students_interval_of_paired_differences() -> None:
    results = {
        Cell(DEEP, 0): result([0.5, 0.7, 0.8, 0.6]),
        Cell(DEEP, 1): result([0.5, 0.7, 0.9, 0.7]),
        Cell(SHALLOW, 0): result([0.5, 0.7, 0.6, 0.6]),
        Cell(SHALLOW, 1): result([0.5, 0.7, 0.6, 0.8]),
        Cell(SHALLOW, 2): result([0.1, 0.1, 0.1, 0.1]),  # of a seed that only one has
    }
    found = combined(results, {DEEP: 1.0, SHALLOW: -1.0}, "unseen")
    assert found is not None
    # .7 - .6 and .8 - .7: twice the same, so no spread.
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.seeds == 2
    results[Cell(DEEP, 1)] = result([0.5, 0.7, 1.0, 1.0])
    wide = combined(results, {DEEP: 1.0, SHALLOW: -1.0}, "unseen")
    assert wide is not None
    assert wide.low is not None
    # Differences of .1 and .3: a mean of .2, a half of 12.706 x .1.
    assert (wide.mean, wide.low) == pytest.approx((0.2, 0.2 - 1.2706), abs=1e-3)


def test_one_seed_has_an_interval_over_its_scenes_and_says_so() -> None:
    # A class in each scene: a draw holds both scenes, or one of them twice.
    cell = result([0.5, 0.5, 0.9, 0.7], (0, 1, 0, 1))
    draws = scene_draws([(1.0, cell)], "unseen")
    assert {round(value, 3) for value in draws.tolist()} == {0.5, 0.6, 0.7}
    assert np.mean(draws == 0.5) == pytest.approx(0.25, abs=0.03)
    results = {Cell(DEEP, 0): cell, Cell(SHALLOW, 0): cell}
    own = combined(results, {DEEP: 1.0}, "unseen")
    assert own == Estimate(0.6, 0.5, 0.7, 1)
    assert own is not None
    assert own.text() == "60.0 [50.0, 70.0]*"
    same = combined(results, {DEEP: 1.0, SHALLOW: -1.0}, "seen")
    assert same == Estimate(0, 0, 0, 1)  # the same scenes are drawn for both
    assert combined({**results, Cell(SHALLOW, 0): None}, {DEEP: 1.0, SHALLOW: -1.0}, "seen") is None


def test_tables_say_what_was_not_run() -> None:
    results: dict[Cell, Any] = {Cell(arm, 0): None for arm in arms()}
    results[Cell(DEEP, 0)] = result([0.5, 0.7, 0.8, 0.6])
    told = {table.title: table for table in masks_report.tables(results)}
    for table in told.values():
        assert all(len(row) == len(table.header) for row in table.rows), table.title
    rows = {tuple(row[:4]): row[4:] for row in told["Heads, crops and classes"].rows}
    own = rows["deep-mac", "half", "true", "hourglass-52"]
    assert own == ["1", "60.0", "70.0", "40.0", "30.0", "50.0", "34", "60"]
    others = [row for row in rows.values() if row != own]
    assert len(others) > 10
    assert all(row[:2] == ["0", "not run"] for row in others)
    assert all(row[2] == "not run" for row in told["Differences"].rows)
    curve_rows = [row for row in told["IoU by the quality of given boxes"].rows if row[4] == "1"]
    assert [row[3] for row in curve_rows] == ["loosened", "refined", "shifted"]
    assert curve_rows[0][5:] == ["70.0", "63.0", "56.0", "49.0", "42.0", "35.0"]


def test_the_picture_shows_the_ends_of_depth_that_were_run() -> None:
    results = {Cell(DEEP, 0): result([0.5, 0.7, 0.8, 0.6]), Cell(SHALLOW, 0): None}
    assert shown_arms(results) == [DEEP]
    cells = [results[Cell(DEEP, 0)], result([0.5, 0.7, 0.6, 0.4])]
    assert curve(cells, "loosened", "unseen")[:2] == pytest.approx([60, 54])
    assert picture(results).startswith(b"\x89PNG")
    assert picture({Cell(DEEP, 0): None}) == b""


# The command


def words(tmp_path: Path, *more: str) -> list[str]:
    trial = ["--steps", "1", "--scenes", "2", "--test-scenes", "2", "--seeds", "1"]
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    return ["benchmark", "masks", *trial, *places, *more]


def photographs(folder: Path) -> None:
    """Two splits of a picture with a square and a triangle."""
    (folder / "coco128").mkdir(parents=True)
    (folder / "coco128" / "names.yaml").write_text("names:\n  1: square\n  2: triangle\n")
    for split in ("train2017", "val2017"):
        for kind in ("images", "labels"):
            (folder / "coco128" / kind / split).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "coco128" / "images" / split / "1.jpg")
        lines = "1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n2 0.5 0.5 0.9 0.5 0.7 0.9\n"
        (folder / "coco128" / "labels" / split / "1.txt").write_text(lines)


@pytest.mark.learning
def test_cells_are_trained_scored_kept_and_reported(tmp_path: Path, capsys, monkeypatch) -> None:
    photographs(tmp_path / "data")
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path / "data"))
    assert cli.main(words(tmp_path, "--only", "coco/scenes/resnet-4/0", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    # What it starts from was trained first, and kept too.
    assert (told["done"], told["recipe"]["coco_steps"]) == (2, 1)
    found = json.loads((tmp_path / "out" / "coco--scenes--resnet-4--0.json").read_text())
    assert set(found["given_boxes"]) == set(found["filled_boxes"]) == {"seen", "unseen"}
    assert found["filled_boxes"]["seen"] > 0.9 > found["filled_boxes"]["unseen"]
    assert set(found["before"]) == {"given_boxes", "by_box_quality"}
    assert found["unseen"] == ["triangle"]
    source = "deep-mac--half--ground-truth--resnet-4--0.json"
    scenes = json.loads((tmp_path / "out" / source).read_text())
    assert sum(scenes["instances"]["per_scene"]) == len(scenes["instances"]["class"])
    assert scenes["steps"] == 1
    assert len(scenes["by_box_quality"]["refined"]) == 1 + len(QUALITIES)
    page = (tmp_path / "out" / "README.md").read_text()
    assert "2 of 63 cells were run" in page
    assert "not run" in page
    assert "decisive benchmark masks --steps 1 --scenes 2 --test-scenes 2" in page
    assert (tmp_path / "out" / "box-quality.png").is_file()

    def refuse(*_: object) -> None:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(masks_cells, "run_cell", refuse)
    assert cli.main(words(tmp_path, "--only", "coco/scenes/resnet-4")) == 0
    assert "Differences" in capsys.readouterr().out
    assert cli.main(words(tmp_path, "--list", "--only", "*/resnet-4/0", "--json")) == 0
    listed = json.loads(capsys.readouterr().out)["cells"]
    assert sum(one["done"] for one in listed) == 2
    other = words(tmp_path, "--table")
    other[other.index("--scenes") + 1] = "3"
    assert cli.main(other) == 2
    assert "is of other settings (scenes)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--core", "--full"), "--core and --full are two forms"),
        (("--seeds", "0"), "seeds must be 1 to 10, got 0"),
        (("--seed", "-1"), "seed must not be negative"),
        (("--test-scenes", "0"), "test_scenes must be at least 1, got 0"),
        (("--only", "deep-max"), "no cell fits 'deep-max'; names are like deep-mac/half/"),
        (("--steps", "5"), "needs an --out of its own"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys, more: tuple[str, ...], said: str) -> None:
    assert cli.main(["benchmark", "masks", *more]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
