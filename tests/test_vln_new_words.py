"""A ranker that gets more words: what it knew stays, what is new can be learned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vln_cases import CLASSES, VOCABULARY, decision, grid_place, tiny_ranker

from agents.vln.checkpoint import SavedRanker, load_ranker, save_ranker
from agents.vln.forest import plant
from agents.vln.new_words import with_words
from agents.vln.ranker import ranking_loss

NEW = ("床", "沙", "bed")


def saved() -> SavedRanker:
    return SavedRanker(tiny_ranker(), VOCABULARY, CLASSES, {"steps": 3.0})


def test_known_words_keep_their_numbers_and_new_ones_get_numbers_of_their_own() -> None:
    wide = with_words(saved(), NEW)
    old, new = VOCABULARY, wide.vocabulary
    assert new.words == (*old.words, "床", "沙")  # "bed" was known
    assert new.encode("go to the bed").tolist() == old.encode("go to the bed").tolist()
    assert new.encode("床沙").tolist() == [len(old), len(old) + 1]
    assert wide.ranker.config.words == len(new)
    assert (wide.features, wide.training) == (CLASSES, {"steps": 3.0})


def test_an_instruction_in_old_words_is_ranked_exactly_as_before() -> None:
    place = grid_place(np.random.default_rng(0))
    one = saved()
    wide = with_words(one, NEW, seed=5)
    forest = plant([decision(place, text="go to the bed")])
    with torch.no_grad():
        assert torch.equal(one.ranker(forest), wide.ranker(forest))


def test_the_old_ranker_and_the_stream_of_random_numbers_are_left_alone() -> None:
    one = saved()
    before = {name: tensor.clone() for name, tensor in one.ranker.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    wide = with_words(one, NEW, seed=5)
    assert torch.equal(torch.rand(3), expected)
    with torch.no_grad():
        for parameter in wide.ranker.parameters():
            parameter.add_(1.0)
    after = one.ranker.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_rows_of_new_words_follow_the_seed_and_learn() -> None:
    rows = [with_words(saved(), NEW, seed).ranker.text.embedding.weight[-2:] for seed in (1, 1, 2)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    wide = with_words(saved(), NEW)
    place = grid_place(np.random.default_rng(0))
    one = decision(place, target=0)
    told = [*one.words.tolist(), *wide.vocabulary.encode("床").tolist()]
    forest = plant([replace(one, words=np.array(told))])
    ranking_loss(wide.ranker.train(), forest).backward()
    for table in (wide.ranker.text.embedding, wide.ranker.grounding):
        gradient = table.weight.grad
        assert gradient is not None
        assert gradient[len(VOCABULARY)].abs().sum() > 0


def test_longer_instructions_can_be_read_and_a_checkpoint_holds_all(tmp_path: Path) -> None:
    wide = with_words(saved(), NEW, max_words=200)
    assert wide.vocabulary.max_words == 200
    assert with_words(saved(), NEW).vocabulary.max_words == VOCABULARY.max_words
    save_ranker(tmp_path / "wide", wide, "# card\n")
    again = load_ranker(tmp_path / "wide")
    assert again.vocabulary == wide.vocabulary
    assert torch.equal(again.ranker.grounding.weight, wide.ranker.grounding.weight)
    with pytest.raises(ValueError, match="max_words at least 2"):
        with_words(saved(), NEW, max_words=1)
