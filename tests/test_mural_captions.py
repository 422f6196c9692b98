"""Captions: what is really seen, grammar by whole sentences, sets in folders, the verb."""

import json
from itertools import product

import numpy as np
import pytest

from decisive import render_captions
from decisive.render_captions import Scenes, draw_block, page, render
from envs.captions.facts import COLORS, UNCOLORED, Facts, Thing, color_of, describe
from envs.captions.house_views import _NAMES, _simulator, draw_house_view, view_rays
from envs.captions.sentences import PHRASINGS, captions
from envs.captions.words import (
    CHINESE_COLORS,
    CZECH_COLORS,
    FRENCH_COLORS,
    GERMAN_COLORS,
    LANGUAGES,
    NOUNS,
    PLACES,
    SIDE_WORDS,
)
from envs.indoor.furniture import KINDS
from envs.indoor.room_types import HALLWAY, PURPOSES
from learning.caption_set import CaptionSet, open_caption_set, write_caption_set

KITCHEN = Facts("kitchen", (Thing("table", "brown", "left"), Thing("chair", "red", "right")))
DESK = Facts("office", (Thing("armchair", "orange", "middle"),))
TABLE = Facts(
    "table",
    (
        Thing("mug", "purple", "left"),
        Thing("ball", None, "middle"),
        Thing("block", "white", "right"),
    ),
)


def test_english_says_the_same_in_several_ways() -> None:
    assert captions(KITCHEN, "en") == (
        "In the kitchen there is a brown table and a red chair.",
        "A kitchen with a brown table and a red chair.",
        "A brown table and a red chair in a kitchen.",
        "This kitchen has a brown table and a red chair.",
    )
    assert captions(DESK, "en")[1:3] == (
        "An office with an orange armchair.",
        "An orange armchair in an office.",
    )
    assert captions(TABLE, "en", sides=True)[0] == (
        "On the table there is a purple mug on the left, a ball in the middle and a white block on "
        "the right."
    )


@pytest.mark.parametrize(
    ("language", "kitchen", "office", "table"),
    [
        (
            "de",
            "In der Küche sind ein brauner Tisch links und ein roter Stuhl rechts zu sehen.",
            "Im Büro ist ein orangefarbener Sessel zu sehen.",
            "Auf dem Tisch sind eine lila Tasse, ein Ball und ein weißer Klotz zu sehen.",
        ),
        (
            "fr",
            "Dans la cuisine, il y a une table marron à gauche et une chaise rouge à droite.",
            "Dans le bureau, il y a un fauteuil orange.",
            "Sur la table, il y a une tasse violette, un ballon et un bloc blanc.",
        ),
        (
            "cs",
            "V kuchyni jsou hnědý stůl vlevo a červená židle vpravo.",
            "V pracovně je oranžové křeslo.",
            "Na stole jsou fialový hrnek, míč a bílý kvádr.",
        ),
        (
            "zh",
            "厨房里，左边有一张棕色的桌子，右边有一把红色的椅子。",  # noqa: RUF001
            "办公室里有一把橙色的扶手椅。",
            "桌子上有一个紫色的杯子、一个球和一块白色的积木。",
        ),
    ],
)
def test_other_languages_by_whole_sentences(language, kitchen, office, table) -> None:
    assert captions(KITCHEN, language, sides=True) == (kitchen,)
    assert captions(DESK, language) == (office,)
    assert captions(TABLE, language) == (table,)


def test_every_word_is_there_in_every_language() -> None:
    for colors in (GERMAN_COLORS, FRENCH_COLORS, CZECH_COLORS, CHINESE_COLORS):
        assert set(colors) == set(COLORS)
    assert {*PURPOSES, HALLWAY, "table"} == set(PLACES)
    assert set(SIDE_WORDS) == set(LANGUAGES)
    assert set(UNCOLORED) <= set(NOUNS)
    for noun in NOUNS.values():
        assert noun.de[0] in "mfn"
        assert noun.fr[0] in "mf"
        assert noun.cs[0] in "mfn"
        assert noun.de[1] == noun.fr[1] == noun.cs[1] == noun.zh[1] == " "
    for field in range(5):  # two things of one name could not be told apart
        assert len({noun[field] for noun in NOUNS.values()}) == len(NOUNS)
    assert set(_NAMES) <= set(KINDS)
    assert set(_NAMES.values()) <= set(NOUNS)


