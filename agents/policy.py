"""The policy: raw observations in, raw actions out, with history, chunks and frames between.

A method fills in three things (`objective`, `predict`, `held_out`), all in terms of a code vector
and of normalised actions; this base class does the rest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.config import PolicyConfig
from agents.encoders import ObservationEncoder
from agents.frame import FRAMELESS, FieldSpec, FrameReader, Pose, from_frame, to_frame
from agents.normalization import ActionNormalizer, ObservationNormalizer
from agents.reading import read_observation
from agents.relations import Relations
from agents.sampling import normal
from agents.spec import PolicySpec
from agents.views import ViewEncoder, ViewReader

if TYPE_CHECKING:
    from learning.batches import Batch
    from learning.demonstrations import Demonstrations

FIT_ROWS = 200_000
"""Rows that normalisers are fitted on at most, evenly spaced: more change no digit that matters."""


class Policy(nn.Module):
    """Base of every policy.

    Args:
        spec: spaces.
        config: settings, an instance of `config_class`.
    """

    method: ClassVar[str]
    config_class: ClassVar[type[PolicyConfig]] = PolicyConfig
    has_views: ClassVar[bool] = False
    """Whether the method has heads for `agents.views`."""
    has_members: ClassVar[bool] = False
    """Whether the method decides by several networks together; see `PolicyConfig.members`."""

    def __init__(self, spec: PolicySpec, config: PolicyConfig) -> None:
        """Build normalisers and encoder; they are the same for every method."""
        super().__init__()
        if not isinstance(config, self.config_class):
            raise ValueError(
                f"{self.method} needs a {self.config_class.__name__}; got {type(config).__name__}"
            )
        self.spec = spec
        self.config = config
        self.frame: FrameReader | None = None
        self.relations: Relations | None = None
        self.focus: ViewReader | None = None
        self._action_fields: tuple[FieldSpec, ...] = spec.action_fields
        if config.frame is not None:
            if config.views:
                raise ValueError("views and frame exclude each other: a view is a frame; drop one")
            self.frame = FrameReader(config.frame, spec.observation_fields)
            if not spec.action_fields:
                raise ValueError(
                    f"frame {config.frame!r} needs action_fields in the spec; got none"
                )
        if "state" in spec.observation:
            size = spec.observation["state"][0]
            if config.focus:
                if config.frame or config.views or config.relations:
                    raise ValueError("focus excludes frame, views and relations; drop one")
                if "pixels" in spec.observation and config.n_obs_steps != 1:
                    raise ValueError("focus with pixels needs n_obs_steps 1")
                self.focus = self._make_reader(config.focus)
                size = self.focus.n_features
            elif config.relations:
                self.relations = Relations(spec.observation_fields)
                size = self.relations.n_features
            self.observation_normalizer = ObservationNormalizer(size)
        self.action_normalizer = ActionNormalizer(spec.action_dim)
        self.encoder: ObservationEncoder | ViewEncoder = self._make_encoder()
        if config.members > 1 and not self.has_members:
            raise ValueError(f"{self.method} has no ensembles; leave members 1")
        alone = replace(config, members=1)
        self.others = nn.ModuleList(type(self)(spec, alone) for _ in range(config.members - 1))
        self._low = np.asarray(spec.action_low, dtype=np.float32)
        self._high = np.asarray(spec.action_high, dtype=np.float32)
        self._generator = torch.Generator().manual_seed(0)
        self._history: dict[str, Tensor] | None = None
        self._plan: Tensor | None = None  # (B, horizon, A), world frame, raw units
        self._decided_at: Pose | None = None  # of the frame, when the plan was made
        self._step_in_plan = 0

    def _make_encoder(self) -> ObservationEncoder | ViewEncoder:
        config, spec = self.config, self.spec
        if not config.views:
            shapes = dict(spec.observation)
            if "state" in shapes:
                shapes["state"] = (self.observation_normalizer.mean.shape[0],)
            return ObservationEncoder(
                shapes,
                1 if config.focus else config.n_obs_steps,  # a view's features hold the history
                config.width,
                config.depth,
                config.residual,
                config.dropout,
                config.activation,
                config.conv_channels,
                config.random_shift,
                config.skip,
                config.backbone,
            )
        if not self.has_views:
            raise ValueError(f"{self.method} has no heads for views; leave views empty")
        if set(spec.observation) != {"state"} or config.horizon != 1:
            raise ValueError(
                "views need state observations and horizon 1; got "
                f"{sorted(spec.observation)} and {config.horizon}"
            )
        if not spec.action_fields or spec.action_fields[0].kind not in ("point", "vector"):
            raise ValueError(
                "views need an action that starts with a point or a displacement; got "
                f"{[field.name for field in spec.action_fields] or 'no action fields'}"
            )
        return ViewEncoder(
            self._make_reader(config.views),
            spec.action_dim,
            config.width,
            config.depth,
            config.residual,
            config.dropout,
            config.activation,
        )

    def _make_reader(self, groups: tuple[str, ...]) -> ViewReader:
        config, spec = self.config, self.spec
        return ViewReader(
            groups,
            spec.observation_fields,
            spec.action_fields,
            config.world,
            config.n_obs_steps,
        )

    @property
    def code_dim(self) -> int:
        """Entries of a code that heads see."""
        return self.encoder.n_out

    def n_linear(self, wanted: bool) -> int:
        """Entries of the state at the end of a code, for means that are linear in it, or 0.

        Raises:
            ValueError: if they are wanted and codes do not carry the state.
        """
        if wanted and not self.config.skip:
            raise ValueError("linear_means needs codes that carry the state; set skip")
        return (self.code_dim - self.config.width) * wanted

    @property
    def uses_previous(self) -> bool:
        """Whether `predict` looks at the last decision."""
        return False

    @property
    def flat_action_dim(self) -> int:
        """Entries of a whole predicted chunk: `horizon * action_dim`."""
        return self.config.horizon * self.spec.action_dim

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.action_normalizer.low.device

    # What a method fills in.

    @abstractmethod
    def objective(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss.

        Args:
            code: `(B, C)` encoded observations.
            target: `(B, horizon * A)` normalised expert actions.
            generator: source of randomness.

        Returns:
            The scalar loss and values to log.
        """

    @abstractmethod
    def predict(self, code: Tensor, generator: torch.Generator, previous: Tensor | None) -> Tensor:
        """Decides, without gradients.

        Args:
            code: `(B, C)` encoded observations.
            generator: source of randomness.
            previous: `(B, horizon * A)` last decision, normalised and moved on by the steps
                executed since; None at the start of an episode, or where `uses_previous` is not
                set.

        Returns:
            `(B, horizon * A)` normalised actions.
        """

    def decide(
        self, codes: Sequence[Tensor], generator: torch.Generator, previous: Tensor | None
    ) -> Tensor:
        """Decides by all members together; see `predict`.

        Args:
            codes: `(B, C)` encoded observations of each member, this network's first.
            generator: source of randomness.
            previous: see `predict`.
        """
        return self.predict(codes[0], generator, previous)

    def _others(self) -> Iterator[Policy]:
        for other in self.others:
            assert isinstance(other, Policy)
            yield other

    def held_out(
        self, code: Tensor, target: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """Method-specific metrics on held-out data; see `objective` for the arguments."""
        loss, logs = self.objective(code, target, generator)
        return {"loss": float(loss), **{name: float(value) for name, value in logs.items()}}

    # Training.

    def fit(self, demos: Demonstrations) -> None:
        """Fits the normalisers.

        Args:
            demos: demonstrations with the spaces of the spec.

        Raises:
            ValueError: if the spaces differ or a value is not finite.
        """
        found = {key: tuple(value.shape[1:]) for key, value in demos.observations.items()}
        if found != self.spec.observation or demos.actions.shape[1:] != (self.spec.action_dim,):
            raise ValueError(
                f"demonstrations must have observations {self.spec.observation} and "
                f"{self.spec.action_dim}-D actions; got {found} and {demos.actions.shape[1:]}"
            )
        windows = demos.windows(self.config.n_obs_steps, self.config.horizon)
        rows = np.linspace(0, len(demos.actions) - 1, min(FIT_ROWS, len(demos.actions))).astype(int)
        actions = torch.as_tensor(demos.actions[windows.actions[rows]])
        pose = None
        if "state" in demos.observations:
            state = torch.as_tensor(demos.observations["state"][windows.observations[rows]])
            pose = self._pose(state)
            self.observation_normalizer.fit(self._state_to_frame(state, pose))
        actions = self._actions_to_frame(actions, pose)
        low = torch.as_tensor(self._low)
        high = torch.as_tensor(self._high)
        if pose is not None:  # The action space is a box in the world frame only.
            turned = torch.tensor([f.kind not in FRAMELESS for f in self._action_fields])
            turned = turned.repeat_interleave(torch.tensor([f.size for f in self._action_fields]))
            low, high = low.masked_fill(turned, -torch.inf), high.masked_fill(turned, torch.inf)
        self.action_normalizer.fit(actions, low, high)
        if isinstance(self.encoder, ViewEncoder):
            states = torch.as_tensor(demos.observations["state"][windows.observations[rows]])
            normalizer = self.action_normalizer
            self.encoder.fit(states, actions[:, 0], normalizer.low, normalizer.high)
        for other in self._others():
            other.fit(demos)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The same as `loss`; for wrappers that call the module."""
        return self.loss(batch, generator)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of a raw batch.

        Args:
            batch: observations `(B, n_obs_steps, ...)` and actions `(B, horizon, A)`, raw.
            generator: source of randomness.

        Returns:
            The scalar loss and values to log.

        Raises:
            ValueError: if a shape differs from the spec.
        """
        code, target = self._prepare(batch, generator)
        loss, logs = self.objective(code, target, generator)
        for other in self._others():
            loss = loss + other.loss(batch, generator)[0]
        return loss / self.config.members, logs

    @torch.no_grad()
    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Metrics on held-out data.

        Args:
            batch: as for `loss`.
            generator: source of randomness.

        Returns:
            The method's metrics and `action_error`: mean Euclidean distance of the first decided
            action from the expert's, raw units.
        """
        with _evaluating(self):
            code, target = self._prepare(batch, generator)
            metrics = self.held_out(code, target, generator)
            codes = [code, *(other._prepare(batch, generator)[0] for other in self._others())]
            decided = self.decide(codes, generator, None)
            error = self._first_action(decided) - self._first_action(target)
            metrics["action_error"] = float(error.norm(dim=-1).mean())
        return metrics

    def _first_action(self, normalized: Tensor) -> Tensor:
        return self.action_normalizer.inverse(normalized[:, : self.spec.action_dim])

    def _prepare(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Codes and normalised flat actions of a raw batch."""
        expected = (self.config.horizon, self.spec.action_dim)
        if batch.actions.ndim != 3 or tuple(batch.actions.shape[1:]) != expected:
            raise ValueError(
                f"batch actions must be (B, {expected[0]}, {expected[1]}); "
                f"got {tuple(batch.actions.shape)}"
            )
        for key, shape in self.spec.observation.items():
            wanted = (len(batch.actions), self.config.n_obs_steps, *shape)
            found = tuple(batch.observations[key].shape) if key in batch.observations else None
            if found != wanted:
                raise ValueError(f"batch observation {key!r} must be {wanted}; got {found}")
        observations = {
            key: batch.observations[key].to(self.device) for key in self.spec.observation
        }
        code, pose = self._encode(observations, generator)
        actions = batch.actions.to(self.device).float()
        if self.training and self.config.action_noise:
            noise = normal(tuple(actions.shape), generator, actions)
            actions = actions + self.config.action_noise * noise
        local = self._actions_to_frame(actions, pose)
        return code, self.action_normalizer(local).flatten(1)

    # Frames and normalisation.

    def _pose(self, state: Tensor) -> Pose | None:
        """Pose of the frame at the present step of `(B, T, D)` states."""
        if self.focus is not None:
            _, pose = self.focus.focus(state[:, -1])
            return Pose(pose[:, 0, :2], pose[:, 0, 2:])
        return None if self.frame is None else self.frame(state[:, -1])

    def _state_to_frame(self, state: Tensor, pose: Pose | None) -> Tensor:
        if self.focus is not None:
            return self.focus.features(state, *reversed(self.focus.focus(state[:, -1])))
        if pose is not None:
            state = to_frame(state, self.spec.observation_fields, pose)
        return state if self.relations is None else self.relations(state)

    def _actions_to_frame(self, actions: Tensor, pose: Pose | None) -> Tensor:
        return actions if pose is None else to_frame(actions, self._action_fields, pose)

    def _encode(
        self, observations: Mapping[str, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, Pose | None]:
        """Code of raw observations `(B, T, ...)`, and the pose that actions are relative to."""
        inputs = dict(observations)
        pose = None
        if "state" in inputs and not isinstance(self.encoder, ViewEncoder):
            state = inputs["state"].float()
            pose = self._pose(state)
            seen = self.observation_normalizer(self._state_to_frame(state, pose))
            if self.training and self.config.observation_noise and generator is not None:
                noise = normal(tuple(seen.shape), generator, seen)
                seen = seen + self.config.observation_noise * noise
            inputs["state"] = seen
        code: Tensor = self.encoder(inputs, generator)
        return code, pose

    # Acting.

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode: forgets history, chunk and last decision.

        Args:
            seed: makes every later draw a function of itself; None goes on with the present stream.
        """
        self._history = None
        self._plan = None
        self._step_in_plan = 0
        if seed is not None:
            self._generator.manual_seed(int(seed) % 2**63)

    @property
    def doubt(self) -> dict[str, float]:
        """How unsure the last decision was, by name; `beyond` is 1 where nothing like it was shown.

        Empty where a method does not measure it, and before the first decision.
        """
        return {}

    def act(self, obs: Any) -> NDArray[np.float32]:
        """Decides on an action.

        Args:
            obs: one observation, or a batch with one more leading axis: an array where the policy
                has one observation key, else a mapping with the keys of the spec.

        Returns:
            `(A,)` or `(B, A)` float32 action in raw units, inside the action space.

        Raises:
            ValueError: if a key is missing, a shape differs, a value is not finite, or the batch
                size changed within an episode.
        """
        observations, batched = read_observation(obs, self.spec.observation, self.device)
        with torch.inference_mode(), _evaluating(self):
            self._remember(observations)
            plan = self._plan
            if plan is None or self._step_in_plan >= self.config.n_action_steps:
                self._plan = plan = self._decide()
                self._step_in_plan = 0
            action = plan[:, self._step_in_plan].cpu().numpy()
        self._step_in_plan += 1
        action = np.clip(action, self._low, self._high).astype(np.float32, copy=False)
        result: NDArray[np.float32] = action if batched else action[0]
        return result

    def _decide(self) -> Tensor:
        """A new chunk `(B, horizon, A)`, world frame, raw units."""
        assert self._history is not None
        code, pose = self._encode(self._history, None)
        previous = self._previous(pose) if self.uses_previous else None
        codes = [code, *(other._encode(self._history, None)[0] for other in self._others())]
        decided = self.decide(codes, self._generator, previous)
        self._decided_at = pose
        actions = decided.unflatten(1, (self.config.horizon, self.spec.action_dim))
        actions = self.action_normalizer.inverse(actions)
        return actions if pose is None else from_frame(actions, self._action_fields, pose)

    def _previous(self, pose: Pose | None) -> Tensor | None:
        """What is left of the last chunk, its end repeated, normalised in the present frame."""
        if self._plan is None:
            return None
        steps = torch.arange(self.config.horizon, device=self.device) + self._step_in_plan
        rest = self._plan[:, steps.clamp_max(self.config.horizon - 1)]
        flat: Tensor = self.action_normalizer(self._actions_to_frame(rest, pose)).flatten(1)
        return flat.clamp(-1, 1)

    def _remember(self, observations: dict[str, Tensor]) -> None:
        """Appends to the history; the first observation fills all of it, as in training windows."""
        if self._history is None:
            n = self.config.n_obs_steps
            self._history = {
                key: value[:, None].expand(-1, n, *value.shape[1:])
                for key, value in observations.items()
            }
            return
        for key, value in observations.items():
            before = self._history[key]
            if len(before) != len(value):
                raise ValueError(
                    f"the batch must keep its {len(before)} rows within an episode; "
                    f"got {len(value)}; call reset() first"
                )
            self._history[key] = torch.cat((before[:, 1:], value[:, None]), dim=1)


class _evaluating:
    """Puts a module in evaluation mode for a block, and back if it was training."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._training = module, module.training

    def __enter__(self) -> None:
        if self._training:  # eval() walks all modules: only when needed.
            self._module.eval()

    def __exit__(self, *exc: object) -> None:
        if self._training:
            self._module.train()
