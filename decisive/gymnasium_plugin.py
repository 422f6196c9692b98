"""Makes Gymnasium know our environments without an import of ours.

Gymnasium 1.0 dropped its plugin entry points. So `decisive_gymnasium.pth`, installed beside
the packages (see setup.py), calls `install` when Python starts. That must stay cheap: it puts one
finder in front of the import system, which waits for `gymnasium.envs`, steps aside, and registers
our ids as soon as that package is loaded.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's own would have to be imported, at every start of Python
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_TARGET = "gymnasium.envs"


class _WaitForGymnasium:
    """A finder that finds nothing itself: it wraps the loader of `gymnasium.envs`, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _TARGET:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                _register()

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from importlib import import_module
    from importlib.util import find_spec
    from pathlib import Path

    # `import envs` brought Gymnasium in: it is about to register by itself.
    if "envs" in sys.modules:
        return
    # `envs` is a common name. Only the one installed beside this package is ours; where another
    # one comes first, that is what its owner wants, and ours stays unregistered.
    spec = find_spec("envs")
    if spec is None or spec.origin is None:
        return
    if Path(spec.origin).resolve().parents[1] == Path(__file__).resolve().parents[1]:
        import_module("envs")


def install() -> None:
    """Wait for Gymnasium; nothing if it is loaded already, or waited for."""
    if _TARGET not in sys.modules and not any(
        isinstance(finder, _WaitForGymnasium) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _WaitForGymnasium())
