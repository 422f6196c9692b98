"""`decisive benchmark retrieval`: TF-IDF by hand, tables from made-up hits, a tiny run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mural_cases import squares, tiny_saved

from decisive import cli
from decisive.benchmarks import retrieval_report, retrieval_study
from decisive.benchmarks.retrieval_picture import language_map, map_text, recall_picture, scaled
from decisive.benchmarks.retrieval_report import interval, picture_table, text_table
from decisive.benchmarks.retrieval_study import (
    ARMS,
    Study,
    all_cells,
    ask,
    baseline,
    hits,
    plan,
    shares,
    text_questions,
)
from decisive.benchmarks.retrieval_tfidf import tfidf_scores
from envs.captions.words import LANGUAGES
from learning.caption_set import CaptionSet
from learning.image_set import data_folder
from perception.mural.checkpoint import save_mural
from perception.mural.scores import mean_recall, ranks_of

REAL = pytest.mark.skipif(
    not (data_folder() / "multi30k").is_dir() or not (data_folder() / "xl_r2r").is_dir(),
    reason="no Multi30k and XL-R2R (set DECISIVE_DATA)",
)
SMALL = Study(
    train=32, validation=20, test=20, steps=2, batch_size=2, text_batch_size=8, paths=15,
    sentences=25,
)  # fmt: skip


def test_tfidf_by_hand() -> None:
    # " a ", " a", "a ", and " b ", " b", "b ": each text has three n-grams (of 2 and of 3 letters).
    scores = tfidf_scores(["a", "a b"], ["b", "a a"])
    # Of four texts, those of a are in three and those of b in two.
    a, b = math.log(5 / 4) + 1, math.log(5 / 3) + 1
    mixed = math.hypot(a, b)
    assert scores == pytest.approx(np.array([[0, 1], [b / mixed, a / mixed]]))


def test_tfidf_finds_names_that_languages_share() -> None:
    scores = tfidf_scores(["Berlin is big", "a guitar"], ["Eine Gitarre", "Berlin ist groß"])
    assert scores[0, 1] > scores[0, 0]
    assert scores[1, 0] > scores[1, 1]


def test_hits_hold_the_mean_recall() -> None:
    found = np.array([0, 3, 7, 12])
    assert hits(found) == "3210"
    assert shares(hits(found)).mean() == pytest.approx(mean_recall(found))


def test_intervals_draw_pairs_together() -> None:
    a = np.tile([0.0, 1.0], 200)
    mean, low, high = interval([a, 1 - a])  # what one direction loses, the other gains
    assert (mean, low, high) == pytest.approx((0.5, 0.5, 0.5))
    mean, low, high = interval([a, a])
    assert 0.44 < low < 0.46 < mean < 0.54 < high < 0.56


def cell(english: str, others: str) -> dict:
    images = {language: [english, english] for language in LANGUAGES[:1]}
    images |= {language: [others, others] for language in LANGUAGES[1:]}
    texts = {name: [english, others] for name in ("en-de", "en-fr", "en-cs", "paths-en-zh")}
    return {
        "images": images, "images_with_sides": images, "texts": texts,
        "train_cpu_seconds": 1.0, "machine": {"cpu": "a"}, "commit": "c",
    }  # fmt: skip


def made_up() -> dict:
    base = {
        "texts": cell("30", "00")["texts"],
        "chance": dict.fromkeys(
            ("images", "images_with_sides", "en-de", "en-fr", "en-cs", "paths-en-zh"), 0.01
        ),
        "machine": {"cpu": "a"}, "commit": "c",
    }  # fmt: skip
    return {
        ("baseline", 0): base, ("mural", 0): cell("33", "33"), ("images-only", 0): cell("33", "00"),
        ("mural", 1): cell("33", "00"), ("images-only", 1): None,
    }  # fmt: skip


def test_tables_say_what_was_run_and_what_was_not() -> None:
    header, rows = picture_table(made_up(), "images")
    assert header == ["trained", *LANGUAGES, "seeds"]
    assert rows[0][1:3] == ["100.0 [100.0, 100.0]", "0.0 [0.0, 0.0]"]
    assert rows[0][-1] == "1 of 2"
    assert rows[1][2] == "50.0 [50.0, 50.0]"  # mean of the seeds
    assert rows[2][:3] == ["what bitext adds", "+0.0 [+0.0, +0.0]", "+50.0 [+50.0, +50.0]"]
    assert rows[3][1] == "1.00"
    empty = dict.fromkeys(made_up())
    assert picture_table(empty, "images")[1][0][1] == "not run"
    assert text_table(empty)[1][2][1] == "not run"
    header, rows = text_table(made_up())
    assert rows[2][0].startswith("TF-IDF")
    assert rows[2][1].startswith("25.0 [")
    assert recall_picture(empty) == b""
    assert recall_picture(made_up()).startswith(b"\x89PNG")


def test_scaling_keeps_distances_of_what_lies_in_a_plane() -> None:
    square = [np.array([x, y, 5.0, x + y]) for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))]
    places, kept = scaled(square)
    assert kept == pytest.approx(1)
    for i in range(4):
        for j in range(4):
            wanted = np.linalg.norm(square[i] - square[j])
            assert np.linalg.norm(places[i] - places[j]) == pytest.approx(wanted)
    assert scaled([np.ones(3)] * 3)[1] == 1.0


def test_the_map_s_text_by_hand() -> None:
    one = np.array([[1.0, 0.0], [0.0, 1.0]])
    text = map_text({"en": one, "de": one})
    assert "| en |  | 1.00 / 0.00 / 0.00 |" in text
    assert f"{np.sqrt(0.5):.2f}" in text


def test_impossible_studies_and_cells_are_refused(tmp_path, capsys) -> None:
    with pytest.raises(ValueError, match="too little"):
        Study(test=3)
    out = ["--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    for words, message in (
        (["--seeds", "0"], "--seeds must be 1 to 10"), (["--steps", "0"], "--steps"),
        (["--only", "mural-7"], "no cell 'mural-7'; the cells are baseline-0, mural-0"),
    ):  # fmt: skip
        assert cli.main(["benchmark", "retrieval", *words, *out]) == 2
        assert message in capsys.readouterr().err
    assert all_cells(1) == [("baseline", 0), ("mural", 0), ("images-only", 0)]
    assert plan(SMALL, "mural", 1)["bitexts"] == list(ARMS["mural"])


def five_languages(n: int = 20) -> CaptionSet:
    english = squares(n, 2)
    captions = dict.fromkeys(LANGUAGES, english.captions["en"])
    return CaptionSet(english.images, captions, "Synthetic squares", {})


@REAL
@pytest.mark.data
def test_questions_are_of_the_test_splits() -> None:
    found = text_questions(SMALL)
    assert list(found) == ["en-de", "en-fr", "en-cs", "paths-en-zh"]
    x, y, xs, ys = found["en-de"]
    assert len(x) == len(y) == 25
    assert xs == ys
    assert x[0] == "A man in an orange hat starring at something."
    x, y, xs, ys = found["paths-en-zh"]
    assert set(xs) == set(ys)
    assert len(set(xs)) == 15


@REAL
@pytest.mark.data
def test_everything_is_asked_in_both_directions() -> None:
    told = ask(SMALL, tiny_saved(), five_languages(), "text-text")
    assert set(told["images"]) == set(LANGUAGES)
    assert [len(side) for side in told["images"]["de"]] == [20, 20]
    assert told["images"]["de"] == told["images"]["en"]  # the same words, so the same answers
    assert [len(side) for side in told["texts"]["en-cs"]] == [25, 25]
    base = baseline(SMALL, five_languages())
    keys = [row[0] for row in five_languages().captions["en"]]
    assert base["chance"]["images"] == pytest.approx(
        np.mean([
            mean_recall(ranks_of(torch.rand(20, 20), keys, keys)) for _ in range(300)
        ]), abs=0.02,
    )  # fmt: skip
    assert np.mean(shares(base["texts"]["en-de"][0])) > base["chance"]["en-de"]


@REAL
@pytest.mark.data
@pytest.mark.slow
def test_a_small_run_writes_cells_and_is_not_done_again(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(retrieval_study, "Study", lambda **changes: SMALL)
    out, work = tmp_path / "out", tmp_path / "work"
    words = ["benchmark", "retrieval", "--seeds", "1", "--out", str(out), "--work", str(work)]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["tables"]) == 3
    names = {path.name for path in out.iterdir()}
    assert names >= {
        "README.md", "baseline-0.json", "mural-0.json", "images-only-0.json", "languages.png",
        "languages.md", "recall.png",
    }  # fmt: skip
    text = (out / "README.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text.replace(f"--out {out} --work {work}", "")
    before = (out / "mural-0.json").read_bytes()
    assert cli.main([*words, "--table"]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert (out / "mural-0.json").read_bytes() == before
    assert retrieval_report.cells_of({("mural", 0): json.loads(before)}, "mural")


def test_no_model_gives_no_map(tmp_path) -> None:
    assert language_map(tmp_path) is None


@REAL
@pytest.mark.data
def test_a_map_is_drawn_of_any_model(tmp_path: Path) -> None:
    save_mural(tmp_path, tiny_saved(), "")
    drawn = language_map(tmp_path)
    assert drawn is not None
    assert drawn.picture.startswith(b"\x89PNG")
    assert "| cs |" in drawn.text
