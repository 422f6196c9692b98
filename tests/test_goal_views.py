"""Goal views: cutting panoramas, what texts have in common, and where things are truly seen."""

import math

import numpy as np
import pytest
import torch
from mural_cases import tiny_saved

from decisive.goal_views import CutConfig, GoalViews, common_text, cut
from envs.captions.facts import Thing
from envs.captions.house_sights import SIZE, Asked, survey
from envs.captions.house_views import LEAST, glimpse, picture, spoken_names, tell
from envs.captions.words import LANGUAGES, NOUNS
from envs.indoor.house import generate_house
from envs.indoor.procedural import ProceduralSimulator
from perception.mural.checkpoint import load_mural
from robots.color_look import color_look
from robots.view_memory import Sight, ViewMemoryConfig

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def simulator():
    made = ProceduralSimulator(generate_house(3, "val"))
    yield made
    made.close()


# Cutting.


def test_cut_views_are_what_a_camera_sees(simulator) -> None:
    config = CutConfig(views=6, size=64)
    viewpoint = simulator.graph.viewpoints[2]
    views = cut(simulator.observe(viewpoint, (512, 1024)).rgb, config)
    assert views.shape == (6, 64, 64, 3)
    position = simulator.graph.positions[2]
    for yaw, view in zip(config.yaws, views, strict=True):
        truth = picture(simulator, glimpse(simulator, position, yaw, 64)).astype(float)
        error = np.abs(view - truth).mean()
        turned = np.abs(views[0 if yaw else 3] - truth).mean()
        assert error < 6 < turned


def test_turning_on_the_spot_rolls_the_views() -> None:
    panorama = RNG.integers(0, 256, (32, 64, 3), np.uint8)
    views = cut(panorama, CutConfig(views=4, size=16))
    # Columns run clockwise: a world that is turned to the left moves them to the left.
    turned = cut(np.roll(panorama, -16, axis=1), CutConfig(views=4, size=16))
    np.testing.assert_allclose(turned, np.roll(views, 1, axis=0), atol=1)
    assert CutConfig(views=4).yaws == pytest.approx((0, math.pi / 2, math.pi, -math.pi / 2))


