"""Object-centred views: a state seen from every face of every block, by one shared network.

A push has a meaning relative to the face it lands on. Seen from that face all pushes look alike,
whichever block it is and however it is turned, so one network serves all faces and learns from
every demonstration. A state with n blocks has 4 n views (a square block looks the same after a
quarter turn). A push is judged from the face that its start point lies behind; a displacement from
the few faces that are likeliest to be the ones it is meant for.

The heads that go with it take the place of a policy's ordinary ones: an energy per candidate in its
own view, a mixture over all views, and, for regression, an average of all views' actions weighted
by attention. All methods thus get the same help, and differ in their losses alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.encoders import Mlp, make_activation
from agents.frame import FieldSpec, Pose, to_frame
from agents.mixture import LOG_2PI
from agents.normalization import ObservationNormalizer
from agents.relations import fine
from agents.sampling import normal, uniform

FACES = 4
STD_FLOOR = 0.002
"""Smallest scale of an action entry seen from its face, metres."""


class ViewReader:
    """Finds the blocks in a state and looks at the state from their faces.

    Args:
        groups: name prefixes; `("blue", "yellow")` finds `blue1_xy` and `blue1_yaw4` and so on.
            Blocks of one prefix are alike.
        world: whether a view also knows where in the world it is. Without, what is learned holds
            wherever the scene stands and however it is turned.
        fields: of the state.
        action_fields: of the action.
        n_obs_steps: states seen, the present one included. Of earlier ones a view is told how far
            each point has moved since: which block is being pushed, and which way the finger goes.

    Raises:
        ValueError: if a prefix names no block, or the state does not start with a point.
    """

    def __init__(
        self,
        groups: Sequence[str],
        fields: Sequence[FieldSpec],
        action_fields: Sequence[FieldSpec],
        world: bool = True,
        n_obs_steps: int = 1,
    ) -> None:
        """Find the fields of every block."""
        if not fields or fields[0].kind != "point":
            raise ValueError(
                "views need a state that starts with a point, the finger's; got "
                f"{[field.name for field in fields] or 'no fields'}"
            )
        starts: dict[str, int] = {}
        at = 0
        for field in fields:
            starts[field.name] = at
            at += field.size
        self.fields, self.action_fields = tuple(fields), tuple(action_fields)
        self.groups, self.world_known = tuple(groups), world
        self.owned = bool(action_fields) and action_fields[0].kind == "point"
        """Whether an action tells its view, by the point where it starts."""
        blocks: list[tuple[int, int, int]] = []
        taken: set[str] = set()
        for group_index, group in enumerate(groups):
            names = [
                name.removesuffix("_xy")
                for name in starts
                if name.endswith("_xy") and name.removesuffix("_xy").rstrip("0123456789") == group
            ]
            names = [name for name in names if f"{name}_yaw4" in starts]
            if not names:
                known = sorted(n.removesuffix("_yaw4") for n in starts if n.endswith("_yaw4"))
                raise ValueError(
                    f"views {group!r} found no block in the state; blocks: {', '.join(known)}"
                )
            blocks += [(group_index, starts[f"{n}_xy"], starts[f"{n}_yaw4"]) for n in names]
            taken |= {f"{n}{end}" for n in names for end in ("_xy", "_yaw4")}
        self.group_of = torch.tensor([block[0] for block in blocks])
        self._xy = torch.tensor([[block[1], block[1] + 1] for block in blocks])
        self._yaw4 = torch.tensor([[block[2], block[2] + 1] for block in blocks])
        self._rest = tuple(field for field in fields if field.name not in taken)
        self._rest_index = torch.tensor(
            [starts[field.name] + i for field in self._rest for i in range(field.size)],
            dtype=torch.long,
        )
        self.n_blocks = len(blocks)
        self.n_views = FACES * self.n_blocks
        points: list[int] = []
        at = 0
        for field in self._rest:
            points += range(at, at + 2) if field.kind == "point" else ()
            at += field.size
        self._rest_points = torch.tensor(points, dtype=torch.long)
        n_own = len(self.groups) + 4 * world + len(self._rest_index) + len(points)
        motion = 2 * (n_obs_steps - 1)
        n_own += motion * (1 + len(points) // 2)
        self.n_features = n_own + (self.n_blocks - 1) * (6 + motion + len(self.groups))

    def poses(self, state: Tensor) -> Tensor:
        """`(B, V, 4)` x, y, cos, sin of the views of raw `(B, D)`; x points into the face."""
        xy, yaw4 = state[:, self._xy], state[:, self._yaw4]
        yaw = torch.atan2(yaw4[..., 1], yaw4[..., 0]) / 4
        turns = torch.arange(FACES, device=state.device) * (math.pi / 2)
        angle = yaw[..., None] + turns  # (B, n, 4)
        origin = xy[:, :, None].expand(-1, -1, FACES, -1)
        return torch.cat((origin, angle.cos()[..., None], angle.sin()[..., None]), -1).flatten(1, 2)

    def features(self, states: Tensor, poses: Tensor, views: Tensor | None = None) -> Tensor:
        """What views see.

        Args:
            states: `(B, T, D)` raw, the present one last.
            poses: `(B, v, 4)` of the views, at present.
            views: `(B, v)` which they are; None for all V in order.

        Returns:
            `(B, v, F)`: the own kind, the own pose if the world is known, the state's other fields
            in the view's frame, and the other blocks from near to far; with a history also how far
            the state's points, the own block and the others have moved.
        """
        state = states[:, -1]
        n_rows, n, device = state.shape[0], self.n_blocks, state.device
        n_views = poses.shape[1]
        kinds = nn.functional.one_hot(self.group_of.to(device), len(self.groups)).to(state.dtype)
        if views is None:
            views = torch.arange(n_views, device=device).expand(n_rows, -1)
        own = kinds[torch.div(views, FACES, rounding_mode="floor")]
        flat = Pose(poses[..., :2].flatten(0, 1), poses[..., 2:].flatten(0, 1))
        parts = [own, poses] if self.world_known else [own]
        if len(self._rest_index):
            rest = state[:, self._rest_index].repeat_interleave(n_views, dim=0)
            seen = to_frame(rest, self._rest, flat).unflatten(0, (n_rows, n_views))
            parts += [seen, fine(seen[..., self._rest_points])]
        moved: tuple[Tensor, ...] = ()
        if states.shape[1] > 1:
            since = state[:, None] - states[:, :-1]  # (B, T - 1, D)
            rest = since[..., self._rest_index[self._rest_points]].flatten(1).unflatten(1, (-1, 2))
            parts.append(_turned_back(rest[:, None], poses[:, :, None, 2:]).flatten(2))
            blocks = since[:, :, self._xy].transpose(1, 2)[:, None]  # (B, 1, n, T - 1, 2)
            turned = _turned_back(blocks, poses[:, :, None, None, 2:]).flatten(3)
            index = torch.div(views, FACES, rounding_mode="floor")[..., None, None]
            parts.append(turned.gather(2, index.expand(-1, -1, 1, turned.shape[-1]))[:, :, 0])
            moved = (turned,)
        if n > 1:
            offset = state[:, self._xy][:, None] - poses[:, :, None, :2]  # (B, V, n, 2)
            local = _turned_back(offset, poses[:, :, None, 2:])
            angle4 = 4 * torch.atan2(poses[..., 3], poses[..., 2])[:, :, None]
            yaw4 = state[:, self._yaw4][:, None].expand(-1, n_views, -1, -1)
            turn = torch.stack((angle4.cos(), angle4.sin()), dim=-1)
            kind = kinds.expand(n_rows, n_views, -1, -1)
            seen = (local, fine(local), _turned_back(yaw4, turn), *moved, kind)
            others = torch.cat(seen, dim=-1)
            # The own block is the nearest, at distance 0: it comes first and is left out.
            order = local.square().sum(-1).argsort(dim=-1)[..., 1:]
            index = order[..., None].expand(-1, -1, -1, others.shape[-1])
            parts.append(others.gather(2, index).flatten(2))
        return torch.cat(parts, dim=-1)

    def focus(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The view that the finger is in: the face it is behind, of the block it is nearest to.

        Args:
            state: `(B, D)` raw.

        Returns:
            `(B, 1)` its index and `(B, 1, 4)` its pose.
        """
        poses = self.poses(state)
        view = self.owner(state[:, None, :2], poses)
        return view, poses.gather(1, view[..., None].expand(-1, -1, 4))

    def local(self, actions: Tensor, poses: Tensor) -> Tensor:
        """Raw actions `(..., A)` in views `(..., 4)`; leading axes broadcast."""
        parts: list[Tensor] = []
        at = 0
        for field in self.action_fields:
            part = actions[..., at : at + field.size]
            at += field.size
            if field.kind == "point":
                part = _turned_back(part - poses[..., :2], poses[..., 2:])
            elif field.kind == "vector":
                part = _turned_back(part, poses[..., 2:])
            parts.append(part.expand(*poses.shape[:-1], -1) if part.ndim < poses.ndim else part)
        return torch.cat(parts, dim=-1)

    def world(self, local: Tensor, poses: Tensor) -> Tensor:
        """Inverse of `local`: `(..., A)` seen from `(..., 4)` back to the world."""
        back = poses[..., 2:] * torch.tensor([1.0, -1.0], device=poses.device)
        parts: list[Tensor] = []
        at = 0
        for field in self.action_fields:
            part = local[..., at : at + field.size]
            at += field.size
            if field.kind == "point":
                part = _turned_back(part, back) + poses[..., :2]
            elif field.kind == "vector":
                part = _turned_back(part, back)
            parts.append(part)
        return torch.cat(parts, dim=-1)

    def owner(self, actions: Tensor, poses: Tensor) -> Tensor:
        """View that each action is judged from: the face that it starts behind, nearest block.

        Args:
            actions: `(B, N, A)` raw, world frame.
            poses: `(B, V, 4)`.

        Returns:
            `(B, N)` int64.
        """
        first = poses[:, ::FACES]  # (B, n, 4): the four views of a block share its centre
        offset = actions[:, :, None, :2] - first[:, None, :, :2]
        block = offset.square().sum(-1).argmin(dim=-1)  # (B, N)
        pose = first.gather(1, block[..., None].expand(-1, -1, 4))
        x, y = _turned_back(actions[..., :2] - pose[..., :2], pose[..., 2:]).unbind(-1)
        face = torch.stack((x, y, -x, -y), dim=-1).argmin(dim=-1)
        return block * FACES + face