def test_all_facts_can_be_said() -> None:
    for name, color, place in product(NOUNS, (None, *COLORS), PLACES):
        facts = Facts(place, (Thing(name, color, "left"),))
        for language in LANGUAGES:
            said = captions(facts, language, sides=True)
            assert len(said) == (PHRASINGS if language == "en" else 1)
            assert all(text[-1] in ".。" and "{" not in text for text in said)


def test_what_has_no_word_is_refused() -> None:
    with pytest.raises(ValueError, match="language must be one of en, de"):
        captions(DESK, "es")
    with pytest.raises(ValueError, match="no word for 'ufo'"):
        captions(Facts("kitchen", (Thing("ufo", None, "left"),)), "en")
    with pytest.raises(ValueError, match="no word for 'moon'"):
        captions(Facts("moon", DESK.things), "de")
    with pytest.raises(ValueError, match="things must be 1 to 3"):
        Facts("kitchen", ())


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 30, 30), "red"), ((250, 140, 20), "orange"), ((240, 220, 40), "yellow"),
        ((40, 160, 60), "green"), ((30, 70, 200), "blue"), ((120, 40, 190), "purple"),
        ((240, 120, 190), "pink"), ((110, 70, 35), "brown"), ((245, 245, 245), "white"),
        ((128, 128, 128), "grey"), ((15, 15, 15), "black"),
    ],
)  # fmt: skip
def test_plain_colours_have_their_names(rgb, name) -> None:
    assert color_of(np.tile(np.array(rgb, np.uint8), (10, 1))) == name


def test_no_colour_prevails_in_a_mixture() -> None:
    rows = [(220, 30, 30)] * 4 + [(30, 70, 200)] * 3 + [(40, 160, 60)] * 3
    assert color_of(np.array(rows, np.uint8)) is None


def test_only_what_is_alone_of_its_name_is_told() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    ids = np.full((10, 10), -1)
    ids[:4, :3], ids[5:9, 7:], ids[:2, 4:6], ids[9, 9] = 0, 1, 2, 3
    image[ids == 0] = (220, 30, 30)
    image[ids == 1] = (30, 70, 200)
    found = describe(image, ids, ["chair", "table", None, "table"], 0.05, 0.02)
    assert found == (Thing("chair", "red", "left"), Thing("table", "blue", "right"))
    # A second table of one pixel counts where one pixel is noticed.
    assert describe(image, ids, ["chair", "table", None, "table"], 0.05, 0.01) == found[:1]
    assert describe(image, ids, ["mirror", None, None, None], 0.05, 0.02)[0].color is None


def test_the_camera_sees_left_on_the_left() -> None:
    rays = view_rays(np.array([1.0, 2.0, 1.5]), 0.0, 3).reshape(3, 3, 6)
    assert np.allclose(rays[..., :3], (1.0, 2.0, 1.5))
    assert np.allclose(np.linalg.norm(rays[..., 3:], axis=-1), 1, atol=1e-6)
    ahead = rays[1, 1, 3:]
    assert ahead[0] > 0.9
    assert abs(ahead[1]) < 1e-6
    assert -0.3 < ahead[2] < 0  # a little down
    assert rays[1, 0, 4] > 0  # +y is left of +x
    assert rays[0, 1, 5] > rays[2, 1, 5]


def test_a_view_is_a_function_of_its_number() -> None:
    first = draw_house_view(5, "train", 0, 64)
    _simulator.cache_clear()
    draw_house_view(9, "train", 0, 64)
    again = draw_house_view(5, "train", 0, 64)
    assert np.array_equal(first.image, again.image)
    assert first.facts == again.facts
    other = draw_house_view(5, "test", 0, 64)
    assert not np.array_equal(first.image, other.image)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> CaptionSet:
    return render(Scenes(split="test"), 16, tmp_path_factory.mktemp("captions") / "test")


