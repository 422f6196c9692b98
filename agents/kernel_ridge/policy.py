"""Kernel ridge regression from demonstrated states to actions, and how sure it is.

The mean that an infinitely wide network would predict after training on the kept states (Jacot et
al. 2018, "Neural Tangent Kernel"), in closed form; see `learning.distillation.ridge`. What is kept
is all there is: the points are the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.config import PolicyConfig
from agents.kernel_ridge.config import KernelPolicyConfig
from agents.kernel_ridge.points import FlatEncoder, kept, points_of
from agents.policy import Policy
from agents.spec import PolicySpec
from learning.distillation.ridge import KernelRidge, fit_ridge

if TYPE_CHECKING:
    from learning.demonstrations import Demonstrations


@dataclass(frozen=True)
class _Fitted:
    """A regression, and the variance beyond which it is out of its depth (None without a gate)."""

    ridge: KernelRidge
    threshold: float | None


class KernelPolicy(Policy):
    """Behavioural cloning by kernel ridge regression, with a gate.

    Where demonstrations disagree it returns their mean, as `mse` does, which none of them need have
    done: give it consistent demonstrations. There are no gradient steps: `fit` (of which
    `make_policy` is a call) is all the training, and `refit` takes milliseconds.

    Args:
        spec: spaces; observations `state` alone.
        config: settings.
    """

    method: ClassVar[str] = "kernel"
    config_class: ClassVar[type[PolicyConfig]] = KernelPolicyConfig
    config: KernelPolicyConfig
    points: Tensor
    labels: Tensor
    probes: Tensor

    def __init__(self, spec: PolicySpec, config: KernelPolicyConfig) -> None:
        """Make room for the points."""
        if set(spec.observation) != {"state"}:
            raise ValueError(
                f"kernel sees states only; got observations {', '.join(sorted(spec.observation))}"
            )
        super().__init__(spec, config)
        kinds = {field.kind for field in spec.action_fields}
        if config.gate == "hold" and kinds != {"vector"}:
            raise ValueError(
                "gate hold stands still by an action of zero, which needs actions that are "
                "displacements (action_fields of kind vector); take gate flag"
            )
        n, features = config.points, self.code_dim
        self.register_buffer("points", torch.zeros(n, features))
        self.register_buffer("labels", torch.zeros(n, self.flat_action_dim, dtype=torch.float64))
        self.register_buffer("probes", torch.zeros(config.probes, features))
        self._fitted: _Fitted | None = None
        self.variance: NDArray[np.float64] | None = None
        """`(B,)` predictive variance of the last decision, in units of the kernel; None with the
        gate off, and before the first."""
        self.beyond: NDArray[np.bool_] | None = None
        """`(B,)` whether it was beyond the threshold."""

    def _make_encoder(self) -> FlatEncoder:
        steps = 1 if self.config.focus else self.config.n_obs_steps
        return FlatEncoder(steps * len(self.observation_normalizer.mean))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._fitted = None

    # Learning.

    def fit(self, demos: Demonstrations) -> None:
        """Fits normalisers, keeps points, and finds the threshold of the gate.

        Args:
            demos: demonstrations with the spaces of the spec.

        Raises:
            ValueError: if values are not finite, all actions are equal, the kernel matrix is
                singular, or a gate is wanted and no episode can be held out.
        """
        config = self.config
        rest, held = demos.split(config.holdout, config.seed)
        if held is None and config.gate != "off":
            raise ValueError(
                f"the gate needs held-out episodes to find its threshold: {demos.n_episodes} "
                f"episodes, holdout {config.holdout:g}; give more, or gate=off"
            )
        super().fit(rest)
        points, labels = kept(
            config.network,
            *points_of(self, rest),
            config.points,
            config.keep,
            config.solve,
            config.regulariser,
            config.seed,
        )
        probes = points[:0]
        if held is not None and config.probes:
            probes = points_of(self, held)[0]
            some = torch.linspace(0, len(probes) - 1, min(len(probes), config.probes)).round()
            probes = probes[some.long()]
        self.refit(points, labels, probes)

    @torch.no_grad()
    def refit(self, points: Tensor, actions: Tensor, probes: Tensor | None = None) -> None:
        """Learns other points in place of those it has.

        Args:
            points: `(n, F)` what the policy sees, as `agents.kernel_ridge.points.points_of` tells
                of demonstrations in its spaces.
            actions: `(n, horizon * A)` normalised actions, likewise.
            probes: `(m, F)` states that the gate's threshold is taken from, which must not be among
                the points; None: those of before.

        Raises:
            ValueError: if shapes differ from the spec, values are not finite, or the kernel matrix
                is singular. The policy is left as it was.
        """
        probes = self.probes if probes is None else probes
        for name, value, width in (
            ("points", points, self.code_dim),
            ("actions", actions, self.flat_action_dim),
            ("probes", probes, self.code_dim),
        ):
            if value.ndim != 2 or value.shape[1] != width or (name != "probes" and not len(value)):
                raise ValueError(f"{name} must be (N, {width}); got {tuple(value.shape)}")
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} must be finite; got NaN or infinity")
        points = points.to(self.device, torch.float32).clone()
        labels = actions.to(self.device, torch.float64).clone()
        probes = probes.to(self.device, torch.float32).clone()
        config = replace(self.config, points=len(points), probes=len(probes))
        fitted = _regression(config, points, labels, probes)
        self.config, self.points, self.labels, self.probes = config, points, labels, probes
        self._fitted = fitted

    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of normalised actions: a measure, without a gradient to follow."""
        loss = torch.nn.functional.mse_loss(self._mean(code).to(target), target)
        return loss, {"mse": loss.detach()}

    # Deciding.

    @property
    def threshold(self) -> float | None:
        """Variance beyond which the gate fires; None with the gate off."""
        return self.regression().threshold

    def regression(self) -> _Fitted:
        """The regression that the points make, from the cache where they have not changed."""
        if self._fitted is None:
            with torch.inference_mode(False), torch.no_grad():
                self._fitted = _regression(self.config, self.points, self.labels, self.probes)
        return self._fitted

    def _mean(self, code: Tensor) -> Tensor:
        return self.regression().ridge.mean(code) + self.labels.mean(0)

    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """The regressed action, and how sure it is; see `Policy.predict`."""
        threshold = self.threshold
        if threshold is not None:
            variance = self.regression().ridge.variance(code)
            self.variance = variance.cpu().numpy()
            self.beyond = (variance > threshold).cpu().numpy()
        return self._mean(code).to(code).clamp(-1, 1)

    def _decide(self) -> Tensor:
        """A new chunk; where the gate holds, none of it moves."""
        plan = super()._decide()
        if self.config.gate != "hold" or self.beyond is None:
            return plan
        beyond = torch.as_tensor(self.beyond, device=plan.device)
        return torch.where(beyond[:, None, None], 0.0, plan)

    @property
    def doubt(self) -> dict[str, float]:
        """Greatest variance of the batch, the gate's threshold, and whether it fired."""
        variance, threshold = self.variance, self.threshold
        if variance is None or threshold is None:
            return {}
        most = float(variance.max())
        return {"variance": most, "threshold": threshold, "beyond": float(most > threshold)}

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode; see `Policy.reset`."""
        super().reset(seed)
        self.variance = self.beyond = None


def _regression(
    config: KernelPolicyConfig, points: Tensor, labels: Tensor, probes: Tensor
) -> _Fitted:
    """The regression, and from the variance at the probes its threshold."""
    if not len(points):
        raise ValueError("the kernel policy has no points yet: fit it to demonstrations")
    centred = labels - labels.mean(0)
    ridge = fit_ridge(config.network, points.double(), centred, config.regulariser)
    if config.gate == "off":
        return _Fitted(ridge, None)
    if not len(probes):
        raise ValueError(
            "the gate needs probes, held-out states that its threshold is taken from; give some, "
            "or gate=off"
        )
    quantile = torch.quantile(ridge.variance(probes.double()), config.gate_quantile)
    return _Fitted(ridge, config.gate_margin * float(quantile))