def test_what_is_no_panorama_is_refused() -> None:
    for pixels in (np.zeros((4, 8), np.uint8), np.zeros((4, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"a panorama must be \(H, W, 3\)"):
            cut(pixels, CutConfig())
    for changes, why in (({"views": 0}, "views must be"), ({"size": 4}, "size must be")):
        with pytest.raises(ValueError, match=why):
            CutConfig(**changes)


# Answers.


def seen() -> GoalViews:
    views = GoalViews(tiny_saved())
    sights = [Sight(float(k), 0.0, 1.5, 0.0, stamp=k) for k in range(4)]
    assert views.see(list(PIXELS), sights) == len(views) == 4
    return views


def test_a_picture_finds_itself_either_way() -> None:
    views = seen()
    for by in ("colors", "meaning"):
        ranking = views.ask_picture(PIXELS[2], 2, by)
        assert ranking[0].sight.stamp == 2
        assert ranking[0].score == pytest.approx(1, abs=1e-5)
    looks = [float(color_look(PIXELS[1]) @ color_look(pixels)) for pixels in PIXELS]
    found = [(r.sight.stamp, r.score) for r in views.ask_picture(PIXELS[1], 4)]
    assert [k for k, _ in found] == np.argsort(looks)[::-1].tolist()
    assert [score for _, score in found] == pytest.approx(sorted(looks, reverse=True), abs=1e-5)


def test_texts_are_ranked_by_what_they_alone_say() -> None:
    views, saved = seen(), tiny_saved()
    common = common_text(saved)
    query = saved.embed_text(["a red chair"])[0] - common
    scores = saved.embed_images(PIXELS) @ (query / query.norm())
    ranking = views.ask("a red chair", 9)
    order = scores.argsort(descending=True).tolist()
    assert [r.sight.stamp for r in ranking] == order
    assert [r.score for r in ranking] == pytest.approx(scores[order].tolist(), abs=1e-5)


def test_the_common_part_is_of_all_languages_and_no_more_than_a_part() -> None:
    model = load_mural()
    common = common_text(model)
    assert len(common) == model.width
    assert 0.3 < float(common.norm()) < 0.95
    for language in LANGUAGES:
        index = LANGUAGES.index(language)
        texts = [noun[index].split(" ", 1)[-1] for noun in NOUNS.values()]
        rest = model.embed_text(texts) @ (common / common.norm())
        assert float(rest.mean()) > 0.1
    torch.testing.assert_close(common, common_text(model))


def test_seeing_is_all_or_nothing() -> None:
    views = seen()
    here = Sight(9.0, 0.0, 0.0, 0.0)
    bad = [
        ([PIXELS[0]], [], "1 pictures need as many sights, got 0"),
        ([PIXELS[0], PIXELS[1, :, :2]], [here, here], "3 columns at least"),
        ([PIXELS[0].astype(float)], [here], "must be uint8"),
        ([PIXELS[0], PIXELS[1]], [here, here._replace(x=math.nan)], "must be finite"),
    ]
    for pictures, sights, why in bad:
        with pytest.raises(ValueError, match=why):
            views.see(pictures, sights)
    assert len(views) == len(views.looks) == 4


def test_questions_without_sense_are_refused() -> None:
    views = GoalViews(tiny_saved(), ViewMemoryConfig(most=2))
    for ask in (lambda: views.ask("chair", 1), lambda: views.ask_picture(PIXELS[0], 1)):
        with pytest.raises(ValueError, match="nothing was seen yet"):
            ask()
    views.see(list(PIXELS), [Sight(float(k), 0.0, 0.0, 0.0, stamp=k) for k in range(4)])
    assert [s.stamp for s in views.meanings.sights] == [s.stamp for s in views.looks.sights]
    for text in ("", " ", "?!"):
        with pytest.raises(ValueError, match="the text has no word"):
            views.ask(text, 1)
    with pytest.raises(ValueError, match="by must be one of colors, meaning"):
        views.ask_picture(PIXELS[0], 1, "smell")  # type: ignore[arg-type]
    views.clear()
    assert len(views) == len(views.looks) == 0


# What is truly seen.


def test_a_survey_says_what_the_renderer_shows(simulator) -> None:
    yaws = (0.0, math.pi / 2)
    sights = survey(simulator, yaws)
    house = simulator.house
    assert sights.rooms.shape == (len(house.graph), 2)
    names = spoken_names(house)
    for v, h in ((0, 0), (3, 1), (7, 0)):
        look = glimpse(simulator, house.graph.positions[v], yaws[h], SIZE)
        assert sights.rooms[v, h] == look.room
        for piece in range(len(names)):
            share = float((look.ids == piece).mean())
            assert sights.shares[v, h, piece] == pytest.approx(share)
    things = [asked for asked in sights.asked if asked.thing is not None]
    assert len(things) > 5
    for asked in things:
        assert asked.thing is not None
        pieces = sights.told[asked.thing.name, asked.thing.color]
        assert {names[piece] for piece in pieces} == {asked.thing.name}
        expected = [
            [max(row[p] for p in pieces) >= LEAST for row in view] for view in sights.shares
        ]
        np.testing.assert_array_equal(sights.shows(asked), expected)
        assert sights.shows(asked).any()
    rooms = {asked.place for asked in sights.asked if asked.thing is None}
    assert rooms == {house.rooms[room].purpose for room in np.unique(sights.rooms)}
    for place in rooms:
        shown = sights.shows(Asked(place))
        assert shown.any()
        assert {sights.purposes[room] for room in sights.rooms[shown]} == {place}


def test_what_is_asked_for_was_told_of_a_view(simulator) -> None:
    sights = survey(simulator, (1.0,))
    told = {
        (thing.name, thing.color)
        for position in simulator.graph.positions
        if (drawn := tell(simulator, glimpse(simulator, position, 1.0, SIZE))) is not None
        for thing in drawn.facts.things
    }
    assert set(sights.told) == told
    assert all(
        asked.thing is None or (isinstance(asked.thing, Thing) and asked.thing.side == "middle")
        for asked in sights.asked
    )


def test_a_survey_without_headings_is_refused(simulator) -> None:
    for yaws in ((), (math.nan,)):
        with pytest.raises(ValueError, match="yaws must be finite, one at least"):
            survey(simulator, yaws)
