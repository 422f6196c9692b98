"""gymnasium-robotics' simulators, built quietly and drawn quickly."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import Any

RENDER_MODES = ("rgb_array", "human")


def build(module: str, name: str, render_mode: str | None, **kwargs: Any) -> Any:
    """Build a simulator of gymnasium-robotics.

    Args:
        module: module below `gymnasium_robotics.envs`.
        name: class in it.
        render_mode: None, `rgb_array` or `human`.
        **kwargs: for the class.

    Raises:
        ValueError: if the extra `d4rl` is not installed, or for an unknown render mode.
    """
    if render_mode not in (None, *RENDER_MODES):
        raise ValueError(f"render_mode must be None or one of {RENDER_MODES}, got {render_mode!r}")
    if render_mode == "rgb_array" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when MuJoCo is imported
    simulator: Any = _load(module, name)(render_mode=render_mode, **kwargs)
    if render_mode == "rgb_array":
        # Software GL: shadows, reflections and smoothing cost 20 to 50 times the picture itself.
        model = simulator.model
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        model.mat_reflectance[:] = 0
    return simulator


def _load(module: str, name: str) -> Callable[..., Any]:
    from importlib import import_module

    try:
        # The package prints a notice about its rewards: envs.d4rl.adroit mends what it speaks of.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            import_module("gymnasium_robotics")
        return getattr(import_module(f"gymnasium_robotics.envs.{module}"), name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"D4RL's tasks need the extra d4rl ({error}): pip install 'decisive[d4rl]'"
        ) from None
