"""MetNet-2: past frames in, probabilities of every bin at every cell and lead time out.

The past is encoded once (`encode`); every lead time is decoded from it (`decode`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.checkpoint import find_shipped, list_checkpoints, load_module, save_module
from world_models.metnet2.blocks import (
    ConvLstm,
    LeadTime,
    Stack,
    nearness,
    space_to_depth,
    tile,
)
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.motion import warp
from world_models.metnet2.neighbourhood import Neighbourhood

METHOD = "metnet2"
_LEAST_FACTOR = 1e-12
CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
Window = tuple[int, int, int, int]
"""Top row, left column, rows and columns, in cells."""


@dataclass(frozen=True)
class Code:
    """What is known of the past, before any lead time is asked for.

    Attributes:
        latent: `(B, width, h, w)` on the coarse grid.
        now: `(B, 2, H, W)`: the newest value of what is forecast, transformed, and its validity.
        nearby: `(B, S, levels, h, w)` shares of the levels around, see `neighbourhood`; or None.
    """

    latent: Tensor
    now: Tensor
    nearby: Tensor | None = None


class MetNet2(nn.Module):
    """The network; see `MetNet2Config`.

    Attributes:
        config: what it is.
    """

    def __init__(self, config: MetNet2Config) -> None:
        """Build it, with weights from torch's generator."""
        super().__init__()
        self.config = config
        size, width = config.downsample, config.width
        lead_width = config.lead_width if config.lead_modulation else 0
        self.lead_time = (
            LeadTime(config.n_leads, config.lead_step, config.lead_width) if lead_width else None
        )
        self.lstm = ConvLstm(config.in_channels * size**2, config.lstm_width)
        self.widen = nn.Conv2d(config.lstm_width, width, 1)
        self.shared = Stack(width, config.shared_dilations, 0, config.dropout)
        self.led = Stack(width, config.lead_dilations, lead_width, config.dropout)
        factor = (size // config.fine_step) ** 2 if config.upsample == "shuffle" else 1
        self.up = nn.Conv2d(width, config.fine_width * factor, 1)
        self.join = (
            nn.Conv2d(config.fine_width + config.levels + 1, config.fine_width, 1)
            if config.levels
            else None
        )
        self.fine = Stack(config.fine_width, (1,) * config.fine_blocks, lead_width)
        self.around = Neighbourhood(config) if config.scales else None
        self.heads = nn.ModuleDict({name: _head(config) for name in config.targets})
        edges = torch.tensor(config.edges, dtype=torch.float32)
        self.register_buffer("edges", edges, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.up.weight.device

    def encode(self, frames: Tensor) -> Code:
        """Read the past.

        Args:
            frames: `(B, T, C, H, W)`, oldest first, as `inputs.past_frames` gives them: raw values
                of `channels` and `still`, NaN where unknown, then the computed planes. H and W are
                multiples of `downsample`. In Lagrangian coordinates what moves was carried to the
                newest frame's time.

        Raises:
            ValueError: for other shapes.
        """
        config = self.config
        given = len(config.channels) + len(config.still)
        expected = config.in_channels - given
        _, n, channels, height, width = frames.shape
        if n != config.n_frames or channels != expected:
            raise ValueError(
                f"frames must be (B, {config.n_frames}, {expected}, H, W), got "
                f"{tuple(frames.shape)}"
            )
        if height % config.downsample or width % config.downsample:
            raise ValueError(
                f"rows and columns must be multiples of {config.downsample}, got {height} x {width}"
            )
        known = torch.isfinite(frames[:, :, :given])
        values = torch.where(known, self._scaled(frames[:, :, :given]), 0.0)
        planes = torch.cat([values, known.to(values.dtype), frames[:, :, given:]], dim=2)
        coarse = space_to_depth(planes.flatten(0, 1), config.downsample).unflatten(0, (-1, n))
        # Channels last: convolutions of few channels take half the time on a CPU.
        steps = [coarse[:, k].contiguous(memory_format=torch.channels_last) for k in range(n)]
        hidden = self.lstm(steps)
        latent = self.shared(self.widen(hidden), None)
        now = torch.stack([values[:, -1, 0], known[:, -1, 0].to(values.dtype)], dim=1)
        if self.around is None:
            return Code(latent, now)
        return Code(latent, now, self.around.shares(self._near(now), now[:, 1:]))

    def decode(
        self,
        code: Code,
        leads: Tensor,
        moves: Tensor | None = None,
        window: Window | None = None,
    ) -> dict[str, Tensor]:
        """Logits of the bins, of some lead times.

        Args:
            code: of `encode`.
            leads: `(L,)` seconds, the same for all of the batch, or `(B, L)`.
            moves: `(B, L, 2, rows, columns)` cells that what arrives in the window has come;
                None: nothing moves.
            window: the cells that are forecast, multiples of `downsample`; all if None.

        Returns:
            `(B, L, K, rows, columns)` by the name of the target.

        Raises:
            ValueError: for lead times that were not trained, or a window that is not inside.
        """
        n = len(code.latent)
        window = self._window(code, window)
        leads = leads.to(self.device, torch.float32)
        if leads.ndim == 1:
            leads = leads.expand(n, -1)
        n_leads = leads.shape[1]
        lead = None if self.lead_time is None else self.lead_time(leads.flatten())
        nearby = None if code.nearby is None else code.nearby.repeat_interleave(n_leads, 0)
        latent = self.lead_latent(code.latent.repeat_interleave(n_leads, 0), nearby, lead)
        now = code.now.repeat_interleave(n_leads, 0)
        logits = self.finish(*self._arrived(latent, now, moves, window), lead)
        return {name: value.unflatten(0, (n, n_leads)) for name, value in logits.items()}

    def lead_latent(self, latent: Tensor, nearby: Tensor | None, lead: Tensor | None) -> Tensor:
        """What a lead time makes of the code, where the pattern is now.

        Args:
            latent: `(B, width, h, w)`.
            nearby: `(B, S, levels, h, w)`, see `Code`.
            lead: `(B, lead_width)`.

        Returns:
            `(B, width, h, w)`, followed by the planes of the first guess if there is one.
        """
        latent = self.led(latent, lead)
        if self.around is None or nearby is None:
            return latent
        return torch.cat([latent.float(), self.around.mix(nearby, latent, lead)], dim=1)

    def _arrived(
        self, latent: Tensor, now: Tensor, moves: Tensor | None, window: Window
    ) -> tuple[Tensor, Tensor]:
        """What is in the window at the lead time: the centre crop, or what moves there."""
        top, left, rows, columns = window
        size = self.config.downsample
        if moves is None:
            down = slice(top // size, (top + rows) // size)
            across = slice(left // size, (left + columns) // size)
            return latent[..., down, across], now[..., top : top + rows, left : left + columns]
        way = moves.flatten(0, 1)
        corner = (top // size, left // size)
        latent = warp(latent, F.avg_pool2d(way, size) / size, corner=corner)
        return latent, warp(now, way, corner=(top, left))

    def forward(
        self,
        frames: Tensor,
        leads: Tensor,
        moves: Tensor | None = None,
        window: Window | None = None,
    ) -> dict[str, Tensor]:
        """`encode`, then `decode`."""
        return self.decode(self.encode(frames), leads, moves, window)

    def set_climate(self, frequencies: Mapping[str, Sequence[float]]) -> None:
        """Start from how often each bin is met: the biases of the logits.

        Args:
            frequencies: `(K,)` by the name of a target.
        """
        for name, shares in frequencies.items():
            often = torch.tensor(shares, dtype=torch.float32).clamp_min(1e-6)
            bias = self.heads[name][-1].bias  # type: ignore[index]
            if self.around is not None:
                bias = self.around.climate
            with torch.no_grad():
                bias.copy_(often.log() - often.log().mean())

    def finish(self, latent: Tensor, now: Tensor, lead: Tensor | None) -> dict[str, Tensor]:
        """Logits from what has arrived, at full resolution.

        Args:
            latent: of `lead_latent`, arrived, on the coarse grid.
            now: `(B, 2, H, W)`, see `Code`.
            lead: `(B, lead_width)`.

        Returns:
            `(B, K, H, W)` by the name of the target.
        """
        guess, found = self._parts(latent, now, lead)
        full = {name: tile(logits, self.config.fine_step) for name, logits in found.items()}
        if guess is None:
            return full
        first = guess.log()
        return {name: first + logits for name, logits in full.items()}

    def chances(self, latent: Tensor, now: Tensor, lead: Tensor | None, target: str) -> Tensor:
        """The softmax of what `finish` gives for a target, without logarithms of every cell."""
        guess, found = self._parts(latent, now, lead)
        if guess is None:
            return tile(found[target].softmax(dim=1), self.config.fine_step)
        logits = found[target]
        factors = (logits - logits.amax(dim=1, keepdim=True)).exp()
        # Factors that are nearly 0 in all bins of the guess would leave nothing to divide by.
        chances = guess * tile(factors.clamp_min(_LEAST_FACTOR), self.config.fine_step)
        return chances / chances.sum(dim=1, keepdim=True)

    def _parts(
        self, latent: Tensor, now: Tensor, lead: Tensor | None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The first guess at full resolution, or None, and logits on every `fine_step`-th cell."""
        step, width = self.config.fine_step, self.config.width
        factor = self.config.downsample // step
        fine = self.up(latent[:, :width])
        if self.config.upsample == "shuffle":
            fine = F.pixel_shuffle(fine, factor)
        else:
            fine = tile(fine, factor)
        fine = fine.contiguous(memory_format=torch.channels_last)
        near = known = None
        if self.join is not None:
            near, known = self._near(now), now[:, 1:]
            planes = [F.avg_pool2d(p, step) if step > 1 else p for p in (near, known)]
            fine = self.join(torch.cat([fine, *(p.to(fine.dtype) for p in planes)], dim=1))
        fine = self.fine(fine, lead)
        found = {name: head(fine) for name, head in self.heads.items()}
        if self.around is None or near is None or known is None:
            return None, found
        return self.around.guess(latent[:, width:], near, known, fine, lead), found

    def _near(self, now: Tensor) -> Tensor:
        """Levels that the newest values are near, `(B, levels, H, W)`; zero where unknown."""
        near = nearness(now[:, :1], self.config.levels, self.config.largest) * now[:, 1:]
        return near.contiguous(memory_format=torch.channels_last)

    def _scaled(self, values: Tensor) -> Tensor:
        config = self.config
        first = values[:, :, :1] / config.unit
        if config.transform == "log":
            first = torch.log1p(first.clamp_min(0))
        if not config.normal:
            return torch.cat([first, values[:, :, 1:]], dim=2)
        normal = torch.tensor(config.normal, dtype=values.dtype, device=values.device)
        rest = (values[:, :, 1:] - normal[:, 0, None, None]) / normal[:, 1, None, None]
        return torch.cat([first, rest], dim=2)

    def _window(self, code: Code, window: Window | None) -> Window:
        rows, columns = code.now.shape[-2:]
        found = (0, 0, rows, columns) if window is None else window
        size = self.config.downsample
        top, left, height, width = found
        inside = 0 <= top <= rows - height and 0 <= left <= columns - width
        if not inside or any(side % size for side in found) or height < 1 or width < 1:
            raise ValueError(
                f"window {found} must lie in {rows} x {columns} cells, in multiples of {size}"
            )
        return found


def middle(rows: int, columns: int, target: int) -> Window:
    """The window of `target` cells a side in the middle: the centre crop.

    Raises:
        ValueError: if it does not lie in the middle exactly, or not inside.
    """
    if target > min(rows, columns) or (rows - target) % 2 or (columns - target) % 2:
        raise ValueError(f"{target} cells a side have no middle place in {rows} x {columns}")
    return (rows - target) // 2, (columns - target) // 2, target, target


def _head(config: MetNet2Config) -> nn.Sequential:
    last = nn.Conv2d(config.head_width, config.n_bins, 1)
    if config.scales:  # corrections start small
        with torch.no_grad():
            last.weight.mul_(0.1)
            if last.bias is not None:
                last.bias.zero_()
    hidden = nn.Conv2d(config.fine_width, config.head_width, 1)
    return nn.Sequential(nn.ReLU(), hidden, nn.ReLU(), last)


def save_forecaster(
    model: MetNet2,
    folder: str | Path,
    training: Mapping[str, Any] | None = None,
    card: str = "",
) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        model: what to save.
        folder: where to.
        training: JSON values on how it was trained.
        card: model card, Markdown.

    Raises:
        CheckpointError: if a weight is not finite.
        OSError: if the folder cannot be written.
    """
    document = {
        "method": METHOD,
        "config": model.config.to_dict(),
        "spec": {},
        "training": dict(training or {}),
    }
    n = sum(parameter.numel() for parameter in model.parameters())
    card = card or f"# MetNet-2\n\n{n:,} weights.\n"
    save_module(folder, document, model, card, _build)


def load_forecaster(path_or_name: str | Path) -> MetNet2:
    """Read a checkpoint folder, or a shipped forecaster by its name.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    folder = find_shipped(path_or_name, shipped_forecasters(), "forecaster")
    return load_module(folder, _build, METHOD)[0]


def _build(document: Mapping[str, Any]) -> MetNet2:
    return MetNet2(MetNet2Config.from_dict(document["config"]))


def shipped_forecasters() -> dict[str, Path]:
    """Folders of the shipped forecasters by name."""
    found = list_checkpoints(CHECKPOINTS)
    return {name: path for name, path in found.items() if name.startswith(METHOD)}
