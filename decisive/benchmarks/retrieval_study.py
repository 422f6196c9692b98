"""The retrieval study: arms, their trainings, what is asked of them, and TF-IDF beside them."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decisive import provenance
from decisive.benchmarks.retrieval_tfidf import tfidf_scores
from decisive.render_captions import Scenes, render
from decisive.train_mural import build, card, open_bitexts
from envs.captions.words import LANGUAGES
from learning.bitext import multi30k_lines, xl_r2r_paths
from learning.caption_set import CaptionSet, open_caption_set
from perception.mural.scores import CUTOFFS, Ranks, chance_mean_recall, ranks, ranks_of

if TYPE_CHECKING:
    from perception.mural.checkpoint import SavedMural
    from perception.mural.model import Task

ARMS: dict[str, tuple[str, ...]] = {
    "images-only": (),
    "mural": ("en-de", "en-fr", "en-cs", "en-zh"),
}
"""Translations of each arm; images and their English captions are the same."""

TRANSLATIONS = ("de", "fr", "cs")
PATHS = "paths-en-zh"
_PLAIN, _SIDED = 0, -1


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        train: rendered pictures to learn from.
        validation: pictures of other scenes that settings were chosen by.
        test: pictures of further scenes.
        steps: of each training.
        lr: peak learning rate.
        batch_size: captioned pictures of a step.
        text_batch_size: translations of a step.
        paths: paths of val_unseen that are matched; all if None.
        sentences: of Multi30k's test; all if None.
    """

    train: int = 4000
    validation: int = 500
    test: int = 1000
    steps: int = 2400
    lr: float = 5e-3
    batch_size: int = 128
    text_batch_size: int = 256
    paths: int | None = None
    sentences: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if min(self.train, self.validation, self.test) < 20 or self.steps < 1 or not self.lr > 0:
            raise ValueError(f"too little to learn from or to ask: {self}")


@dataclass(frozen=True)
class Pictures:
    """The rendered pictures of all splits."""

    train: CaptionSet
    validation: CaptionSet
    test: CaptionSet


def open_pictures(study: Study, work: Path) -> Pictures:
    """Rendered pictures, rendered where they are not there yet."""
    found = []
    for split in ("train", "validation", "test"):
        n = getattr(study, split)
        folder = work / "pictures" / f"{split}-{n}"
        scenes = Scenes(split=split)
        found.append(open_caption_set(folder) if folder.is_dir() else render(scenes, n, folder))
    return Pictures(*found)


