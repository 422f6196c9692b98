"""Batches for the two tasks, functions of the seed and the number of the step."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.augment import random_crop, resize
from learning.bitext import Bitext
from learning.caption_set import CaptionSet
from perception.mural.tokenizer import Tokenizer
from perception.mural.train_config import MuralTrainConfig
from perception.train_batches import Range, step_seed

_ROUND = 1_000_033  # Keeps the orders of several sets of texts apart.


class ImageTexts(NamedTuple):
    """Images `(B, 3, S, S)`, normalised, and a caption of each."""

    images: Tensor
    texts: list[str]


class TextPairs(NamedTuple):
    """Texts and their translations."""

    first: list[str]
    second: list[str]


def order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def rows_of(n: int, batch: int, seed: int, step: int) -> NDArray[np.int64]:
    """Which of n items a step sees; none twice within an epoch, nor twice in a batch.

    An epoch is of whole batches: what is left over comes in another one.

    Raises:
        ValueError: if a batch is larger than the set.
    """
    if batch > n:
        raise ValueError(f"a batch of {batch} needs as many pairs, got {n}; lower the batch size")
    epoch, place = divmod(step, n // batch)
    return order(n, seed, epoch)[place * batch : (place + 1) * batch]


class MuralBatches:
    """Captioned images in some languages, and sets of translations, by the number of a step."""

    def __init__(
        self,
        images: CaptionSet,
        bitexts: Sequence[Bitext],
        config: MuralTrainConfig,
        statistics: tuple[Range, Range],
        size: int,
        device: torch.device,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            images: with captions; all of their languages are learned from.
            bitexts: one set for each pair of languages, taken in turn.
            config: how to train.
            statistics: mean and standard deviation of each channel.
            size: pixels a side of the images.
            device: where images go.
        """
        self.images, self.bitexts, self._config = images, tuple(bitexts), config
        self._size, self._device = size, device
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1) for values in statistics
        )

    def image_texts(self, step: int) -> ImageTexts:
        """Augmented images, each with one of its captions."""
        config = self._config
        rows = rows_of(len(self.images), config.batch_size, config.seed, step)
        rng = np.random.default_rng((config.seed, step, _ROUND))
        languages = list(self.images.captions)
        texts = []
        for row in rows.tolist():
            said = self.images.captions[languages[int(rng.integers(len(languages)))]][row]
            texts.append(said[int(rng.integers(len(said)))])
        generator = torch.Generator().manual_seed(step_seed(config.seed, step))
        images = self._floats(rows)
        if config.crop:
            images = random_crop(images, round(config.crop * self._size), generator)
        return ImageTexts(self._normalised(images), texts)

    def text_pairs(self, step: int) -> TextPairs:
        """Translations of one pair of languages; the pairs of languages take turns."""
        turn, which = divmod(step, len(self.bitexts))
        texts = self.bitexts[which]
        seed = self._config.seed * _ROUND + which
        rows = rows_of(len(texts), self._config.text_batch_size, seed, turn).tolist()
        return TextPairs([texts.first[k] for k in rows], [texts.second[k] for k in rows])

    def plain(self, rows: NDArray[np.int64]) -> Tensor:
        """Images as evaluation sees them."""
        return self._normalised(self._floats(rows))

    def _floats(self, rows: NDArray[np.int64]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self.images.images[rows])).to(self._device)
        return resize(pixels.permute(0, 3, 1, 2).float() / 255, (self._size, self._size))

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


def text_keys(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[tuple[str, ...], ...]]:
    """What tells texts apart: their words, so that case and punctuation do not."""
    return [tokenizer.split(text) for text in texts]
