"""Instructions as numbers."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.vln.vocabulary import Vocabulary, split_words

WORDS = Vocabulary(("bed", "stairs", "the"), buckets=8, max_words=6)


def test_known_words_have_numbers_of_their_own_beyond_the_buckets() -> None:
    assert WORDS.encode("the bed").tolist() == [11, 9]
    assert len(WORDS) == 12


def test_case_and_unicode_form_do_not_matter() -> None:
    assert WORDS.encode("The BED").tolist() == WORDS.encode("the \uff42\uff45\uff44").tolist()


def test_an_unknown_word_falls_into_a_bucket_that_is_the_same_in_every_process() -> None:
    code = (
        "from agents.vln.vocabulary import Vocabulary as V;"
        "print(*V(('bed',), buckets=8).encode('ottoman sofa'))"
    )
    seen = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert [int(number) for number in seen] == WORDS.encode("ottoman sofa").tolist()
    assert all(1 <= int(number) <= 8 for number in seen)


def test_rare_words_are_left_out_of_the_vocabulary() -> None:
    made = Vocabulary.of(["go to the bed", "go to the sofa", "go"], min_count=2)
    assert made.words == ("go", "the", "to")


def test_a_long_instruction_keeps_its_beginning_and_its_end() -> None:
    text = " ".join(["the"] * 5000 + ["stairs"] * 4997 + ["bed", "bed", "bed"])
    assert WORDS.encode(text).tolist() == [11, 11, 11, 9, 9, 9]


def test_an_odd_limit_is_kept_too() -> None:
    odd = Vocabulary(("a", "b"), buckets=1, max_words=5)
    assert odd.encode("a " * 50 + "b " * 50).tolist() == [2, 2, 3, 3, 3]


@pytest.mark.parametrize("text", ["", "   ", "\n", "...", "!?", "\u200b", "\u0301"])
def test_an_instruction_without_words_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="at least one word") as error:
        WORDS.encode(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Turn left.", ["turn", "left", "."]),
        ("बिस्तर तक जाओ", ["बिस्तर", "तक", "जाओ"]),
        ("走到床边", ["走", "到", "床", "边"]),
        ("اذهب إلى السرير", ["اذهب", "إلى", "السرير"]),
        ("go to 🛏️", ["go", "to", "🛏"]),
    ],
)
def test_any_script_is_split_into_words(text: str, words: list[str]) -> None:
    found = [word for word in split_words(text) if word != "\ufe0f"]
    assert found == words


@given(st.text())
def test_any_text_is_either_refused_or_numbered_within_bounds(text: str) -> None:
    try:
        numbers = WORDS.encode(text)
    except ValueError:
        return
    assert 1 <= len(numbers) <= WORDS.max_words
    assert numbers.min() >= 1
    assert numbers.max() < len(WORDS)


def test_a_vocabulary_survives_json() -> None:
    assert Vocabulary.from_dict(WORDS.to_dict()) == WORDS


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"words": "bed", "buckets": 1, "max_words": 5},
        {"words": ["a"], "buckets": 1},
        {"words": ["a", "a"], "buckets": 1, "max_words": 5},
        {"words": ["a"], "buckets": 0, "max_words": 5},
        {"words": ["a"], "buckets": None, "max_words": 5},
        {"words": [1], "buckets": 1, "max_words": 5},
    ],
)
def test_a_broken_vocabulary_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"vocabulary|buckets"):
        Vocabulary.from_dict(values)