def run_arm(study: Study, arm: str, seed: int, pictures: Pictures, folder: Path) -> dict[str, Any]:
    """Train an arm and ask everything of it; JSON values.

    The dual encoder is saved to `folder/last`.
    """
    from perception.mural.checkpoint import save_mural
    from perception.mural.losses import TaskWeights
    from perception.mural.train_config import MuralTrainConfig
    from perception.mural.training import MuralData, train_mural

    began = time.process_time()
    names = ARMS[arm]
    data = MuralData(
        pictures.train,
        pictures.validation,
        open_bitexts(names, "train"),
        open_bitexts(names, "validation"),
    )
    model = build("small", {}, seed)
    config = MuralTrainConfig(
        steps=study.steps,
        batch_size=study.batch_size,
        text_batch_size=study.text_batch_size,
        lr=study.lr,
        seed=seed,
        weights=TaskWeights(text_text=float(bool(names))),
        warmup_steps=min(100, study.steps // 5),
        validate_every=max(study.steps // 4, 1),
        save_every=500,
        tensorboard=False,
    )
    command = f"decisive benchmark retrieval --only {arm}-{seed}"

    def save(saved: SavedMural, place: Path, training: dict[str, Any]) -> None:
        save_mural(place, saved, card(saved, training, data, command), half=True)

    result = train_mural(model, data, config, folder, save=save, progress=None)
    return {
        "validation": result.scores,
        **ask(study, result.saved, pictures.test, "text-text" if names else "image-text"),
        "steps": result.step,
        "train_cpu_seconds": result.cpu_seconds,
        "cpu_seconds": time.process_time() - began,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def ask(study: Study, saved: SavedMural, test: CaptionSet, task: Task) -> dict[str, Any]:
    """Hits of every question, as `hits` writes them.

    Args:
        study: what is compared.
        saved: the dual encoder.
        test: pictures with captions in all languages.
        task: head for texts among texts; that for captions where no other was trained.
    """
    pictures = saved.embed_images(np.asarray(test.images))
    asked: dict[str, Any] = {"images": {}, "images_with_sides": {}, "texts": {}}
    for name, place in (("images", _PLAIN), ("images_with_sides", _SIDED)):
        # What is right is told by the English caption: pictures that show the same are all right.
        keys = [row[place] for row in test.captions["en"]]
        for language in LANGUAGES:
            said = saved.embed_text([row[place] for row in test.captions[language]])
            asked[name][language] = [
                hits(ranks(said, pictures, keys, keys)),
                hits(ranks(pictures, said, keys, keys)),
            ]
    for name, (x, y, xs, ys) in text_questions(study).items():
        first, second = saved.embed_text(x, task), saved.embed_text(y, task)
        asked["texts"][name] = _both(first @ second.T, xs, ys)
    return asked


def baseline(study: Study, test: CaptionSet) -> dict[str, Any]:
    """TF-IDF of character n-grams on the questions about texts, and chance on all; JSON values."""
    began = time.process_time()
    found: dict[str, Any] = {"texts": {}, "chance": {}}
    for name, (x, y, xs, ys) in text_questions(study).items():
        scores = torch.from_numpy(tfidf_scores(x, y))
        found["texts"][name] = _both(scores, xs, ys)
        found["chance"][name] = (chance_mean_recall(xs, ys) + chance_mean_recall(ys, xs)) / 2
    for name, place in (("images", _PLAIN), ("images_with_sides", _SIDED)):
        keys = [row[place] for row in test.captions["en"]]
        found["chance"][name] = chance_mean_recall(keys, keys)
    return {
        **found,
        "cpu_seconds": time.process_time() - began,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


Question = tuple[list[str], list[str], list[Hashable], list[Hashable]]


def text_questions(study: Study) -> dict[str, Question]:
    """Texts of both sides and what tells right from wrong, by name of the question.

    Multi30k's test of 2016: the same sentence in another language. XL-R2R's val_unseen: any
    instruction in the other language of the same path.
    """
    english, *others = multi30k_lines(("en", *TRANSLATIONS), "test")
    n = study.sentences or len(english)
    numbers: list[Hashable] = list(range(n))
    found: dict[str, Question] = {
        f"en-{language}": (english[:n], lines[:n], numbers, numbers)
        for language, lines in zip(TRANSLATIONS, others, strict=True)
    }
    sides: dict[str, tuple[list[str], list[Hashable]]] = {"en": ([], []), "zh": ([], [])}
    for path in xl_r2r_paths("val_unseen")[: study.paths]:
        for language, (texts, keys) in sides.items():
            texts += path.texts[language]
            keys += [path.path_id] * len(path.texts[language])
    found[PATHS] = (sides["en"][0], sides["zh"][0], sides["en"][1], sides["zh"][1])
    return found


def _both(scores: torch.Tensor, xs: Sequence[Hashable], ys: Sequence[Hashable]) -> list[str]:
    return [hits(ranks_of(scores, xs, ys)), hits(ranks_of(scores.T, ys, xs))]


def hits(found: Ranks) -> str:
    """A digit for each query: how many of R@1, R@5 and R@10 it counts in."""
    counts = np.sum([found < k for k in CUTOFFS], axis=0)
    return "".join(map(str, counts.tolist()))


def shares(text: str) -> np.ndarray:
    """`(N,)` what each query adds to the mean recall, 0 to 1."""
    return (np.frombuffer(text.encode(), np.uint8) - ord("0")) / len(CUTOFFS)


def plan(study: Study, arm: str, seed: int) -> dict[str, Any]:
    """Everything that decides a result, as JSON gives it back."""
    return {"study": asdict(study), "arm": arm, "seed": seed, "bitexts": list(ARMS.get(arm, ()))}


def all_cells(seeds: int) -> list[tuple[str, int]]:
    """Arms and seeds in their order; the baseline first."""
    return [("baseline", 0), *((arm, seed) for seed in range(seeds) for arm in reversed(ARMS))]


Results = Mapping[tuple[str, int], "dict[str, Any] | None"]
"""By arm and seed."""
