"""The shipped path rankers of procedural houses, in the languages that they were taught."""

from pathlib import Path

import pytest

from agents.vln.checkpoint import load_ranker
from decisive.benchmarks.house_data import FEATURES
from decisive.benchmarks.house_language_study import HouseLanguagePlan, HouseLanguageStudy


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def success(work: Path, ranker: str, language: str) -> float:
    """Of 72 walks in 8 houses of development, with the graph alone."""
    plan = HouseLanguagePlan(split="val", language=language, walked=8, ranker=ranker)
    result = HouseLanguageStudy(plan, 0, work).walk("shipped")
    assert len(result["per_episode"]) == 72
    return float(result["success_rate"])


def test_the_ranker_of_both_languages_reads_chinese_and_the_english_one_does_not(
    work: Path,
) -> None:
    both, english = (success(work, name, "zh") for name in ("houses-en-zh", "houses"))
    assert both >= 0.4
    assert english <= 0.3
    assert both >= english + 0.2


def test_english_is_kept_where_chinese_was_learned(work: Path) -> None:
    both, english = (success(work, name, "en") for name in ("houses-en-zh", "houses"))
    assert both >= 0.75
    assert both >= english - 0.08


def test_it_knows_the_words_of_the_english_one_and_chinese_ones_besides() -> None:
    both, english = load_ranker("houses-en-zh"), load_ranker("houses")
    assert both.features == english.features == FEATURES
    old, new = english.vocabulary.words, both.vocabulary.words
    assert new[: len(old)] == old
    assert all(not word.isascii() for word in new[len(old) :])
    assert {"左", "右", "床"} <= set(new)
