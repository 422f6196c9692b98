"""What tests of single nodes share: a context of their own, ears, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import rclpy
from rclpy.context import Context


def contexts(domain: int) -> Iterator[Context]:
    """A context of a DDS domain, for a fixture; it is shut down at the end."""
    made = Context()
    rclpy.init(context=made, domain_id=domain)
    yield made
    rclpy.try_shutdown(context=made)


class Sink:
    """Stands for a publisher; keeps what is published."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(message)

    def wait_for_all_acked(self, timeout: Any) -> None:
        """Nothing to wait for."""


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened for too long"
        time.sleep(0.005)
