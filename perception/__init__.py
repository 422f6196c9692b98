"""Vision: backbones as plain torch modules, tensors in, tensors out.

`create(name)` makes one, `names()` lists them. Names are looked up late: torch takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.catalogue import create, names

__all__ = ["create", "names"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perception import catalogue

    return getattr(catalogue, name)
