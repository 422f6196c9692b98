"""Labels as a simulator knows them, and as networks get them wrong."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.camera import ROBOT_CAMERA, rgbd_ids
from envs.tabletop.insertion_views import InsertionConfig, InsertionViews, robot_camera
from robots.instance_labels import InstanceLabels
from robots.pose_estimation import Pose2D

CLASSES = ("block", "slot", "effector")
BLOCK, SLOT, EFFECTOR = 1, 2, 3
"""Ids of the instances in a `Look`."""


@dataclass(frozen=True)
class Look:
    """One picture of the insertion scene, and the truth about it."""

    rgb: Any
    depth: Any
    T_world_camera: Any
    ids: NDArray[np.int64]
    block: Pose2D
    slot: Pose2D

    @property
    def picture(self) -> tuple[Any, Any, Any, Any]:
        """What `estimate` takes first."""
        return self.rgb, self.depth, ROBOT_CAMERA.matrix, self.T_world_camera


def looks(n: int, varied: float) -> list[Look]:
    """Views at the robot's 640x480, of which `varied` have other colours and a moved camera."""
    found = []
    rng = np.random.default_rng(n)
    with InsertionViews(InsertionConfig(camera="robot", varied=varied)) as views:
        for k in range(n):
            view = views.draw(k)
            eye = view.camera.T_world_camera[:3, 3] - ROBOT_CAMERA.T_world_camera[:3, 3]
            camera = robot_camera((480, 640), tuple(eye.tolist()))
            light = (*rng.uniform((-0.4, -0.6), (1.6, 1.4)), 1.6)
            rgb, depth, seen = rgbd_ids(views.scene.client, camera, light)
            scene = views.scene
            bodies = (scene.blocks[0], scene.fixtures[0], *scene.effector.bodies)
            ids = numbered(seen, bodies)
            pose = camera.T_world_camera
            block, slot = Pose2D(*view.block_pose), Pose2D(*view.slot_pose)
            found.append(Look(rgb, depth, pose, ids, block, slot))
    return found


def numbered(seen: NDArray[np.int64], bodies: tuple[int, ...]) -> NDArray[np.int64]:
    """Ids of bodies as ids of instances, in their order."""
    ids = np.zeros(seen.shape, np.int64)
    for k, body in enumerate(bodies, 1):
        ids[seen == body] = k
    return ids


def labels_of(env: Any) -> InstanceLabels:
    """What a faultless network would say about an environment as it stands."""
    _, _, seen = rgbd_ids(env.scene.client, ROBOT_CAMERA)
    blocks, slots = tuple(env.scene.blocks), tuple(env.scene.fixtures)
    bodies = (*blocks, *slots, *env.scene.effector.bodies)
    names = (*("block" for _ in blocks), *("slot" for _ in slots), "effector")
    return InstanceLabels(numbered(seen, bodies), names)


def grown(mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """A mask by n pixels wider on every side, or narrower."""
    if n < 0:
        return ~grown(~mask, -n)
    padded: NDArray[np.bool_] = np.pad(mask, n)
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * n + 1, axis=axis)
        padded = np.asarray(windows.any(axis=-1))
    return padded


def resized(ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Every instance by n pixels wider or narrower; the block on top."""
    result = np.zeros_like(ids)
    for k in (SLOT, EFFECTOR, BLOCK):
        result[grown(ids == k, n)] = k
    return result


def only(mask: NDArray[np.bool_], name: str) -> InstanceLabels:
    """One instance."""
    return InstanceLabels(mask.astype(np.int64), (name,))
