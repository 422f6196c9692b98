"""Text in any script to numbers: hand-worked words, hostile texts, the same in every process."""

import subprocess
import sys
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perception.mural.tokenizer import Tokenizer, TokenizerConfig, clean, split_words

CONFIG = TokenizerConfig(buckets=1000, n_min=3, n_max=4, max_words=8)


def bucket(piece: str) -> int:
    return 1 + zlib.crc32(piece.encode()) % 1000


def test_a_word_is_itself_and_its_framed_n_grams() -> None:
    tokens = Tokenizer(CONFIG)(["red"])
    expected = [bucket(piece) for piece in ("red", "<re", "ed>", "<red", "red>")]
    found = tokens.pieces[0].tolist()
    assert sorted(found) == sorted(expected)
    assert tokens.words.tolist() == [[1]]


def test_equal_words_of_a_batch_are_held_once() -> None:
    tokens = Tokenizer(CONFIG)(["a red chair", "A red, RED table!"])
    assert tokens.words.tolist() == [[1, 2, 3, 0], [1, 2, 2, 4]]
    assert len(tokens.pieces) == 4


def test_characters_without_spaces_are_looked_up_alone_and_with_neighbours() -> None:
    assert split_words("红沙发") == (("红", "红沙"), ("沙", "红沙", "沙发"), ("发", "沙发"))
    assert split_words("ok沙发2") == (("ok",), ("沙", "沙发"), ("发", "沙发"), ("2",))


def test_punctuation_is_left_out_and_symbols_are_words() -> None:
    assert split_words("a--b, (c) \U0001f600!") == (("a",), ("b",), ("c",), ("\U0001f600",))


def test_long_words_are_cut_into_several() -> None:
    words = split_words("x" * 60)
    assert [len(word[0]) for word in words] == [24, 24, 12]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\uff32\uff25\uff24", "red"),  # wide letters
        ("Stra\u00dfe", "strasse"),
        ("e\u0301", "\u00e9"),  # composed
        ("\u200f\u05e9\u05dc\u05d5\u200e", "\u05e9\u05dc\u05d5"),  # marks of direction
        ("👍🏽", "👍"),  # a skin tone
        ("❤\ufe0f", "❤"),
        ("a\x00b", "ab"),
        ("a\tb\nc", "a b c"),
    ],
)
def test_cleaning_is_defined(text, expected) -> None:
    assert clean(text) == (expected, ())


def test_what_is_no_utf8_is_left_out_with_a_note() -> None:
    text, notes = clean(b"red \xff\xfe chair")
    assert text.split() == ["red", "chair"]
    assert notes == ("2 characters that are no Unicode left out",)
    assert clean("red \udcff chair").notes  # as os.fsdecode gives it
    assert Tokenizer(CONFIG)([b"red \xff"]).words.tolist() == [[1]]


def test_the_longest_texts_are_cut_with_a_note() -> None:
    tokenizer = Tokenizer(CONFIG)
    text = "word " * 10_000
    assert tokenizer([text]).words.shape == (1, 8)
    assert tokenizer.notes(text) == ("only the first 8 of 10,000 words are read",)
    assert tokenizer.notes("a red chair") == ()


@pytest.mark.parametrize("text", ["", "  ", "\n", "...", "\u200f", "\ufffd", b"\xff"])
def test_a_text_without_a_word_is_refused_by_its_number(text) -> None:
    with pytest.raises(ValueError, match="text 1 has no word"):
        Tokenizer(CONFIG)(["red", text])


def test_a_single_text_is_no_list_of_texts() -> None:
    with pytest.raises(TypeError, match="give a list"):
        Tokenizer(CONFIG)("red")
    with pytest.raises(ValueError, match="one text at least"):
        Tokenizer(CONFIG)([])


@pytest.mark.parametrize(
    "settings",
    [{"buckets": 10}, {"max_words": 0}, {"n_min": 0}, {"n_min": 4, "n_max": 3}, {"kind": "words"}],
)
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenizerConfig(**settings)


@given(st.text(max_size=60))
def test_any_text_gives_rows_of_the_table_or_a_refusal(text) -> None:
    tokenizer = Tokenizer(CONFIG)
    if not split_words(clean(text).text):
        with pytest.raises(ValueError, match="no word"):
            tokenizer([text])
        return
    tokens = tokenizer([text, "red"])
    assert tokens.pieces.min() >= 0
    assert tokens.pieces.max() <= CONFIG.buckets
    assert tokens.words.shape[1] <= CONFIG.max_words
    assert (tokens.words[:, 0] > 0).all()
    assert clean(clean(text).text).text == clean(text).text


def test_numbers_are_the_same_in_every_process() -> None:
    code = (
        "from perception.mural.tokenizer import *;"
        "print(Tokenizer(TokenizerConfig())(['ein rotes Sofa', '红沙发']).pieces.tolist())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    own = Tokenizer(TokenizerConfig())(["ein rotes Sofa", "红沙发"]).pieces
    assert runs[0] == runs[1] == f"{own.tolist()}\n"


def test_bytes_are_tokens_of_their_own_kind() -> None:
    tokens = Tokenizer(TokenizerConfig(kind="bytes", max_words=20))(["aé"])
    assert tokens.words.tolist() == [[1, 2, 3]]
    assert tokens.pieces.shape == (3, 1)
    assert tokens.to(torch.device("cpu")).words is tokens.words
