"""Synthetic instructions in Chinese: the same facts, in Chinese alone, and English as ever."""

import hashlib
import json
import re
import string
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.vln.vocabulary import split_words
from envs.captions.words import SIDE_WORDS
from envs.indoor import phrases, phrases_zh
from envs.indoor.furniture import KINDS
from envs.indoor.house import House, generate_house
from envs.indoor.instructions import (
    LANGUAGES,
    Fact,
    _say,
    check_language,
    content,
    gather_facts,
    r2r_entries,
    sample_paths,
    word_facts,
    write_instructions,
)
from envs.indoor.room_types import HALLWAY, PURPOSES

CHINESE = re.compile(r"[一-鿿，。；]+")  # noqa: RUF001
ROOMS = (*PURPOSES, HALLWAY)


@cache
def house(seed: int) -> House:
    return generate_house(seed, "val")


def told() -> Iterator[tuple[list[Fact], str]]:
    for seed in range(3):
        for path in sample_paths(house(seed), np.random.default_rng(seed), 10):
            facts = gather_facts(house(seed), path, 0.3)
            rng = np.random.default_rng(0)
            for text in write_instructions(house(seed), path, rng, 3, 0.3, "zh"):
                yield facts, text


def test_every_room_and_every_thing_has_a_chinese_name_of_its_own() -> None:
    rooms = {room: phrases_zh.room_name(room) for room in ROOMS}
    things = {kind.noun: phrases_zh.thing_name(kind.noun) for kind in KINDS.values()}
    assert len(set(rooms.values())) == len(ROOMS)
    assert len({name for _, name in things.values()}) == len(things)
    for measure, name in things.values():
        assert len(measure) == 1
        assert CHINESE.fullmatch(measure + name)
    assert phrases_zh.room_name("other bedroom") == "另一间卧室"
    assert phrases_zh.room_name("other hallway") == "另一条走廊"
    assert phrases_zh.thing_name("bed") == ("张", "床")


def test_what_has_no_chinese_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no Chinese word for the room 'sauna'"):
        phrases_zh.room_name("sauna")
    with pytest.raises(ValueError, match="no Chinese word for 'piano'"):
        phrases_zh.thing_name("piano")


def test_chinese_manners_say_all_that_english_ones_do() -> None:
    keys = set(phrases.MANNERS[0].clauses)
    assert len(phrases_zh.MANNERS) == len(phrases.MANNERS)
    for manner in phrases_zh.MANNERS:
        assert set(manner.clauses) == keys
        for key, clauses in manner.clauses.items():
            for clause in clauses:
                fields = {field for _, field, _, _ in string.Formatter().parse(clause) if field}
                assert fields <= {"room", "noun", "that", "side"}
                assert ("room" in fields) >= (key.split()[0] in ("leave", "enter"))
                if key.split()[0] in ("turn", "leave", "enter"):
                    assert ("side" in fields) == key.endswith("side")
                if key in ("pass", "toward", "stop at", "stop at side"):
                    assert fields & {"noun", "that"}
                assert CHINESE.fullmatch(re.sub(r"{\w+}", "一", clause)), clause


def test_chinese_instructions_are_chinese_alone_and_end_once() -> None:
    texts = [text for _, text in told()]
    assert len(texts) == 90
    for text in texts:
        assert CHINESE.fullmatch(text), text
        assert text.endswith("。")
        assert not re.search(r"[，。；]{2}|^[，。；]", text), text  # noqa: RUF001


def test_chinese_instructions_name_what_the_facts_name_in_their_order() -> None:
    for facts, text in told():
        at = 0
        for fact in facts:
            # Where to stop is told by the thing, the room may come before it or not at all.
            word = phrases_zh.thing_name(fact.noun)[1] or phrases_zh.room_name(fact.room)
            at = text.find(word, at)
            assert at >= 0, (word, text)
        for noun in {kind.noun for kind in KINDS.values()}:
            name = phrases_zh.thing_name(noun)[1]
            longer = any(name in phrases_zh.thing_name(f.noun)[1] for f in facts)
            assert name not in text or longer, (name, text)


