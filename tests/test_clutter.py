"""Rendered scenes of a table: the labels are true, the splits apart, the bytes a function of k."""

import numpy as np
import pytest

from envs.tabletop import clutter_clips
from envs.tabletop.clutter import (
    NO_LABEL,
    TASKS,
    ClutterConfig,
    ClutterScenes,
    plan,
    rng_of,
)
from envs.tabletop.clutter_bodies import KINDS, N_COLORS, N_SHAPES, SPLITS, color, ids
from envs.tabletop.clutter_clips import MOTIONS, ClutterClips
from envs.tabletop.clutter_layout import MISSES, Layout, Plan
from envs.tabletop.clutter_view import Strip, Table, View, _paint, _table_points

CONFIG = ClutterConfig(size=48)


@pytest.fixture(scope="module")
def scenes():
    with ClutterScenes(CONFIG) as artist:
        yield artist


@pytest.fixture(scope="module")
def clips():
    with ClutterClips(ClutterConfig(size=32, clutter=0.0)) as artist:
        yield artist


def laid(scenes, what: Plan, attempts: int = 60) -> Layout:
    """The first layout that comes out as planned."""
    for attempt in range(attempts):
        layout = scenes.layout(what, rng_of(CONFIG, 10_000, attempt))
        if layout.build() and layout.bodies.settle(layout.free) and layout.is_as_planned():
            return layout
    pytest.fail(f"{what} cannot be laid out")


def test_a_picture_depends_on_its_number_alone(scenes) -> None:
    forwards = [scenes.draw(k) for k in range(4)]
    backwards = [scenes.draw(k) for k in (3, 2, 1, 0)][::-1]
    with ClutterScenes(CONFIG) as other:
        alone, labels = other.draw(3)
    for (image, label), (again, same) in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(image, again)
        np.testing.assert_array_equal(label, same)
    np.testing.assert_array_equal(alone, forwards[3][0])
    np.testing.assert_array_equal(labels, forwards[3][1])
    assert not np.array_equal(forwards[0][0], forwards[1][0])


def test_other_seeds_and_splits_are_other_pictures() -> None:
    first = [rng_of(ClutterConfig(split=split), 0).random() for split in SPLITS]
    first += [rng_of(ClutterConfig(seed=1), 0).random(), rng_of(ClutterConfig(), 1).random()]
    assert len(set(first)) == 5


@pytest.mark.parametrize("n", [N_SHAPES, N_COLORS])
def test_splits_share_no_shape_and_no_color(n: int) -> None:
    parts = [set(ids(split, n).tolist()) for split in SPLITS]
    assert [len(part) for part in parts] == [0.8 * n, 0.1 * n, 0.1 * n]
    assert len(set.union(*parts)) == n  # disjoint, as the sizes add up


@pytest.mark.parametrize("pale", [False, True])
def test_no_two_ids_have_one_color(pale: bool) -> None:
    colors = {tuple(round(255 * c) for c in color(i, pale=pale)) for i in range(N_COLORS)}
    assert len(colors) > 0.97 * N_COLORS
    assert all(0 <= value <= 255 for paint in colors for value in paint)


