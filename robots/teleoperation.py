"""From keys and sticks to velocities. Knows neither terminals nor messages.

Directions follow REP-103: x forward, y left, z up, metres per second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HELP = "arrows or w a s d: move   r f: up, down   space: stop   + -: speed   q: quit"
"""One line for people at the keyboard."""

_DIRECTIONS: dict[str, tuple[int, int]] = {
    "up": (0, 1), "down": (0, -1), "left": (1, 1), "right": (1, -1),
    "w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1),
}  # fmt: skip
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_QUIT = ("q", "\x03", "\x04", "\x1c")  # q, Ctrl-C, Ctrl-D, Ctrl-backslash
_ESCAPE = "\x1b"


class KeyReader:
    """Takes the bytes of a terminal apart into keys; they may arrive in pieces."""

    def __init__(self) -> None:
        """Nothing has been read yet."""
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Keys in order: characters in lower case, and `up`, `down`, `left`, `right`.

        Sequences of other keys, and bytes that are no characters, are left out.
        """
        text = self._rest + data.decode("ascii", errors="ignore")
        self._rest = ""
        keys = []
        i = 0
        while i < len(text):
            if text[i] != _ESCAPE:
                keys.append(text[i].lower())
                i += 1
                continue
            length = _sequence_length(text[i:])
            if length is None:
                self._rest = text[i:][-16:]  # no key has a longer name
                break
            if text[i + 1 : i + 2] in ("[", "O") and length == 3 and text[i + 2] in _ARROWS:
                keys.append(_ARROWS[text[i + 2]])
            i += length
        return keys


def _sequence_length(text: str) -> int | None:
    """Length of the escape sequence at the head of a text; None where it is not all here."""
    if len(text) < 2:
        return None
    if text[1] not in ("[", "O"):
        return 1  # the key Escape, and then another
    for i in range(2, len(text)):
        if "@" <= text[i] <= "~":  # ECMA-48: parameters end with one of these
            return i + 1
    return None


@dataclass(frozen=True)
class KeyboardConfig:
    """How keys move a robot.

    Attributes:
        speed: metres per second at the beginning.
        max_speed: greatest speed.
        factor: of one press of `+`.
        timeout: seconds after its last press until a direction ends.
    """

    speed: float = 0.1
    max_speed: float = 0.3
    factor: float = 1.25
    timeout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what would move backwards or never stop."""
        if not 0 < self.speed <= self.max_speed < math.inf:
            raise ValueError(f"speed must be in (0, {self.max_speed}] m/s, got {self.speed}")
        if not 1 < self.factor < math.inf or not 0 < self.timeout <= 1:
            raise ValueError(
                f"factor must be over 1, timeout in (0, 1] s; got {self.factor}, {self.timeout}"
            )


class Keyboard:
    """What is held down at a time; times are seconds on a clock that does not jump."""

    def __init__(self, config: KeyboardConfig) -> None:
        """Start at rest."""
        self._config = config
        self.speed = config.speed
        """Metres per second of one direction."""
        self.quit = False
        """Whether the person wants to leave."""
        self._until = np.full(3, -math.inf)
        self._sign = np.zeros(3)

    def press(self, key: str, now: float) -> None:
        """A key, as `KeyReader` names it."""
        if key in _DIRECTIONS:
            axis, self._sign[axis] = _DIRECTIONS[key]
            self._until[axis] = now + self._config.timeout
        elif key == " ":
            self._until[:] = -math.inf
        elif key in ("+", "="):
            self.speed = min(self.speed * self._config.factor, self._config.max_speed)
        elif key in ("-", "_"):
            self.speed = max(self.speed / self._config.factor, self._config.max_speed / 100)
        elif key in _QUIT:
            self.quit = True
            self._until[:] = -math.inf

    def velocity(self, now: float) -> Array:
        """`(3,)` metres per second; two keys at once go obliquely, at the same speed."""
        moving = np.where(now < self._until, self._sign, 0.0)
        length = math.sqrt(float(moving @ moving))
        return moving * (self.speed / length) if length else moving


@dataclass(frozen=True)
class GamepadConfig:
    """How a gamepad moves a robot.

    Attributes:
        axes: index of the stick for x, y and z; -1 for none.
        signs: 1 or -1 for each, where a driver counts the other way.
        deadman: index of the button that must be held.
        estop: index of the button that stops everything.
        dead_zone: deflection in [0, 1) up to which a stick counts as centred.
        scale: metres per second at full deflection.
        timeout: greatest age in seconds of what the gamepad said.
    """

    axes: tuple[int, int, int] = (1, 0, -1)
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0)
    deadman: int = 4
    estop: int = 1
    dead_zone: float = 0.1
    scale: float = 0.2
    timeout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse buttons and numbers that make no sense."""
        if len(self.axes) != 3 or len(self.signs) != 3 or min(self.axes) < -1:
            raise ValueError(f"axes and signs are three each, got {self.axes} and {self.signs}")
        if self.deadman < 0 or self.estop < 0 or self.deadman == self.estop:
            raise ValueError(
                f"deadman and estop must be two buttons, got {self.deadman} and {self.estop}"
            )
        if not 0 <= self.dead_zone < 1 or not 0 < self.scale < math.inf or self.timeout <= 0:
            raise ValueError(
                f"dead_zone must be in [0, 1), scale and timeout positive; got {self.dead_zone}, "
                f"{self.scale}, {self.timeout}"
            )


@dataclass(frozen=True)
class Sticks:
    """What a gamepad says.

    Attributes:
        velocity: `(3,)` metres per second; None while the deadman button is not held.
        estop: whether the emergency stop is pressed.
    """

    velocity: Array | None = field(default=None)
    estop: bool = False


def read_gamepad(
    axes: Sequence[float], buttons: Sequence[int], age: float, config: GamepadConfig
) -> Sticks:
    """What a gamepad asks for.

    Args:
        axes: deflections in [-1, 1]; forward and left are positive, as the node `joy` has it.
        buttons: 1 where pressed.
        age: seconds since it was measured; negative if its clock is ahead.
        config: the mapping.

    Returns:
        The emergency stop counts at any age; a velocity only if it is fresh.

    Raises:
        ValueError: if the pad lacks an axis or button, or a deflection is not finite.
    """
    if max(config.deadman, config.estop) >= len(buttons):
        raise ValueError(
            f"the gamepad has {len(buttons)} buttons; deadman is {config.deadman}, estop "
            f"{config.estop}"
        )
    estop = bool(buttons[config.estop])
    if estop or not buttons[config.deadman] or not abs(age) <= config.timeout:
        return Sticks(None, estop)
    if max(config.axes) >= len(axes):
        raise ValueError(f"the gamepad has {len(axes)} axes, the mapping asks for {config.axes}")
    deflection = np.array([axes[i] if i >= 0 else 0.0 for i in config.axes], dtype=np.float64)
    if not np.isfinite(deflection).all():
        raise ValueError(f"deflections must be finite, got {deflection.tolist()}")
    shaped = [shape_deflection(value, config.dead_zone) for value in deflection.tolist()]
    return Sticks(np.array(shaped) * config.signs * config.scale, False)


def shape_deflection(value: float, dead_zone: float) -> float:
    """Deflection in [-1, 1] without a jump at the edge of the dead zone."""
    beyond = (min(abs(value), 1.0) - dead_zone) / (1.0 - dead_zone)
    return math.copysign(max(beyond, 0.0), value) if beyond > 0 else 0.0
