"""The structure generator: from what the memory shows to semantics and depth of a panorama.

What it predicts is a change of the nearest-filled guidance. Untrained, it copies.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from world_models.pathdreamer.blocks import (
    CircularConv2d,
    CircularConvTranspose2d,
    ResidualBlock,
    UpsamplingBlock,
    group_norm,
)
from world_models.pathdreamer.config import PathdreamerConfig, StructureConfig
from world_models.pathdreamer.inputs import (
    ClassChannels,
    GuidanceBatch,
    depth_logit,
    elevation,
    laid_out,
)
from world_models.pathdreamer.summary import Summary


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution at every cell of the bottleneck.

    Attributes:
        mean: `(B, Z, h, w)`.
        log_variance: `(B, Z, h, w)`.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """`mean + temperature * std * noise`.

        Args:
            noise: `(B, Z, h, w)`, standard normal.
            temperature: 0 gives the mean.
        """
        return self.mean + temperature * (0.5 * self.log_variance).exp() * noise


@dataclass(frozen=True)
class Structure:
    """Prediction of the structure generator.

    Attributes:
        logits: `(B, K, H, W)` of the classes.
        depth: `(B, H, W)` metres, positive.
        z: `(B, Z, h, w)` latent that it was made from.
        prior: distribution of the latent given the guidance.
        posterior: distribution given the truth; None where none was given.
    """

    logits: Tensor
    depth: Tensor
    z: Tensor
    prior: Gaussian
    posterior: Gaussian | None = None


@dataclass(frozen=True)
class _Encoded:
    """What the encoder hands to the decoder."""

    x: Tensor
    code: Tensor
    skips: list[Tensor]
    summary: Tensor | None = None
    shown: Tensor | None = None


class StructureGenerator(nn.Module):
    """Encoder-decoder with a spatial latent, predicting a change of the filled guidance.

    Source: Koh et al. 2021, "Pathdreamer: A World Model for Indoor Navigation", section 3.1; the
    network after Jiang et al. 2018 (RedNet); prior and posterior after Denton and Fergus 2018,
    "Stochastic Video Generation with a Learned Prior". Departures: the filled guidance, a mask, the
    elevation and (not in the paper's size) colours are inputs too, the output is a residual,
    GroupNorm stands in for BatchNorm, which fails on the single sample a robot has, and (not in the
    paper's size) a summary tells the decoder what kind of room to expect; see
    `world_models.pathdreamer.summary`.
    """

    def __init__(self, config: PathdreamerConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        own = config.structure
        self.config = config
        # One more class than ids: pixels that nothing is known of.
        self.classes = ClassChannels(config.n_classes + 1, own.embedding)
        n_in = 2 * self.classes.channels + 4 + (6 if own.colours else 0)
        self.encoder = _Encoder(n_in, own)
        self.prior = _GaussianNet(own.code, own.latent) if own.latent else None
        self.posterior = _GaussianNet(own.code, own.latent) if own.latent else None
        self.summary = Summary(config) if own.summary else None
        self.trust = _Trust(config.n_classes) if own.summary else None
        self.decoder = _Decoder(own)
        self.shortcut = nn.Sequential(
            CircularConv2d(n_in, own.detail, 3), group_norm(own.detail), nn.LeakyReLU(0.2, True)
        )
        self.gate = nn.Sequential(
            CircularConv2d(n_in, own.detail, 3),
            group_norm(own.detail),
            nn.LeakyReLU(0.2, True),
            CircularConv2d(own.detail, 1, 3),
            nn.Sigmoid(),
        )
        self.head = CircularConv2d(own.detail, config.n_classes + 1, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def latent_shape(self, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the latent for panoramas of a size."""
        stride = self.config.structure.stride
        return batch, self.config.structure.latent, height // stride, width // stride

    def forward(
        self,
        guidance: GuidanceBatch,
        noise: Tensor | None = None,
        temperature: float = 1.0,
        truth: GuidanceBatch | None = None,
        z: Tensor | None = None,
    ) -> Structure:
        """Predict.

        Args:
            guidance: what is known.
            noise: `latent_shape`, standard normal; None: the mean is taken.
            temperature: factor of the standard deviation.
            truth: the panoramas themselves, in training: the latent is then drawn from the
                posterior. No gradient goes into how they are encoded.
            z: `latent_shape`: the latent itself, instead of drawing it.

        Raises:
            ValueError: for a size that the strides do not divide, or noise of another shape.
        """
        self.config.check_size(*guidance.size)
        shape = self.latent_shape(len(guidance), *guidance.size)
        for name, given in (("noise", noise), ("z", z)):
            if given is not None and given.shape != shape:
                raise ValueError(f"{name} must be {shape}, got {tuple(given.shape)}")
        encoded = self._encode(guidance)
        prior = self._distribution(self.prior, encoded.code, shape)
        posterior = None
        if truth is not None:
            with torch.no_grad():
                code = self.encoder(self._inputs(truth))[0]
            posterior = self._distribution(self.posterior, code, shape)
        if z is None:
            chosen = prior if posterior is None else posterior
            z = chosen.mean if noise is None else chosen.sample(noise, temperature)
        logits, depth = self._decode(encoded, z, guidance)
        return Structure(logits, depth, z, prior, posterior)

    def ideas(self, guidance: GuidanceBatch, noises: Iterable[Tensor]) -> Iterator[Structure]:
        """A prediction for each noise, as `forward` makes it; what is known is encoded only once.

        Args:
            guidance: what is known.
            noises: each `latent_shape`, standard normal.
        """
        self.config.check_size(*guidance.size)
        encoded = self._encode(guidance)
        shape = self.latent_shape(len(guidance), *guidance.size)
        prior = self._distribution(self.prior, encoded.code, shape)
        for noise in noises:
            z = prior.sample(noise)
            yield Structure(*self._decode(encoded, z, guidance), z, prior)

    def _encode(self, seen: GuidanceBatch) -> _Encoded:
        x = self._inputs(seen)
        code, skips = self.encoder(x)
        if self.summary is None:
            return _Encoded(x, code, skips)
        # It learns by its own loss and not by that of the pixels.
        with torch.no_grad():
            summary = self.summary(seen)
            return _Encoded(x, code, skips, summary, self.summary.classes(summary).float())

    def _inputs(self, seen: GuidanceBatch) -> Tensor:
        height, width = seen.size
        unknown = self.config.n_classes
        farthest = self.config.max_depth
        colours = [seen.rgb, seen.filled_rgb] if self.config.structure.colours else []
        x = torch.cat(
            [
                self.classes(torch.where(seen.valid, seen.semantic, unknown)),
                self.classes(seen.filled_semantic),
                (seen.depth.clamp(max=farthest) / farthest)[:, None],
                (seen.filled_depth.clamp(max=farthest) / farthest)[:, None],
                seen.valid[:, None].float(),
                elevation(height, width, seen.valid.device).expand(len(seen), -1, -1, -1),
                *colours,
            ],
            dim=1,
        )
        return laid_out(x)

    def _distribution(
        self, net: nn.Module | None, code: Tensor, shape: tuple[int, int, int, int]
    ) -> Gaussian:
        if net is None:
            return Gaussian(code.new_zeros(shape), code.new_zeros(shape))
        return cast(Gaussian, net(code))

    def _decode(
        self, encoded: _Encoded, z: Tensor, guidance: GuidanceBatch
    ) -> tuple[Tensor, Tensor]:
        coarse = torch.cat([encoded.code, z.to(encoded.code.dtype)], dim=1)
        out = self.decoder(coarse, encoded.skips, encoded.summary)
        gate = self.gate(encoded.x)
        out = gate * self.shortcut(encoded.x) + (1 - gate) * out
        change = self.head(out).float()
        copied = torch.full_like(change[:, :1], self.config.copy_logit)
        logits = change[:, :-1].scatter_add(1, guidance.filled_semantic[:, None], copied)
        if self.trust is not None and encoded.shown is not None:
            logits = logits + self.trust(encoded.shown, guidance.valid)
        base = depth_logit(guidance.filled_depth.float(), self.config.max_depth)
        depth = self.config.max_depth * torch.sigmoid(base + change[:, -1])
        return logits, depth


class _Encoder(nn.Module):
    """Stem, four stages, and the narrow spatial code."""

    def __init__(self, n_in: int, config: StructureConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            CircularConv2d(n_in, config.width, config.stem_kernel, 2, bias=False),
            group_norm(config.width),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(2) if config.pool else nn.Identity()
        self.stages = nn.ModuleList()
        channels = config.width
        for index, (multiplier, blocks) in enumerate(
            zip(config.multipliers, config.encoder_blocks, strict=True)
        ):
            width = config.width * multiplier
            stage = nn.Sequential()
            for block in range(blocks):
                stride = 2 if index > 0 and block == 0 else 1
                stage.append(ResidualBlock(channels, width, stride, config.bottleneck))
                channels = 4 * width if config.bottleneck else width
            self.stages.append(stage)
        self.code = nn.Sequential(
            CircularConv2d(channels, config.code, 3, bias=False),
            group_norm(config.code),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Code, and what the skips take: stem and first three stages."""
        x = self.stem(x)
        skips = [x]
        x = self.pool(x)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return self.code(x), skips[:-1]


class _Decoder(nn.Module):
    """Four stages of transposed blocks, skips added through 1x1 convolutions."""

    def __init__(self, config: StructureConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        wider = 4 if config.bottleneck else 1
        self.start = nn.Sequential(
            nn.Conv2d(config.code + config.latent, 2 * config.width, 1, bias=False),
            group_norm(2 * config.width),
            nn.LeakyReLU(0.2, True),
            nn.Upsample(scale_factor=2),
            _skip(2 * config.width, widths[3]),
        )
        # Coarse to fine: each stage ends at the width and resolution of the skip added to it.
        steps = [
            (widths[3], widths[2], False),
            (widths[2], widths[1], True),
            (widths[1], widths[0], True),
            (widths[0], config.width, config.pool),
        ]
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(UpsamplingBlock(n_in, n_in, False) for _ in range(blocks - 1)),
                UpsamplingBlock(n_in, n_out, upsample),
            )
            for (n_in, n_out, upsample), blocks in zip(steps, config.decoder_blocks, strict=True)
        )
        self.skips = nn.ModuleList(
            [
                _skip(widths[2] * wider, widths[2]),
                _skip(widths[1] * wider, widths[1]),
                _skip(widths[0] * wider, widths[0]),
                _skip(config.width, config.width),
            ]
        )
        # What a summary tells every stage: a factor and a term of each channel, none at first.
        self.tells = nn.ModuleList()
        if config.summary:
            self.tells.extend(
                nn.Linear(config.summary, 2 * n) for n in (*(n for _, n, _ in steps), config.detail)
            )
            for tell in self.tells:
                nn.init.zeros_(cast(nn.Linear, tell).weight)
                nn.init.zeros_(cast(nn.Linear, tell).bias)
        self.final = nn.Sequential(
            *(
                UpsamplingBlock(config.width, config.width, False)
                for _ in range(config.final_blocks)
            ),
            CircularConvTranspose2d(config.width, config.detail, 2),
        )

    def forward(self, coarse: Tensor, skips: list[Tensor], summary: Tensor | None) -> Tensor:
        """`(B, code + latent, h, w)` and `(B, summary)` to `(B, detail, H, W)`."""
        x = self.start(coarse)
        stages = zip(self.stages, self.skips, reversed(skips), strict=True)
        for number, (stage, skip, kept) in enumerate(stages):
            x = self._told(stage(x) + skip(kept), summary, number)
        return self._told(self.final(x), summary, -1)

    def _told(self, x: Tensor, summary: Tensor | None, number: int) -> Tensor:
        """Feature-wise modulation (Perez et al. 2018, "FiLM")."""
        if summary is None:
            return x
        factor, term = self.tells[number](summary)[..., None, None].chunk(2, dim=1)
        return x * (1 + factor) + term


def _skip(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 1, bias=False), group_norm(n_out), nn.ReLU(inplace=True)
    )


class _Trust(nn.Module):
    """How much a pixel heeds what the whole panorama is said to show, class by class.

    A class that is hardly shown is unlikely at any pixel. Learned apart for pixels that were seen
    and for holes; none at first.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.zeros(2, n_classes))

    def forward(self, shown: Tensor, valid: Tensor) -> Tensor:
        """`(B, K)` logits and `(B, H, W)` to `(B, K, H, W)`."""
        seen, hole = (self.factors[:, None, :] * shown)[..., None, None]
        return torch.where(valid[:, None], seen, hole)


class _GaussianNet(nn.Module):
    """Mean and log variance of the latent from a code."""

    def __init__(self, code: int, latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_in, n_out in ((code, 2 * code), (2 * code, code), (code, code)):
            layers += [group_norm(n_in), CircularConv2d(n_in, n_out, 3), nn.LeakyReLU(0.2, True)]
        self.body = nn.Sequential(*layers)
        self.mean = CircularConv2d(code, latent, 3)
        self.log_variance = CircularConv2d(code, latent, 3)
        # Little noise at first: a decoder that is given noise only learns to shut it out, and does
        # not listen any more when the posterior has something to say.
        nn.init.normal_(self.log_variance.weight, std=0.002)
        nn.init.constant_(cast(Tensor, self.log_variance.bias), -4.0)

    def forward(self, code: Tensor) -> Gaussian:
        x = self.body(code)
        # Bounded smoothly, so that a first bad step can make neither infinity nor a dead gradient.
        log_variance = 6 * torch.tanh(self.log_variance(x).float() / 6)
        return Gaussian(self.mean(x).float(), log_variance)
