"""Ways of talking about a walk through a house."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Manner:
    """One way of talking.

    Attributes:
        clauses: phrases by what they say; `{room}`, `{noun}` and `{side}` are filled in.
        joints: what stands between clauses.
        last: what stands before the last one.
    """

    clauses: Mapping[str, tuple[str, ...]]
    joints: tuple[str, ...]
    last: tuple[str, ...]


_BRIEF = Manner(
    clauses={
        "turn side": ("turn {side}", "take a {side}"),
        "turn around": ("turn around", "turn back"),
        "leave": ("leave the {room}", "exit the {room}"),
        "leave side": ("exit the {room} on your {side}", "leave the {room} to the {side}"),
        "leave around": ("turn around and leave the {room}", "turn around and exit the {room}"),
        "enter": ("enter the {room}", "go into the {room}"),
        "enter side": ("go {side} into the {room}", "enter the {room} on the {side}"),
        "enter around": ("turn around and enter the {room}",),
        "pass": ("pass the {noun}", "pass the {noun} on your {side}"),
        "toward": ("go toward the {noun}", "head for the {noun}"),
        "stop at": ("stop by the {noun}", "stop at the {noun}"),
        "stop at side": ("stop by the {noun}", "stop with the {noun} on your {side}"),
        "stop in": ("stop in the {room}",),
    },
    joints=(". ", ", "),
    last=(". ", " and "),
)

_CHATTY = Manner(
    clauses={
        "turn side": ("make a {side} turn", "turn to your {side}"),
        "turn around": ("turn all the way around", "turn yourself around"),
        "leave": ("walk out of the {room}", "walk straight out of the {room}"),
        "leave side": (
            "turn {side} and walk out of the {room}",
            "walk out of the {room} through the door on your {side}",
        ),
        "leave around": ("turn around and walk out of the {room}",),
        "enter": ("walk into the {room}", "step into the {room}"),
        "enter side": (
            "turn {side} and walk into the {room}",
            "walk through the doorway on the {side} into the {room}",
        ),
        "enter around": ("turn around and walk into the {room}",),
        "pass": (
            "walk past the {noun} on the {side}",
            "keep going past the {noun} on your {side}",
        ),
        "toward": ("walk towards the {noun}", "walk forward in the direction of the {noun}"),
        "stop at": ("wait near the {noun}", "stop once you reach the {noun}"),
        "stop at side": (
            "wait next to the {noun}",
            "stop when the {noun} is to your {side}",
        ),
        "stop in": ("wait there in the {room}", "stop once you are in the {room}"),
    },
    joints=(", then ", ". Then ", ". ", " and "),
    last=(", and ", ". Then ", ". "),
)

_FORMAL = Manner(
    clauses={
        "turn side": ("turn to the {side}", "head {side}"),
        "turn around": ("face the other way", "go back the other way"),
        "leave": ("go out of the {room}", "head out of the {room}"),
        "leave side": ("head {side} out of the {room}", "go {side} to get out of the {room}"),
        "leave around": ("turn around, head out of the {room}",),
        "enter": ("proceed into the {room}", "continue into the {room}"),
        "enter side": (
            "proceed into the {room} to the {side}",
            "take the door on the {side} to the {room}",
        ),
        "enter around": ("turn around, proceed into the {room}",),
        "pass": (
            "continue past the {noun}",
            "proceed past the {noun} to your {side}",
        ),
        "toward": ("continue towards the {noun}", "go straight to the {noun}"),
        "stop at": ("stop beside the {noun}", "stop in the {room} by the {noun}"),
        "stop at side": (
            "stop in the {room} beside the {noun}",
            "stop in the {room} with the {noun} to your {side}",
        ),
        "stop in": ("stop inside the {room}",),
    },
    joints=("; ", ". ", ", "),
    last=("; ", ". ", ", and "),
)

MANNERS: tuple[Manner, ...] = (_BRIEF, _CHATTY, _FORMAL)
"""All ways of talking; each can say the same."""
