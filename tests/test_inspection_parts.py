"""Parts of the inspection line as meshes, and what is wrong with them: worked by hand."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envs.tabletop.inspection_defects import DEFECTS, Foreign, Mark, make_faulty
from envs.tabletop.inspection_parts import (
    PRODUCTS,
    STRANGERS,
    Chip,
    Part,
    Soup,
    corners,
    is_solid,
    patch,
    pin_triangles,
    ribbon,
    triangles,
)

ALL = {**PRODUCTS, **STRANGERS}
PLAIN = Part({(0, 0): "plain"}, pitch=0.04, thickness=0.01)
PLATE = Part(PRODUCTS["plate"], pitch=0.04, thickness=0.01, hole=0.01)


def upward(found: np.ndarray) -> np.ndarray:
    """Signed areas of triangles seen from above."""
    a, b, c = found[:, 0, :2], found[:, 1, :2], found[:, 2, :2]
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def volume(found: np.ndarray) -> float:
    """By the flux of z: the underside, at z = 0, adds nothing."""
    return float((upward(found) * found[:, :, 2].mean(1)).sum())


def hole_area(part: Part) -> float:
    """Of the polygon that a hole is: corners where lines to eight points of each side meet it."""
    steps = np.arange(8) * 2 / 8 - 1
    angle = np.sort(np.concatenate([np.arctan(steps) + k * math.pi / 2 for k in range(4)]))
    gaps = np.diff([*angle, angle[0] + 2 * math.pi])
    return float(0.5 * part.hole**2 * np.sin(gaps).sum())


def test_a_plain_cell_is_a_box() -> None:
    found = triangles(PLAIN)
    assert volume(found) == pytest.approx(0.04**2 * 0.01)
    assert found.reshape(-1, 3).min(0) == pytest.approx([-0.02, -0.02, 0.0])
    assert found.reshape(-1, 3).max(0) == pytest.approx([0.02, 0.02, 0.01])


def test_holes_go_through_and_take_their_volume() -> None:
    expected = 4 * (0.04**2 - hole_area(PLATE)) * 0.01
    assert volume(triangles(PLATE)) == pytest.approx(expected)
    wider = replace(PLATE, hole=0.012)
    assert volume(triangles(wider)) < volume(triangles(PLATE))


@pytest.mark.parametrize("name", ALL)
def test_meshes_are_closed_but_for_their_foot(name: str) -> None:
    cell, corner = corners(ALL[name])[0]
    chip = Chip(cell, corner, 0.7, 0.2, (1.0, 0.95, 1.05))
    for part in (Part(ALL[name]), Part(ALL[name], chip=chip), Part(ALL[name], bend=10.0)):
        flat = replace(part, bend=0.0)
        points = np.round(triangles(flat), 9)
        edges = Counter(
            (tuple(one[i]), tuple(one[(i + 1) % 3])) for one in points for i in range(3)
        )
        open_ = [edge for edge in edges if (edge[1], edge[0]) not in edges]
        assert all(start[2] == 0 and end[2] == 0 for start, end in open_)
        assert max(edges.values()) == 1
        assert triangles(part).shape == triangles(flat).shape


def test_a_pin_stands_on_the_face() -> None:
    part = Part(PRODUCTS["angle"])
    pins = pin_triangles(part)
    assert pins[..., 2].min() == pytest.approx(part.thickness)
    assert pins[..., 2].max() == pytest.approx(part.thickness + part.pin[1])
    middle = pins.reshape(-1, 3)[:, :2].mean(0)
    assert middle == pytest.approx(part.center((0, 0)), abs=1e-3)
    # Seen from above all of it faces up or sideways.
    assert upward(pins).min() > -1e-12
    assert len(pin_triangles(PLATE)) == 0


def test_a_chip_takes_one_corner_and_nothing_else() -> None:
    chip = Chip((1, 1), (1, 1), 0.7, 0.0, (1.0,))
    found = triangles(replace(PLATE, chip=chip)).reshape(-1, 3)
    # The break is square to the diagonal at 0.7 of the way from the cell's middle to its corner.
    along = (found[:, :2] - PLATE.center((1, 1))).sum(1) / math.sqrt(2)
    assert along.max() == pytest.approx(0.7 * 0.02 * math.sqrt(2))
    for x, y in ((-0.04, -0.04), (0.04, -0.04), (-0.04, 0.04)):
        assert (np.linalg.norm(found[:, :2] - (x, y), axis=1) < 1e-9).any()
    # Legs of the corner are 0.3 * 2 * 0.02: half their square is gone, more or less by a step of
    # the boundary.
    gone = volume(triangles(PLATE)) - volume(triangles(replace(PLATE, chip=chip)))
    assert gone == pytest.approx(0.5 * (0.3 * 2 * 0.02) ** 2 * 0.01, rel=0.1)


def test_corners_are_those_to_the_outside() -> None:
    found = corners(PRODUCTS["angle"])
    # An L has five of them, and one to the inside.
    assert len(found) == 5
    assert ((0, 0), (1, 1)) not in found
    assert ((1, 0), (1, 1)) in found
    assert len(corners(PRODUCTS["plate"])) == len(corners(PRODUCTS["rail"])) == 4


def test_a_bent_end_lies_on_an_arc() -> None:
    part = Part({(0, 0): "plain", (1, 0): "plain"}, pitch=0.04, bend=10.0, bend_from=0.5)
    found = triangles(part).reshape(-1, 3)
    flat = triangles(replace(part, bend=0.0)).reshape(-1, 3)
    kept = flat[:, 0] <= 0
    np.testing.assert_allclose(found[kept], flat[kept])
    end = np.isclose(flat[:, 0], 0.04) & (flat[:, 2] == 0)
    # 0.04 m along an arc of radius 0.1 m.
    assert found[end][:, 0] == pytest.approx(0.1 * math.sin(0.4))
    assert found[end][:, 2] == pytest.approx(0.1 * (1 - math.cos(0.4)))


def test_stretching_is_along_one_axis() -> None:
    found = triangles(replace(PLATE, stretch=(1.2, 1.0))).reshape(-1, 3)
    np.testing.assert_allclose(found, triangles(PLATE).reshape(-1, 3) * (1.2, 1.0, 1.0))


def test_solid_is_where_neither_hole_nor_edge_is_near() -> None:
    points = np.array([[0.0, 0.0], [0.02, 0.02], [0.035, 0.035], [0.05, 0.0], [0.031, 0.02]])
    np.testing.assert_array_equal(is_solid(PLATE, points, 0.002), [True, False, True, False, False])
    # The same with a margin that reaches the edge: 5 mm away.
    assert not is_solid(PLATE, points[2:3], 0.0051)[0]
    assert is_solid(PLATE, np.array([[0.031, 0.02]]), 0.0)[0]


def test_marks_lie_just_above_the_face() -> None:
    square = np.array([[0.0, 0.0], [0.01, 0.0], [0.01, 0.01], [0.0, 0.01]])
    stain = patch(square, 0.02)
    assert upward(stain).sum() == pytest.approx(1e-4)
    assert upward(stain).min() > 0
    path = np.column_stack([np.linspace(0, 0.03, 31), np.zeros(31)])
    scratch = ribbon(path, 0.002, 0.02)
    assert upward(scratch).min() > 0
    # Full width in the middle third each side of it, thinner at the ends.
    assert 0.03 * 0.002 * 0.7 < upward(scratch).sum() < 0.03 * 0.002
    for found in (stain, scratch):
        assert ((found[..., 2] > 0.02) & (found[..., 2] < 0.021)).all()


def test_lists_for_bullet_are_filled_again() -> None:
    soup = Soup()
    first = soup.of(triangles(PLATE))
    rows = {id(row) for row in first["vertices"]}
    small = triangles(PLAIN)
    second = soup.of(small)
    assert second["vertices"] is first["vertices"]
    assert {id(row) for row in second["vertices"]} <= rows
    np.testing.assert_allclose(second["vertices"], small.reshape(-1, 3))
    assert second["indices"] == list(range(3 * len(small)))
    normals = np.array(second["normals"]).reshape(-1, 3, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=2), 1.0)
    top = (small[..., 2] == PLAIN.thickness).all(1)
    np.testing.assert_allclose(normals[top], np.broadcast_to((0.0, 0.0, 1.0), (top.sum(), 3, 3)))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(DEFECTS)), st.sampled_from(sorted(PRODUCTS)), st.integers(0, 10_000))
@example("stain", "angle", 63)  # its bulges once reached over the edge
def test_every_defect_changes_the_part_or_lies_on_it(name: str, product: str, seed: int) -> None:
    sound = Part(PRODUCTS[product])
    found = make_faulty(sound, name, np.random.default_rng(seed))
    if found is None:
        assert name in ("stain", "scratch", "foreign")
        return
    changed = found.part != sound
    assert changed == (found.on_it is None)
    if isinstance(found.on_it, Mark):
        points = found.on_it.triangles.reshape(-1, 3)[:, :2]
        assert is_solid(sound, points, 0.0).all()
    if isinstance(found.on_it, Foreign):
        assert 0.01 < found.on_it.size < 0.03
    if name == "missing":
        assert sum(a != b for a, b in zip(found.part.design.values(), sound.design.values(),
                                          strict=True)) == 1  # fmt: skip
    if name == "wrong_part":
        assert found.part.design in STRANGERS.values()
    if name == "wrong_size":
        assert not 0.9 < math.prod(found.part.stretch) < 1.1


def test_what_cannot_be_is_refused() -> None:
    for change, said in (
        ({"design": {}}, "needs a cell"),
        ({"hole": 0.02}, "hole must be in"),
        ({"thickness": 0.0}, "must be positive"),
        ({"stretch": (1.0, -1.0)}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(PLATE, **change)
    with pytest.raises(ValueError, match="defect must be one of chip, "):
        make_faulty(PLATE, "rust", np.random.default_rng(0))
