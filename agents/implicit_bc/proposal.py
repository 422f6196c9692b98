"""A learned proposal: where the expert's action probably is, as a density to sample from.

Counter-examples from a proposal q are harder, and so teach more, than uniform ones, but InfoNCE
must then be corrected by log q (ranking NCE). The energy is parametrised as
`E = -(r + log q)`: the corrected logits `-E - log q = r` are then the output of a fresh network,
the loss starts at chance, and q need not be evaluated in training at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.config import check_limits
from agents.mixture import Mixture, MixtureHead
from agents.sampling import uniform
from agents.view_heads import ViewMixture, ViewMixtureHead
from agents.views import ViewEncoder

AnyMixture = Mixture | ViewMixture


@dataclass(frozen=True)
class ProposalConfig:
    """Settings of the proposal.

    Attributes:
        n_components: Gaussians.
        min_std: floor of their deviations, normalised units. A sharper proposal than the energy
            can follow teaches nothing: .06 did worse than .15 in the Particle prototype.
        hidden: width of the head's hidden layer.
        weight: weight of the likelihood in the loss.
        shapes_code: whether the likelihood's gradient reaches the encoder; else the energy alone
            shapes it.
        modes_first: whether inference also looks at the components' means: in many dimensions no
            draw comes near one. (In four, a spurious narrow component cost 2 to 8 of 200 episodes.)
        linear_means: whether the means are linear in the state, see `MixtureHead`; needs `skip`.
    """

    n_components: int = 8
    min_std: float = 0.05
    hidden: int = 128
    weight: float = 1.0
    shapes_code: bool = False
    modes_first: bool = False
    linear_means: bool = False

    def __post_init__(self) -> None:
        """Rejects settings out of range."""
        check_limits(
            self,
            {
                "n_components": (1, 256),
                "min_std": (0.005, 1.0),
                "hidden": (0, 4096),
                "weight": (0.0, 1e3),
            },
        )


class Proposal(nn.Module):
    """`q = (1 - u) mixture + u uniform on [-1, 1]^A`.

    Args:
        code_dim: entries of the code.
        action_dim: entries of an action.
        uniform_share: u, in [0, 1).
        config: settings.
        views: the encoder, where the codes are of views.
        n_linear: see `MixtureHead`.
    """

    def __init__(
        self,
        code_dim: int,
        action_dim: int,
        uniform_share: float,
        config: ProposalConfig,
        views: ViewEncoder | None = None,
        n_linear: int = 0,
    ) -> None:
        """Build the mixture head."""
        super().__init__()
        self.action_dim, self.uniform_share = action_dim, uniform_share
        self.shapes_code = config.shapes_code
        sizes = (code_dim, action_dim, config.n_components, config.min_std, config.hidden)
        self.head: nn.Module = (
            MixtureHead(*sizes, n_linear=n_linear)
            if views is None
            else ViewMixtureHead(views, *sizes)
        )

    def forward(self, code: Tensor) -> AnyMixture:
        """The Gaussian part."""
        mixture: AnyMixture = self.head(code if self.shapes_code else code.detach())
        return mixture

    def nll(self, mixture: AnyMixture, target: Tensor) -> Tensor:
        """Negative log likelihood of expert actions under the Gaussian part.

        Args:
            mixture: of `(B, ...)` rows.
            target: `(B, A)`.

        Returns:
            Scalar, mean over rows, nats.
        """
        return -mixture.log_prob(target[:, None]).mean()

    def log_prob(self, mixture: AnyMixture, actions: Tensor) -> Tensor:
        """Log density of q inside the box.

        Args:
            mixture: of `(B, ...)` rows.
            actions: `(B, N, A)` in the box.

        Returns:
            `(B, N)`.
        """
        density = mixture.log_prob(actions)
        if self.uniform_share == 0:
            return density
        flat = math.log(self.uniform_share) - self.action_dim * math.log(2)
        other = torch.full_like(density, flat)
        return torch.logaddexp(density + math.log1p(-self.uniform_share), other)

    def bind(self, mixture: AnyMixture) -> Callable[[Tensor], Tensor]:
        """`log_prob` of one mixture for many sets of actions: what can be, is computed once."""
        if isinstance(mixture, ViewMixture):
            return lambda actions: self.log_prob(mixture, actions)
        weights, constant = mixture.quadratic()
        if self.uniform_share:  # one more component, flat
            constant = constant + math.log1p(-self.uniform_share)
            flat = math.log(self.uniform_share) - self.action_dim * math.log(2)
            constant = nn.functional.pad(constant, (0, 1), value=flat)
            weights = nn.functional.pad(weights, (0, 1))
        # Components first: a sum over rows is quicker than one within them.
        weights, constant = weights.mT.contiguous(), constant.mT.contiguous()

        def density(actions: Tensor) -> Tensor:
            features = torch.cat((actions * actions, actions), dim=-1)
            return torch.logsumexp(torch.baddbmm(constant, weights, features.mT), dim=1)

        return density

    @torch.no_grad()
    def sample(self, mixture: AnyMixture, n: int, generator: torch.Generator) -> Tensor:
        """Draws from q, the uniform part in its exact share (rounded).

        The Gaussians' tails outside the box stay where they are: pulled to its edge they would be
        counter-examples of a density that is not q.

        Args:
            mixture: of `(B, ...)` rows.
            n: draws per row.
            generator: source of the draws.

        Returns:
            `(B, n, A)`.
        """
        n_uniform = round(n * self.uniform_share)
        means = mixture.means
        flat = uniform((means.shape[0], n_uniform, self.action_dim), generator, means, -1.0, 1.0)
        return torch.cat((mixture.sample(n - n_uniform, generator), flat), dim=1)
