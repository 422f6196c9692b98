"""A base that drives through a procedural house, with a panoramic camera on top. Knows no ROS."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from decisive.scenes import HouseScene
from envs.indoor.ground import PARTS, Ground
from envs.indoor.house import BODY_RADIUS, obstacles
from robots.driving import Pose, move

TIMEOUT = 0.25
"""Seconds after which a velocity counts no more, as base controllers have it."""


class HouseBase:
    """A round body of radius 0.2 m that drives forward and turns; what it touches stops it."""

    def __init__(self, house: str) -> None:
        """Build a house.

        Args:
            house: its name, such as `house_test_000003`.

        Raises:
            ValueError: for what is no name of a house.
        """
        self.scene = HouseScene(house)
        self.graph = self.scene.graph
        self._ground = Ground(obstacles(self.scene.house.plan, self.scene.house.furniture))
        self._eye = float(self.graph.positions[0, 2])
        self.pose = Pose(0.0, 0.0, 0.0)
        self.touched = 0
        """How often something stopped it."""
        self._wanted, self._at = (0.0, 0.0), -math.inf
        self.place(0, 0.0)

    def place(self, viewpoint: int, yaw: float) -> None:
        """Put it down at a viewpoint.

        Raises:
            ValueError: for a viewpoint that the house has not.
        """
        if not 0 <= viewpoint < len(self.graph):
            raise ValueError(
                f"{self.graph.scan} has viewpoints 0 to {len(self.graph) - 1}, got {viewpoint}"
            )
        x, y = self.graph.positions[viewpoint, :2].tolist()
        self.pose, self.touched = Pose(x, y, yaw), 0
        self._wanted = (0.0, 0.0)

    def command(self, speed: float, turn: float, now: float) -> None:
        """Drive at m/s and rad/s from a time in seconds on; what is not finite stops it."""
        finite = math.isfinite(speed) and math.isfinite(turn)
        self._wanted, self._at = (speed, turn) if finite else (0.0, 0.0), now

    def velocity(self, now: float) -> tuple[float, float]:
        """What it drives at: m/s and rad/s."""
        return self._wanted if now - self._at <= TIMEOUT else (0.0, 0.0)

    def drive(self, now: float, seconds: float) -> None:
        """Go on from a time for some seconds."""
        speed, turn = self.velocity(now)
        there = move(self.pose, speed, turn, seconds)
        way = np.array([there.x - self.pose.x, there.y - self.pose.y])
        start = np.array(self.pose[:2])
        # In pieces: a thin box must not be jumped over.
        pieces = max(1, math.ceil(float(np.linalg.norm(way)) / (PARTS * BODY_RADIUS)))
        stopped = False
        for _ in range(pieces):
            length = float(np.linalg.norm(way)) / pieces
            if length == 0.0 or stopped:
                break
            angle = math.atan2(way[1], way[0])
            start, stopped = self._ground.walk(start, angle, length, BODY_RADIUS)
        self.touched += stopped
        self.pose = Pose(float(start[0]), float(start[1]), there.yaw)

    def camera(self) -> NDArray[np.float64]:
        """`(3,)` metres: where its camera is."""
        return np.array([self.pose.x, self.pose.y, self._eye])

    def close(self) -> None:
        """Free the house."""
        self.scene.close()
