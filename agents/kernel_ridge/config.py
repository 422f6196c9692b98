"""Settings of the kernel policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from agents.config import PolicyConfig, check_limits

if TYPE_CHECKING:
    from learning.distillation.kernel_config import KernelConfig

GATES = ("off", "flag", "hold")
KEEPS = ("random", "kmeans", "herding")
KINDS = ("ntk", "nngp")
MOST_POINTS = 100_000


@dataclass(frozen=True)
class KernelPolicyConfig(PolicyConfig):
    """Settings of the kernel policy.

    The network is infinitely wide, so that `width`, `residual`, `dropout`, `activation`, `skip`,
    and what is about pixels, mean nothing here; `relations`, `frame` and `focus` are its eyes as
    they are those of every policy.

    Attributes:
        depth: hidden layers of the network.
        kind: `ntk`, the network after training, or `nngp`, its last layer alone trained.
        regulariser: of the regression, in units of the mean of the kernel's diagonal.
        points: demonstrated states that are kept; 0 keeps all. Of a fitted policy: how many it has.
        keep: which: `random`, `kmeans` or `herding` (`learning.distillation.subsets`).
        solve: whether the kept states get the actions with which they predict all demonstrations
            best (Label Solve), not the ones that were shown there. For the actions shown at many
            neighbouring states it is what a mean is for noise.
        holdout: share of the demonstrations that only the gate's threshold is taken from.
        probes: states of these that are kept, so that a refitted policy finds its threshold.
        gate: what is done where the predictive variance is beyond the threshold: `flag` acts all
            the same and says so in `KernelPolicy.beyond`; `hold` stands still, which needs actions
            that are displacements; `off` asks for no variance.
        gate_quantile: of the variance at held-out states, which is the threshold.
        gate_margin: times which it is the threshold.
        seed: of the choice of episodes and states.
    """

    depth: int = 1
    kind: str = "ntk"
    regulariser: float = 1e-3
    points: int = 2000
    keep: str = "kmeans"
    solve: bool = True
    holdout: float = 0.1
    probes: int = 500
    gate: str = "flag"
    gate_quantile: float = 0.99
    gate_margin: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Rejects impossible combinations."""
        super().__post_init__()
        limits = {
            "regulariser": (0.0, 1e6),
            "points": (0, MOST_POINTS),
            "holdout": (0.0, 0.9),
            "probes": (0, MOST_POINTS),
            "gate_quantile": (0.0, 1.0),
            "gate_margin": (0.0, 1e9),
            "seed": (0, 2**31),
        }
        check_limits(self, limits)
        for name, known in (("gate", GATES), ("keep", KEEPS), ("kind", KINDS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {', '.join(known[:-1])} or {known[-1]}; "
                    f"got {getattr(self, name)!r}"
                )
        if self.views:
            raise ValueError("kernel has no heads for views; leave views empty, or take focus")
        if self.members > 1:
            raise ValueError("kernel has no ensembles; leave members 1")
        if self.action_noise or self.observation_noise:
            raise ValueError(
                "kernel learns in closed form, without noise; leave action_noise and "
                "observation_noise 0"
            )

    @property
    def network(self) -> KernelConfig:
        """The infinitely wide network."""
        from learning.distillation.kernel_config import KernelConfig

        return KernelConfig(depth=self.depth, kind=cast(Literal["ntk", "nngp"], self.kind))
