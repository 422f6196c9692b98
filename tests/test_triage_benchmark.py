"""`decisive benchmark triage`: splits without leaks, controls, cells, and a study that can fail."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decisive.benchmarks import triage, triage_turnaround
from decisive.benchmarks.triage_data import (
    SPLITS,
    group_alike,
    image_set,
    read_folders,
    seen_by,
    split,
)
from decisive.benchmarks.triage_report import queue_table, table
from decisive.benchmarks.triage_study import Study, evaluate
from decisive.benchmarks.triage_turnaround import turnaround
from decisive.triage import main as triage_main
from perception.abnormality_scores import auroc, rates_at

STUDY = Study("sound", ("scratched",), ("dented",), side=32)


def picture(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Smooth grey; a bright bar or a dark disc in the middle of faulty ones."""
    small = rng.integers(60, 180, (6, 6), dtype=np.uint8)
    pixels = np.array(Image.fromarray(small).resize((40, 40), Image.Resampling.BICUBIC))
    row, column = rng.integers(14, 24, 2)
    if kind == "scratched":
        pixels[row - 2 : row + 3, column - 9 : column + 10] = 255
    if kind == "dented":
        y, x = np.ogrid[:40, :40]
        pixels[(y - row) ** 2 + (x - column) ** 2 < 25] = 0
    return pixels


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for kind, n in (("sound", 100), ("scratched", 100), ("dented", 30)):
        (root / kind).mkdir()
        for number in range(n):
            Image.fromarray(picture(kind, rng)).save(root / kind / f"{number:03}.png")
    # A copy, a compressed copy, one that is in two folders, and no picture.
    with Image.open(root / "sound" / "000.png") as image:
        image.save(root / "sound" / "copy.png")
        image.save(root / "sound" / "copy.jpg", quality=80)
    with Image.open(root / "sound" / "001.png") as image:
        image.save(root / "scratched" / "sound.png")
    (root / "sound" / "notes.txt").write_text("x")
    return root


@pytest.fixture(scope="module")
def pictures(parts):
    return read_folders(parts, ("sound", "scratched", "dented"), 32)


def test_pictures_are_read_as_squares_with_their_folders(pictures) -> None:
    assert pictures.pixels.shape == (100 + 2 + 100 + 1 + 30, 32, 32)
    assert len(pictures.rows("sound")) == 102
    assert pictures.skipped["sound/notes.txt"].startswith("no image")