def test_labels_are_spread_and_independent_of_each_other() -> None:
    labels = np.array([plan(CONFIG, k).labels() for k in range(6000)])
    kinds = np.bincount(labels[:, 0], minlength=11) / 6000
    np.testing.assert_allclose(kinds, 1 / 11, atol=0.013)
    asked = labels[:, 1] != NO_LABEL
    assert asked.mean() == pytest.approx(0.3, abs=0.02)
    assert labels[asked, 1].mean() == pytest.approx(0.5, abs=0.04)
    zones = labels[labels[:, 2] != NO_LABEL, 2]
    np.testing.assert_allclose(np.bincount(zones) / len(zones), 0.25, atol=0.04)
    assert not (asked & (labels[:, 2] != NO_LABEL)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_to_rest_on_the_table_at_its_size(scenes, kind: str) -> None:
    layout = laid(scenes, Plan("open", kind, None, (False, False), 0))
    touching = [point[8] for point in scenes._client.getContactPoints(layout.main, 0)]
    assert touching
    assert max(map(abs, touching)) < 0.004  # neither above the table nor in it
    low, high = layout.bodies.box(layout.main)
    # Bullet's boxes are wider than things that lean.
    assert 0.05 < (high - low).max() < 0.18


def test_a_block_in_the_slot_is_where_the_environment_wants_it(scenes) -> None:
    layout = laid(scenes, Plan("slot", None, None, (False, False), 0))
    assert layout.is_in_slot() is True
    (_, _, z), _ = scenes._client.getBasePositionAndOrientation(layout.free[0])
    assert z == pytest.approx(0.015, abs=0.001)


@pytest.mark.parametrize("miss", MISSES)
def test_every_near_miss_is_possible_and_no_insertion(scenes, miss: str) -> None:
    layout = laid(scenes, Plan("slot", None, miss, (False, False), 0))
    assert layout.is_in_slot() is False
    (x, y, z), _ = scenes._client.getBasePositionAndOrientation(layout.free[0])
    distance = np.hypot(x - layout.slot[0], y - layout.slot[1])
    if miss in ("edge", "turned"):
        assert z > 0.018  # it lies on a wall
        assert distance < 0.06
    else:
        assert z == pytest.approx(0.015, abs=0.002)
    if miss == "away":
        assert distance > 0.04


@pytest.mark.parametrize(
    ("full", "label"),
    [((False, False), 0), ((True, False), 1), ((False, True), 2), ((True, True), 3)],
)
def test_a_zone_is_full_with_both_blocks_of_its_color(scenes, full, label: int) -> None:
    what = Plan("zones", None, None, full, 0)
    assert what.labels() == (0, NO_LABEL, label)
    layout = laid(scenes, what)
    for side, wanted in zip((1, -1), full, strict=True):
        inside = [
            scenes._client.getBasePositionAndOrientation(body)[0][1] * side > 0.075
            for body, mine in layout.cubes
            if mine == side
        ]
        assert len(inside) == 2
        assert all(inside) == wanted


def test_left_is_left_in_the_picture(scenes) -> None:
    # The strip of the left zone is blue, that of the right one yellow.
    k = next(k for k in range(200) if plan(CONFIG, k).labels()[2] == 3)
    image = scenes.draw(k)[0].astype(float)
    columns = np.arange(48)
    blue = np.clip(image[..., 2] - image[..., 0] - 40, 0, None).sum(0)
    yellow = np.clip(image[..., 0] - image[..., 2] - 60, 0, None).sum(0)
    assert (blue @ columns) / blue.sum() + 5 < (yellow @ columns) / yellow.sum()


def test_what_is_cut_or_too_small_is_not_seen(scenes) -> None:
    layout = laid(scenes, Plan("open", "ball", None, (False, False), 0))
    seen = np.zeros((40, 40), np.int64)
    seen[10:14, 10:14] = layout.main  # one hundredth
    assert layout.is_seen(seen, 0.01)
    assert not layout.is_seen(seen, 0.011)
    seen[10:14, :14] = layout.main
    assert not layout.is_seen(seen, 0.01)


def test_the_ray_of_the_middle_meets_the_table_below_the_target() -> None:
    view = View((0.1, 0.0, 0.4), (0.4, 0.0, 0.0))
    points = _table_points(view, 100)
    np.testing.assert_allclose(points[49:51, 49:51].mean((0, 1)), (0.4, 0.0), atol=1e-4)
    assert points[50, 0, 1] > points[50, -1, 1]  # left in the picture is positive y
    assert points[0, 50, 0] > points[-1, 50, 0]  # up in the picture is further away


def test_painting_has_two_colors_and_strips() -> None:
    table = Table("checks", ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 0.1, 0.0, 0.0)
    points = np.array([(0.05, 0.05), (0.15, 0.05), (0.15, 0.15), (0.55, 0.55)], np.float32)
    strip = Strip((0.5, 0.5), (0.6, 0.6), (1.0, 0.0, 0.0))
    painted = _paint(table, points, (strip,))
    np.testing.assert_allclose(painted[:3, 0], (0, 1, 0), atol=1e-6)
    np.testing.assert_allclose(painted[3], (0.75, 0, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": 8}, "size must be 16 to 512 pixels, got 8"),
        ({"split": "exam"}, "split must be one of train, validation, test, got 'exam'"),
        ({"seed": -1}, "seed must not be negative"),
        ({"clutter": 1.5}, r"clutter must be in \[0, 1\]"),
        ({"max_distractors": 9}, "max_distractors must be 0 to 6, got 9"),
        ({"min_share": 0.0}, "min_share must be in"),
    ],
)
def test_impossible_scenes_are_refused(wrong, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClutterConfig(**wrong)


def test_a_negative_number_and_a_single_frame_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        plan(CONFIG, -1)
    with pytest.raises(ValueError, match="a clip needs 2 to 64 frames, got 1"):
        ClutterClips(CONFIG, n_frames=1)


def test_a_clip_and_its_reverse_have_the_same_frames(clips) -> None:
    shown = {}
    for k in range(40):
        rng = rng_of(clips.config, k, 0, 1)
        pair, backwards = int(rng.integers(5)), bool(rng.integers(2))
        shown.setdefault(backwards, (k, pair))
    for backwards, (k, pair) in shown.items():
        frames, label = clips.draw(k)
        film = clips.forwards(k)[pair]()
        np.testing.assert_array_equal(frames, film[::-1] if backwards else film)
        assert label.tolist() == [2 * pair + backwards]
    assert set(shown) == {False, True}


def test_all_motions_are_shown_equally_often(clips) -> None:
    counts = np.zeros(len(MOTIONS))
    for k in range(3000):
        rng = rng_of(clips.config, k, 0, 1)
        counts[2 * int(rng.integers(5)) + int(rng.integers(2))] += 1
    np.testing.assert_allclose(counts / 3000, 0.1, atol=0.025)


def middle(frame: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Row and column of what differs from the picture of the empty table."""
    weight = np.abs(frame.astype(float) - still).sum(-1)
    weight[weight < 90] = 0
    rows, columns = np.indices(weight.shape)
    return np.array([(weight * rows).sum(), (weight * columns).sum()]) / weight.sum()


@pytest.mark.parametrize(
    ("pair", "axis", "sign"), [(0, 1, -1), (1, 0, -1), (3, 0, -1)], ids=["left", "away", "lift"]
)
def test_the_block_moves_as_the_label_says(clips, pair: int, axis: int, sign: int) -> None:
    for k in range(3):
        film = clips.forwards(k)[pair]()
        still = np.median(film, (0, 1, 2))
        shift = middle(film[-1], still) - middle(film[0], still)
        assert sign * shift[axis] > 1.0, (MOTIONS[2 * pair], k, shift)


def test_a_turn_turns_anticlockwise_by_less_than_half_a_turn() -> None:
    for seed in range(20):
        way, foot = clutter_clips._way(2, 0.3, np.random.default_rng(seed))
        assert foot is None
        angle = way(1.0)[3] - way(0.0)[3]
        assert np.radians(70) <= angle <= np.radians(130)
        assert way(0.0)[:3] == way(1.0)[:3]


def test_a_stacked_block_ends_on_the_other() -> None:
    for seed in range(20):
        way, foot = clutter_clips._way(4, 0.0, np.random.default_rng(seed))
        assert foot is not None
        np.testing.assert_allclose(way(1.0)[:2], foot, atol=1e-9)
        assert way(1.0)[2] == pytest.approx(3 * clutter_clips.HALF[2])
        assert way(0.0)[2] == pytest.approx(clutter_clips.HALF[2])
        assert np.hypot(*(np.array(way(0.0)[:2]) - foot)) == pytest.approx(0.085)


def test_tasks_are_as_documented() -> None:
    assert TASKS["object"][0] == "nothing"
    assert len(TASKS["object"]) == 11
    assert TASKS["inserted"] == ("no", "yes")
    assert TASKS["zone"] == ("none", "left", "right", "both")
    assert len(MOTIONS) == 10
