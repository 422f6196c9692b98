"""The study of a navigator in houses that learns Chinese from sentences: what each arm is shown."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.vln.checkpoint import load_ranker
from agents.vln.places import OraclePlace
from agents.vln.training import Route
from decisive.benchmarks.house_data import HouseSet
from decisive.benchmarks.house_language_data import told_houses, told_parts
from decisive.benchmarks.house_language_study import (
    ARMS,
    HouseLanguagePlan,
    HouseLanguageStudy,
)
from decisive.benchmarks.navigation import main
from envs.indoor.house import house_name

PLAN = HouseLanguagePlan(
    split="val", learned=2, paired=2, walked=2, paths=(2, 1), guessed=1, ranker_seconds=1.0
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def study(work: Path) -> HouseLanguageStudy:
    return HouseLanguageStudy(PLAN, 0, work)


def test_houses_are_told_of_once_and_english_is_that_of_the_study_of_views(work: Path) -> None:
    told = told_houses(work / "instructions", "val", range(2), 1.0, 1)
    assert told_houses(work / "instructions", "val", range(2), 1.0, 1) == told
    assert told["en"] == HouseSet("val", 1.0, 2, 2, 1, 32, work).lessons
    assert len({one.path_id for one in told["zh"]}) == 2
    for one, other in zip(told["en"], told["zh"], strict=True):
        assert replace(one, text="") == replace(other, text="")


def test_parts_of_instructions_are_told_once_each(work: Path) -> None:
    folder = work / "instructions"
    parts = told_parts(folder, "val", range(2), 1.0, 1)
    assert told_parts(folder, "val", range(2), 1.0, 1) == parts
    assert len(parts["en"]) == len(parts["zh"]) > 10
    assert all(len(wordings) == 3 for told in parts.values() for wordings in told)
    # Two contents may by chance be said in the same words, few are.
    distinct = {tuple(sorted(wordings)) for wordings in parts["zh"]}
    assert len(distinct) > 0.9 * len(parts["zh"])
    # Whole instructions of the same paths hold what a part of one fact says.
    whole = [one.text for one in told_houses(folder, "val", range(2), 1.0, 1)["en"]]
    assert any(wordings[0][:-1] in text for wordings in parts["en"] for text in whole)


def test_sentences_are_paired_of_houses_that_nobody_walks_or_sees(
    study: HouseLanguageStudy,
) -> None:
    paired = study._pair_houses
    assert paired == {house_name(number, "train", 1.0) for number in (500, 501)}
    assert not paired & set(study.train.spans)
    start = study._start()
    pairs = study._translations(start.vocabulary)
    assert len(pairs) == 4
    more = HouseLanguageStudy(replace(PLAN, parts=True), 0, study._work)
    assert more.folder != study.folder
    parts = told_parts(study._work / "instructions", "train", range(500, 502), 1.0, 2)
    assert len(more._translations(start.vocabulary)) == 4 + len(parts["en"])
    assert all(len(wordings) == 3 for side in (pairs.first, pairs.second) for wordings in side)
    # Routes are told in English alone, in words that the shipped ranker has, of other houses.
    known = load_ranker("houses").vocabulary
    routes = study._routes(start.vocabulary, ("en",))
    assert len(routes) == 12
    assert max(int(route.words.max()) for route in routes) < len(known)
    said = {int(word) for wordings in pairs.second for words in wordings for word in words}
    assert max(said) >= len(known)


def test_a_route_is_seen_plain_true_and_where_asked_as_a_world_model_guesses(
    study: HouseLanguageStudy,
) -> None:
    def imagined(route: Route) -> list[bool]:
        start, after = route.path[:2]
        return [place.imagine([start], [after]) is not None for place in route.places]

    routes = study._routes(study._start().vocabulary, ("en", "zh"))
    assert len(routes) == 24
    kinds = [imagined(route) for route in routes]
    assert kinds.count([False, True, True]) == 6  # a path has three wordings in each language
    assert kinds.count([False, True]) == 18
    (guessed,) = {id(route.places[2]): route for route in routes if len(route.places) > 2}.values()
    true = guessed.places[1]
    assert isinstance(true, OraclePlace)
    start, after = guessed.path[:2]
    guess = guessed.places[2].imagine([start], [after])
    assert guess is not None
    assert 0 < guess.confidence[0, 0] < 1
    assert not np.array_equal(guess.views[0, 0], true.views[after])


def test_the_shipped_arm_is_the_shipped_ranker_and_others_need_not_be_trained_for_it(
    study: HouseLanguageStudy,
) -> None:
    english = replace(PLAN, language="en")
    told = {
        plan.language: HouseLanguageStudy(plan, 0, study._work).walk("shipped")
        for plan in (PLAN, english)
    }
    assert told["en"]["training"] == load_ranker("houses").training
    assert [len(result["per_episode"]) for result in told.values()] == [6, 6]
    assert told["en"]["success_rate"] > told["zh"]["success_rate"]
    assert not study.folder.exists()
    with pytest.raises(ValueError, match="unknown arm 'psychic'"):
        study.ranker("psychic")


@pytest.mark.learning
@pytest.mark.slow
def test_all_arms_run_and_what_is_done_is_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--world", "house-languages", "--language", "en", "--views", "true", "--horizon", "2"]
    argv += ["--houses", "2,3,2", "--seeds", "1", "--ranker-seconds", "2", "--split", "val"]
    argv += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--json"]
    assert main(argv) == 0
    first = json.loads(capsys.readouterr().out)
    assert tuple(first["arms"]) == ARMS
    assert all(entry["episodes"] == 18 for entry in first["arms"].values())
    assert (tmp_path / "out" / "house-languages-p100-en-true-val-h2.json").is_file()
    (folder,) = (tmp_path / "work").glob("house-languages-*")
    cards = {arm: (folder / arm / "README.md").read_text() for arm in ARMS[1:]}
    assert all("Synthetic" in card and arm in card for arm, card in cards.items())
    assert main(argv) == 0
    assert json.loads(capsys.readouterr().out)["arms"] == first["arms"]


@pytest.mark.parametrize(
    "words",
    [
        ["--language", "fr"],
        ["--views", "some"],
        ["--split", "train"],
        ["--houses", "200,501,60"],
        ["--predictability", "2"],
        ["--arms", "english,psychic"],
    ],
)
def test_settings_that_cannot_run_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must|houses of val or test|can be learned"):
        main(["--world", "house-languages", *words])


def test_views_are_chosen_in_this_study_alone() -> None:
    with pytest.raises(ValueError, match="--views is of --world house-languages"):
        main(["--world", "houses", "--views", "true"])
