"""What rooms are for: exact inference against brute force and drawn houses; predictability."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from envs.indoor.floor_plan import Link, Plan, Rect, Window, draw_plan
from envs.indoor.room_types import (
    BESIDE,
    FIT,
    JOINED,
    LACKING,
    NEEDED,
    ONCE,
    PURPOSES,
    SIGNS,
    TypeModel,
    sign_table,
)


def small_plan() -> Plan:
    """Four rooms: 0 - 1 = 2, 1 - 3; side by side (-), joined by a door (=)."""
    rects = (Rect(0, 0, 5, 4), Rect(5, 0, 9, 4), Rect(9, 0, 11.3, 3), Rect(5, 4, 9, 8))
    return Plan(
        rooms=rects,
        corridor=(False,) * 4,
        zones=(0, 1, 2, 1),
        through=(False, False, True, False),
        links=(Link((0, 1), False), Link((1, 2), True), Link((1, 3), False)),
        doors=(),
        windows=(),
        entrance=Window(0, 0, 0.0, 2.0, 1.0, -1),
        height=2.6,
    )


def affinity(a: str, b: str, joined: bool) -> float:
    table = JOINED if joined else BESIDE
    return float(table[PURPOSES.index(a), PURPOSES.index(b)])


def brute_force(plan: Plan) -> dict[tuple[str, ...], float]:
    """Q of a plan, by the formula in the module's docstring."""
    weights = {}
    for purposes in itertools.product(PURPOSES, repeat=len(plan.rooms)):
        if any(purposes.count(purpose) > 1 for purpose in ONCE):
            continue
        weight = LACKING ** sum(purpose not in purposes for purpose in NEEDED)
        for room, purpose in enumerate(purposes):
            area = plan.clear(room).area
            size = 0 if area <= 8 else 1 if area <= 15 else 2
            of_size, of_zone, of_through = FIT[purpose]
            weight *= of_size[size] * of_zone[plan.zones[room]]
            weight *= of_through if plan.through[room] else 1.0
        for link in plan.links:
            a, b = link.rooms
            weight *= affinity(purposes[a], purposes[b], link.joined)
        weights[purposes] = weight
    total = sum(weights.values())
    return {purposes: weight / total for purposes, weight in weights.items()}


def test_marginals_are_those_of_brute_force() -> None:
    plan = small_plan()
    model, truth = TypeModel(plan), brute_force(plan)
    for room in range(4):
        expected = [sum(q for t, q in truth.items() if t[room] == purpose) for purpose in PURPOSES]
        assert model.marginals[room] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 1.0])
def test_the_posterior_is_that_of_brute_force_for_every_predictability(p: float) -> None:
    plan = small_plan()
    model, truth = TypeModel(plan, p), brute_force(plan)
    mean = dict(zip(PURPOSES, model.mean, strict=True))
    style = {
        name: sum(mean[t] * SIGNS["door"][t].get(name, 0.0) for t in PURPOSES)
        for name in ("blue", "oak")
    }
    # Room 1 is known to be a bedroom; room 2 (asked for) has a blue door, room 3 an oak one.
    expected = np.zeros(len(PURPOSES))
    for t, q in truth.items():
        one = p * (t[1] == "bedroom") + (1 - p) * mean["bedroom"]
        three = p * SIGNS["door"][t[3]].get("oak", 0.0) + (1 - p) * style["oak"]
        for k, purpose in enumerate(PURPOSES):
            two = p * (t[2] == purpose) * SIGNS["door"][purpose].get("blue", 0.0)
            two += (1 - p) * mean[purpose] * style["blue"]
            expected[k] += q * one * two * three
    expected /= expected.sum()
    found = model.posterior(2, {1: "bedroom"}, {2: {"door": "blue"}, 3: {"door": "oak"}})
    assert found == pytest.approx(expected, abs=1e-12)


def test_drawn_purposes_and_signs_have_the_stated_frequencies() -> None:
    plan = small_plan()
    model = TypeModel(plan, 0.7)
    rng = np.random.default_rng(0)
    draws = [model.sample(rng)[:2] for _ in range(200)]
    mine = [t for t, s in draws if t[1] == "bedroom" and s[2]["door"] == "blue"]
    found = np.array([sum(t[2] == purpose for t in mine) for purpose in PURPOSES]) / len(mine)
    expected = model.posterior(2, {1: "bedroom"}, {2: {"door": "blue"}})
    assert len(mine) > 12
    error = np.sqrt(expected * (1 - expected) / len(mine))
    assert (np.abs(found - expected) < 4 * error + 0.01).all()


