"""Parameters of nodes: one table a node, from which declarations, files and docs are checked.

Importable without rclpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rclpy.node import Node

Value = bool | int | float | str | list[float] | list[str]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    Attributes:
        name: as in `--ros-args -p name:=value`.
        default: its value and its type.
        doc: one line for people, with the unit.
        low: least value of a number.
        high: greatest value.
        choices: the words a string may be.
        fixed: whether it cannot be changed once the node runs.
    """

    name: str
    default: Value
    doc: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    fixed: bool = True

    def allowed(self) -> str:
        """What values it takes, for the documentation."""
        if self.choices:
            return ", ".join(choice or '""' for choice in self.choices)
        if math.isfinite(self.low) or math.isfinite(self.high):
            return f"{self.low:.10g} to {self.high:.10g}"
        return ""


def declare(node: Node, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Declare parameters with descriptions and ranges; a value outside refuses to start.

    Returns:
        Value by name.

    Raises:
        rclpy.exceptions.ParameterException: for a value of the wrong type or outside its range.
        ValueError: for a word that is not one of the choices, naming them.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    values = {}
    for parameter in parameters:
        descriptor = ParameterDescriptor(
            description=parameter.doc,
            read_only=parameter.fixed,
            additional_constraints=parameter.allowed(),
        )
        bounded = math.isfinite(parameter.low) and math.isfinite(parameter.high)
        if bounded and isinstance(parameter.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=parameter.low, to_value=parameter.high)
            ]
        elif bounded and type(parameter.default) is int:
            descriptor.integer_range = [
                IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))
            ]
        node.declare_parameter(parameter.name, parameter.default, descriptor)
        value = node.get_parameter(parameter.name).value
        if parameter.choices and value not in parameter.choices:
            raise ValueError(
                f"parameter {parameter.name} must be one of {', '.join(parameter.choices)}; "
                f"got {value!r}"
            )
        values[parameter.name] = value
    return values


def current(node: Node, name: str) -> Any:
    """The present value of a parameter that may change while the node runs."""
    return node.get_parameter(name).value
