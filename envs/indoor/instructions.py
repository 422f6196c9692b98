"""Synthetic instructions: written from a path and from what is really seen along it.

A path becomes facts (turns, rooms left and entered, furniture passed, where to stop); facts become
English or Chinese in one of several ways of talking. Entries have Room-to-Room's format, and say
`"synthetic": true`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.indoor import phrases_zh
from envs.indoor.equirectangular import azimuth_of, heading_of
from envs.indoor.house import House
from envs.indoor.phrases import MANNERS, Manner
from envs.indoor.sightings import Sighting, look_around

SHORTEST = 5.0
"""Least length of a path in metres, as in Room-to-Room."""

LEAST, MOST = 4, 7
"""Viewpoints of a path, both ends included, as in Room-to-Room."""

_STRAIGHT = math.radians(40)
_BACK = math.radians(140)
_NEAR_GOAL = 2.6
_PASSED = 2.8


@dataclass(frozen=True)
class Fact:
    """Something an instruction says.

    Attributes:
        what: "turn", "leave", "enter", "pass", "toward" or "stop".
        viewpoint: where it holds.
        side: "left", "right", "straight", "back", or "" where it does not matter.
        room: purpose of the room that is left or entered, or stopped in.
        piece: index of the piece of furniture it speaks of; -1 for none.
        noun: what that is called.
    """

    what: str
    viewpoint: str
    side: str = ""
    room: str = ""
    piece: int = -1
    noun: str = ""


@dataclass(frozen=True)
class _Language:
    """How facts are put into words of a language.

    Attributes:
        manners: ways of talking.
        fill: fields of a clause from room, noun and side of a fact.
        end: the mark at the end.
    """

    manners: tuple[Manner, ...]
    fill: Callable[[str, str, str], Mapping[str, str]]
    end: str


def _as_it_is(room: str, noun: str, side: str) -> Mapping[str, str]:
    return {"room": room, "noun": noun, "side": side}


_LANGUAGES = {
    "en": _Language(MANNERS, _as_it_is, "."),
    "zh": _Language(phrases_zh.MANNERS, phrases_zh.fill, "。"),
}

LANGUAGES: tuple[str, ...] = tuple(_LANGUAGES)
"""In which instructions are written."""


def sample_paths(house: House, rng: np.random.Generator, count: int) -> list[tuple[str, ...]]:
    """Shortest paths of 4 to 7 viewpoints and at least 5 m, as in Room-to-Room.

    Args:
        house: where.
        rng: source of randomness.
        count: how many; fewer are returned where the house has no more.

    Returns:
        Distinct paths, in random order.
    """
    graph = house.graph
    found: list[tuple[str, ...]] = []
    pairs = np.argwhere(np.isfinite(graph.distances) & (graph.distances >= SHORTEST))
    for start, goal in rng.permutation(pairs):
        if len(found) == count:
            break
        path = graph.shortest_path(graph.viewpoints[start], graph.viewpoints[goal])
        if LEAST <= len(path) <= MOST:
            found.append(path)
    return found


def write_instructions(
    house: House,
    path: Sequence[str],
    rng: np.random.Generator,
    count: int = 3,
    heading: float | None = None,
    language: str = "en",
) -> list[str]:
    """Instructions for a path, each in another way of talking where there are enough.

    Args:
        house: where.
        path: viewpoints, at least two, each next to the one before.
        rng: source of randomness.
        count: how many.
        heading: at the start, clockwise from +y, radians; None leaves the first turn out.
        language: one of `LANGUAGES`.

    Raises:
        ValueError: for a path that is not one, or another language.
    """
    check_language(language)
    return word_facts(gather_facts(house, path, heading), rng, count, language)


def check_language(language: str) -> str:
    """The language itself.

    Raises:
        ValueError: if nothing is written in it.
    """
    if language not in _LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}, got {language!r}")
    return language


def gather_facts(house: House, path: Sequence[str], heading: float | None = None) -> list[Fact]:
    """What there is to say about a path, in order.

    Raises:
        ValueError: for a path that is not one.
    """
    if len(path) < 2:
        raise ValueError(f"a path needs at least two viewpoints, got {list(path)}")
    house.graph.length(path)  # raises where a step is no edge
    facing = None if heading is None else azimuth_of(heading)
    facts: list[Fact] = []
    named: set[int] = set()
    rooms = [house.room_of(viewpoint) for viewpoint in path]
    for k, viewpoint in enumerate(path[:-1]):
        ahead = _azimuth(house, viewpoint, path[k + 1])
        side = "straight" if facing is None else _side(ahead - facing)
        crosses = rooms[k] != rooms[k + 1]
        seen = [
            sighting
            for sighting in _remarkable(house, viewpoint, named)
            if house.furniture[sighting.piece].room == rooms[k]
        ]
        if not crosses and side != "straight":
            facts.append(Fact("turn", viewpoint, side))
        # Where the way turns through a door, left and right of it would be ambiguous.
        if k > 0 and (side == "straight" or not crosses):
            facts += _passed(viewpoint, ahead, seen)
        elif not crosses and (not facts or facts[-1].what == "enter"):
            facts += _ahead(viewpoint, ahead, seen)
        named |= {fact.piece for fact in facts}
        if crosses:
            first = k == 0 or rooms[k - 1] == rooms[k]
            facts += _crossed(house, path[k : k + 2], (rooms[k], rooms[k + 1]), side, first)
        facing = ahead
    stop = _stop(house, path, rooms[-1])
    # To pass what one is to stop by would confuse.
    return [fact for fact in facts if fact.piece < 0 or fact.piece != stop.piece] + [stop]


def word_facts(
    facts: Sequence[Fact], rng: np.random.Generator, count: int = 3, language: str = "en"
) -> list[str]:
    """Facts in words, each time in another way of talking where there are enough.

    Args:
        facts: at least one.
        rng: source of randomness.
        count: how many wordings.
        language: one of `LANGUAGES`.

    Raises:
        ValueError: for another language.
    """
    known = _LANGUAGES[check_language(language)].manners
    manners = [known[k % len(known)] for k in rng.permutation(len(known))]
    return [_say(facts, manners[k % len(manners)], rng, language) for k in range(count)]


def content(fact: Fact) -> tuple[str, str, str, str]:
    """What is said of a fact: two of the same content can be said in the same words."""
    side = fact.side if fact.side in ("left", "right") else ""
    return _template(fact), side, fact.room, fact.noun


def r2r_entries(
    houses: Iterable[House],
    seed: int = 0,
    paths: int = 10,
    count: int = 3,
    language: str = "en",
) -> list[dict[str, Any]]:
    """Entries in Room-to-Room's format; in every language the same paths, headings and facts.

    Args:
        houses: where; each is a scan.
        seed: of paths, headings and words.
        paths: of each house.
        count: instructions of each path.
        language: one of `LANGUAGES`.

    Returns:
        `{distance, scan, path_id, path, heading, instructions, synthetic}` each; `path_id` counts
        from 0, so entries of several calls need other numbers to be put together.

    Raises:
        ValueError: for another language.
    """
    check_language(language)
    entries: list[dict[str, Any]] = []
    for house in houses:
        rng = np.random.default_rng((seed, house.palette, house.seed))
        for k, path in enumerate(sample_paths(house, rng, paths)):
            heading = float(rng.uniform(0.0, 2.0 * math.pi))
            facts = gather_facts(house, path, heading)
            texts = word_facts(facts, rng, count, "en")  # its draws decide the headings that follow
            if language != "en":
                words = np.random.default_rng((seed, house.palette, house.seed, k))
                texts = word_facts(facts, words, count, language)
            entries.append(
                {
                    "distance": round(house.graph.distance(path[0], path[-1]), 2),
                    "scan": house.name,
                    "path_id": len(entries),
                    "path": list(path),
                    "heading": round(heading, 3),
                    "instructions": texts,
                    "synthetic": True,
                }
            )
    return entries


def first_heading(house: House, path: Sequence[str]) -> float:
    """Heading (clockwise from +y) of the first step of a path."""
    return heading_of(_azimuth(house, path[0], path[1]))


def _passed(viewpoint: str, ahead: float, seen: Sequence[Sighting]) -> list[Fact]:
    """The nearest piece beside the way, if there is one."""
    for sighting in seen:
        turn = _wrap(sighting.azimuth - ahead)
        if sighting.distance < _PASSED and math.radians(25) < abs(turn) < math.radians(110):
            side = "left" if turn > 0 else "right"
            return [Fact("pass", viewpoint, side, "", sighting.piece, sighting.noun)]
    return []


def _ahead(viewpoint: str, ahead: float, seen: Sequence[Sighting]) -> list[Fact]:
    """The nearest piece in the direction of the way, if there is one."""
    for sighting in seen:
        if abs(_wrap(sighting.azimuth - ahead)) < math.radians(20):
            return [Fact("toward", viewpoint, "", "", sighting.piece, sighting.noun)]
    return []


def _crossed(
    house: House, step: Sequence[str], rooms: tuple[int, int], side: str, first: bool
) -> list[Fact]:
    """A room left (unless it was only just entered) and another entered."""
    leaving, entering = (house.rooms[room].purpose for room in rooms)
    if leaving == entering:
        return [Fact("enter", step[1], side, f"other {entering}")]
    if not first:
        return [Fact("enter", step[1], side, entering)]
    return [Fact("leave", step[0], side, leaving), Fact("enter", step[1], "", entering)]


def _remarkable(house: House, viewpoint: str, named: set[int]) -> list[Sighting]:
    """What is seen and has not been named, one of its noun in sight only."""
    seen = look_around(house)[viewpoint]
    nouns = [sighting.noun for sighting in seen]
    return [s for s in seen if s.piece not in named and nouns.count(s.noun) == 1]


def _stop(house: House, path: Sequence[str], room: int) -> Fact:
    """Where to stop: by what is near the goal, best by something that nothing else is called."""
    goal, purpose = path[-1], house.rooms[room].purpose
    ahead = _azimuth(house, path[-2], goal)
    near = [s for s in look_around(house)[goal] if s.distance < _NEAR_GOAL]
    alone = [s for s in _remarkable(house, goal, set()) if s.distance < _NEAR_GOAL]
    # Landmarks that are much farther at the goal than one step before it would mislead.
    for sighting in alone or near:
        if house.furniture[sighting.piece].room == room:
            side = _side(sighting.azimuth - ahead)
            return Fact("stop", goal, side, purpose, sighting.piece, sighting.noun)
    return Fact("stop", goal, "", purpose)


def _azimuth(house: House, start: str, end: str) -> float:
    a, b = (house.graph.positions[house.graph.index(v)] for v in (start, end))
    return math.atan2(b[1] - a[1], b[0] - a[0])


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def _side(turn: float) -> str:
    """Which way a turn (counter-clockwise positive) goes."""
    turn = _wrap(turn)
    if abs(turn) < _STRAIGHT:
        return "straight"
    if abs(turn) > _BACK:
        return "back"
    return "left" if turn > 0 else "right"


def _say(
    facts: Sequence[Fact], manner: Manner, rng: np.random.Generator, language: str = "en"
) -> str:
    """Put facts into words."""
    spoken = _LANGUAGES[language]
    clauses = []
    for fact in facts:
        options = manner.clauses[_template(fact)]
        words = options[rng.integers(len(options))]
        clauses.append(words.format(**spoken.fill(fact.room, fact.noun, fact.side)))
    text = clauses[0]
    for clause in clauses[1:-1]:
        joint = manner.joints[rng.integers(len(manner.joints))]
        text += joint + (clause if not joint.endswith(". ") else _capital(clause))
    # A part of an instruction that does not end with where to stop has nothing that comes at last.
    lasts = manner.last if facts[-1].what == "stop" else manner.joints
    last = lasts[rng.integers(len(lasts))]
    if len(clauses) > 1:
        text += last + (_capital(clauses[-1]) if last.endswith(". ") else clauses[-1])
    return _capital(text) + spoken.end


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _template(fact: Fact) -> str:
    """Key of the phrases that say a fact."""
    if fact.what == "stop":
        if not fact.noun:
            return "stop in"
        return "stop at side" if fact.side in ("left", "right") else "stop at"
    if fact.what in ("turn", "leave", "enter") and fact.side in ("left", "right", "back"):
        turned = "around" if fact.side == "back" else "side"
        return f"{fact.what} {turned}"
    return fact.what