def test_near_copies_are_of_one_group_and_others_are_not(pictures) -> None:
    first = [int(np.flatnonzero(pictures.groups == pictures.groups[row])[0]) for row in (100, 101)]
    assert first == [0, 0]
    sizes = np.bincount(pictures.groups)
    assert sorted(sizes[sizes > 1].tolist()) == [2, 3]
    brighter = np.clip(pictures.pixels[:5].astype(int) // 2 + 30, 0, 255).astype(np.uint8)
    groups = group_alike(np.concatenate([pictures.pixels[:5], brighter]))
    np.testing.assert_array_equal(groups, [0, 1, 2, 3, 4] * 2)


def test_no_group_is_in_two_splits_and_the_rule_is_fixed(pictures) -> None:
    splits = split(pictures, ("sound", "scratched"), ("dented",))
    groups = [pictures.groups[rows].tolist() for rows in splits.values()]
    together = [group for part in groups for group in part]
    assert len(set(together)) == len(together)
    folders = np.array(pictures.folders)
    counts = {
        name: [int((folders[rows] == kind).sum()) for kind in ("sound", "scratched", "dented")]
        for name, rows in splits.items()
    }
    # The pair in two folders is left out; of three copies one is left: 99, 100 and 30.
    assert counts == {"train": [59, 60, 0], "tune": [15, 15, 0], "test": [25, 25, 30]}
    assert sum(SPLITS.values()) == pytest.approx(1)
    # The order of the files does not matter, only what is in them.
    order = np.random.default_rng(1).permutation(len(folders))
    turned = replace(
        pictures,
        pixels=pictures.pixels[order],
        folders=tuple(folders[order]),
        groups=group_alike(pictures.pixels[order]),
        digests=tuple(np.array(pictures.digests)[order]),
    )
    again = split(turned, ("sound", "scratched"), ("dented",))
    copies = {pictures.digests[row] for row in (0, 100, 101)}
    for name, rows in splits.items():
        one = {pictures.digests[row] for row in rows} - copies
        assert len(one ^ ({turned.digests[row] for row in again[name]} - copies)) <= 2


def test_controls_see_what_they_say(pictures) -> None:
    data = image_set(pictures, np.arange(4), "sound", "test")
    assert seen_by("all", data) is data
    border = seen_by("border", data).images[..., 0]
    plain = data.images[..., 0]
    assert (border[:, 4:28, 4:28] == 0).all()
    np.testing.assert_array_equal(border[:, :4], plain[:, :4])
    np.testing.assert_array_equal(border[:, :, 28:], plain[:, :, 28:])
    thumbnail = seen_by("thumbnail", data).images[..., 0]
    cell = plain[2, 8:12, 16:20]
    assert (thumbnail[2, 8:12, 16:20] == np.rint(cell.mean())).all()
    assert len(np.unique(thumbnail[0])) <= 64
    with pytest.raises(ValueError, match="control must be"):
        seen_by("lungs", data)


@pytest.fixture
def _short_queues(monkeypatch) -> None:
    monkeypatch.setattr(triage_turnaround, "_REPLICATIONS", 3)
    monkeypatch.setattr(triage_turnaround, "_CASES", 500)
    monkeypatch.setattr(triage_turnaround, "_LISTS", 3)


@pytest.mark.usefixtures("_short_queues")
def test_evaluation_is_worked_out_by_condition() -> None:
    rng = np.random.default_rng(0)
    labels = {name: np.tile([0, 1], 40) for name in ("train", "tune", "test")}
    logits = {name: rng.normal(0, 1, 80) + 2 * labels[name] for name in labels}
    folders = np.where(labels["test"] == 0, "sound", "scratched")
    folders[41::4] = "dented"
    told = evaluate(STUDY, logits, labels, folders)
    for condition in ("scratched", "dented"):
        kept = (folders == "sound") | (folders == condition)
        found = told["conditions"][condition]["auroc"]
        assert found["value"] == pytest.approx(auroc(logits["test"][kept], labels["test"][kept]))
        assert found["n_abnormal"] == (folders == condition).sum()
    assert told["conditions"]["any"]["auroc"]["n_abnormal"] == 40
    assert told["tune_auroc"] == auroc(logits["tune"], labels["tune"])
    assert told["points"]["high sensitivity"]["sensitivity"] >= 0.95
    assert told["points"]["high specificity"]["specificity"] >= 0.95
    assert "turnaround" not in evaluate(STUDY, logits, labels, folders, queue=False)["conditions"]
    json.dumps(told)


def test_turnaround_agrees_with_the_closed_forms() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], 200)
    scores = rng.normal(0, 1, 400) + 1.5 * labels
    told = turnaround(scores, labels, 0.5)
    for order, expected in told["closed_form"].items():
        found = told["queue"][order]
        assert found["mean"] == pytest.approx(expected, abs=4 * found["standard_error"])
    # On a list of m abnormal and n normal cases the mean place of the abnormal ones is
    # (m + 1) / 2 + n (1 - area): here of 20 and 80, all drawn again and again.
    found = told["overnight_list"]["score"]
    expected = 21 / 2 + 80 * (1 - auroc(scores, labels))
    assert found["mean"] == pytest.approx(expected, abs=4 * found["standard_error"] + 0.2)
    random = told["overnight_list"]["random"]
    assert random["mean"] == pytest.approx(50.5, abs=4 * random["standard_error"])
    assert rates_at(0.5, scores, labels).sensitivity > 0.7


