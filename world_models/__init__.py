"""Predictors of what a sensor will see next. Names are looked up late: torch takes seconds."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from world_models.metnet2.forecaster import Forecaster
    from world_models.metnet2.model import load_forecaster, shipped_forecasters
    from world_models.pathdreamer.model import load_world_model, shipped_world_models

__all__ = [
    "Forecaster",
    "load_forecaster",
    "load_world_model",
    "shipped_forecasters",
    "shipped_world_models",
]
_MODULES = {
    "Forecaster": "world_models.metnet2.forecaster",
    "load_forecaster": "world_models.metnet2.model",
    "load_world_model": "world_models.pathdreamer.model",
    "shipped_forecasters": "world_models.metnet2.model",
    "shipped_world_models": "world_models.pathdreamer.model",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
