"""Goal views: where has a robot seen what a text, or a picture, asks for?

Pictures are embedded by a dual encoder (`perception.mural`) for what they show, and by their
colours (`robots.color_look`) for the place, and kept with the poses of the camera
(`robots.view_memory`). A panorama is cut into pictures of the camera that the shipped model learned
from. Loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from envs.captions.facts import SIDES, Facts, Thing
from envs.captions.house_views import FIELD_OF_VIEW, PITCH
from envs.captions.sentences import captions
from envs.captions.words import LANGUAGES, NOUNS, PLACES
from perception.mural.checkpoint import SavedMural
from robots import color_look
from robots.view_memory import Recalled, Sight, ViewMemory, ViewMemoryConfig
from world_models.pathdreamer.perspective import PerspectiveCamera, perspective

Pixels = NDArray[np.uint8]
By = Literal["colors", "meaning"]
BY: tuple[By, ...] = get_args(By)
"""Ways to find a picture's place."""


@dataclass(frozen=True)
class CutConfig:
    """Pictures that a panorama is cut into.

    Attributes:
        views: all around, the first towards +x.
        size: pixels of a side.
    """

    views: int = 12
    size: int = 128

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if not 1 <= self.views <= 72:
            raise ValueError(f"views must be 1 to 72, got {self.views}")
        if not 8 <= self.size <= 1024:
            raise ValueError(f"size must be 8 to 1024 pixels, got {self.size}")

    @property
    def yaws(self) -> tuple[float, ...]:
        """Radians counter-clockwise from +x, in (-pi, pi]."""
        step = math.tau / self.views
        return tuple(math.remainder(k * step, math.tau) for k in range(self.views))


@dataclass(frozen=True)
class _Colors:
    """A panorama of which only the colours count."""

    rgb: Pixels
    semantic: Pixels
    depth: NDArray[np.float32]
    position: NDArray[np.float64]


def cut(rgb: Pixels, config: CutConfig) -> Pixels:
    """Pictures out of a panorama that is aligned with the world.

    Args:
        rgb: `(H, W, 3)`, equirectangular as in `envs.indoor.equirectangular`.
        config: how many, and how large.

    Returns:
        `(views, size, size, 3)` uint8, as `envs.captions.house_views` renders its views: 80
        degrees wide, looking a little down.

    Raises:
        ValueError: for another shape.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ValueError(f"a panorama must be (H, W, 3), got {rgb.shape}")
    blank = np.zeros(rgb.shape[:2], np.uint8)
    panorama = _Colors(rgb, blank, blank.astype(np.float32), np.zeros(3))
    size = (config.size, config.size)
    cameras = (
        PerspectiveCamera(yaw=yaw, pitch=PITCH, hfov=FIELD_OF_VIEW, size=size)
        for yaw in config.yaws
    )
    return np.stack([perspective(panorama, camera).rgb for camera in cameras])


def common_text(model: SavedMural) -> Tensor:
    """What all captions of houses and tables have in common: `(width,)`, their mean embedding.

    Views that fit any sentence (walls, doors) come first for every question as long as that is in
    it; a question without it finds what it alone says. Captions name each
    thing of `envs.captions.words` in one of the places, in all languages.
    """
    places = list(PLACES)
    captioned = [
        captions(Facts(places[k % len(places)], (Thing(noun, None, SIDES[0]),)), language)[0]
        for language in LANGUAGES
        for k, noun in enumerate(NOUNS)
    ]
    return model.embed_text(captioned).mean(0)


class GoalViews:
    """A memory of pictures that answers texts and pictures."""

    def __init__(self, model: SavedMural, config: ViewMemoryConfig | None = None) -> None:
        """Remember nothing yet.

        Args:
            model: embeds texts and pictures.
            config: how much is kept.
        """
        self.model = model
        self.meanings = ViewMemory(model.width, config)
        """Embeddings of the views."""
        self.looks = ViewMemory(color_look.WIDTH, config)
        """Colours of the same views."""
        self._common = common_text(model)

    def __len__(self) -> int:
        """Number of views."""
        return len(self.meanings)

    def see(self, pictures: Sequence[Pixels], sights: Sequence[Sight]) -> int:
        """Remember pictures; how many of them are kept.

        Args:
            pictures: `(H, W, 3)` uint8 each, of any size.
            sights: from where each was seen.

        Raises:
            ValueError: if there are not as many sights, or for what is no picture or pose; none of
                them is remembered then.
        """
        if len(pictures) != len(sights):
            raise ValueError(f"{len(pictures)} pictures need as many sights, got {len(sights)}")
        if not all(math.isfinite(number) for sight in sights for number in sight[:4]):
            raise ValueError("a sight must be finite")
        looks = list(map(color_look.color_look, pictures))
        kept = sum(map(self.meanings.add, self.model.embed_images(list(pictures)).numpy(), sights))
        for look, sight in zip(looks, sights, strict=True):
            self.looks.add(look, sight)
        return kept

    def ask(self, text: str, k: int) -> list[Recalled]:
        """Views that fit a text in any language, best first; see `common_text`.

        Raises:
            ValueError: for a text without any word, or where nothing was seen yet.
        """
        if not self.model.model.tokenizer.split(text):
            raise ValueError(f"the text has no word: {text[:40]!r}; say what to look for")
        self._need_views()
        query = normalize(self.model.embed_text([text])[0] - self._common, dim=0)
        return self.meanings.rank(query.numpy(), k)

    def ask_picture(self, picture: Pixels, k: int, by: By = "colors") -> list[Recalled]:
        """Views that a picture of the same place is like, best first.

        Args:
            picture: `(H, W, 3)` uint8 of any size.
            k: how many.
            by: `colors` finds the place that the picture was taken in, `meaning` one with the
                same things in it (see docs/retrieval.md for what was measured).

        Raises:
            ValueError: for what is no picture, where nothing was seen yet, or another way.
        """
        if by not in BY:
            raise ValueError(f"by must be one of {', '.join(BY)}, got {by!r}")
        self._need_views()
        if by == "colors":
            return self.looks.rank(color_look.color_look(picture), k)
        return self.meanings.rank(self.model.embed_images([picture])[0].numpy(), k)

    def clear(self) -> None:
        """Forget everything that was seen."""
        self.meanings.clear()
        self.looks.clear()

    def _need_views(self) -> None:
        if not len(self):
            raise ValueError("nothing was seen yet")