def test_a_set_has_houses_and_tables_and_all_languages_say_the_same(rendered) -> None:
    assert rendered.images.shape == (16, 64, 64, 3)
    assert rendered.facts["synthetic"] is True
    assert "Synthetic" in rendered.source
    assert set(rendered.captions) == set(LANGUAGES)
    for k in range(16):
        english = rendered.captions["en"][k]
        assert len(english) == 2 * PHRASINGS
        assert english[0].startswith("On the table") == (k % 8 >= 4)
        tables = [rendered.captions["de"][k][0].startswith("Auf dem Tisch"),
                  rendered.captions["fr"][k][0].startswith("Sur la table"),
                  rendered.captions["cs"][k][0].startswith("Na stole"),
                  rendered.captions["zh"][k][0].startswith("桌子上")]  # fmt: skip
        assert tables == [k % 8 >= 4] * 4
        colors = [color for color in COLORS if f" {color} " in f" {english[0]}"]
        assert all(CHINESE_COLORS[color] in rendered.captions["zh"][k][0] for color in colors)


def test_pictures_do_not_depend_on_blocks(rendered) -> None:
    images, said = draw_block(Scenes(split="test"), range(4, 6))
    assert np.array_equal(images, rendered.images[4:6])
    assert tuple(said["fr"]) == rendered.captions["fr"][4:6]
    train = Scenes(split="train").languages
    assert train == ("en",)


def test_the_page_shows_pictures_with_captions(rendered) -> None:
    pixels = page(rendered, 7)
    assert pixels.dtype == np.uint8
    assert (pixels[16 : 16 + 192 : 3, 16 : 16 + 192 : 3] == rendered.images[0]).all()


def test_the_verb_writes_and_refuses(tmp_path, capsys) -> None:
    out = tmp_path / "set"
    assert (
        render_captions.main(["--out", str(out), "--images", "5", "--json", "--pictures", "5"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 5
    assert told["languages"] == ["en"]
    assert (out / "pictures.png").is_file()
    assert len(open_caption_set(out)) == 5
    with pytest.raises(ValueError, match="exists; choose another name"):
        render_captions.main(["--out", str(out), "--images", "5"])
    for words, message in (
        (("--images", "0"), "at least 1"), (("--size", "20"), "64..512"),
        (("--workers", "0"), "workers"), (("--pictures", "101"), "0..100"),
        (("--seed", "-1"), "0..999"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            render_captions.main(["--out", str(tmp_path / "other"), *words])


def small(n: int = 3) -> tuple[np.ndarray, dict[str, list[list[str]]]]:
    images = np.arange(n * 12, dtype=np.uint8).reshape(n, 2, 2, 3)
    return images, {"en": [[f"picture {k}", "it"] for k in range(n)]}


def test_a_set_is_read_back(tmp_path) -> None:
    write_caption_set(tmp_path / "s", [small()], 3, (2, 2), ["en"], "mine", {"a": 1})
    found = open_caption_set(tmp_path / "s")
    assert found.captions == {"en": (("picture 0", "it"), ("picture 1", "it"), ("picture 2", "it"))}
    assert (found.images == small()[0]).all()
    some = found.take([2, 0])
    assert some.captions["en"][0][0] == "picture 2"
    assert (some.images[1] == small()[0][0]).all()


def test_a_damaged_set_is_refused_in_one_line(tmp_path) -> None:
    folder = tmp_path / "s"
    with pytest.raises(ValueError, match="no pictures with captions here"):
        open_caption_set(folder)
    for name, content in (
        ("images.npy", b"nonsense"), ("captions.json", b"{"), ("captions.json", b'{"en": [["a"]]}'),
        ("captions.json", b'{"en": 3}'), ("captions.json", b'{"en": [["a"], [], ["b"]]}'),
        ("set.json", b"[]"), ("set.json", b'{"format": 9}'),
    ):  # fmt: skip
        write_caption_set(folder, [small()], 3, (2, 2), ["en"], "mine", {})
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"\S") as caught:
            open_caption_set(folder)
        assert "\n" not in str(caught.value)


def test_chunks_that_do_not_fit_leave_nothing(tmp_path) -> None:
    folder = tmp_path / "s"
    for n, chunks in ((4, [small()]), (2, [small()]), (0, [])):
        with pytest.raises(ValueError, match=r"chunks must hold|needs a picture"):
            write_caption_set(folder, chunks, n, (2, 2), ["en"], "mine", {})
        assert not list(tmp_path.iterdir())