def _turned_back(pairs: Tensor, rotation: Tensor) -> Tensor:
    """Xy pairs rotated by minus the angle whose cos and sin are `rotation`."""
    x, y = pairs[..., 0], pairs[..., 1]
    c, s = rotation[..., 0], rotation[..., 1]
    return torch.stack((c * x + s * y, c * y - s * x), dim=-1)


class ViewEncoder(nn.Module):
    """Codes of all views, with the views' poses behind them, and the scales of local actions.

    Args:
        reader: how to look.
        action_dim: entries of an action.
        width: entries of a code.
        depth: layers.
        residual: whether the network is residual.
        dropout: dropout.
        activation: `relu` or `silu`.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        reader: ViewReader,
        action_dim: int,
        width: int,
        depth: int,
        residual: bool,
        dropout: float,
        activation: str,
    ) -> None:
        """Build the shared network."""
        super().__init__()
        self.reader = reader
        self.n_out = width
        self.normalizer = ObservationNormalizer(reader.n_features)
        self.trunk = Mlp(reader.n_features, width, depth, residual, dropout, activation)
        self.register_buffer("low", -torch.ones(action_dim))
        self.register_buffer("high", torch.ones(action_dim))
        self.register_buffer("mean", torch.zeros(action_dim))
        self.register_buffer("std", torch.ones(action_dim))

    def fit(self, states: Tensor, actions: Tensor, low: Tensor, high: Tensor) -> None:
        """Take scales from data.

        Args:
            states: `(M, T, D)` raw, the present one last.
            actions: `(M, A)` raw.
            low: `(A,)` what the normalised -1 of the policy's actions means.
            high: `(A,)` and +1.
        """
        poses = self.reader.poses(states[:, -1])
        self.normalizer.fit(self.reader.features(states, poses).flatten(0, 1))
        if self.reader.owned:
            owner = self.reader.owner(actions[:, None], poses)
            own = poses.gather(1, owner[..., None].expand(-1, -1, 4))[:, 0]
            local = self.reader.local(actions, own)
        else:
            local = self.reader.local(actions[:, None], poses).flatten(0, 1)
        self.mean.copy_(local.median(dim=0).values)
        self.std.copy_(local.std(dim=0).clamp_min(STD_FLOOR))
        self.low.copy_(low)
        self.high.copy_(high)

    def forward(
        self, observations: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> Tensor:
        """`(B, V, C + 4)`: code and pose of every view of raw states `(B, T, D)`."""
        states = observations["state"].float()
        poses = self.reader.poses(states[:, -1])
        code = self.trunk(self.normalizer(self.reader.features(states, poses)))
        return torch.cat((code, poses), dim=-1)

    def raw(self, actions: Tensor) -> Tensor:
        """Normalised actions, `(..., A)` in [-1, 1], in raw units."""
        return self.low + (actions + 1) * (self.high - self.low) / 2

    def normalized(self, actions: Tensor) -> Tensor:
        """Inverse of `raw`."""
        return 2 * (actions - self.low) / (self.high - self.low) - 1


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
        activation: `relu` or `silu`.
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
