"""How good predicted structure and colours are, apart for pixels that were seen and for holes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.pathdreamer.batches import (
    Examples,
    MakeGuidance,
    WalkConfig,
    stack_guidance,
    stack_truth,
)
from world_models.pathdreamer.losses import VOID
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import PanoramaSet

_SUMS = ("depth_error", "depth_pixels", "colour_error", "colour_squares", "colour_pixels")


class StructureScores:
    """Sums of errors over many panoramas, of which the pixels of one mask count.

    Pixels whose true class is void count for no score of classes, those whose true depth is 0 for
    no score of depth.
    """

    def __init__(self, n_classes: int) -> None:
        """Start with no pixels."""
        self.confusion = torch.zeros(n_classes, n_classes, dtype=torch.int64)
        self.depth_error = 0.0
        self.depth_pixels = 0
        self.colour_error = 0.0
        self.colour_squares = 0.0
        self.colour_pixels = 0

    def add(
        self,
        semantic: Tensor,
        depth: Tensor,
        true_semantic: Tensor,
        true_depth: Tensor,
        mask: Tensor,
    ) -> None:
        """Count panoramas in.

        Args:
            semantic: `(B, H, W)` predicted ids.
            depth: `(B, H, W)` predicted metres.
            true_semantic: `(B, H, W)` ids.
            true_depth: `(B, H, W)` metres, 0 where there is none.
            mask: `(B, H, W)` bool, the pixels that count.
        """
        n = len(self.confusion)
        labelled = mask & (true_semantic != VOID)
        pairs = true_semantic[labelled] * n + semantic[labelled]
        self.confusion += torch.bincount(pairs, minlength=n * n).view(n, n).cpu()
        known = mask & (true_depth > 0)
        self.depth_error += float((depth - true_depth).abs()[known].double().sum())
        self.depth_pixels += int(known.sum())

    def add_colours(self, rgb: Tensor, true_rgb: Tensor, mask: Tensor) -> None:
        """Count pictures `(B, 3, H, W)` in [0, 1] in."""
        off = rgb.clamp(0, 1) - true_rgb
        self.colour_error += float(off.abs().mean(dim=1)[mask].double().sum())
        self.colour_squares += float((off * off).mean(dim=1)[mask].double().sum())
        self.colour_pixels += int(mask.sum())

    @classmethod
    def weighted(
        cls, parts: "Sequence[StructureScores]", weights: Sequence[float]
    ) -> "StructureScores":
        """Parts counted so often each, as for a bootstrap."""
        total = cls(len(parts[0].confusion))
        factors = torch.tensor(weights, dtype=torch.float64)
        stacked = torch.stack([part.confusion for part in parts]).double()
        total.confusion = torch.tensordot(factors, stacked, 1)
        for name in _SUMS:
            values = [w * getattr(part, name) for part, w in zip(parts, weights, strict=True)]
            setattr(total, name, sum(values))
        return total

    def results(self) -> dict[str, float]:
        """Scores by name; those without a pixel are left out.

        `accuracy`: share of pixels. `miou`: intersection over union, a mean over the classes that
        are there in truth. `depth_mae`: metres. `rgb_mae`: of colours in [0, 1]. `rgb_psnr`:
        decibels, over all pixels together.
        """
        found: dict[str, float] = {}
        right = self.confusion.diagonal().double()
        truth, answers = self.confusion.sum(1).double(), self.confusion.sum(0).double()
        if truth.sum() > 0:
            there = truth > 0
            found["accuracy"] = float(right.sum() / truth.sum())
            found["miou"] = float((right / (truth + answers - right).clamp(min=1))[there].mean())
        if self.depth_pixels:
            found["depth_mae"] = self.depth_error / self.depth_pixels
        if self.colour_pixels:
            found["rgb_mae"] = self.colour_error / self.colour_pixels
            mean = max(self.colour_squares / self.colour_pixels, 1e-10)
            found["rgb_psnr"] = -10 * math.log10(mean)
        assert all(map(math.isfinite, found.values()))
        return found


@torch.inference_mode()
def validate(
    model: Pathdreamer,
    data: PanoramaSet,
    make_guidance: MakeGuidance,
    walks: WalkConfig,
    seed: int,
    n_samples: int,
    batch_size: int,
) -> dict[str, float]:
    """Scores on walks through held-out houses, the latent being the prior's mean.

    Args:
        model: in evaluation mode.
        data: held-out houses.
        make_guidance: projects.
        walks: which walks are drawn.
        seed: of the walks; they are the same at every call.
        n_samples: how many.
        batch_size: how many at a time.

    Returns:
        For `hole` and `visible` pixels the scores of `StructureScores`, and beside them those of
        the nearest-filled guidance under `..._filled`.
    """
    examples = Examples(data, make_guidance, walks, seed)
    names = [f"{where}{who}" for where in ("hole", "visible") for who in ("", "_filled")]
    scores = {name: StructureScores(model.config.n_classes) for name in names}
    for first in range(0, n_samples, batch_size):
        last = min(first + batch_size, n_samples)
        batch = [examples[index] for index in range(first, last)]
        guidance = stack_guidance([example.guidance for example in batch]).to(model.device)
        truth = stack_truth([example.targets[-1] for example in batch]).to(model.device)
        seen = model.structure(guidance)
        semantic = seen.logits.argmax(dim=1)
        painted = model.image(guidance, semantic, seen.depth)
        for where, mask in (("hole", ~guidance.valid), ("visible", guidance.valid)):
            for who, ids, depth, rgb in (
                ("", semantic, seen.depth, painted),
                (
                    "_filled",
                    guidance.filled_semantic,
                    guidance.filled_depth,
                    guidance.filled_rgb,
                ),
            ):
                scores[where + who].add(ids, depth, truth.semantic, truth.depth, mask)
                scores[where + who].add_colours(rgb, truth.rgb, mask)
    return {
        f"{where}_{name}": value
        for where, score in scores.items()
        for name, value in score.results().items()
    }
