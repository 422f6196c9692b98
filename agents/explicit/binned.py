"""Binned actions: each entry is one of a number of equal bins, classified.

The discretisation that implicit policies were argued against: no single resolution is both fine
and cheap. `autoregressive` classifies entry after entry, each given the bins chosen before, so
any dependence between entries can be expressed. `joint` classifies the cells of a grid over all
entries at once, for chunks of at most two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from agents.config import PolicyConfig, check_limits
from agents.encoders import make_activation
from agents.policy import Policy
from agents.sampling import uniform
from agents.spec import PolicySpec

LAYOUTS = ("autoregressive", "joint")
DECODINGS = ("sample", "argmax")
JOINT_ENTRIES = 2


@dataclass(frozen=True)
class BinnedConfig(PolicyConfig):
    """Settings of the binned policy.

    Attributes:
        n_bins: bins per entry, over the action bounds.
        layout: `autoregressive` or `joint`.
        decode: `sample` draws bins; `argmax` takes the likeliest (entry by entry where
            autoregressive). Either way the action is the centre of its bin.
        head_width: hidden width of the classifier.
    """

    n_bins: int = 64
    layout: str = "autoregressive"
    decode: str = "sample"
    head_width: int = 128

    def __post_init__(self) -> None:
        """Rejects impossible combinations."""
        super().__post_init__()
        check_limits(self, {"n_bins": (2, 4096), "head_width": (1, 8192)})
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}")
        if self.decode not in DECODINGS:
            raise ValueError(f"decode must be one of {', '.join(DECODINGS)}; got {self.decode!r}")
        if self.layout == "joint" and self.n_bins > 256:
            raise ValueError(f"joint bins must be at most 256 per entry; got {self.n_bins}")


class BinnedPolicy(Policy):
    """Behavioural cloning by classification of binned actions.

    Args:
        spec: spaces.
        config: settings.
    """

    method: ClassVar[str] = "binned"
    config_class: ClassVar[type[PolicyConfig]] = BinnedConfig
    config: BinnedConfig

    def __init__(self, spec: PolicySpec, config: BinnedConfig) -> None:
        """Build a classifier of bins; refuses joint bins for too many entries."""
        super().__init__(spec, config)
        n = self.flat_action_dim
        if config.layout == "joint":
            if n > JOINT_ENTRIES:
                raise ValueError(
                    f"joint bins need at most {JOINT_ENTRIES} numbers per decision; got {n} "
                    "(horizon * action_dim); use layout='autoregressive'"
                )
            self.joint = nn.Sequential(
                nn.Linear(self.code_dim, config.head_width),
                make_activation(config.activation),
                nn.Linear(config.head_width, config.n_bins**n),
            )
        else:
            # One network for all entries: it is told the entries before, and which one is asked.
            self.from_code = nn.Linear(self.code_dim, config.head_width)
            self.entry = nn.Parameter(torch.randn(n, config.head_width) * 0.1)
            self.before = nn.Linear(n - 1, config.head_width * n, bias=False) if n > 1 else None
            self.classify = nn.Sequential(
                make_activation(config.activation),
                nn.Linear(config.head_width, config.head_width),
                make_activation(config.activation),
                nn.Linear(config.head_width, config.n_bins),
            )

    def bins(self, actions: Tensor) -> Tensor:
        """Bin numbers of normalised actions, int64, any shape."""
        n = self.config.n_bins
        return ((actions + 1) / 2 * n).floor().long().clamp(0, n - 1)

    def centres(self, bins: Tensor) -> Tensor:
        """Normalised centres of bin numbers, any shape."""
        return (bins + 0.5) * (2 / self.config.n_bins) - 1

    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the expert's bins, nats per entry; see `Policy.objective`."""
        bins = self.bins(target)
        if self.config.layout == "joint":
            loss = nn.functional.cross_entropy(self.joint(code), self._cell(bins))
            loss = loss / bins.shape[1]
        else:
            hidden = self._hidden(code, self.centres(bins))
            loss = nn.functional.cross_entropy(self.classify(hidden).flatten(0, 1), bins.flatten())
        return loss, {"cross_entropy": loss.detach()}

    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """Centres of the drawn or likeliest bins; see `Policy.predict`."""
        if self.config.layout == "joint":
            return self.centres(self._entries(self._choose(self.joint(code), generator)))
        chosen = code.new_zeros(code.shape[0], self.flat_action_dim)
        for j in range(self.flat_action_dim):
            logits = self.classify(self._hidden(code, chosen)[:, j])
            chosen[:, j] = self.centres(self._choose(logits, generator))
        return chosen

    def _hidden(self, code: Tensor, actions: Tensor) -> Tensor:
        """`(B, A, head_width)`: entry j sees the code and the entries before j only."""
        hidden: Tensor = self.from_code(code)[:, None] + self.entry
        if self.before is not None:
            n = actions.shape[1]
            weight = self.before.weight.unflatten(0, (n, -1))  # (A, W, A - 1)
            mask = torch.ones(n, n - 1, device=actions.device).tril(-1)
            hidden += torch.einsum("bk,jwk,jk->bjw", actions[:, :-1], weight, mask)
        return hidden

    def _choose(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        if self.config.decode == "argmax":
            return logits.argmax(dim=-1)
        # Gumbel trick: the argmax of noisy logits is a draw.
        draws = uniform(tuple(logits.shape), generator, logits).clamp_(1e-7, 1 - 1e-7)
        return (logits - torch.log(-torch.log(draws))).argmax(dim=-1)

    def _cell(self, bins: Tensor) -> Tensor:
        cell = bins[:, 0]
        for j in range(1, bins.shape[1]):
            cell = cell * self.config.n_bins + bins[:, j]
        return cell

    def _entries(self, cell: Tensor) -> Tensor:
        entries = []
        for _ in range(self.flat_action_dim):
            entries.append(cell % self.config.n_bins)
            cell = cell // self.config.n_bins
        return torch.stack(entries[::-1], dim=1)
