"""The heads of policies with views (`agents.views`), in place of the ordinary ones.

An energy per candidate in its own view, a mixture over all views, and, for regression, an average
of all views' actions weighted by attention. All methods thus get the same help, and differ in their
losses alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.encoders import make_activation
from agents.mixture import LOG_2PI
from agents.sampling import normal, uniform
from agents.views import ViewEncoder


class ViewEnergy(nn.Module):
    """Energy of each candidate, judged from the view that owns it. Lower is better.

    A displacement does not tell which face it is meant for. It is judged from the likeliest views
    (see `likeliest_views`), `E = -log sum_v w_v exp(-E_v)`: whichever of them it makes sense from.

    Args:
        encoder: gives the views; not a part of this module.
        code_dim: entries of a code.
        action_dim: entries of an action.
        width: width of the head.
        depth: hidden layers after the fusion.
        activation: `relu`, `silu` or `tanh`.
    """

    def __init__(
        self,
        encoder: ViewEncoder,
        code_dim: int,
        action_dim: int,
        width: int,
        depth: int,
        activation: str = "relu",
    ) -> None:
        """Build the shared head."""
        super().__init__()
        self._encoder = (encoder,)  # in a tuple: its parameters belong to the policy, not to here
        self.code_projection = nn.Linear(code_dim, width)
        self.action_embedding = nn.Linear(2 * action_dim, width, bias=False)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.out = nn.Linear(width, 1, bias=False)
        self.activation = make_activation(activation)

    @property
    def owned(self) -> bool:
        """Whether an action tells which face it is meant for, by the point where it starts."""
        return self._encoder[0].reader.owned

    def _network(self, z: Tensor, projected: Tensor) -> Tensor:
        """Energies `(...)` of actions `(..., A)` in deviations, given projected codes."""
        # Candidates lie up to hundreds of deviations away; asinh keeps both them and millimetres.
        seen = self.action_embedding(torch.cat((torch.asinh(z), z.clamp(-3, 3)), dim=-1))
        h = self.activation(seen + projected)
        for layer in self.hidden:
            h = self.activation(layer(h))
        energy: Tensor = self.out(h).squeeze(-1)
        return energy

    def forward(self, code: Tensor, actions: Tensor) -> Tensor:
        """Energies `(B, N)` of normalised actions `(B, N, A)`.

        Given are codes `(B, V, C + 4)`, or what `likeliest_views` makes of them.
        """
        encoder = self._encoder[0]
        raw = encoder.raw(actions)
        if not self.owned:
            codes, poses, log_weights = code[..., :-5], code[..., -5:-1], code[..., -1]
            local = encoder.reader.local(raw[:, :, None], poses[:, None])  # (B, N, v, A)
            projected = self.code_projection(codes)[:, None]
            energies = self._network((local - encoder.mean) / encoder.std, projected)
            return -torch.logsumexp(log_weights[:, None] - energies, dim=-1)
        codes, poses = code[..., :-4], code[..., -4:]
        owner = encoder.reader.owner(raw.detach(), poses)
        pose = poses.gather(1, owner[..., None].expand(-1, -1, 4))
        z = (encoder.reader.local(raw, pose) - encoder.mean) / encoder.std
        projected = self.code_projection(codes)
        index = owner[..., None].expand(-1, -1, projected.shape[-1])
        return self._network(z, projected.gather(1, index))

    def bind(self, code: Tensor) -> Callable[[Tensor], Tensor]:
        """The energy of given codes as a function of actions."""
        return lambda actions: self(code, actions)


class ViewMixture(NamedTuple):
    """Gaussian mixtures whose components live in the views.

    Attributes:
        log_weights: `(B, V K)` log probabilities.
        means: `(B, V K, A)` in deviations of local actions.
        log_stds: `(B, V K, A)`.
        poses: `(B, V, 4)`.
        encoder: scales.
    """

    log_weights: Tensor
    means: Tensor
    log_stds: Tensor
    poses: Tensor
    encoder: ViewEncoder

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log density `(B, N)` of normalised world actions `(B, N, A)`."""
        encoder = self.encoder
        local = encoder.reader.local(encoder.raw(actions)[:, :, None], self.poses[:, None])
        z = ((local - encoder.mean) / encoder.std)[:, :, :, None]  # (B, N, V, 1, A)
        shape = (self.poses.shape[1], -1)
        means = self.means.unflatten(1, shape)[:, None]
        log_stds = self.log_stds.unflatten(1, shape)[:, None]
        squared = ((z - means) * torch.exp(-log_stds)).square().sum(-1)
        density = (
            self.log_weights.unflatten(1, shape)[:, None]
            - 0.5 * squared
            - log_stds.sum(-1)
            - 0.5 * LOG_2PI * actions.shape[-1]
        )
        # A rotation keeps volume; the two scales do not.
        volume = torch.log((encoder.high - encoder.low) / 2 / encoder.std).sum()
        return torch.logsumexp(density.flatten(2), dim=-1) + volume

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`(B, n, A)` normalised world actions."""
        cumulative = self.log_weights.exp().cumsum(dim=-1)
        pick = uniform((cumulative.shape[0], n), generator, cumulative)
        chosen = torch.searchsorted(cumulative, pick).clamp_max_(cumulative.shape[1] - 1)
        index = chosen[..., None].expand(-1, -1, self.means.shape[-1])
        means, stds = self.means.gather(1, index), self.log_stds.gather(1, index).exp()
        z = means + stds * normal(tuple(means.shape), generator, means)
        return self._to_world(z, chosen)

    def modes(self) -> Tensor:
        """`(B, V K, A)` means of all components, normalised world actions."""
        components = torch.arange(self.means.shape[1], device=self.means.device)
        return self._to_world(self.means, components.expand(self.means.shape[0], -1))

    def narrowed(self, views: Tensor) -> ViewMixture:
        """The part of the mixture that lives in `(B, v)` views, its weights summing to one."""
        n_views = self.poses.shape[1]

        def chosen(part: Tensor) -> Tensor:
            parts = part.unflatten(1, (n_views, -1))
            index = views.reshape(*views.shape, *[1] * (parts.ndim - 2))
            return parts.gather(1, index.expand(-1, -1, *parts.shape[2:])).flatten(1, 2)

        return ViewMixture(
            chosen(self.log_weights).log_softmax(dim=-1),
            chosen(self.means),
            chosen(self.log_stds),
            chosen(self.poses),
            self.encoder,
        )

    def cloned(self) -> ViewMixture:
        """A copy made of ordinary tensors: those of inference mode have no gradients."""
        weights, means, stds, poses = (part.clone() for part in self[:4])
        return ViewMixture(weights, means, stds, poses, self.encoder)

    def likeliest_mean(self) -> Tensor:
        """Mean of the component with the highest density at its own mean, `(B, A)`."""
        best = (self.log_weights - self.log_stds.sum(-1)).argmax(dim=-1, keepdim=True)
        index = best[..., None].expand(-1, -1, self.means.shape[-1])
        return self._to_world(self.means.gather(1, index), best)[:, 0]

    def _to_world(self, z: Tensor, component: Tensor) -> Tensor:
        encoder = self.encoder
        per_view = self.log_weights.shape[1] // self.poses.shape[1]
        view = torch.div(component, per_view, rounding_mode="floor")
        pose = self.poses.gather(1, view[..., None].expand(-1, -1, 4))
        return encoder.normalized(encoder.reader.world(z * encoder.std + encoder.mean, pose))


LIKELY = 4
"""Views that displacements are judged from."""


def likeliest_views(code: Tensor, mixture: ViewMixture) -> tuple[Tensor, ViewMixture]:
    """Narrows what is looked at to the likeliest views.

    Args:
        code: `(B, V, C + 4)` of all views.
        mixture: over all views.

    Returns:
        `(B, LIKELY, C + 5)` codes of the likeliest, each with the logarithm of its weight, and the
        part of the mixture that lives in them.
    """
    weights = mixture.log_weights.unflatten(1, (code.shape[1], -1)).logsumexp(dim=-1).detach()
    likely, views = weights.topk(min(LIKELY, code.shape[1]), dim=-1)
    chosen = code.gather(1, views[..., None].expand(-1, -1, code.shape[-1]))
    chosen = torch.cat((chosen, likely.log_softmax(dim=-1)[..., None]), dim=-1)
    return chosen, mixture.narrowed(views)


class ViewMixtureHead(nn.Module):
    """Maps the codes of all views to one mixture.

    Args:
        encoder: gives the views; not a part of this module.
        code_dim: entries of a code.
        action_dim: entries of an action.
        n_components: Gaussians per view.
        min_std: smallest standard deviation, in deviations of local actions.
        hidden: width of one hidden layer, or 0 for none.
    """

    def __init__(
        self,
        encoder: ViewEncoder,
        code_dim: int,
        action_dim: int,
        n_components: int,
        min_std: float,
        hidden: int = 0,
    ) -> None:
        """Build the shared head."""
        super().__init__()
        self._encoder = (encoder,)
        self.n_components, self.action_dim, self.min_std = n_components, action_dim, min_std
        layers: list[nn.Module] = [nn.Linear(code_dim, hidden), nn.ReLU()] if hidden else []
        last = nn.Linear(hidden or code_dim, n_components * (1 + 2 * action_dim))
        with torch.no_grad():
            last.weight.mul_(0.1)
            last.bias.mul_(0.1)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, code: Tensor) -> ViewMixture:
        """Maps `(B, V, C + 4)` codes to mixtures."""
        k, a = self.n_components, self.action_dim
        weights, means, stds = self.layers(code[..., :-4]).split((k, k * a, k * a), dim=-1)
        std = nn.functional.softplus(stds.unflatten(-1, (k, a))) + self.min_std
        return ViewMixture(
            weights.flatten(1).log_softmax(dim=-1),
            means.unflatten(-1, (k, a)).flatten(1, 2),
            std.log().flatten(1, 2),
            code[..., -4:],
            self._encoder[0],
        )


class ViewRegressionHead(nn.Module):
    """Average of all views' actions, weighted by attention.

    Args:
        encoder: gives the views; not a part of this module.
        code_dim: entries of a code.
        action_dim: entries of an action.
    """

    def __init__(self, encoder: ViewEncoder, code_dim: int, action_dim: int) -> None:
        """Build the shared head."""
        super().__init__()
        self._encoder = (encoder,)
        self.layer = nn.Linear(code_dim, 1 + action_dim)

    def forward(self, code: Tensor) -> Tensor:
        """Maps `(B, V, C + 4)` codes to `(B, A)` normalised world actions."""
        encoder = self._encoder[0]
        out = self.layer(code[..., :-4])
        local = out[..., 1:] * encoder.std + encoder.mean
        actions = encoder.normalized(encoder.reader.world(local, code[..., -4:]))
        return (out[..., :1].softmax(dim=1) * actions).sum(dim=1)