def test_a_walk_in_chinese_by_hand() -> None:
    facts = [
        Fact("leave", "a", "left", "kitchen"),
        Fact("enter", "b", "", "hallway"),
        Fact("pass", "b", "right", "", 3, "plant"),
        Fact("turn", "c", "back"),
        Fact("stop", "d", "left", "bedroom", 4, "bed"),
    ]
    for manner in phrases_zh.MANNERS:
        for seed in range(20):
            text = _say(facts, manner, np.random.default_rng(seed), "zh")
            order = [text.find(word) for word in ("厨房", "走廊", "植物", "床")]
            assert -1 not in order
            assert order == sorted(order)
            # Left before the plant for the door, right for nothing but the plant.
            assert "左" in text[: order[1]], text
            assert "右" not in text[: order[1]], text
            right = text.find("右")
            assert right < 0 or order[1] < right < order[2], text
            assert re.search("掉头|向后|转过身来|掉个头|调转方向", text), text


@given(st.sampled_from(("left", "right")), st.sampled_from(ROOMS), st.integers(0, 99))
def test_sides_are_said_as_they_are(side: str, room: str, seed: int) -> None:
    said = {key: word.removesuffix("边") for key, word in SIDE_WORDS["zh"].items()}
    other = said["left" if side == "right" else "right"]
    for what in ("turn", "leave", "enter"):
        for manner in phrases_zh.MANNERS:
            text = _say([Fact(what, "a", side, room)], manner, np.random.default_rng(seed), "zh")
            assert said[side] in text
            assert other not in text


def test_english_is_as_it_was_before_there_was_chinese() -> None:
    entries = r2r_entries([house(0), house(1)], seed=2, paths=5)
    text = json.dumps(entries, sort_keys=True).encode()
    # Of the code before the parameter `language`.
    assert hashlib.sha256(text).hexdigest()[:16] == "41c51cf7901087b5"
    assert entries == r2r_entries([house(0), house(1)], seed=2, paths=5, language="en")


def test_all_languages_tell_the_same_paths_and_headings() -> None:
    english, chinese = (r2r_entries([house(0), house(1)], 2, 5, 3, name) for name in LANGUAGES)
    for one, other in zip(english, chinese, strict=True):
        assert {**one, "instructions": 0} == {**other, "instructions": 0}
        assert len(other["instructions"]) == len(set(other["instructions"])) == 3
    assert chinese == r2r_entries([house(0), house(1)], 2, 5, 3, "zh")


def test_an_unknown_language_is_refused_before_anything_is_written() -> None:
    assert check_language("zh") == "zh"
    with pytest.raises(ValueError, match="language must be one of en, zh, got 'fr'"):
        r2r_entries([], language="fr")
    path = sample_paths(house(0), np.random.default_rng(0), 1)[0]
    with pytest.raises(ValueError, match="language must be one of"):
        write_instructions(house(0), path, np.random.default_rng(0), language="de")


def test_chinese_instructions_are_read_to_their_end() -> None:
    lengths = [len(split_words(text)) for _, text in told()]
    assert max(lengths) <= 140
    assert np.mean(lengths) < 80


def test_parts_of_an_instruction_say_what_they_say_alone() -> None:
    turn, walk = Fact("turn", "a", "left"), Fact("pass", "b", "right", "", 3, "plant")
    for language, words in (("en", ("left", "plant")), ("zh", ("左", "植物"))):
        texts = word_facts([turn, walk], np.random.default_rng(0), 30, language)
        assert len(set(texts)) > 10
        for text in texts:
            assert all(word in text for word in words)
            assert "最后" not in text  # nothing ends here
    assert {word_facts([turn], np.random.default_rng(k), 1)[0] for k in range(20)} == {
        "Turn left.", "Take a left.", "Make a left turn.", "Turn to your left.",
        "Turn to the left.", "Head left.",
    }  # fmt: skip


def test_facts_of_one_content_differ_in_what_is_not_said_alone() -> None:
    stop = Fact("stop", "a", "left", "kitchen", 4, "stove")
    assert content(stop) == ("stop at side", "left", "kitchen", "stove")
    assert content(stop) == content(replace(stop, viewpoint="b", piece=7))
    straight, back = (content(replace(stop, side=side)) for side in ("straight", "back"))
    assert straight == back == ("stop at", "", "kitchen", "stove")
    assert content(Fact("turn", "a", "left")) != content(Fact("turn", "a", "right"))
    assert content(Fact("turn", "a", "back")) == ("turn around", "", "", "")
