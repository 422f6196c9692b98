"""Sizes of Pathdreamer's networks.

`paper` is the size of the release (google-research/pathdreamer): 235 M and 227 M parameters, 256 x
512 and 512 x 1024 pixels. `small` learns and dreams on a CPU at 64 x 128; `base` lies between.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class StructureConfig:
    """The structure generator: an encoder-decoder after RedNet, with a latent at its narrowest.

    Attributes:
        embedding: channels that a class id is learned into; 0 gives the networks one-hot classes.
        width: channels of the stem; the four stages have `width * multipliers`.
        multipliers: of the four stages, fine to coarse.
        bottleneck: blocks of 1x1, 3x3, 1x1 convolutions that widen four times (ResNet-50); False:
            two 3x3 convolutions.
        encoder_blocks: residual blocks of each stage, fine to coarse.
        decoder_blocks: transposed ones of each stage, coarse to fine.
        final_blocks: at the finest stage.
        stem_kernel: size of the first convolution, of stride 2.
        pool: whether max pooling follows the stem, which makes the total stride 32 and not 16.
        code: channels of the spatial bottleneck.
        latent: channels of the noise at each cell of the bottleneck.
        detail: channels of the paths at full resolution.
        colours: whether it sees colours too: the style of a door tells what is behind it.
        summary: channels of a summary of the panorama, from which the classes that it shows are
            told and which the decoder sees everywhere; a multiple of 32. 0 leaves it out.
    """

    embedding: int = 8
    width: int = 32
    multipliers: tuple[int, int, int, int] = (1, 2, 4, 4)
    bottleneck: bool = False
    encoder_blocks: tuple[int, int, int, int] = (1, 1, 2, 2)
    decoder_blocks: tuple[int, int, int, int] = (2, 1, 1, 1)
    final_blocks: int = 1
    stem_kernel: int = 5
    pool: bool = False
    code: int = 64
    latent: int = 16
    detail: int = 24
    colours: bool = True
    summary: int = 0

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        _check_counts(self, optional=("embedding", "latent", "summary"))
        if self.summary % 32:
            raise ValueError(f"summary must be a multiple of 32, got {self.summary}")
        if self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, got {self.stem_kernel}")

    @property
    def stride(self) -> int:
        """Pixels a cell of the bottleneck: height and width must be its multiples."""
        return 32 if self.pool else 16


@dataclass(frozen=True)
class ImageConfig:
    """The image generator: residual blocks modulated by structure and by the colours that are seen.

    Attributes:
        embedding: as in `StructureConfig`.
        channels: of the residual blocks, coarse to fine.
        upsample_after: numbers of the blocks that are followed by a doubling of the resolution.
        hidden: channels between a condition and the scales and shifts computed from it.
        modulation_kernel: size of the convolutions that compute scales and shifts; 3 in SPADE, 1 is
            four times cheaper at full resolution.
        spectral_norm: whether the convolutions of the blocks are normalised spectrally.
    """

    embedding: int = 8
    channels: tuple[int, ...] = (160, 160, 96, 32, 24)
    upsample_after: tuple[int, ...] = (0, 1, 2, 3)
    hidden: int = 16
    modulation_kernel: int = 1
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        _check_counts(self, optional=("embedding", "upsample_after"))
        if any(not 0 <= block < len(self.channels) for block in self.upsample_after):
            raise ValueError(
                f"upsample_after must number blocks 0 to {len(self.channels) - 1}, "
                f"got {self.upsample_after}"
            )
        if len(set(self.upsample_after)) != len(self.upsample_after):
            raise ValueError(f"upsample_after must not repeat a block, got {self.upsample_after}")
        if self.modulation_kernel % 2 == 0:
            raise ValueError(f"modulation_kernel must be odd, got {self.modulation_kernel}")

    @property
    def stride(self) -> int:
        """Pixels a cell of the coarsest block."""
        return 2 ** len(self.upsample_after)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The patch discriminator, needed for training only.

    Attributes:
        scales: how many discriminators, each on half the resolution of the one before.
        width: channels of the first layer; later ones double, to 512 at most.
        layers: convolutions before the last one.
    """

    scales: int = 2
    width: int = 24
    layers: int = 3

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        _check_counts(self)

    @property
    def stride(self) -> int:
        """Pixels a patch of the coarsest scale; the last layer before the score keeps its size."""
        return 2 ** (self.layers - 1 + self.scales - 1)