def test_the_posterior_is_calibrated_on_drawn_houses() -> None:
    said, true = [], []
    for seed in range(15):
        model = TypeModel(draw_plan(np.random.default_rng(seed)), 0.8)
        purposes, signs, _ = model.sample(np.random.default_rng(100 + seed))
        for room in model.rooms:
            others = {k: t for k, t in purposes.items() if k != room}
            said.append(model.posterior(room, others, {room: {"door": signs[room]["door"]}}))
            true.append(PURPOSES.index(purposes[room]))
    table = np.array(said)
    best = table.argmax(1)
    confidence = table.max(1)
    right = best == np.array(true)
    assert abs(right.mean() - confidence.mean()) < 0.1
    sure = confidence > 0.8
    assert right[sure].mean() > 0.75


def bits(p: float, houses: int = 8, door: bool = False) -> float:
    """Mean of -log2 P(purpose | all other rooms, plan), over drawn houses."""
    lost = []
    for seed in range(houses):
        model = TypeModel(draw_plan(np.random.default_rng(seed)), p)
        purposes, signs, _ = model.sample(np.random.default_rng(100 + seed))
        for room in model.rooms:
            others = {k: t for k, t in purposes.items() if k != room}
            seen = {room: {"door": signs[room]["door"]}} if door else {}
            said = model.posterior(room, others, seen)
            lost.append(-math.log2(said[PURPOSES.index(purposes[room])]))
    return float(np.mean(lost))


def test_what_is_unknown_of_a_room_falls_with_predictability() -> None:
    found = [bits(p) for p in (0.0, 0.5, 1.0)]
    assert found[0] > found[1] > found[2]
    assert found[0] > 2.5
    assert 0.2 < found[2] < 1.0
    assert 0.02 < bits(1.0, door=True) < 0.4


def test_random_rooms_tell_nothing_of_each_other() -> None:
    model = TypeModel(small_plan(), 0.0)
    alone = model.posterior(2, {})
    told = model.posterior(2, {1: "bedroom", 0: "kitchen"}, {2: {"door": "blue", "floor": "tiles"}})
    assert alone == pytest.approx(model.mean)
    assert told == pytest.approx(model.mean)


@pytest.mark.slow
def test_purposes_and_signs_are_as_frequent_for_every_predictability_in_many_houses() -> None:
    counts = {p: Counter[str]() for p in (0.0, 0.5, 1.0)}
    for seed in range(60):
        plan = draw_plan(np.random.default_rng(seed))
        for p, count in counts.items():
            purposes, signs, _ = TypeModel(plan, p).sample(np.random.default_rng(seed + 1000))
            count.update(purposes.values())
            count.update("door " + sign["door"] for sign in signs.values())
    for name, reference in counts[1.0].items():
        for p in (0.0, 0.5):
            assert abs(counts[p][name] - reference) < 5 * math.sqrt(reference) + 10, (name, p)


def test_expected_counts_do_not_depend_on_predictability() -> None:
    plan, rng, draws = small_plan(), np.random.default_rng(0), 120
    for p in (0.0, 0.6):
        model = TypeModel(plan, p)
        counts = Counter(t for _ in range(draws) for t in model.sample(rng)[0].values())
        for k, purpose in enumerate(PURPOSES):
            expected = draws * len(model.rooms) * model.mean[k]
            assert abs(counts[purpose] - expected) < 5 * math.sqrt(expected) + 3
    # Random rooms are drawn from the mean of the marginals, so p cannot move the expectation.
    assert model.mean == pytest.approx(model.marginals.mean(0))


def test_predictable_houses_have_one_kitchen_and_lack_nothing() -> None:
    for seed in range(15):
        plan = draw_plan(np.random.default_rng(seed))
        purposes, _, regular = TypeModel(plan).sample(np.random.default_rng(seed))
        count = Counter(purposes.values())
        assert all(count[purpose] <= 1 for purpose in ONCE)
        assert all(regular.values())


def test_signs_are_distributions() -> None:
    for sign in SIGNS:
        names, table = sign_table(sign)
        assert table.shape == (len(PURPOSES), len(names))
        assert table.sum(1) == pytest.approx(np.ones(len(PURPOSES)))


def test_bad_questions_are_refused() -> None:
    model = TypeModel(draw_plan(np.random.default_rng(0)))
    hall = model.plan.corridor.index(True)
    room = model.rooms[0]
    with pytest.raises(ValueError, match="room must be one of"):
        model.posterior(hall, {})
    with pytest.raises(ValueError, match="purpose must be one of"):
        model.posterior(room, {model.rooms[1]: "cellar"})
    with pytest.raises(ValueError, match="door must be one of"):
        model.posterior(room, {}, {room: {"door": "gold"}})
    with pytest.raises(ValueError, match="sign must be one of"):
        sign_table("smell")
    with pytest.raises(ValueError, match="predictability"):
        TypeModel(model.plan, 1.01)
