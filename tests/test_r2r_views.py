"""The 36 views: which way they look, what is in them, and views made of categories."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2r_cases import DATA, joined, needs_data, street

from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.equirectangular import pixels
from envs.indoor.symbolic import (
    category_of,
    read_categories,
    views_of_lists,
    views_of_objects,
    views_of_panorama,
)
from envs.indoor.viewing import (
    HALF_WIDTH,
    VIEWS,
    Surroundings,
    angles_of,
    seen_in,
    turned,
    turns_between,
    view_of,
)


def test_views_are_numbered_as_in_matterport3dsimulator() -> None:
    assert view_of(0.0, 0.0) == 12  # level, along +y
    assert view_of(math.radians(90), 0.0) == 15  # heading is clockwise: +x
    assert view_of(math.radians(-30), 0.0) == 23
    assert view_of(math.radians(60), math.radians(-30)) == 2
    assert view_of(0.0, math.radians(30)) == 24
    assert view_of(math.radians(359), 0.0) == 12  # rounds to the full turn, which is none
    assert view_of(0.0, math.radians(15)) == 12  # only beyond 15 degrees is it another row
    assert view_of(0.0, math.radians(-15.1)) == 0


@given(st.integers(0, VIEWS - 1))
def test_the_middle_of_a_view_is_in_it(view: int) -> None:
    assert view_of(*angles_of(view)) == view
    heading, elevation = angles_of(view)
    assert seen_in(np.array([heading]), np.array([elevation]))[0, view]


def test_turning() -> None:
    assert turned(23, right=1) == 12
    assert turned(12, right=-1) == 23
    assert turned(12, up=1) == 24
    assert turned(24, up=1) == 24  # looking further up ends there
    assert turned(0, up=-1) == 0
    assert turns_between(12, 23) == 1
    assert turns_between(0, 24 + 6) == 8


def compass() -> Surroundings:
    """Ways from a (the origin) to the north, the east, the south-west, and up a stair north."""
    ends = np.array([[0, 0, 0], [0, 2, 0], [2, 0, 0], [-2, -2, 0], [0.2, 2, 2]], float)
    return Surroundings(joined(ends, [(0, k) for k in range(1, 5)]))


def test_ways_are_sorted_from_the_middle_of_the_view_and_positive_to_the_right() -> None:
    ways = compass().ways(0, view_of(0.0, 0.0))
    assert [*"abcde"][ways.viewpoints[0]] == "b"
    assert ways.viewpoints.tolist() == [1, 4, 2, 3]
    assert ways.headings[0] == pytest.approx(0.0)
    assert math.degrees(ways.headings[2]) == pytest.approx(90.0)  # east is to the right
    assert math.degrees(ways.headings[3]) == pytest.approx(-135.0)
    assert math.degrees(ways.elevations[1]) == pytest.approx(44.86, abs=0.01)
    assert ways.distances[3] == pytest.approx(2 * math.sqrt(2))


def test_looking_up_the_stair_comes_first() -> None:
    ways = compass().ways(0, view_of(0.0, math.radians(30)))
    assert ways.viewpoints[0] == 4
    assert math.degrees(ways.elevations[0]) == pytest.approx(14.86, abs=0.01)


def test_restricted_ways_are_those_within_40_degrees_whatever_their_elevation() -> None:
    assert math.degrees(HALF_WIDTH) == pytest.approx(40.0)  # not atan(4/3 tan 30), 37.6
    assert compass().ways(0, view_of(0.0, 0.0), restricted=True).viewpoints.tolist() == [1, 4]
    edge = np.array([[0, 0, 0], *([math.sin(a), math.cos(a), 0] for a in np.radians([39.9, 40.1]))])
    seen = Surroundings(joined(edge, [(0, 1), (0, 2)])).ways(0, 12, restricted=True)
    assert seen.viewpoints.tolist() == [1]


def test_forward_goes_to_the_way_nearest_to_the_middle_or_nowhere() -> None:
    ahead = compass().ahead(0)
    assert ahead[view_of(0.0, 0.0)] == 1
    assert ahead[view_of(0.0, math.radians(30))] == 4
    assert ahead[view_of(math.radians(180), 0.0)] == -1
    assert ahead[view_of(math.radians(210), 0.0)] == 3


@given(st.integers(2, 9), st.integers(0, 2**32 - 1), st.integers(0, VIEWS - 1))
def test_forward_is_the_first_of_the_restricted_ways(n: int, seed: int, view: int) -> None:
    positions = np.random.default_rng(seed).normal(0.0, 3.0, (n, 3))
    around = Surroundings(joined(positions, [(0, k) for k in range(1, n)]))
    ways = around.ways(0, view, restricted=True)
    assert around.ahead(0)[view] == (ways.viewpoints[0] if len(ways.viewpoints) else -1)
    assert (np.diff(np.hypot(ways.headings, ways.elevations)) >= -1e-12).all()
    assert set(around.ways(0, view).viewpoints.tolist()) == set(range(1, n))


def test_a_viewpoint_alone_has_no_ways() -> None:
    alone = Surroundings(joined(np.zeros((1, 3)), []))
    assert not len(alone.ways(0, 12).viewpoints)
    assert set(alone.ahead(0)) == {-1}


def test_directions_of_neighbours_only() -> None:
    around = Surroundings(street())
    assert around.direction(0, 1) == pytest.approx((math.pi / 2, 0.0))  # east
    with pytest.raises(ValueError, match="no way leads straight from a to c"):
        around.direction(0, 2)


def test_things_are_seen_in_the_views_towards_them() -> None:
    here = np.array([0.0, 0.0, 1.5])
    things = np.array([[0.0, 2.0, 1.5], [2.0, 0.0, 3.5]])  # level to the north, high to the east
    views = views_of_objects(here, things, [ID["door"], ID["lighting"]])
    assert views.shape == (VIEWS, len(CATEGORIES))
    assert views[view_of(0.0, 0.0), ID["door"]] == 1
    assert views[view_of(math.radians(30), 0.0), ID["door"]] == 1  # within 40 degrees
    assert views[view_of(math.radians(60), 0.0), ID["door"]] == 0
    assert views[view_of(math.radians(90), 0.0), ID["lighting"]] == 0  # 45 degrees up
    assert views[view_of(math.radians(90), math.radians(30)), ID["lighting"]] == 1
    assert not views_of_objects(here, np.zeros((0, 3)), []).any()


def test_panoramas_become_views() -> None:
    semantic = np.full((64, 128), ID["wall"], np.uint8)
    semantic[48:] = ID["floor"]  # from 45 degrees down
    row, column = pixels(np.array([0.0, 1.0, 0.0]), 64, 128)
    semantic[row - 2 : row + 3, column - 2 : column + 3] = ID["door"]  # level, to the north
    semantic[0] = 0
    views = views_of_panorama(semantic)
    assert views.shape == (VIEWS, len(CATEGORIES))
    assert not views[:, 0].any()
    assert views[:, ID["wall"]].all()
    assert views[:12, ID["floor"]].all()  # looking down
    assert not views[12:, ID["floor"]].any()  # level: 30 degrees down at most
    assert sorted(np.flatnonzero(views[12:24, ID["door"]])) == [0, 1, 11]
    # One pixel is not enough.
    semantic[row, column + 40] = ID["plant"]
    assert not views_of_panorama(semantic)[:, ID["plant"]].any()


NAMES = {"pillar": ID["column"], "cabinet": ID["cabinet"], "chair": ID["chair"], "remove": 0}


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("pillar", "column"),
        ("bath#cabinet", "cabinet"),  # REVERIE's space; the last word says what it is
        ("old wooden chairs", "chair"),
        ("Stairs", "stairs"),
        ("tv#monitor", "tv_monitor"),
        ("gadget", "objects"),
        ("", "objects"),
        ("remove", "void"),
    ],
)
def test_names_fall_into_categories(name: str, category: str) -> None:
    assert CATEGORIES[category_of(name, NAMES)] == category


def test_lists_of_objects_become_views() -> None:
    lists = {"b": {"3": {"name": "chair", "visible_pos": [12, 13], "bbox2d": [[0, 0, 1, 1]] * 2}}}
    views = views_of_lists(street(3), lists, NAMES)
    assert np.argwhere(views).tolist() == [[1, 12, ID["chair"]], [1, 13, ID["chair"]]]
    hidden = {
        "b": {"3": {"name": "remove", "visible_pos": [1]}, "4": {"name": "x", "visible_pos": []}}
    }
    assert not views_of_lists(street(3), hidden, NAMES).any()


@pytest.mark.parametrize(
    "thing",
    [
        3,
        {"name": "chair"},
        {"name": "chair", "visible_pos": [36]},
        {"name": "chair", "visible_pos": [-1]},
        {"name": "chair", "visible_pos": [10**30]},
        {"name": "chair", "visible_pos": "x"},
        {"name": 5, "visible_pos": [1]},
    ],
)
def test_malformed_lists_of_objects_are_refused_in_one_line(thing: object) -> None:
    with pytest.raises(ValueError, match="case, viewpoint b: not a list of objects") as error:
        views_of_lists(street(3), {"b": {"0": thing}}, NAMES)
    assert "\n" not in str(error.value)


MAPPING = "index\traw_category\tcategory\tmpcat40index\n1\tpillar\tcolumn\t24\n"


def test_what_annotators_wrote_comes_before_what_it_was_merged_into(tmp_path: Path) -> None:
    # In Matterport3D's own file the common raw name "column" is a column, and a rare row whose
    # merged name is "column" says "misc".
    path = tmp_path / "category_mapping.tsv"
    path.write_text(MAPPING + "2\tcolumn\tpillar\t24\n3\tsupport column\tcolumn\t40\n4\tx\ty\t41\n")
    found = read_categories(path)
    assert found["column"] == found["pillar"] == ID["column"]
    assert found["support column"] == ID["misc"]
    assert found["x"] == 0  # "unlabeled"


@pytest.mark.parametrize(
    "content",
    ["", "a\tb\n1\t2\n", MAPPING.replace("24", "99"), MAPPING.replace("24", "-1"),
     MAPPING.replace("24", "x")],
)  # fmt: skip
def test_files_that_map_nothing_are_refused(tmp_path: Path, content: str) -> None:
    for name, raw in (("m.tsv", content.encode()), ("m.tsv.gz", gzip.compress(content.encode()))):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ValueError, match=r"category mapping|mpcat40"):
            read_categories(tmp_path / name)
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="category mapping"):
        read_categories(tmp_path / "broken.gz")


@needs_data
@pytest.mark.data
def test_every_object_that_reverie_names_has_a_category() -> None:
    found = read_categories(DATA / "mp3d_rooms" / "category_mapping.tsv.gz")
    assert CATEGORIES[category_of("column", found)] == "column"
    assert CATEGORIES[category_of("painting", found)] == "picture"
    assert CATEGORIES[category_of("kitchen#cabinet", found)] == "cabinet"
