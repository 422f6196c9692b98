"""A second language by translation pairs: scores by hand, and a ranker that reads both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_path_ranker import share_right
from vln_cases import CLASSES, star_route

from agents.vln.bitext import (
    BitextConfig,
    BitextLoss,
    Pairs,
    Translations,
    similarities,
    stand_for,
    word_scores,
)
from agents.vln.places import GraphPlace, OraclePlace
from agents.vln.ranker import PathRanker, RankerConfig
from agents.vln.training import CourseConfig, Route, train_ranker
from agents.vln.vocabulary import Vocabulary
from decisive.benchmarks import navigation
from decisive.benchmarks.language_study import told_in, translations
from envs.indoor.r2r_data import Instruction
from learning.train_config import TrainConfig

SECOND = ("床", "沙", "槽", "树", "桌")
BOTH = Vocabulary(("go", "to", "the", *CLASSES, "去", "到", *SECOND), buckets=4)


def ranker_of_both() -> PathRanker:
    torch.manual_seed(0)
    sizes = {"width": 32, "tokens": 32, "dropout": 0.0, "feature_dropout": 0.0}
    return PathRanker(RankerConfig(len(CLASSES), len(BOTH), **sizes)).eval()  # type: ignore[arg-type]


def told(kind: str, language: str) -> np.ndarray:
    """The same instruction in a language."""
    other = SECOND[CLASSES.index(kind)]
    return BOTH.encode(f"go to the {kind}" if language == "first" else f"去到{other}")


def pairs_of(kinds: tuple[str, ...] = CLASSES) -> Translations:
    first = tuple((told(kind, "first"),) for kind in kinds)
    return Translations(first, tuple((told(kind, "second"),) for kind in kinds))


def test_a_sentence_fits_another_as_well_as_its_words_find_their_like() -> None:
    # Words along axes; the second sentence of each side has but one word.
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    diagonal = torch.tensor([0.6, 0.8])
    states = torch.stack([torch.stack([x, 2 * y]), torch.stack([diagonal, x])])
    others = torch.stack([torch.stack([x, x]), torch.stack([3 * y, x])])
    said = torch.tensor([[True, True], [True, False]])
    also = torch.tensor([[True, True], [True, False]])
    first, second = word_scores(similarities(states, others, said, also), said, also)
    # (x, y) against (x, x): x finds 1, y finds 0. Against (y): 0 and 1. (diagonal): .6 and .8.
    assert first.tolist() == [[0.5, 0.5], [pytest.approx(0.6), pytest.approx(0.8)]]
    assert second.tolist() == [[1.0, 1.0], [pytest.approx(0.6), pytest.approx(0.8)]]


def test_a_word_stands_for_words_that_are_there_alone() -> None:
    alike = torch.tensor([[[1.0, 0.0, 0.2], [-torch.inf, -torch.inf, -torch.inf]]])
    shares = stand_for(alike, torch.tensor([[True, True, False]]))
    assert shares.tolist() == [[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]


def test_pairs_are_told_apart_and_every_weight_of_the_text_gets_a_gradient() -> None:
    ranker = ranker_of_both().train()
    loss = BitextLoss(BitextConfig())
    batch = pairs_of().draw(5, np.random.default_rng(0))
    value = loss(ranker, batch)
    value.backward()
    # Five pairs: untaught, sentences and words cost about log 5 each.
    assert 0.5 * np.log(5) < float(value.detach()) < 8 * np.log(5)
    grads = {name: p.grad for name, p in ranker.text.named_parameters()}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads.values())
    assert loss.log_scale.grad is not None
    assert loss.log_scale.grad != 0
    table = ranker.grounding.weight.grad
    assert table is not None
    # Only the second language follows: the first is told by routes.
    first = sorted({int(word) for side in pairs_of().first for one in side for word in one})
    assert table[first].abs().sum() == 0
    assert table[BOTH.encode("床")].abs().sum() > 0


def test_longer_padding_changes_no_loss() -> None:
    ranker, loss = ranker_of_both(), BitextLoss(BitextConfig())
    batch = pairs_of().draw(5, np.random.default_rng(0))
    more = torch.nn.functional.pad
    padded = Pairs(
        more(batch.first, (0, 3)),
        batch.first_lengths,
        more(batch.second, (0, 2)),
        batch.second_lengths,
    )
    with torch.no_grad():
        value, longer = loss(ranker, batch), loss(ranker, padded)
    assert float(longer) == pytest.approx(float(value), abs=1e-6)


def test_a_batch_holds_each_thing_once_in_any_of_its_wordings() -> None:
    word = np.array([1])
    both = Translations(((word,), (word + 1, word + 2)), ((word,), (word + 1,)))
    drawn = [both.draw(7, np.random.default_rng(seed)) for seed in range(40)]
    assert {len(batch.first) for batch in drawn} == {2}
    assert {tuple(sorted(batch.first[:, 0].tolist())) for batch in drawn} == {(1, 2), (1, 3)}
    for batch in drawn:
        assert ((batch.first == 1) == (batch.second == 1)).all()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((), (), "two at least"),
        (((1,),) * 2, ((1,),) * 3, "as long"),
        (((1,), ()), ((1,),) * 2, "wording"),
    ],
)
def test_what_is_no_translation_is_refused(first: tuple, second: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        Translations(first, second)


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"batch_size": 1}, {"weight": -1.0}, {"grounding": -1.0}, {"scale": 0.0}):
        with pytest.raises(ValueError, match=r"at least 2|positive"):
            BitextConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.learning
def test_a_ranker_follows_a_language_that_no_route_was_told_in() -> None:
    """Routes in one language and five translated sentences; without these it is at chance."""
    rng = np.random.default_rng(0)

    def spoken(language: str, count: int) -> list[Route]:
        routes = []
        for _ in range(count):
            one = star_route(rng, GraphPlace, OraclePlace)
            place, goal = one.places[1], one.path[-1]
            kind = CLASSES[int(np.asarray(place.views)[goal].max(0).argmax())]  # type: ignore[attr-defined]
            routes.append(
                Route(one.places, one.distances, told(kind, language), one.heading, one.path)
            )
        return routes

    learned, unseen = spoken("first", 1500), spoken("second", 200)
    course = CourseConfig(horizons=(1,), per_route=1, detour=0.0)
    config = TrainConfig(steps=250, batch_size=32, lr=1e-2, ema_decay=0.98, warmup_steps=20)
    alone, taught = ranker_of_both(), ranker_of_both()
    train_ranker(alone, learned, course, config)
    train_ranker(taught, learned, course, config, translations=pairs_of())
    assert share_right(taught, unseen, 1) >= 0.9
    assert share_right(alone, unseen, 1) <= 0.5


def test_translations_are_of_the_buildings_whose_routes_nobody_learns() -> None:
    def one(path: int, scan: str, text: str, k: int = 0) -> Instruction:
        return Instruction(f"{path}_{k}", str(path), scan, ("a", "b"), 0.0, text)

    english = [one(1, "a", "go to the bed"), one(2, "b", "go to the sink"), one(3, "c", "go")]
    english += [one(4, "a", "go to the sofa"), one(1, "a", "the bed", 1), one(5, "a", "to")]
    second = [one(1, "a", "床"), one(2, "b", "槽"), one(4, "a", "去沙")]
    scans = told_in(english)
    assert scans == {"a"}
    both = translations(BOTH, english, second, scans)
    assert [[w.tolist() for w in side] for side in both.second] == [
        [BOTH.encode("床").tolist()],
        [BOTH.encode("去沙").tolist()],
    ]
    assert [len(side) for side in both.first] == [2, 1]


def test_an_unknown_language_and_missing_texts_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="language must be one of en, zh"):
        navigation.main(["--world", "languages", "--language", "fr"])
    words = ["--world", "languages", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises((ValueError, FileNotFoundError), match=r"xl_r2r|R2R_"):
        navigation.main([*words, "--work", str(tmp_path / "work")])
