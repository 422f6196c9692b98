"""The settings every policy shares, and reading settings back from JSON strictly."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

C = TypeVar("C")

LIMITS: dict[str, tuple[float, float]] = {
    "n_obs_steps": (1, 64),
    "members": (1, 64),
    "horizon": (1, 256),
    "n_action_steps": (1, 256),
    "width": (1, 8192),
    "depth": (1, 64),
    "dropout": (0.0, 0.95),
    "action_noise": (0.0, 1e3),
    "observation_noise": (0.0, 10.0),
    "random_shift": (0, 64),
}


def check_limits(config: Any, limits: dict[str, tuple[float, float]]) -> None:
    """Checks numbers of a config against inclusive limits.

    Args:
        config: an object with the named attributes.
        limits: least and greatest value by attribute. They also keep a hostile checkpoint from
            asking for a network that fills the memory.

    Raises:
        ValueError: naming the attribute, its limits and its value.
    """
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise ValueError(f"{name} must be in [{low:g}, {high:g}]; got {value!r}")


@dataclass(frozen=True)
class PolicyConfig:
    """Settings of every policy.

    Attributes:
        members: networks trained side by side on the same batches from other initial weights, which
            decide together (Lakshminarayanan et al. 2017, "Simple and Scalable Predictive
            Uncertainty Estimation using Deep Ensembles"): by the mean action of regressions, by
            the mean energy of implicit policies. Where few demonstrations leave much open, one
            network's score is a matter of luck.
        n_obs_steps: observations the policy sees, the present one included. With views or focus the
            earlier ones tell how far points have moved since.
        horizon: actions predicted at once.
        n_action_steps: how many of them are executed before the next prediction.
        frame: prefix of the observation fields (`<frame>_xy`, `<frame>_heading`) in whose SE(2)
            frame the network sees the world; None for the world frame.
        action_noise: standard deviation of the noise on the demonstrated actions in training, raw
            units. A script that never errs leaves no density to estimate: telling its exact actions
            from others becomes so easy that which of them to choose is never learned.
        observation_noise: standard deviation of the noise on the observed state in training, in
            normalised units: what was learned then holds a little way off the demonstrations. Not
            for views.
        relations: whether the network is also given the differences of all points of the state;
            see `agents.relations`.
        views: name prefixes of the blocks whose faces the state is seen from, such as
            `("blue", "yellow")`; see `agents.views`. Needs actions that start at a point, or
            displacements.
        focus: the same prefixes, for displacements, and cheaper: the network sees the world from
            the one face that the finger is behind. Enough where few blocks leave little choice.
        world: whether `views` and `focus` also know where in the world they stand; without, what
            is learned holds wherever the scene stands and however it is turned.
        skip: whether the code also carries the normalised state itself, past the encoder's layers:
            what an action copies from the state (a goal to go to) need not be learned then.
        width: width of the encoder and entries of its code.
        depth: layers of the encoder.
        residual: whether the encoder is a pre-activation residual network.
        dropout: dropout in the encoder.
        activation: `relu`, `silu` or `tanh`.
        conv_channels: channels of the pixel encoder; all but the last layer halve the image.
        backbone: network of `perception` that sees the pixels in place of these convolutions, such
            as `coatnet_mini`; empty for none.
        random_shift: largest random shift of training images, pixels; 0 turns it off.
    """

    members: int = 1
    n_obs_steps: int = 1
    horizon: int = 1
    n_action_steps: int = 1
    frame: str | None = None
    action_noise: float = 0.0
    observation_noise: float = 0.0
    relations: bool = False
    views: tuple[str, ...] = ()
    focus: tuple[str, ...] = ()
    world: bool = True
    skip: bool = False
    width: int = 256
    depth: int = 3
    residual: bool = False
    dropout: float = 0.0
    activation: str = "relu"
    conv_channels: tuple[int, ...] = (32, 64, 64, 64)
    backbone: str = ""
    random_shift: int = 4

    def __post_init__(self) -> None:
        """Rejects impossible combinations."""
        check_limits(self, LIMITS)
        if self.n_action_steps > self.horizon:
            raise ValueError(
                f"n_action_steps must not exceed horizon; "
                f"got {self.n_action_steps} > {self.horizon}"
            )
        if not self.conv_channels or not all(1 <= c <= 1024 for c in self.conv_channels):
            raise ValueError(
                f"conv_channels must be numbers in [1, 1024]; got {self.conv_channels}"
            )
        if len(self.conv_channels) > 8:
            raise ValueError(f"conv_channels must be at most 8; got {len(self.conv_channels)}")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Turns a config dataclass into JSON values; `config_from_dict` undoes it."""
    return dataclasses.asdict(config)


def config_from_dict(config_class: type[C], values: Any, where: str = "config") -> C:
    """Reads a config dataclass from JSON values, with every type checked.

    Args:
        config_class: the dataclass to build.
        values: mapping of its fields; missing ones keep their defaults.
        where: what to call the mapping in messages.

    Returns:
        The config.

    Raises:
        ValueError: for an unknown field (the known ones are listed) or a value of another type.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping; got {type(values).__name__}")
    hints = typing.get_type_hints(config_class)
    unknown = sorted(str(name) for name in values if name not in hints)
    if unknown:
        raise ValueError(
            f"{where} has unknown settings {', '.join(unknown)}; known: {', '.join(sorted(hints))}"
        )
    return config_class(
        **{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    )


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Turns JSON into what an annotation asks for: lists to tuples, dicts to dataclasses."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else config_from_dict(hint, value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, where) for item in value)
        if len(args) == len(value):
            return tuple(_convert(arg, item, where) for arg, item in zip(args, value, strict=True))
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(hint, type) and hint is not float and isinstance(value, hint):
        return value
    expected = hint.__name__ if isinstance(hint, type) and origin is None else str(hint)
    raise ValueError(f"{where} must be {expected}; got {value!r}")
