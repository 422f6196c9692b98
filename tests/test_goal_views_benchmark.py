"""`python -m benchmarks.goal_views`: questions, tables from made-up answers, a tiny run."""

import json

import numpy as np
import pytest
from mural_cases import save_tiny, tiny_saved

from benchmarks.goal_views import House, Plan, Row, histogram, main, question, table
from envs.captions.facts import Thing
from envs.captions.house_sights import Asked
from envs.captions.words import LANGUAGES

SMALL = Plan(houses=1, split="val", things=2, pictures=1, views=4, rows=32)


def test_questions_are_captions_of_one_thing_and_names_of_rooms() -> None:
    bed = Asked("bedroom", Thing("bed", "blue", "middle"))
    assert question(bed, "en") == "In the bedroom there is a blue bed."
    assert question(bed, "de") == "Im Schlafzimmer ist ein blaues Bett zu sehen."
    rooms = [question(Asked("bathroom"), language) for language in LANGUAGES]
    assert rooms == [
        "the bathroom",
        "im Badezimmer",
        "dans la salle de bains",
        "v koupelně",
        "浴室里",
    ]


def test_a_table_has_means_and_intervals_over_houses() -> None:
    rows = [Row(house, "thing", "a", "en", right, metres) for house, right, metres in (
        ("x", 1.0, 0.0), ("x", 1.0, 2.0), ("y", 0.0, 4.0), ("y", 0.0, 6.0),
    )]  # fmt: skip
    rows.append(Row("x", "room", "a", "de", 1.0, 0.0))
    first, second = table(rows)
    assert (first["kind"], first["n"], first["right"], first["metres"]) == ("thing", 4, 0.5, 3.0)
    # Two houses: either may be drawn twice.
    assert first["right_ci95"] == [0.0, 1.0]
    assert first["metres_ci95"] == [1.0, 5.0]
    assert (second["language"], second["right_ci95"]) == ("de", [1.0, 1.0])


def test_a_histogram_counts_the_whole_picture() -> None:
    pixels = np.zeros((3, 9, 3), np.uint8)
    pixels[:, :3] = 255
    found = histogram(pixels) ** 2
    assert found[63] == pytest.approx(1 / 3)
    assert found[0] == pytest.approx(2 / 3)


def test_answers_of_a_house_are_judged_by_what_is_seen() -> None:
    house = House("house_val_000001", tiny_saved(), SMALL)
    rng = np.random.default_rng(0)
    rows = [*house.texts(SMALL, rng), *house.images(SMALL, rng)]
    house.close()
    assert {row.kind for row in rows} == {"thing", "room", "picture", "picture, other light"}
    for row in rows:
        assert 0 <= row.right <= 1
        if row.arm != "chance" and row.kind in ("thing", "room"):
            # Right answers are where it is seen; from others it is a way.
            assert row.language in LANGUAGES
            assert row.right in (0, 1)
            assert row.right == 0 or row.metres == 0
    things = [row for row in rows if row.kind == "thing" and row.arm == "chance"]
    assert len(things) == 2
    assert all(0 < row.right < 1 and row.metres > 0 for row in things)


def test_a_tiny_run_writes_both_files(tmp_path, capsys) -> None:
    save_tiny(tmp_path / "tiny")
    out = tmp_path / "goal-views.json"
    words = ["--houses", "1", "--split", "val", "--things", "2", "--pictures", "1", "--views", "3"]
    main([*words, "--rows", "32", "--model", str(tmp_path / "tiny"), "--out", str(out)])
    told = json.loads(out.read_text())
    assert told["plan"] == {
        "houses": 1, "split": "val", "things": 2, "pictures": 1, "views": 3, "rows": 32, "seed": 0
    }  # fmt: skip
    assert {row["kind"] for row in told["table"]} >= {"thing", "room", "picture"}
    assert told["command"].endswith(f"--rows 32 --model {tmp_path / 'tiny'}")
    text = out.with_suffix(".md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "| goal views |" in text


def test_a_study_of_nothing_is_refused() -> None:
    for name in ("houses", "things", "pictures", "views"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            Plan(**{name: 0})
