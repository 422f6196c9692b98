"""Losses of the two generators and of the discriminator.

The published code has none. These follow the paper's section 3.3 and SE3DS, with two departures:
classes are balanced, and there is no perceptual loss on VGG features, for which a network trained
on ImageNet would have to be downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from world_models.pathdreamer.structure import Gaussian, Structure

VOID = 0
"""Id of pixels that have no label: they are neither learned nor scored."""

HALF_SHOWN = 0.01
"""Share of the solid angle at which a class counts as half shown."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
        class_power: classes weigh as their frequency to the minus this.
        depth: of a metre of depth error, beside a nat of cross-entropy.
        kl: of a nat of the latent at one cell. A cell covers 256 pixels (1024 with pooling), and
            the other losses are means over pixels: 1/256 would be the evidence lower bound.
        free_nats: what every channel of the latent may hold at a cell at no cost.
        colour: of the absolute colour error, colours being in [0, 1].
        adversarial: of the hinge loss; 0 trains without a discriminator.
        feature_matching: of the distance between the discriminator's features.
        room: of a nat of the kind of room, beside those of the classes that a panorama shows.
    """

    class_power: float = 0.35
    depth: float = 1.0
    kl: float = 0.002
    free_nats: float = 0.25
    colour: float = 10.0
    adversarial: float = 0.1
    feature_matching: float = 1.0
    room: float = 5.0

    def __post_init__(self) -> None:
        """Refuse weights that are negative or not finite."""
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{item.name} must be at least 0 and finite, got {value}")


def class_weights(counts: Tensor, power: float) -> Tensor:
    """Weights that raise rare classes, 1 on average over the pixels.

    Args:
        counts: `(K,)` pixels of each class; those of void do not matter.
        power: 0 weighs all alike, 1 gives every class the same share of the loss.

    Returns:
        `(K,)` float32; 0 for void and for classes that have no pixel.

    Raises:
        ValueError: if there is no labelled pixel.
    """
    counts = counts.to(torch.float64).clone()
    counts[VOID] = 0
    if counts.sum() <= 0:
        raise ValueError("class weights need at least one labelled pixel, got none")
    share = counts / counts.sum()
    weights = torch.where(share > 0, share.clamp(min=1e-12) ** -power, 0.0)
    return (weights / (weights * share).sum()).float()


def semantic_loss(logits: Tensor, semantic: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy, a mean over all pixels; void ones count 0.

    Divided by their number and not by the sum of their weights, so that the loss of a batch is the
    mean of the losses of its samples, over any number of processes.

    Args:
        logits: `(B, K, H, W)`.
        semantic: `(B, H, W)` int64.
        weights: `(K,)` from `class_weights`.
    """
    total = F.cross_entropy(logits, semantic, weights, ignore_index=VOID, reduction="sum")
    return total / semantic.numel()


def shown_classes(semantic: Tensor, n_classes: int) -> Tensor:
    """How much of each class panoramas show, from 0 to 1.

    Args:
        semantic: `(B, H, W)` int64.
        n_classes: K.

    Returns:
        `(B, K)`: `s / (s + HALF_SHOWN)` of a class's share s of the solid angle.
    """
    batch, height, width = semantic.shape
    edges = torch.linspace(0.5, -0.5, height + 1, device=semantic.device).mul(torch.pi).sin()
    weight = ((edges[:-1] - edges[1:]) / (2 * width))[:, None].expand(height, width)
    share = torch.zeros(batch, n_classes, device=semantic.device)
    share.scatter_add_(1, semantic.flatten(1), weight.flatten().expand(batch, -1))
    return share / (share + HALF_SHOWN)


def summary_loss(shown: Tensor, semantic: Tensor) -> Tensor:
    """Cross-entropy of what a summary says a panorama shows, summed over the classes.

    Args:
        shown: `(B, K)` logits.
        semantic: `(B, H, W)` true ids; void is not learned.
    """
    truth = shown_classes(semantic, shown.shape[1])
    nats = F.binary_cross_entropy_with_logits(shown, truth, reduction="none")
    keep = torch.arange(shown.shape[1], device=shown.device) != VOID
    return nats[:, keep].sum(dim=1).mean()


