"""The triage study on rendered parts: pointing at defects, paired tests, and few pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_triage_benchmark import parts  # noqa: F401
from triage_cases import untrained

from decisive.benchmarks import triage
from decisive.benchmarks.triage_compare import compare, compare_table
from decisive.benchmarks.triage_data import read_folders
from decisive.benchmarks.triage_inspection import (
    boxes_of,
    inspection_sets,
    inspection_study,
    is_in,
    maps_of,
    peaks,
    pointing_game,
    pointing_table,
)
from decisive.benchmarks.triage_reuse import Reuse, draw_few, load_all_but_last, parts_of
from decisive.benchmarks.triage_study import ANY, ANY_SEEN, ANY_UNSEEN, Study, evaluate, rows_of
from decisive.triage_set import InspectionSet
from learning.image_set import ImageSet
from perception import create
from perception.abnormality import CLASSES, TASK
from perception.abnormality_scores import delong_test

STUDY = inspection_study("efficientnetv2_b0_quarter_fine", 64)


def test_boxes_are_around_masks() -> None:
    masks = np.zeros((2, 8, 10), bool)
    masks[0, 2:4, 5] = masks[0, 6, 1] = True
    np.testing.assert_array_equal(boxes_of(masks), [[1, 2, 6, 7], [-1, -1, -1, -1]])


def test_the_peak_of_a_map_is_where_it_is_seen() -> None:
    maps = np.zeros((2, 4, 4))
    maps[0, 1, 3] = 1.0
    maps[1] = -1.0
    maps[1, 2, 0] = -0.5
    found = peaks(maps, (64, 64))
    # Cells are 16 pixels: row 1 is 16 to 31, column 3 is 48 to 63.
    assert 48 <= found[0, 0] < 64
    assert 16 <= found[0, 1] < 32
    assert 0 <= found[1, 0] < 16
    assert 32 <= found[1, 1] < 48
    boxes = np.array([[48, 16, 64, 32], [1, 40, 9, 41]])
    np.testing.assert_array_equal(is_in(found, boxes)[:1], [True])
    assert not is_in(np.array([[9, 40]]), boxes[1:])[0]


def pictures(masks: np.ndarray, names: tuple[str, ...], conditions: list[int]) -> InspectionSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (*masks.shape, 3), dtype=np.uint8)
    labels = (np.array(conditions) != 0).astype(np.int64)[:, None]
    data = ImageSet(images, labels, {TASK: CLASSES}, "of a test", {})
    return InspectionSet(data, names, np.array(conditions), masks)


def test_the_pointing_game_is_scored_by_condition() -> None:
    saved = untrained()
    study = Study("sound", ("chip",), ("scratch",))
    masks = np.zeros((5, 64, 64), bool)
    plain = pictures(masks, ("sound", "chip", "scratch"), [0, 1, 1, 2, 2])
    points = peaks(maps_of(saved, plain.images.images, np.arange(5)), (64, 64))
    # The first chip lies where the map points, the second elsewhere; scratches are in the middle.
    for row, (x, y) in ((1, points[1]), (2, (points[2] + 20) % 64)):
        masks[row, y, x] = True
    masks[3:, 32, 32] = True
    told = pointing_game(saved, pictures(masks, plain.names, [0, 1, 1, 2, 2]), study)
    assert told["map_cells"] == [2, 2]
    chip, scratch, every = (told["pointing"][name] for name in ("chip", "scratch", ANY))
    assert (chip["n"], chip["hits"], chip["center_hits"]) == (2, 1, 0)
    assert (scratch["n"], scratch["center_hits"]) == (2, 2)
    assert every["random"] == pytest.approx(1 / 64**2)
    header, rows = pointing_table([told, None], study)
    assert len(header) == len(rows[0]) == 5
    assert rows[0][0] == "chip"
    assert rows[0][1].startswith("50.0 [")
    assert pointing_table([None], study)[1] == []


def test_conditions_are_grouped_where_there_are_several() -> None:
    assert STUDY.conditions[-3:] == (ANY_SEEN, ANY_UNSEEN, ANY)
    assert STUDY.queued == (ANY_SEEN, ANY_UNSEEN, ANY)
    folders = np.array(["sound", "chip", "bent", "stain"])
    assert rows_of(STUDY, ANY_SEEN, folders).tolist() == [True, True, False, True]
    assert rows_of(STUDY, ANY_UNSEEN, folders).tolist() == [True, False, True, False]
    few = Study("a", ("b",), ("c",))
    assert few.conditions == few.queued == ("b", "c", ANY)


def cells(seed: int) -> tuple[dict, dict, np.ndarray, list[np.ndarray]]:
    """Two scored arms of the same test pictures, the second one worse."""
    rng = np.random.default_rng(seed)
    folders = np.array(["sound", "chip", "sound", "scratch"] * 40)
    labels = {"tune": np.tile([0, 1], 40), "train": np.tile([0, 1], 40)}
    labels["test"] = (folders != "sound").astype(np.int64)
    study = Study("sound", ("chip",), ("scratch",))
    kept, told = [], []
    for strength in (2.0, 0.3):
        logits = {name: rng.normal(0, 1, len(truth)) + strength * truth
                  for name, truth in labels.items()}  # fmt: skip
        kept.append(np.round(logits["test"], 5))
        told.append(json.loads(json.dumps(evaluate(study, logits, labels, folders, queue=False))))
    return told[0], told[1], folders, kept


def test_paired_tests_are_those_of_the_scores() -> None:
    one, two, folders, logits = cells(0)
    study = Study("sound", ("chip",), ("scratch",))
    found = compare(one, two, study)
    for condition in ("chip", "scratch"):
        rows = (folders == "sound") | (folders == condition)
        expected = delong_test(logits[0][rows], logits[1][rows], folders[rows] != "sound")
        assert found[condition] == pytest.approx(expected)
    assert found[ANY][0] > 0.2
    assert found[ANY][1] < 1e-3
    header, rows = compare_table({"all": [one, one], "border": [two, None]}, study)
    assert header == ["the picture less", "chip", "scratch", "any", "seeds"]
    assert rows[0][0] == "border"
    assert rows[0][3].endswith("(1 of 1; p < 0.001)")
    assert rows[0][-1] == "1 of 2"
    assert compare_table({"all": [None], "border": [two]}, study)[1][0][1] == "not run"
    two["test"]["places"][0] = 1
    with pytest.raises(ValueError, match="on the same test pictures"):
        compare(one, two, study)


def test_rendered_sets_are_kept_and_others_refused(tmp_path) -> None:
    frames = {"train": 3, "tune": 2, "test": 2}
    found = inspection_sets(tmp_path, frames, 64, 1)
    assert [len(part) for part in found.values()] == [3, 2, 2]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    again = inspection_sets(tmp_path, frames, 64, 1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == before
    np.testing.assert_array_equal(again["test"].defects, found["test"].defects)
    with pytest.raises(ValueError, match="holds other pictures"):
        inspection_sets(tmp_path, frames, 96, 1)


# Few pictures


def test_few_pictures_are_balanced_and_nested() -> None:
    labels = [0] * 30 + [1] * 60
    small, large = draw_few(labels, 8, 3), draw_few(labels, 20, 3)
    assert set(small) <= set(large)
    assert [sum(labels[place] == kind for place in large) for kind in (0, 1)] == [10, 10]
    assert set(draw_few(labels, 8, 4)) != set(small)
    with pytest.raises(ValueError, match="need 35 of each kind, got 30"):
        draw_few(labels, 70, 0)


REUSE = Reuse("sound", "scratched", "dented", "efficientnetv2_b0_quarter_fine", 32, (4,), 2, 2)


def test_networks_share_no_picture(parts) -> None:  # noqa: F811
    found = parts_of(REUSE, read_folders(parts, ("sound", "scratched", "dented"), 32))
    rows = {name: set(part.tolist()) for name, part in found.items()}
    names = list(rows)
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            assert not rows[one] & rows[two]
    assert min(map(len, rows.values())) > 10


def test_all_weights_but_those_of_the_last_layer_are_taken_over() -> None:
    torch.manual_seed(0)
    source = create("efficientnetv2_b0_quarter_fine", n_classes=10)
    model = create("efficientnetv2_b0_quarter_fine", n_classes=2)
    before = model.classifier.weight.clone()
    load_all_but_last(model, source.state_dict())
    torch.testing.assert_close(model.stem.state_dict(), source.stem.state_dict())
    torch.testing.assert_close(model.classifier.weight, before)
    other = create("efficientnetv2_b0_quarter_fine", n_classes=2, in_channels=1)
    with pytest.raises(ValueError, match="same backbone and channels"):
        load_all_but_last(other, source.state_dict())


def test_reuse_that_cannot_be_is_refused() -> None:
    for change, said in (
        ({"other": "sound"}, "three folders"),
        ({"sizes": (5,)}, "sizes must be even"),
        ({"steps": 0}, "steps, lr and side must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(REUSE, **change)
    for words, said in (
        (["--study", "inspection", "--data", "x"], "leave --data"),
        (["--study", "inspection", "--workers", "0"], "workers must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            triage.main(words)
