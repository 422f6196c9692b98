"""Implicit behavioural cloning: the action is the argmin of a learned energy.

Source: Florence et al. 2021, "Implicit Behavioral Cloning" (arXiv 2109.00137).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.config import PolicyConfig
from agents.implicit_bc.autoregressive import (
    autoregressive_dfo,
    autoregressive_energies,
    autoregressive_info_nce,
)
from agents.implicit_bc.config import ImplicitConfig
from agents.implicit_bc.dfo import dfo
from agents.implicit_bc.energy import (
    AutoregressiveEnergy,
    EnergyFunction,
    EnergyModel,
    KnowsGradient,
    MeanEnergy,
    constrain_spectral_norm,
)
from agents.implicit_bc.info_nce import accuracy, expert_rank, info_nce
from agents.implicit_bc.langevin import gradient_penalty, minimise
from agents.implicit_bc.negatives import Context, draw_negatives
from agents.implicit_bc.proposal import AnyMixture, Proposal
from agents.policy import Policy
from agents.sampling import normal, uniform
from agents.spec import PolicySpec
from agents.view_heads import ViewEnergy, ViewMixture, likeliest_views
from agents.views import ViewEncoder

HELD_OUT_NEGATIVES = 255
"""Uniform counter-examples in validation, whatever training uses: 256 choices, chance 0.4 %."""


class ImplicitPolicy(Policy):
    """Energy-based policy.

    Args:
        spec: spaces.
        config: settings.
    """

    method: ClassVar[str] = "ibc"
    config_class: ClassVar[type[PolicyConfig]] = ImplicitConfig
    has_views: ClassVar[bool] = True
    has_members: ClassVar[bool] = True
    config: ImplicitConfig

    def __init__(self, spec: PolicySpec, config: ImplicitConfig) -> None:
        """Build the energy and, if counter-examples come from it, the proposal."""
        super().__init__(spec, config)
        sizes = (self.code_dim, self.flat_action_dim, config.head_width, config.head_depth)
        views = self.encoder if isinstance(self.encoder, ViewEncoder) else None
        self.energy: EnergyModel | AutoregressiveEnergy | ViewEnergy
        if config.inference == "autoregressive":
            if views is not None:
                raise ValueError("views and autoregressive inference exclude each other; drop one")
            self.energy = AutoregressiveEnergy(*sizes, config.activation)
        elif views is not None:
            self.energy = ViewEnergy(views, *sizes, config.activation)
            if not self.energy.owned and not config.share("proposal"):
                raise ValueError(
                    "views of displacements need counter-examples from a proposal, which tells the "
                    f"views that matter; got {', '.join(name for name, _ in config.negatives)}"
                )
        else:
            self.energy = EnergyModel(*sizes, config.activation)
        if config.spectral_norm:
            constrain_spectral_norm(self.encoder)
            constrain_spectral_norm(self.energy)
        self.proposal: Proposal | None = None
        if config.share("proposal"):
            self.proposal = Proposal(
                self.code_dim,
                self.flat_action_dim,
                config.share("uniform"),
                config.proposal,
                views,
                self.n_linear(config.proposal.linear_means),
            )
        self._codes: tuple[Tensor, ...] = ()

    # Training.

    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE, with the proposal's likelihood and the gradient penalty; see `Policy`."""
        if isinstance(self.energy, AutoregressiveEnergy):
            return self._autoregressive_objective(self.energy, code, target, generator)
        config = self.config
        whole = None if self.proposal is None else self.proposal(code)
        code, mixture = self._considered(code, whole)
        negatives = draw_negatives(
            Context(target, self._as_it_stands(code), mixture, config), generator
        )
        # With a proposal this is -r, the energy with the ranking correction already made.
        ranked = self.energy(code, torch.cat((target[:, None], negatives), dim=1))
        loss = info_nce(ranked, config.temperature).mean()
        logs = {"info_nce": loss.detach(), "train_accuracy": accuracy(ranked.detach())}
        if self.proposal is not None and whole is not None:
            nll = self.proposal.nll(whole, target)
            logs["proposal_nll"] = nll.detach()
            loss = loss + config.proposal.weight * nll
        if config.gradient_penalty:
            penalty = gradient_penalty(lambda y: self.energy(code, y), negatives)
            logs["gradient_penalty"] = penalty.detach()
            loss = loss + config.gradient_penalty * penalty
        return loss, logs

    def _as_it_stands(self, code: Tensor) -> EnergyFunction:
        """The energy for searching counter-examples; not for its loss: it records no graph."""
        searched = self.config.share("dfo") or self.config.share("langevin")
        if searched and isinstance(self.energy, EnergyModel):
            return self.energy.bind(code.detach())
        return lambda y: self.energy(code, y)

    def _autoregressive_objective(
        self,
        model: AutoregressiveEnergy,
        code: Tensor,
        target: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        energies = autoregressive_energies(model, code, target, config.n_negatives, generator)
        loss = autoregressive_info_nce(energies, config.temperature).mean()
        right = accuracy(energies.detach().flatten(0, 1))
        return loss, {"info_nce": loss.detach(), "train_accuracy": right}

    def held_out(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """InfoNCE against uniform counter-examples, accuracy and expert rank; see `Policy`."""
        others = uniform(
            (target.shape[0], HELD_OUT_NEGATIVES, target.shape[1]), generator, target, -1.0, 1.0
        )
        energies = self._bind(*self._considered(code))(torch.cat((target[:, None], others), dim=1))
        return {
            "loss": float(info_nce(energies, self.config.temperature).mean()),
            "accuracy": float(accuracy(energies)),
            "expert_rank": float(expert_rank(energies)),
        }

    # Acting.

    @property
    def uses_previous(self) -> bool:
        """Whether persistence or the warm start is on."""
        return bool(self.config.persistence or self.config.warm_start)

    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """The argmin of the energy, found as the config says; see `Policy.predict`."""
        return self.decide([code], generator, previous)

    def decide(
        self, codes: Sequence[Tensor], generator: torch.Generator, previous: Tensor | None
    ) -> Tensor:
        """The argmin of the members' mean energy; see `Policy.decide`."""
        self._codes = tuple(codes)
        if isinstance(self.energy, AutoregressiveEnergy):
            return autoregressive_dfo(self.energy, codes[0], self.config.dfo, generator)
        config = self.config
        if config.inference == "langevin":
            # Tensors made in inference mode have no gradients.
            with torch.inference_mode(False):
                cloned = [code.clone() for code in codes]
                previous = None if previous is None else previous.clone()
                energy, first = self._problem(cloned, generator, previous, True)
                return minimise(energy, first, config.langevin, generator).action
        energy, first = self._problem(codes, generator, previous, False)
        return dfo(energy, first, config.dfo, generator).action

    def _problem(
        self,
        codes: Sequence[Tensor],
        generator: torch.Generator,
        previous: Tensor | None,
        differentiable: bool,
    ) -> tuple[EnergyFunction, Tensor]:
        """What is to be minimised, and the `(B, N, A)` candidates from which the search starts."""
        config = self.config
        n = config.langevin.n_samples if config.inference == "langevin" else config.dfo.n_samples
        energies: list[EnergyFunction] = []
        first: list[Tensor] = []
        for member, code in zip(self._members(), codes, strict=False):
            seen, mixture = member._considered(code)
            if differentiable:
                mixture = _cloned(mixture)
            energies.append(member._bind(seen, mixture, previous, differentiable))
            share = max(1, n // len(codes))
            first.append(member._first_candidates(seen, share, generator, mixture, previous))
        if len(codes) == 1:
            return energies[0], first[0]
        # Between the members' own minima lies that of their mean, where no draw comes in many
        # dimensions; if they mean different modes, its energy says so.
        middle = torch.stack([candidates[:, 0] for candidates in first]).mean(dim=0)
        return _mean_of(energies), torch.cat((middle[:, None], *first), dim=1)

    def _members(self) -> Iterator[ImplicitPolicy]:
        yield self
        for other in self._others():
            assert isinstance(other, ImplicitPolicy)
            yield other

    def _bind(
        self,
        code: Tensor,
        mixture: AnyMixture | None,
        previous: Tensor | None = None,
        differentiable: bool = False,
    ) -> EnergyFunction:
        """The whole energy of given codes as a function of actions.

        Args:
            code: `(B, C)`, as `_considered` gives it.
            mixture: of the proposal, likewise; None without one.
            previous: `(B, A)` last decision, for persistence.
            differentiable: whether gradients are wanted; slower.

        Returns:
            Function from `(B, N, A)` to `(B, N)`.
        """
        config = self.config
        kept = previous if config.persistence else None
        density: Callable[[Tensor], Tensor] | None = None
        if self.proposal is not None and mixture is not None:
            density = self.proposal.bind(mixture)
        alone = density is None and kept is None and isinstance(self.energy, EnergyModel)
        network: EnergyFunction
        if isinstance(self.energy, AutoregressiveEnergy) or (differentiable and not alone):
            network = lambda y: self.energy(code, y)  # noqa: E731
        else:
            network = self.energy.bind(code)
        if density is None and kept is None:
            return network

        def whole(actions: Tensor) -> Tensor:
            energies = network(actions)
            if density is not None:
                # Training divides r by the temperature, so log q is in units of it.
                energies = energies - config.temperature * density(actions)
            if kept is not None:
                squared = (actions - kept[:, None]).square().sum(dim=-1)
                dent = torch.exp(squared / (-2 * config.persistence_width**2))
                energies = energies - config.persistence * dent
            return energies

        return whole

    def _considered(
        self, code: Tensor, mixture: AnyMixture | None = None
    ) -> tuple[Tensor, AnyMixture | None]:
        """A code and the proposal for it, as the energy and the sampler look at them.

        All of both, but for displacements seen from views: of those the likeliest views only.
        """
        if self.proposal is not None and mixture is None:
            mixture = self.proposal(code)
        if isinstance(self.energy, ViewEnergy) and not self.energy.owned:
            assert isinstance(mixture, ViewMixture)
            return likeliest_views(code, mixture)
        return code, mixture

    def _first_candidates(
        self,
        code: Tensor,
        n: int,
        generator: torch.Generator,
        mixture: AnyMixture | None,
        previous: Tensor | None,
    ) -> Tensor:
        """`(B, n, A)`: the last decision and its copies, then the proposal's modes and its draws.

        Without a proposal, uniform draws.
        """
        config = self.config
        parts: list[Tensor] = []
        if previous is not None and (config.warm_start or config.persistence):
            n_warm = min(n, max(1, round(config.warm_start * n)))
            copies = previous[:, None].expand(-1, n_warm, -1)
            noise = normal(tuple(copies.shape), generator, copies) * config.persistence_width
            noise[:, 0] = 0
            parts.append((copies + noise).clamp_(-1, 1))
            n -= n_warm
        if self.proposal is not None and mixture is not None and n:
            if config.proposal.modes_first:
                modes = mixture.modes()[:, :n].clamp(-1, 1)
                parts.append(modes)
                n -= modes.shape[1]
            parts.append(self.proposal.sample(mixture, n, generator).clamp_(-1, 1))
        elif n:
            shape = (code.shape[0], n, self.flat_action_dim)
            parts.append(uniform(shape, generator, code, -1.0, 1.0))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def landscape(self, actions: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Energy of given actions for the observation that the last decision was made on.

        Persistence is left out. With a horizon above one, `actions` are first actions, and the rest
        of the chunk is that of the last decision.

        Args:
            actions: `(N, A)` raw units, world frame.

        Returns:
            `(N,)` energies; lower is better.

        Raises:
            ValueError: if the policy has not acted on a single observation since `reset`, or the
                shape is another.
        """
        if not self._codes or self._plan is None or len(self._codes[0]) != 1:
            raise ValueError(
                "landscape needs a policy that has acted on one observation; call act()"
            )
        array = np.asarray(actions, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != self.spec.action_dim:
            raise ValueError(f"actions must be (N, {self.spec.action_dim}); got {array.shape}")
        with torch.inference_mode():
            plans = self._plan.expand(len(array), -1, -1).clone()
            plans[:, 0] = torch.as_tensor(array, device=self.device)
            pose = self._decided_at
            if pose is not None:
                pose = type(pose)(*(part.expand(len(array), -1) for part in pose))
            local = self._actions_to_frame(plans, pose)
            flat = self.action_normalizer(local).flatten(1)[None]
            bound = [
                member._bind(*member._considered(code))
                for member, code in zip(self._members(), self._codes, strict=True)
            ]
            energies: NDArray[np.float32] = _mean_of(bound)(flat)[0].cpu().numpy()
        return energies


def _mean_of(energies: Sequence[EnergyFunction]) -> EnergyFunction:
    if len(energies) == 1:
        return energies[0]
    known = [energy for energy in energies if isinstance(energy, KnowsGradient)]
    if len(known) == len(energies):
        return MeanEnergy(known)
    return lambda actions: torch.stack([energy(actions) for energy in energies]).mean(dim=0)


def _cloned(mixture: AnyMixture | None) -> AnyMixture | None:
    return None if mixture is None else mixture.cloned()
