"""Object-centred views: a state seen from every face of every block, by one shared network.

A push has a meaning relative to the face it lands on. Seen from that face all pushes look alike,
whichever block it is and however it is turned, so one network serves all faces and learns from
every demonstration. A state with n blocks has 4 n views (a square block looks the same after a
quarter turn). A push is judged from the face that its start point lies behind; a displacement from
the few faces that are likeliest to be the ones it is meant for.

The heads that go with it are in `agents.view_heads`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agents.encoders import Mlp
from agents.frame import FieldSpec, Pose, to_frame
from agents.normalization import ObservationNormalizer
from agents.relations import fine

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
        activation: `relu`, `silu` or `tanh`.
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
