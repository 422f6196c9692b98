"""Pictures of the inspection line: labels that layouts do not tell, and masks of defects."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decisive import cli
from decisive.render_inspection import draw_block, outlined
from decisive.triage_set import InspectionSet, open_inspection_set
from envs.tabletop.inspection import (
    CONDITIONS,
    SOUND,
    TASKS,
    InspectionConfig,
    InspectionPicture,
    InspectionScenes,
    plan,
)
from envs.tabletop.inspection_defects import KNOWN, UNSEEN
from perception.abnormality import CLASSES, TASK

SMALL = InspectionConfig(size=64, split="test")


def first_of(config: InspectionConfig, defect: str, n: int = 1) -> list[int]:
    return [k for k in range(400) if plan(config, k).defect == defect][:n]


def test_tasks_are_those_of_triage() -> None:
    assert next(iter(TASKS.items())) == (TASK, CLASSES)
    assert list(TASKS)[1:] == list(KNOWN)
    assert (SOUND, *KNOWN, *UNSEEN) == CONDITIONS


def test_half_are_defective_and_only_the_test_has_unseen_defects() -> None:
    for split, names in (("train", set(KNOWN)), ("tune", set(KNOWN)), ("test", {*KNOWN, *UNSEEN})):
        plans = [plan(InspectionConfig(split=split), k) for k in range(800)]  # type: ignore[arg-type]
        assert {one.defect for one in plans} == names
        faulty = sum(one.has_it for one in plans)
        # Five standard deviations of 800 fair draws.
        assert abs(faulty - 400) < 71
        counts = Counter(one.condition for one in plans if one.has_it)
        assert min(counts.values()) > 400 / len(names) / 2


def test_a_picture_depends_on_its_number_alone() -> None:
    with InspectionScenes(SMALL) as scenes:
        forward = [scenes.draw(k) for k in range(4)]
    with InspectionScenes(SMALL) as scenes:
        backward = [scenes.draw(k) for k in (3, 2, 1, 0)][::-1]
    for one, two in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.mask, two.mask)
    with InspectionScenes(replace(SMALL, seed=1)) as scenes:
        assert (scenes.draw(0).image != forward[0].image).any()


def test_layouts_say_nothing_about_labels() -> None:
    # All sound or all defective: the same layouts, but for the defect.
    with (
        InspectionScenes(replace(SMALL, abnormal=0.0)) as sound,
        InspectionScenes(replace(SMALL, abnormal=1.0)) as faulty,
    ):
        for k in range(6):
            one, two = sound.draw(k), faulty.draw(k)
            before, after, mask = faulty.draw_both(k)
            assert one.condition == SOUND
            assert two.condition != SOUND
            assert not one.mask.any()
            np.testing.assert_array_equal(one.image, before)
            np.testing.assert_array_equal(two.image, after)
            np.testing.assert_array_equal(two.mask, mask)
            assert mask.mean() >= SMALL.min_share


def test_pairs_are_one_layout_without_and_with_its_defect() -> None:
    paired = replace(SMALL, pairs=True)
    with InspectionScenes(paired) as scenes, InspectionScenes(SMALL) as alone:
        for j in range(3):
            sound, faulty = scenes.draw(2 * j), scenes.draw(2 * j + 1)
            before, after, mask = alone.draw_both(j)
            assert sound.condition == SOUND
            assert faulty.condition == plan(SMALL, j).defect
            np.testing.assert_array_equal(sound.image, before)
            np.testing.assert_array_equal(faulty.image, after)
            np.testing.assert_array_equal(faulty.mask, mask)


@pytest.mark.parametrize("defect", ["chip", "missing", "stain", "foreign", "scratch"])
def test_small_defects_change_few_pixels_and_nothing_else(defect: str) -> None:
    with InspectionScenes(SMALL) as scenes:
        for k in first_of(SMALL, defect, 2):
            before, after, mask = scenes.draw_both(k)
            differ = np.abs(before.astype(int) - after).max(2) > 12
            assert mask[differ].all()
            assert mask.mean() < 0.06
            ends = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            assert not ends.any()


def test_labels_name_the_known_defects() -> None:
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    for condition, expected in (
        (SOUND, [0, 0, 0, 0, 0]),
        ("chip", [1, 1, 0, 0, 0]),
        ("foreign", [1, 0, 0, 0, 1]),
        ("bent", [1, 0, 0, 0, 0]),
    ):
        assert InspectionPicture(image, condition, mask).labels().tolist() == expected


def test_what_cannot_be_drawn_is_refused() -> None:
    for change, said in (
        ({"size": 32}, "size must be 64 to 512"),
        ({"split": "validation"}, "split must be one of train, tune, test"),
        ({"seed": -1}, "seed must not be negative"),
        ({"abnormal": 1.5}, "abnormal must be in"),
        ({"min_share": 0.5}, "min_share must be in"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(SMALL, **change)
    with pytest.raises(ValueError, match="must not be negative"):
        plan(SMALL, -1)


# The command, and the set on disk


def render(out: Path, *words: str) -> int:
    return cli.main(["data", "render-inspection", "--out", str(out), "--size", "64", *words])


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("inspection") / "set"
    assert render(out, "--split", "test", "--frames", "18", "--png", "--pictures", "18") == 0
    return out


def test_a_set_is_written_with_labels_masks_and_files(written: Path, capsys) -> None:
    found = open_inspection_set(written)
    assert len(found) == 18
    assert found.images.facts["synthetic"] is True
    chunk = draw_block(SMALL, range(18))
    for one, two in zip(
        (found.images.images, found.images.labels, found.conditions, found.defects),
        chunk,
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(found.images.labels[:, 0], found.conditions != 0)
    np.testing.assert_array_equal(found.defects.any((1, 2)), found.conditions != 0)
    files = sorted((written / "frames").rglob("*.png"))
    assert len(files) == 18
    number = int(files[0].stem)
    assert files[0].parent.name == found.folders[number]
    with Image.open(files[0]) as image:
        np.testing.assert_array_equal(np.asarray(image), found.images.images[number])
    with Image.open(written / "pictures.png") as image:
        assert image.width > 8 * 64


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys) -> None:
    assert render(tmp_path / "a", "--frames", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(told["counts"].values()) == told["frames"] == 2
    assert told["frames_folder"] is None
    for words, said in (
        (("--frames", "2"), "exists; choose another name"),
        (("--frames", "0", "--overwrite"), "--frames must be at least 1"),
        (("--workers", "0", "--overwrite"), "--workers must be at least 1"),
        (("--pictures", "-1", "--overwrite"), "--pictures must be in"),
        (("--size", "7", "--overwrite"), "size must be 64 to 512"),
    ):
        assert render(tmp_path / "a", *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_damaged_sets_are_refused_in_one_line(written: Path, tmp_path: Path) -> None:
    import shutil

    def damaged(name: str) -> Path:
        shutil.copytree(written, tmp_path / name)
        return tmp_path / name

    cut = damaged("cut")
    (cut / "defects.npy").write_bytes((cut / "defects.npy").read_bytes()[:200])
    gone = damaged("gone")
    (gone / "conditions.npy").unlink()
    short = damaged("short")
    np.save(short / "conditions.npy", np.zeros(3, np.int64))
    high = damaged("high")
    np.save(high / "conditions.npy", np.full(18, 99))
    plain = damaged("plain")
    document = json.loads((plain / "set.json").read_text())
    del document["facts"]["conditions"]
    (plain / "set.json").write_text(json.dumps(document))
    for folder, said in (
        (cut, "cut: "),
        (gone, "conditions.npy"),
        (short, "conditions must be whole numbers"),
        (high, "conditions must be below 9"),
        (plain, "no set of an inspection line"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            open_inspection_set(folder)
        assert "\n" not in str(caught.value)
    found = open_inspection_set(written)
    with pytest.raises(ValueError, match="defects must be bool"):
        InspectionSet(found.images, found.names, found.conditions, found.defects[:3])


def test_an_outline_lies_around_the_defect() -> None:
    image, mask = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool)
    mask[1, 2] = True
    found = outlined(image, mask, 40)
    assert found.shape == (40, 40, 3)
    drawn = found.any(2)
    assert not drawn[10:20, 20:30].any()
    assert drawn[8:22, 18:32].sum() == 14 * 14 - 10 * 10
    assert drawn.sum() == 14 * 14 - 10 * 10
