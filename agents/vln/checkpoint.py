"""Rankers as checkpoint folders: sizes, vocabulary, weights and a model card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.vln.ranker import PathRanker, RankerConfig
from agents.vln.vocabulary import Vocabulary
from learning.checkpoint import find_shipped, list_checkpoints, load_saved, save_module

METHOD = "vln-ranker"

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Where the shipped ones lie."""


@dataclass(frozen=True)
class SavedRanker:
    """What a checkpoint of a ranker holds.

    Attributes:
        ranker: in evaluation mode.
        vocabulary: numbers the words.
        features: name of each feature of a view.
        training: what the trainer wrote down.
    """

    ranker: PathRanker
    vocabulary: Vocabulary
    features: tuple[str, ...]
    training: dict[str, Any]


def save_ranker(folder: str | Path, saved: SavedRanker, card: str) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        folder: where it goes.
        saved: what it holds.
        card: the model card, Markdown.

    Raises:
        ValueError: if sizes do not agree, or a weight is NaN (`CheckpointError`).
        OSError: if the folder cannot be written.
    """
    config = saved.ranker.config
    _check(config, saved.vocabulary, saved.features)
    document = {
        "method": METHOD,
        "config": config.to_dict(),
        "spec": {
            "vocabulary": saved.vocabulary.to_dict(),
            "features": list(saved.features),
        },
        "training": dict(saved.training),
    }
    save_module(folder, document, saved.ranker, card, _build)


def load_ranker(path_or_name: str | Path) -> SavedRanker:
    """Read a checkpoint folder, or a shipped ranker.

    Raises:
        CheckpointError: one line saying what is missing or broken, or that it holds another method.
    """
    folder = find_shipped(path_or_name, list_checkpoints(CHECKPOINTS), "path ranker")
    return load_saved(folder, _build, _read, METHOD)


def _build(document: Mapping[str, Any]) -> PathRanker:
    config = RankerConfig.from_dict(document["config"])
    _check(config, *_read_spec(document["spec"]))
    return PathRanker(config)


def _read(ranker: PathRanker, document: Mapping[str, Any]) -> SavedRanker:
    vocabulary, features = _read_spec(document["spec"])
    return SavedRanker(ranker, vocabulary, features, dict(document["training"]))


def _read_spec(spec: Mapping[str, Any]) -> tuple[Vocabulary, tuple[str, ...]]:
    vocabulary, features = spec.get("vocabulary"), spec.get("features")
    if not isinstance(vocabulary, Mapping):
        raise ValueError("spec must hold a vocabulary")
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise ValueError("spec must hold the names of the features")
    return Vocabulary.from_dict(vocabulary), tuple(features)


def _check(config: RankerConfig, vocabulary: Vocabulary, features: tuple[str, ...]) -> None:
    if config.words != len(vocabulary) or config.features != len(features):
        raise ValueError(
            f"a ranker of {config.words} words and {config.features} features does not fit a "
            f"vocabulary of {len(vocabulary)} and {len(features)} names"
        )
