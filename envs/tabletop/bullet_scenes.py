"""Scenes that own a Bullet client."""

from types import TracebackType
from typing import Any, Self

import pybullet
from pybullet_utils.bullet_client import BulletClient

from envs.tabletop.quiet import quiet


class BulletScenes:
    """A Bullet client of its own, without a window; close it, or use it in a `with`."""

    def __init__(self) -> None:
        """Connect; nothing is loaded."""
        with quiet():
            self._client: Any = BulletClient(pybullet.DIRECT)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Disconnect; a second call is harmless."""
        if self._client.isConnected():
            self._client.disconnect()
