"""How dual encoders are trained: each step one batch of captioned images and one of translations.

Source: Jain et al. 2021, "MURAL", section 3. Every step is a function of the seed and its number,
so a resumed training goes on bit by bit. The average of the weights is evaluated and saved.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learning.bitext import Bitext
from learning.caption_set import CaptionSet
from learning.progressive import reestimate_batch_norm
from learning.run import Run, isolated
from learning.train_config import learning_rate
from perception.mural.batches import MuralBatches, rows_of, text_keys
from perception.mural.checkpoint import SavedMural
from perception.mural.gradient_cache import Encode, backward_in_chunks
from perception.mural.losses import duplicates
from perception.mural.model import DualEncoder, Task
from perception.mural.scores import mean_recall, ranks
from perception.mural.train_config import MuralTrainConfig
from perception.train_batches import Range, step_seed

SaveFunction = Callable[[SavedMural, Path, dict[str, Any]], None]


@dataclass(frozen=True)
class MuralData:
    """What is learned from, and what scores it.

    Attributes:
        images: captioned images to learn from.
        held_images: captioned images of other scenes.
        bitexts: translations to learn from; empty trains on images alone.
        held_bitexts: other translations.
    """

    images: CaptionSet
    held_images: CaptionSet
    bitexts: Sequence[Bitext] = ()
    held_bitexts: Sequence[Bitext] = ()


@dataclass(frozen=True)
class MuralResult:
    """What a training gave.

    Attributes:
        step: steps done.
        scores: mean recalls of the held-out data, by the averaged weights.
        cpu_seconds: spent in training steps (wall seconds on a GPU).
        history: rows of `metrics.jsonl`.
        folder: of the last checkpoint.
        saved: the dual encoder with its preprocessing.
    """

    step: int
    scores: dict[str, float]
    cpu_seconds: float
    history: list[dict[str, Any]]
    folder: Path
    saved: SavedMural


def train_mural(
    model: DualEncoder,
    data: MuralData,
    config: MuralTrainConfig,
    out: str | Path,
    resume: bool = True,
    *,
    save: SaveFunction | None = None,
    progress: bool | None = None,
) -> MuralResult:
    """Train a dual encoder on captioned images and translations.

    Writes `out/train_state.safetensors`, `out/metrics.jsonl`, `out/tensorboard` and, by `save`,
    `out/last`. Called again with the same arguments after a kill, it goes on where the last saved
    state was; with a budget in steps, on a CPU, the weights end bit by bit as if there had been no
    kill.

    Args:
        model: trained in place, left with the averaged weights in evaluation mode.
        data: what to learn from.
        config: how to train.
        out: folder of the run, made if absent.
        resume: whether to go on with a run found in `out`; False starts afresh.
        save: writes a checkpoint, `save(saved, folder, training)` with JSON facts of the training.
        progress: whether to draw a progress bar; None where standard output is a terminal.

    Raises:
        ValueError: if a task has a weight but no pairs, a set is smaller than a batch, `out` holds
            another run, or the loss became NaN.
        OSError: if `out` cannot be written; older checkpoints are untouched.
    """
    _check(data, config)
    with isolated(config.threads):
        run = _Run(model, data, config, Path(out), save)
        run.start(resume)
        return run.finish(progress)


class _Run(Run[MuralTrainConfig]):
    model: DualEncoder

    def __init__(
        self,
        model: DualEncoder,
        data: MuralData,
        config: MuralTrainConfig,
        out: Path,
        save: SaveFunction | None,
    ) -> None:
        identity = {
            "images": _images_print(data.images),
            "bitexts": [_texts_print(texts) for texts in data.bitexts],
        }
        super().__init__(model, config, out, identity, "float32")
        self.data, self.save = data, save
        self.statistics = _statistics(data.images)
        size = model.config.size
        self.batches = MuralBatches(
            data.images, data.bitexts, config, self.statistics, size, self.device
        )

    def finish(self, progress: bool | None) -> MuralResult:
        """Train to the end of the budget, and score."""
        history = self.train(progress)
        scores = self._scores(None)
        saved = self._saved(scores)
        return MuralResult(self.at.step, scores, self.at.seconds, history, self.out / "last", saved)

    def step(self, fraction: float) -> dict[str, Tensor]:
        torch.manual_seed(step_seed(self.config.seed, self.at.step))  # dropout
        self.parameters.zero_grad()
        weights, told = self.config.weights, {}
        if weights.image_text:
            told["image_text"] = self._image_text(weights.image_text)
        if weights.text_text:
            told["text_text"] = self._text_text(weights.text_text)
        self._move(fraction)
        return {"loss": torch.stack(list(told.values())).sum(), **told}

    def _move(self, fraction: float) -> None:
        """`Run.descend` for gradients that are there already."""
        if self.config.grad_clip is not None:
            self.parameters.clip_grad(self.config.grad_clip)
        self.optimizer.step(learning_rate(self.config, self.at.step, fraction))
        if self.ema is not None:
            self.ema.update(self.at.step)

    def _image_text(self, weight: float) -> Tensor:
        images, texts = self.batches.image_texts(self.at.step)
        parts = [self._parts(images, self.model.encode_image), self._texts(texts, "image-text")]
        return self._backward(parts, "image-text", weight, texts)

    def _text_text(self, weight: float) -> Tensor:
        first, second = self.batches.text_pairs(self.at.step)
        if self.config.chunk is None:
            # Both sides at once, with the words that they share embedded once.
            both = self._texts(first + second, "text-text")
            same = self._same(first, second)

            def joint(embedded: Tensor) -> Tensor:
                x, y = embedded.chunk(2)
                return weight * self.model.loss(x, y, "text-text", same)

            loss = joint(both[0]())
            loss.backward()
            return loss.detach()
        parts = [self._texts(texts, "text-text") for texts in (first, second)]
        return self._backward(parts, "text-text", weight, first, second)

    def _backward(
        self, parts: Sequence[Sequence[Encode]], task: Task, weight: float, *texts: list[str]
    ) -> Tensor:
        same = self._same(*texts)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return weight * self.model.loss(x, y, task, same)

        if self.config.chunk is not None:
            return backward_in_chunks(parts, loss)
        value = loss(*(part[0]() for part in parts))
        value.backward()
        return value.detach()

    def _same(self, *texts: list[str]) -> Tensor | None:
        if not self.config.duplicates:
            return None
        same = duplicates(*(text_keys(self.model.tokenizer, one) for one in texts))
        return None if same is None else same.to(self.device)

    def _parts(self, images: Tensor, encode: Callable[[Tensor], Tensor]) -> list[Encode]:
        return [partial(encode, part) for part in images.split(self.config.chunk or len(images))]

    def _texts(self, texts: list[str], task: Task) -> list[Encode]:
        size = self.config.chunk or len(texts)
        return [
            partial(
                self.model.encode_text,
                self.model.tokenizer(texts[start : start + size]).to(self.device),
                task,
            )
            for start in range(0, len(texts), size)
        ]

    def validate(self) -> dict[str, float]:
        with self.averaged():
            scores = self._scores(self.config.validate_samples)
        mean = float(np.mean(list(scores.values())))
        told = {f"validation/{name}": value for name, value in scores.items()}
        # The bar shows what it knows under this name; here it is the mean of mean recalls.
        return {"validation/accuracy": mean, **told}

    def checkpoint(self) -> None:
        if self.save is None:
            return
        with self.averaged():
            scores = self._scores(None)
            training = {**self.facts(), "held_out": scores}
            self.save(self._saved(scores), self.out / "last", training)

    def renew_norms(self) -> None:
        count, batch = self.config.norm_batches, self.config.batch_size
        if count:
            rows = (rows_of(len(self.data.images), batch, 0, k) for k in range(count))
            reestimate_batch_norm(self.model.image, (self.batches.plain(r) for r in rows))

    def _saved(self, scores: Mapping[str, Any]) -> SavedMural:
        mean, std = self.statistics
        captioned = tuple(self.data.images.captions)
        spoken = [name for texts in self.data.bitexts for name in texts.languages]
        languages = tuple(dict.fromkeys([*captioned, *spoken]))
        return SavedMural(self.model, mean, std, languages, captioned, scores)

    def _scores(self, most: int | None) -> dict[str, float]:
        training = self.model.training
        self.model.eval()
        try:
            return score(self._saved({}), self.data, most, bool(self.config.weights.text_text))
        finally:
            self.model.train(training)


def score(
    saved: SavedMural, data: MuralData, most: int | None = None, text_text: bool = True
) -> dict[str, float]:
    """Mean recalls of held-out images and translations, from 0 to 1.

    Args:
        saved: a dual encoder.
        data: whose held-out parts count; of each picture the first caption.
        most: pairs of each; all if None.
        text_text: whether the head for translations was trained; else that for captions is taken.
    """
    images = data.held_images
    n = min(len(images), most or len(images))
    pictures = saved.embed_images(np.asarray(images.images[:n]))
    found = {}
    for language, rows in images.captions.items():
        texts = [row[0] for row in rows[:n]]
        said = saved.embed_text(texts)
        keys = text_keys(saved.model.tokenizer, texts)
        found[f"images-{language}"] = mean_recall(
            ranks(said, pictures, keys, keys), ranks(pictures, said, keys, keys)
        )
    task: Task = "text-text" if text_text else "image-text"
    for bitext in data.held_bitexts:
        n = min(len(bitext), most or len(bitext))
        sides = [list(side[:n]) for side in (bitext.first, bitext.second)]
        x, y = (saved.embed_text(side, task) for side in sides)
        # A pair is right; so is another with the same text on the side that is sought.
        found[bitext.name] = mean_recall(
            *(
                ranks(a, b, keys, keys)
                for a, b, keys in (
                    (x, y, text_keys(saved.model.tokenizer, sides[1])),
                    (y, x, text_keys(saved.model.tokenizer, sides[0])),
                )
            )
        )
    return found


def _statistics(images: CaptionSet) -> tuple[Range, Range]:
    rows = np.linspace(0, len(images) - 1, min(len(images), 512)).round().astype(np.int64)
    pixels = images.images[np.unique(rows)].reshape(-1, 3)
    mean, std = pixels.mean(0, dtype=np.float64) / 255, pixels.std(0, dtype=np.float64) / 255
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())


def _check(data: MuralData, config: MuralTrainConfig) -> None:
    if config.weights.text_text and not data.bitexts:
        raise ValueError("the weight of text-text needs translations; give some, or set it to 0")
    if config.weights.image_text:
        rows_of(len(data.images), config.batch_size, 0, 0)
    for texts in data.bitexts if config.weights.text_text else ():
        rows_of(len(texts), config.text_batch_size, 0, 0)


def _images_print(data: CaptionSet) -> list[Any]:
    some = np.linspace(0, len(data) - 1, min(len(data), 16)).round().astype(np.int64)
    pixels = zlib.crc32(np.ascontiguousarray(data.images[some]).tobytes())
    said = zlib.crc32(repr(sorted(data.captions.items())).encode("utf-8", "surrogatepass"))
    return [list(data.images.shape), pixels, said]


def _texts_print(texts: Bitext) -> list[Any]:
    both = "\n".join((*texts.first, *texts.second)).encode("utf-8", "surrogatepass")
    return [texts.name, len(texts), zlib.crc32(both)]
