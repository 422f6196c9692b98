"""Predictors of what a sensor will see next. Names are looked up late: torch takes seconds."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from world_models.pathdreamer.model import load_world_model, shipped_world_models

__all__ = ["load_world_model", "shipped_world_models"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from world_models.pathdreamer import model

    return getattr(model, name)
