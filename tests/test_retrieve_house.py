"""`decisive retrieve --scene`: where in a house a robot has seen something."""

import json
import math

import numpy as np
import pytest
from mural_cases import save_tiny
from PIL import Image

from decisive import cli
from decisive.dream_pictures import FloorMap
from decisive.retrieve_house import _MAP, SeenView, draw_map, read_places
from decisive.scenes import HouseScene
from envs.captions.house_views import glimpse, picture

HOUSE = "house_test_000003"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("mural") / "tiny"
    save_tiny(folder)
    return str(folder)


@pytest.fixture(scope="module")
def scene():
    made = HouseScene(HOUSE)
    yield made
    made.close()


def retrieve(*words: str) -> int:
    return cli.main(["retrieve", *words])


def told(capsys, *words: str) -> dict:
    assert retrieve(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_room_is_found_where_it_is(scene, capsys, tmp_path) -> None:
    """By the shipped model, from three viewpoints, in two languages."""
    words = ("--scene", HOUSE, "--seen", "1,9,14", "--top", "3")
    out = tmp_path / "page"
    for text in ("the bathroom", "浴室里"):
        answer = told(capsys, text, *words, "--out", str(out))
        assert answer["query"] == text
        assert (answer["n"], answer["seen"]) == (36, ["1", "9", "14"])
        best = answer["ranking"][0]
        position = np.array(best["position"])
        np.testing.assert_allclose(position, scene.graph.positions[int(best["viewpoint"])])
        seen = glimpse(scene.simulator, position, best["yaw"], 64)
        assert scene.house.rooms[seen.room].purpose == "bathroom"
        assert (best["rank"], len(answer["ranking"])) == (1, 3)
        scores = [row["score"] for row in answer["ranking"]]
        assert scores == sorted(scores, reverse=True)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 1 + 3
    assert "<img class=plan" in page
    x, y, _ = best["position"]
    assert f"viewpoint {best['viewpoint']} at ({x:.1f}, {y:.1f}) m" in page
    assert "浴室里" in page
    assert "http" not in page.split("</style>")[1]


def test_a_place_is_found_by_a_picture_of_it(scene, model, tmp_path, capsys) -> None:
    place = scene.graph.positions[9] + (0.3, 0.1, 0.0)
    pixels = picture(scene.simulator, glimpse(scene.simulator, place, 0.2, 128))
    file = tmp_path / "goal.png"
    Image.fromarray(pixels).save(file)
    words = ("--image", str(file), "--scene", HOUSE, "--seen", "1,9,14", "--model", model)
    answer = told(capsys, *words, "--out", str(tmp_path / "page"))
    best = answer["ranking"][0]
    assert best["viewpoint"] == "9"
    assert abs(math.remainder(best["yaw"] - 0.2, math.tau)) < math.radians(31)
    assert (tmp_path / "page" / "index.html").read_text().count("<img ") == 2 + 10
    assert told(capsys, *words, "--by", "meaning")["ranking"] != answer["ranking"]


def test_lines_say_where_and_notes_what_was_not_read(model, capsys) -> None:
    words = ("a " * 30, "--scene", HOUSE, "--seen", "2", "--model", model, "--top", "1")
    assert retrieve(*words) == 0
    first, note, last = capsys.readouterr().out.splitlines()
    assert "viewpoint 2 at (" in first
    assert "from +x" in first
    assert note == "note: only the first 16 of 30 words are read"
    assert last == f"12 views from 1 places of {HOUSE} looked at"


def test_places_are_numbers_names_or_positions_and_count_once(scene) -> None:
    name = scene.graph.viewpoints[4]
    found = read_places(scene, f"4, {name} ,7,4")
    assert [place.label for place in found] == ["4", "7"]
    assert len(read_places(scene, None)) == len(scene.graph)
    x, y, z = scene.graph.positions[4].tolist()
    assert read_places(scene, f"{x} {y} {z}")[0].viewpoint is None


def test_a_map_shows_answers_where_they_are(scene) -> None:
    places = read_places(scene, None)
    bare = draw_map(scene, places, [])
    x, y, z = scene.graph.positions[14].tolist()
    marked = draw_map(scene, places, [SeenView(1, "14", (x, y, z), math.pi / 2, 0.5)])
    changed = np.argwhere((bare != marked).any(-1))
    rows, columns = changed[:, 0], changed[:, 1]
    # An arrow to the north reaches up from the disc more than in any other direction.
    column, row = FloorMap(scene.graph, scene.house, _MAP).point(scene.graph.positions[14])
    assert row - rows.min() > 25
    assert rows.max() - row < 14
    assert max(column - columns.min(), columns.max() - column) < 14


def test_bad_input_ends_in_one_line(model, tmp_path, capsys) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    house = ("--scene", HOUSE)
    cases = [
        (("red", "--scene", "my house"), "my house"),
        (("red", *house, "--seen", "99"), "no viewpoint '99'"),
        (("red", *house, "--seen", ""), "no viewpoint ''"),
        (("red", *house, "--seen", "-50 -50 1.5"), "nobody can stand at"),
        (("  ", *house), "TEXT has no word"),
        (("--image", str(tmp_path / "x.png"), *house), "no image of a known"),
        (("--image", str(tmp_path / "none.png"), *house), "none.png"),
        ((*house,), "give a sentence and a folder"),
        (("red", "--image", "x.png", *house), "give a sentence and a folder"),
        (("red", "--images", str(tmp_path), *house), "give a sentence and a folder"),
        (("red", "--images", str(tmp_path), "--seen", "1"), "--seen names viewpoints"),
        (("red", *house, "--by", "meaning"), "--by is for the place of an image"),
        (("red", *house, "--top", "0"), "--top must be 1 or more"),
        (("red", *house, "--out", str(tmp_path)), "holds other files"),
    ]
    for words, message in cases:
        assert retrieve(*words, "--model", model) == 2, words
        error = capsys.readouterr().err
        assert message in error, words
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png"]