@dataclass(frozen=True)
class PathdreamerConfig:
    """Both networks and what they speak about.

    Attributes:
        height: rows of the panoramas that the size is meant for; others that fit the strides work.
        n_classes: semantic ids are 0 (void) to `n_classes - 1`.
        max_depth: metres; what is farther counts as that far.
        copy_logit: logit by which the nearest-filled class leads before anything is learned.
        rooms: kinds of room that the summary names, if the data of the training have them.
        structure: the structure generator.
        image: the image generator.
        discriminator: its adversary in training.
    """

    height: int = 64
    n_classes: int = 41
    max_depth: float = 10.0
    copy_logit: float = 4.0
    rooms: tuple[str, ...] = ()
    structure: StructureConfig = field(default_factory=StructureConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    def __post_init__(self) -> None:
        """Refuse values that do not fit each other."""
        for name in ("height", "n_classes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if not 2 <= self.n_classes <= 256:
            raise ValueError(f"n_classes must be 2 to 256, got {self.n_classes}")
        for name in ("max_depth", "copy_logit"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")
        if not all(isinstance(name, str) and name for name in self.rooms):
            raise ValueError(f"rooms must be names, got {self.rooms}")
        if len(set(self.rooms)) != len(self.rooms):
            raise ValueError(f"rooms must be distinct, got {self.rooms}")
        self.check_size(self.height, 2 * self.height)

    @property
    def stride(self) -> int:
        """Height and width of panoramas must be multiples of it."""
        return math.lcm(self.structure.stride, self.image.stride)

    def check_size(self, height: int, width: int) -> None:
        """Make sure that panoramas of a size can be predicted.

        Raises:
            ValueError: with the sizes that can.
        """
        if height < 1 or width < 1 or height % self.stride or width % self.stride:
            raise ValueError(
                f"height and width must be multiples of {self.stride}, got {height} x {width}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PathdreamerConfig":
        """Read what `to_dict` gave.

        Raises:
            ValueError: for unknown names and unfit values.
        """
        parts = {
            "structure": StructureConfig,
            "image": ImageConfig,
            "discriminator": DiscriminatorConfig,
        }
        read = {
            name: _read(parts[name], value) if name in parts else value
            for name, value in values.items()
        }
        return _read(cls, read)


def _read(kind: type[Any], values: Any) -> Any:
    """A dataclass from JSON values, lists becoming tuples."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__} must be an object, got {type(values).__name__}")
    unknown = sorted(set(values) - {item.name for item in fields(kind)})
    if unknown:
        raise ValueError(f"{kind.__name__} has no {', '.join(map(str, unknown))}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def _check_counts(config: Any, optional: tuple[str, ...] = ()) -> None:
    """Counts must be whole and positive; optional ones may be 0."""
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, bool):
            continue
        least = 0 if item.name in optional else 1
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in numbers):
            raise ValueError(
                f"{type(config).__name__}.{item.name} must be whole and at least {least}, "
                f"got {value}"
            )
        default = item.default
        if isinstance(default, tuple) and (
            not isinstance(value, tuple)
            or (item.name.endswith(("blocks", "multipliers")) and len(value) != len(default))
        ):
            raise ValueError(
                f"{type(config).__name__}.{item.name} must be a tuple like {default}, got {value}"
            )


SIZES: dict[str, PathdreamerConfig] = {
    "small": PathdreamerConfig(structure=StructureConfig(summary=128)),
    "base": PathdreamerConfig(
        height=128,
        structure=StructureConfig(
            embedding=16,
            width=64,
            multipliers=(1, 2, 4, 8),
            encoder_blocks=(2, 2, 2, 2),
            decoder_blocks=(2, 2, 2, 2),
            final_blocks=2,
            stem_kernel=7,
            code=128,
            latent=32,
            detail=32,
            summary=256,
        ),
        image=ImageConfig(
            embedding=16,
            channels=(512, 512, 256, 128, 64, 32),
            upsample_after=(0, 1, 2, 3, 4),
            hidden=32,
            modulation_kernel=1,
            spectral_norm=True,
        ),
        discriminator=DiscriminatorConfig(scales=2, width=48, layers=4),
    ),
    "paper": PathdreamerConfig(
        height=512,
        structure=StructureConfig(
            embedding=0,
            width=128,
            multipliers=(1, 2, 4, 8),
            bottleneck=True,
            encoder_blocks=(3, 4, 6, 3),
            decoder_blocks=(6, 4, 3, 3),
            final_blocks=3,
            stem_kernel=7,
            pool=True,
            code=128,
            latent=32,
            detail=128,
            colours=False,
        ),
        image=ImageConfig(
            embedding=0,
            channels=(1536, 1536, 1536, 768, 384, 192, 96),
            upsample_after=(0, 2, 3, 4, 5),
            hidden=128,
            modulation_kernel=3,
            spectral_norm=True,
        ),
        discriminator=DiscriminatorConfig(scales=2, width=96, layers=5),
    ),
}
"""Configurations by name."""


def size(name: str) -> PathdreamerConfig:
    """The configuration of a name.

    Raises:
        ValueError: if it is unknown; the known ones are listed.
    """
    if name not in SIZES:
        raise ValueError(f"unknown size {name!r}; known: {', '.join(SIZES)}")
    return SIZES[name]
