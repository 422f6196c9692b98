"""`decisive view --tokens`: which pixels each token of a TokenLearner looks at."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from decisive.arguments import Flag, check_writable, parse
from decisive.pictures import Pixels, save_png
from decisive.token_pictures import spread, token_page
from decisive.video import VideoWriter
from learning.photographs import upright

if TYPE_CHECKING:
    from perception.checkpoint import SavedClassifier

FILM_ENDS = (".mp4", ".mov", ".mkv", ".avi", ".webm")
_FPS = 10.0


@dataclass(frozen=True)
class Arguments:
    """Show which pixels each token of a TokenLearner looks at, and what the classifier answers.

    One page: the image as the network sees it, the answers below it, and a map for each token,
    bright where it looks. A film gives a film of such pages.

    Examples:
      decisive view --tokens --checkpoint outputs/tabletop-classifier --image photo.png
      decisive view --tokens --checkpoint outputs/tabletop-classifier --image view.mp4 \
        --out tokens.mp4
    """

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")]
    """A classifier with a TokenLearner: checkpoint folder, or name of a shipped one."""
    image: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Image (PNG, JPEG, ...) or film."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = "tokens.png"
    """PNG file; for a film MP4."""
    layer: int = 0
    """Which TokenLearner, from 0: with TokenFusers there is one in every later block."""
    json: Flag = False
    """Print one JSON object instead of lines."""

    def __post_init__(self) -> None:
        """Refuse files that do not fit each other."""
        wanted = ".mp4" if self.is_film() else ".png"
        if not self.out.lower().endswith(wanted):
            raise ValueError(f"--out must end in {wanted} for {self.image}, got {self.out}")
        if self.layer < 0:
            raise ValueError(f"--layer must be 0 or more, got {self.layer}")

    def is_film(self) -> bool:
        """Whether the input is a film."""
        return self.image.lower().endswith(FILM_ENDS)


def main(argv: Sequence[str]) -> int:
    """Run the verb; `argv` is without `--tokens`."""
    arguments = parse(Arguments, argv, "view --tokens")
    out = check_writable(arguments.out)
    if not Path(arguments.image).is_file():
        raise ValueError(f"no such file: {arguments.image}")
    from perception.checkpoint import load_classifier

    saved = load_classifier(arguments.checkpoint)
    check_tokens(saved, arguments.layer)
    name = os.path.basename(os.path.normpath(arguments.checkpoint))
    if arguments.is_film():
        told = _film(saved, arguments, name, out)
    else:
        page, told = look(saved, read_image(arguments.image), name, arguments.layer)
        save_png(page, out)
    if arguments.json:
        print(json.dumps({"checkpoint": arguments.checkpoint, "out": str(out), **told}, indent=2))
        return 0
    for task, chances in told.get("answers", {}).items():
        best = max(chances, key=chances.get)
        print(f"{task}: {best} ({100 * chances[best]:.1f}%)")
    print(out)
    return 0


def check_tokens(saved: SavedClassifier, layer: int) -> None:
    """Refuse networks whose tokens cannot be shown.

    Raises:
        ValueError: without a TokenLearner, with clips or images that are not RGB as input, or if
            there is no such layer.
    """
    config: Any = getattr(saved.model, "config", None)
    if hasattr(config, "spatial"):
        raise ValueError(f"{saved.backbone} takes clips; --tokens shows networks of single images")
    if not getattr(config, "tokens", 0):
        raise ValueError(
            f"{saved.backbone} has no TokenLearner; train one such as vit_micro_tokenlearner"
        )
    if len(saved.mean) != 3:
        raise ValueError(f"--tokens needs a network of RGB images, got {len(saved.mean)} channels")
    network: Any = saved.model
    n = len(network.encoder.learners)
    if layer >= n:
        raise ValueError(f"--layer must be below {n}, the TokenLearners of this network")


def look(
    saved: SavedClassifier, image: Pixels, name: str, layer: int = 0
) -> tuple[Pixels, dict[str, Any]]:
    """Ask the network, and draw where its tokens look.

    Args:
        saved: a classifier that passes `check_tokens`.
        image: `(H, W, 3)` uint8 RGB.
        name: of the classifier, for the title.
        layer: which TokenLearner.

    Returns:
        The page, and as JSON the answers and the share of the places that each token looks at.
    """
    import torch

    network: Any = saved.model.eval()
    batch = saved.tensor(image[None])
    with torch.inference_mode():
        maps: NDArray[np.floating] = network.attention(batch, layer)[0].float().numpy()
        answers = saved.read(network(batch).float().numpy())[0]
    # A TokenLearner 1.0 weighs by a sigmoid, 1.1 by a softmax over the places: neither is negative.
    height, width = saved.size
    seen = np.asarray(
        Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), np.uint8
    )
    trained = "" if saved.scores else " · untrained"
    note = f"{saved.backbone}, {width} x {height} pixels{trained} · bright: looked at"
    told = {"answers": answers, "looks_at": [round(spread(weights), 4) for weights in maps]}
    return token_page(seen, maps, answers, f"What the tokens of {name} look at", note), told


def read_image(path: str) -> Pixels:
    """`(H, W, 3)` uint8 RGB of an image file, turned as the camera was held.

    Raises:
        ValueError: if it is none.
    """
    try:
        with Image.open(path) as file:
            return np.asarray(upright(file).convert("RGB"))
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no image that can be read: {error}") from None


def read_film(path: str) -> Iterator[Pixels]:
    """Frames of a film, `(H, W, 3)` uint8 RGB each.

    Raises:
        ValueError: if it is none.
    """
    import imageio_ffmpeg

    # As pictures of which each tells its size. Absolute, or a name could be taken for an option.
    words = ["-v", "error", "-i", f"file:{os.path.abspath(path)}"]
    words += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    n = 0
    with subprocess.Popen(
        [imageio_ffmpeg.get_ffmpeg_exe(), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() == b"P6\n":
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()
            raw = process.stdout.read(3 * width * height)
            yield np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            n += 1
    if n == 0:
        raise ValueError(f"{path} is no film that can be read")


def _film(saved: SavedClassifier, arguments: Arguments, name: str, out: Path) -> dict[str, Any]:
    """Write a film of pages, as fast as control runs."""
    n = 0
    with VideoWriter(out, fps=_FPS) as film:
        for frame in read_film(arguments.image):
            film.add(look(saved, frame, name, arguments.layer)[0])
            n += 1
    return {"frames": n}