def room_loss(logits: Tensor, rooms: Tensor) -> Tensor:
    """Cross-entropy of the kinds of room, a mean over the batch; unknown ones count 0.

    Args:
        logits: `(B, R)`.
        rooms: `(B,)` int64, -1 where unknown.
    """
    return F.cross_entropy(logits, rooms, ignore_index=-1, reduction="sum") / len(rooms)


def depth_loss(depth: Tensor, truth: Tensor, max_depth: float) -> Tensor:
    """Mean absolute error in metres over pixels whose true depth is known.

    Args:
        depth: `(B, H, W)` metres.
        truth: `(B, H, W)` metres, 0 where there is none; what is farther than `max_depth` is taken
            for that far.
        max_depth: metres.
    """
    known = truth > 0
    error = (depth - truth.clamp(max=max_depth)).abs()
    return torch.where(known, error, 0.0).sum() / truth.numel()


def kl_divergence(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(posterior || prior) in nats, `(B, Z, h, w)`.

    Source: Denton and Fergus 2018, eq. 1, between normal distributions.
    """
    ratio = (posterior.log_variance - prior.log_variance).exp()
    distance = (posterior.mean - prior.mean).square() * (-prior.log_variance).exp()
    return 0.5 * (ratio + distance - 1 + prior.log_variance - posterior.log_variance)


def latent_loss(posterior: Gaussian, prior: Gaussian, free_nats: float) -> Tensor:
    """Nats of the latent at a cell, where each channel costs only what exceeds its free share.

    Source: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow",
    section 3.3 ("free bits").
    """
    channels = kl_divergence(posterior, prior).mean(dim=(0, 2, 3))
    return channels.clamp(min=free_nats).sum()


def structure_loss(
    predicted: Structure,
    semantic: Tensor,
    depth: Tensor,
    weights: Tensor,
    max_depth: float,
    config: LossConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the structure generator.

    Args:
        predicted: with a posterior.
        semantic: `(B, H, W)` true ids.
        depth: `(B, H, W)` true metres, 0 where there is none.
        weights: `(K,)` from `class_weights`.
        max_depth: metres.
        config: weights of the parts.

    Returns:
        The loss and its parts, detached, by name.

    Raises:
        ValueError: for a prediction made without the truth.
    """
    if predicted.posterior is None:
        raise ValueError("the structure loss needs a posterior; call the generator with truth=")
    classes = semantic_loss(predicted.logits, semantic, weights)
    metres = depth_loss(predicted.depth, depth, max_depth)
    nats = latent_loss(predicted.posterior, predicted.prior, config.free_nats)
    loss = classes + config.depth * metres + config.kl * nats
    parts = {"semantic": classes.detach(), "depth": metres.detach(), "kl": nats.detach()}
    return loss, parts


def discriminator_loss(real: Sequence[list[Tensor]], fake: Sequence[list[Tensor]]) -> Tensor:
    """Hinge loss of the discriminator, a mean over scales.

    Source: Lim and Ye 2017, "Geometric GAN"; Miyato et al. 2018, eq. 16.

    Args:
        real: features by scale and layer; the last layer is the score.
        fake: of generated pictures, detached from their generator.
    """
    terms = [
        F.relu(1 - true[-1]).mean() + F.relu(1 + false[-1]).mean()
        for true, false in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: Sequence[list[Tensor]]) -> Tensor:
    """Hinge loss of the generator, a mean over scales (Miyato et al. 2018, eq. 17)."""
    return -torch.stack([scale[-1].mean() for scale in fake]).mean()


def feature_matching_loss(real: Sequence[list[Tensor]], fake: Sequence[list[Tensor]]) -> Tensor:
    """Absolute distance of features, a mean over scales and layers but the score.

    Source: Wang et al. 2018, eq. 4. No gradient goes into `real`.
    """
    terms = [
        F.l1_loss(ours, theirs.detach())
        for true, false in zip(real, fake, strict=True)
        for theirs, ours in zip(true[:-1], false[:-1], strict=True)
    ]
    return torch.stack(terms).mean()
