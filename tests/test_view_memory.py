"""The memory of what a robot saw: one view a cell, bounded, ranked exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robots.view_memory import Recalled, Sight, ViewMemory, ViewMemoryConfig


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_views_come_in_the_order_of_their_scores() -> None:
    memory = ViewMemory(2)
    for degrees in (0, 60, 90, 180):
        angle = math.radians(degrees)
        sight = Sight(degrees / 10, 0.0, 1.5, 0.0, label=str(degrees))
        assert memory.add([math.cos(angle), math.sin(angle)], sight)
    found = memory.rank(unit(0, 1), 3)
    assert [view.sight.label for view in found] == ["90", "60", "180"]
    assert [view.score for view in found] == pytest.approx([1, math.sin(math.pi / 3), 0], abs=1e-6)
    assert len(memory.rank(unit(0, 1), 9)) == 4
    assert ViewMemory(2).rank(unit(0, 1), 9) == []


def test_of_equal_scores_the_newest_view_comes_first() -> None:
    memory = ViewMemory(1)
    for k in range(5):
        memory.add([1.0], Sight(k, 0.0, 0.0, 0.0, stamp=k))
    assert [view.sight.stamp for view in memory.rank([1.0], 3)] == [4, 3, 2]


def test_a_cell_keeps_its_newest_view() -> None:
    memory = ViewMemory(2, ViewMemoryConfig(cell=0.5, headings=12))
    assert memory.add(unit(1, 0), Sight(0.1, 0.2, 0.0, 0.0, stamp=5))
    assert memory.add(unit(0, 1), Sight(0.2, 0.1, 0.0, 0.2, stamp=6))
    assert (len(memory), memory.replaced) == (1, 1)
    assert memory.rank(unit(0, 1), 5) == [Recalled(Sight(0.2, 0.1, 0.0, 0.2, 6), 1.0)]
    # One that comes late does not.
    assert not memory.add(unit(1, 0), Sight(0.1, 0.2, 0.0, 0.0, stamp=4))
    assert memory.rank(unit(0, 1), 1)[0].score == 1.0
    assert memory.dropped == 1


def test_places_headings_and_floors_are_cells_of_their_own() -> None:
    memory = ViewMemory(1, ViewMemoryConfig(cell=0.5, headings=4))
    here = Sight(0.0, 0.0, 0.0, 0.0)
    others = [
        here._replace(x=0.5), here._replace(y=-0.5), here._replace(z=3.0),
        here._replace(yaw=math.pi / 2), here._replace(yaw=-math.pi / 2), here._replace(yaw=math.pi),
    ]  # fmt: skip
    assert len({memory.cell_of(sight) for sight in (here, *others)}) == 7
    # Cells lie around 0, so that a height that trembles about 0 is one; a turn changes nothing.
    same = [here._replace(z=-0.01), here._replace(yaw=math.tau - 0.1), here._replace(yaw=0.1)]
    assert {memory.cell_of(sight) for sight in same} == {memory.cell_of(here)}
    assert memory.cell_of(here._replace(yaw=math.pi)) == memory.cell_of(here._replace(yaw=-math.pi))


def test_what_was_seen_longest_ago_goes_first() -> None:
    memory = ViewMemory(1, ViewMemoryConfig(most=3))
    for k in range(3):
        memory.add([1.0], Sight(k, 0.0, 0.0, 0.0, stamp=k))
    memory.add([1.0], Sight(0, 0.0, 0.0, 0.0, stamp=3))  # seen again
    memory.add([1.0], Sight(9, 0.0, 0.0, 0.0, stamp=4))
    assert [(sight.x, sight.stamp) for sight in memory.sights] == [(2, 2), (0, 3), (9, 4)]
    assert (memory.replaced, memory.dropped) == (1, 1)
    memory.clear()
    assert len(memory) == 0
    assert memory.add([1.0], Sight(0, 0.0, 0.0, 0.0))


SIGHTS = st.builds(
    Sight,
    st.sampled_from([-1.0, 0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 2.0]),
    st.just(0.0),
    st.floats(-10, 10),
    st.integers(0, 5),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(SIGHTS, st.floats(0, math.tau)), max_size=40),
    st.integers(1, 9),
    st.integers(1, 50),
)
def test_a_memory_is_a_bounded_dictionary_that_is_searched_exactly(told, most, k) -> None:
    memory = ViewMemory(2, ViewMemoryConfig(cell=1.0, headings=3, most=most))
    plain: dict[tuple[int, ...], tuple[Sight, np.ndarray]] = {}
    for sight, angle in told:
        vector = np.array([math.cos(angle), math.sin(angle)], np.float32)
        cell = memory.cell_of(sight)
        kept = cell not in plain or sight.stamp >= plain[cell][0].stamp
        assert memory.add(vector, sight) == kept
        if kept:
            plain.pop(cell, None)
            plain[cell] = sight, vector
            if len(plain) > most:
                del plain[next(iter(plain))]
    assert memory.sights == tuple(sight for sight, _ in plain.values())
    query = unit(1, 1)
    expected = sorted((float(vector @ query) for _, vector in plain.values()), reverse=True)[:k]
    assert [view.score for view in memory.rank(query, k)] == pytest.approx(expected, abs=1e-6)


def test_what_is_no_view_is_refused() -> None:
    memory = ViewMemory(2)
    here = Sight(0.0, 0.0, 0.0, 0.0)
    for embedding, sight, why in (
        ([1.0], here, r"must be \(2,\), got \(1,\)"),
        ([1.0, 1.0], here, "length 1, got 1.41"),
        ([math.nan, 1.0], here, "length 1, got nan"),
        ([1.0, 0.0], here._replace(y=math.inf), "a sight must be finite"),
        ([1.0, 0.0], here._replace(yaw=math.nan), "a sight must be finite"),
    ):
        with pytest.raises(ValueError, match=why):
            memory.add(embedding, sight)
    assert len(memory) == 0
    with pytest.raises(ValueError, match="k must be 1 or more"):
        memory.rank([1.0, 0.0], 0)
    with pytest.raises(ValueError, match="length 1"):
        memory.rank([0.0, 0.0], 1)
    with pytest.raises(ValueError, match="width must be at least 1"):
        ViewMemory(0)
    for changes, why in (
        ({"cell": 0.0}, "cell must be positive"),
        ({"cell": math.nan}, "cell must be positive"),
        ({"headings": 0}, "headings must be 1 to 360"),
        ({"most": 0}, "most must be 1 to 1,000,000"),
    ):
        with pytest.raises(ValueError, match=why):
            ViewMemoryConfig(**changes)
