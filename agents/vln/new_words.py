"""A trained ranker with more words of its own, such as those of another language."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from agents.vln.checkpoint import SavedRanker
from agents.vln.ranker import PathRanker

_TABLES = ("text.embedding.weight", "grounding.weight")
"""Tables with a row a word."""


def with_words(
    saved: SavedRanker, words: Iterable[str], seed: int = 0, max_words: int | None = None
) -> SavedRanker:
    """The same ranker with numbers for more words; what it knew it ranks exactly as before.

    Rows of new words are drawn as for a new ranker: what they mean is to be learned.

    Args:
        saved: is left as it is.
        words: as `agents.vln.vocabulary.split_words` gives them; known ones are skipped.
        seed: of the rows.
        max_words: most words of an instruction that are read; None for as many as before.
    """
    old = saved.vocabulary
    fresh = tuple(word for word in dict.fromkeys(words) if word not in set(old.words))
    vocabulary = replace(
        old, words=(*old.words, *fresh), max_words=old.max_words if max_words is None else max_words
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wide = PathRanker(replace(saved.ranker.config, words=len(vocabulary)))
    state = {name: tensor.clone() for name, tensor in saved.ranker.state_dict().items()}
    for name in _TABLES:
        rows = wide.state_dict()[name].clone()
        rows[: len(state[name])] = state[name]
        state[name] = rows
    wide.load_state_dict(state)
    return SavedRanker(wide.eval(), vocabulary, saved.features, dict(saved.training))
