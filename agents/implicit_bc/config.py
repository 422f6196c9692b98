"""Settings of the implicit policy."""

from __future__ import annotations

from dataclasses import dataclass, field

from agents.config import PolicyConfig, check_limits
from agents.implicit_bc.dfo import DfoConfig
from agents.implicit_bc.langevin import LangevinConfig
from agents.implicit_bc.proposal import ProposalConfig

INFERENCES = ("dfo", "autoregressive", "langevin")
NEGATIVES = ("uniform", "dfo", "langevin", "proposal")
MAX_SHARE = 1e6


@dataclass(frozen=True)
class ImplicitConfig(PolicyConfig):
    """Settings of the implicit policy.

    Attributes:
        head_width: width of the part that runs once per candidate action.
        head_depth: hidden layers of that part.
        spectral_norm: whether every weight's spectral norm is bounded by one.
        n_negatives: counter-examples per demonstration.
        negatives: where they come from: pairs of `uniform`, `dfo`, `langevin` or `proposal` and a
            share; shares are relative. `proposal` mixes with `uniform` only: the density of the
            others is unknown, and the ranking correction needs it.
        temperature: of InfoNCE.
        gradient_penalty: weight of the gradient penalty at the counter-examples; the paper uses 1
            with Langevin and none with DFO.
        inference: `dfo`, `autoregressive` or `langevin`.
        dfo: settings of DFO at inference.
        counter_dfo: settings of DFO for counter-examples; `n_samples` is not used.
        langevin: settings of Langevin, for counter-examples and inference.
        proposal: settings of the learned proposal.
        persistence: depth of a dent in the energy at the last decision: another action must be
            better by so much to be chosen. In the units of the energy (nats, at temperature 1).
        persistence_width: width of the dent, normalised action units.
        warm_start: share of the first candidates that are noisy copies of the last decision.
    """

    head_width: int = 128
    head_depth: int = 1
    spectral_norm: bool = False
    n_negatives: int = 64
    negatives: tuple[tuple[str, float], ...] = (("uniform", 1.0),)
    temperature: float = 1.0
    gradient_penalty: float = 0.0
    inference: str = "dfo"
    dfo: DfoConfig = field(default_factory=DfoConfig)
    counter_dfo: DfoConfig = field(default_factory=lambda: DfoConfig(n_iterations=2))
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    proposal: ProposalConfig = field(default_factory=ProposalConfig)
    persistence: float = 0.0
    persistence_width: float = 0.1
    warm_start: float = 0.0

    def __post_init__(self) -> None:
        """Rejects impossible combinations."""
        super().__post_init__()
        check_limits(
            self,
            {
                "head_width": (1, 8192),
                "head_depth": (0, 16),
                "n_negatives": (1, 65536),
                "temperature": (1e-3, 1e3),
                "gradient_penalty": (0.0, 1e6),
                "persistence": (0.0, 1e6),
                "persistence_width": (1e-4, 10.0),
                "warm_start": (0.0, 1.0),
            },
        )
        names = [name for name, _ in self.negatives]
        unknown = [name for name in names if name not in NEGATIVES]
        if unknown or not names or len(set(names)) < len(names):
            raise ValueError(
                f"negatives must name some of {', '.join(NEGATIVES)}, once each; got {names}"
            )
        if not all(0 < share <= MAX_SHARE for _, share in self.negatives):
            raise ValueError(
                f"negatives must have shares above 0, at most {MAX_SHARE:g}; got {self.negatives}"
            )
        if self.inference not in INFERENCES:
            raise ValueError(
                f"inference must be one of {', '.join(INFERENCES)}; got {self.inference!r}"
            )
        if "proposal" in names and not set(names) <= {"proposal", "uniform"}:
            raise ValueError(
                f"proposal negatives mix with uniform ones only (the ranking correction needs "
                f"their density); got {', '.join(names)}"
            )
        if self.inference == "autoregressive" and (
            names != ["uniform"]
            or self.gradient_penalty
            or self.persistence
            or self.warm_start
            or self.members > 1
        ):
            raise ValueError(
                "autoregressive inference needs uniform negatives, one member, and neither "
                "gradient penalty, persistence nor warm start; "
                f"got {', '.join(names)}, {self.members}, "
                f"{self.gradient_penalty}, {self.persistence}, {self.warm_start}"
            )

    def share(self, name: str) -> float:
        """Share of the counter-examples that come from one source, in [0, 1]."""
        shares = dict(self.negatives)
        return shares.get(name, 0.0) / sum(shares.values())