@pytest.mark.learning
@pytest.mark.usefixtures("_short_queues")
def test_a_fault_in_the_middle_is_found_and_its_border_gives_nothing_away(
    parts, tmp_path, capsys
) -> None:
    words = [
        "--data", str(parts), "--normal", "sound", "--abnormal", "scratched", "--unseen", "dented",
        "--seeds", "1", "--side", "32", "--epochs", "14", "--source", "synthetic parts of a test",
        "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"),
    ]  # fmt: skip
    assert triage.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["header"] == ["seen", "scratched", "dented (unseen)", "any", "seeds"]
    results = {
        path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")
    }
    assert sorted(results) == ["all-0", "border-0", "thumbnail-0"]
    found = {name: r["conditions"]["scratched"]["auroc"]["value"] for name, r in results.items()}
    assert found["all-0"] > 0.85
    assert found["border-0"] < 0.75
    assert found["all-0"] > found["border-0"] + 0.2
    page = (tmp_path / "out" / "README.md").read_text()
    assert "synthetic parts of a test" in page
    assert "not a medical device" in page
    # What was saved scores as the study did: the calibrated threshold calls as many abnormal.
    folder = tmp_path / "frames"
    folder.mkdir()
    pictures = read_folders(parts, ("sound", "scratched", "dented"), 32)
    rows = split(pictures, ("sound", "scratched"), ("dented",))["test"]
    for row in rows:
        Image.fromarray(pictures.pixels[row]).save(folder / f"{row:03}.png")
    checkpoint = str(tmp_path / "work" / "all-0" / "last")
    assert triage_main([str(folder), "--checkpoint", checkpoint, "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    point = results["all-0"]["conditions"]["any"]["points"]["high specificity"]
    called = sum(s >= point["threshold"] for s in scored["scores"].values())
    assert called == point["found"] + point["n_normal"] - point["passed"]
    # Again: nothing is trained; other settings are refused; what was not run is said.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    assert triage.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert triage.main([*words, "--seeds", "2", "--minutes", "0"]) == 0
    assert "1 of 2" in capsys.readouterr().out
    with pytest.raises(ValueError, match="is of other settings"):
        triage.main([*words, "--epochs", "3"])


def test_tables_say_what_was_not_run() -> None:
    header, rows = table({"all": [None], "border": [None]}, STUDY)
    assert len(header) == len(rows[0]) == 5
    assert rows[0][1:] == ["not run"] * 3 + ["0 of 1"]
    assert queue_table({"all": [None]}, STUDY)[1] == []


def test_what_cannot_be_is_refused(parts, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DECISIVE_DATA", str(tmp_path / "nothing"))
    few = tmp_path / "few"
    for kind in ("good", "bad"):
        (few / kind).mkdir(parents=True)
        Image.new("L", (32, 32), 9).save(few / kind / "a.png")
    (few / "none").mkdir()
    # Of one kind alone: as many normal pictures as one likes do not make up for it.
    (parts / "one").mkdir()
    Image.fromarray(picture("dented", np.random.default_rng(5))).save(parts / "one" / "a.png")
    out = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    data = ["--data", str(few), "--normal", "good"]
    for words, said in (
        ([], "no data: .* is not there"),
        (["--data", str(parts)], "name a folder of abnormal pictures"),
        ([*data, "--abnormal", "bad"], "too few pictures"),
        (
            ["--data", str(parts), "--normal", "sound", "--abnormal", "one"],
            "too few pictures: 60 normal and 1 abnormal for train",
        ),
        ([*data, "--abnormal", "good"], "must all differ"),
        ([*data, "--abnormal", "none"], "no picture in .* can be read"),
        ([*data, "--abnormal", "gone"], "no folder"),
        ([*data, "--abnormal", "bad", "--side", "8"], "side must be at least 16"),
        ([*data, "--abnormal", "bad", "--epochs", "0"], "epochs and lr must be positive"),
        ([*data, "--abnormal", "bad", "--seeds", "0"], "seeds must be 1 to 10"),
    ):
        with pytest.raises(ValueError, match=said):
            triage.main([*words, *out])
    assert not (tmp_path / "out").exists()
