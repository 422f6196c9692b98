"""Matterport3D panoramas through habitat-sim, where both are installed. See docs/habitat.md.

NOT RUN: habitat-sim could not be installed where this was written. It is built on the source of
habitat-sim 0.3.3; conversions are tested, the rest waits for the contract test on a machine that
has it.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.indoor.categories import CATEGORIES
from envs.indoor.equirectangular import directions
from envs.indoor.graph import NavigationGraph
from envs.indoor.simulator import Panorama

Array = NDArray[np.float64]

# Turned by -90 degrees about the vertical: Habitat's cameras look along -z, which is our +y, and
# the middle of our panoramas looks along +x.
_FACING_X = (0.0, -math.sqrt(0.5), 0.0, math.sqrt(0.5))


def to_habitat(position: Array) -> Array:
    """A point (x, y, z) of the world (z up), `(..., 3)`, as Habitat has it: (x, z, -y), y up."""
    x, y, z = np.moveaxis(np.asarray(position, float), -1, 0)
    return np.stack([x, z, -y], axis=-1)


def from_habitat(position: Array) -> Array:
    """A point (x, y, z) of Habitat (y up), `(..., 3)`, in the world: (x, -z, y), z up."""
    x, y, z = np.moveaxis(np.asarray(position, float), -1, 0)
    return np.stack([x, -z, y], axis=-1)


def radial_depth(depth: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Distance along the ray from what an equirectangular sensor of Habitat gives.

    Its shader copies the depth buffers of six cube faces, which hold the distance along the axis
    of the face. The largest part of a ray's unit vector is that along the axis of its face.

    Args:
        depth: `(H, W)` metres; 0 where there is none.
    """
    ray = np.abs(directions(*depth.shape)).max(axis=-1)
    return (depth / ray).astype(np.float32)


def category_table(semantic_scene: Any) -> NDArray[np.uint8]:
    """Id of mpcat40 for every instance id that a semantic sensor gives; 0 for what is unknown.

    Args:
        semantic_scene: of a `habitat_sim.Simulator`.
    """
    table = np.zeros(1, np.uint8)
    for thing in semantic_scene.objects:
        if thing is None or thing.category is None:
            continue
        # An id reads level_region_object; the last part is the instance.
        instance = int(str(thing.id).split("_")[-1])
        category = int(thing.category.index("mpcat40"))
        if instance >= len(table):
            table = np.pad(table, (0, instance + 1 - len(table)))
        table[instance] = category if 0 <= category < len(CATEGORIES) else 0
    return table


def scene_file(scan: str, data: Path) -> Path:
    """The mesh of a Matterport3D scan.

    Args:
        scan: its name.
        data: folder of data; the meshes are in `mp3d/`, or where `DECISIVE_MP3D` says.

    Raises:
        FileNotFoundError: where it is not.
    """
    root = Path(os.environ.get("DECISIVE_MP3D") or data / "mp3d")
    path = root / scan / f"{scan}.glb"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: pixels of Matterport3D need its meshes (docs/habitat.md); "
            "views=symbolic needs none"
        )
    return path


class HabitatSimulator:
    """A Matterport3D building, drawn by habitat-sim; keeps `envs.indoor.simulator.Simulator`."""

    def __init__(
        self, scene: Path, graph: NavigationGraph, load: Callable[[], Any] | None = None
    ) -> None:
        """Remember what to draw. Habitat starts with the first panorama.

        Args:
            scene: the mesh, `<scan>.glb`; its `.house` file and semantic mesh lie beside it.
            graph: of the same scan.
            load: gives the module `habitat_sim`; imports it if None.

        Raises:
            ValueError: if habitat-sim is not installed.
        """
        self._habitat = (load or _import)()
        self._scene = scene
        self._graph = graph
        self._simulator: Any = None
        self._size = (0, 0)
        self._categories = np.zeros(1, np.uint8)

    @property
    def graph(self) -> NavigationGraph:
        """Where one can stand."""
        return self._graph

    def observe(self, place: str | NDArray[np.float64], size: tuple[int, int]) -> Panorama:
        """The panorama from a viewpoint or a point; see the protocol."""
        if isinstance(place, str):
            position = self._graph.positions[self._graph.index(place)]
        else:
            position = np.asarray(place, float)
            if position.shape != (3,) or not np.isfinite(position).all():
                raise ValueError(f"a position must be three finite numbers, got {place!r}")
        if min(size) < 1:
            raise ValueError(f"size must be at least (1, 1), got {size}")
        if size != self._size or self._simulator is None:
            self.close()
            self._simulator, self._size = self._start(size), size
            self._categories = category_table(self._simulator.semantic_scene)
        state = self._habitat.AgentState()
        state.position = to_habitat(position).astype(np.float32)
        state.rotation = list(_FACING_X)  # `set_state` makes a quaternion of x, y, z, w
        self._simulator.get_agent(0).set_state(state)
        seen = self._simulator.get_sensor_observations()
        instances = np.asarray(seen["semantic"]).astype(np.int64)
        known = (instances >= 0) & (instances < len(self._categories))
        return Panorama(
            rgb=np.ascontiguousarray(np.asarray(seen["rgb"])[..., :3], np.uint8),
            semantic=self._categories[np.where(known, instances, 0)] * known.astype(np.uint8),
            depth=radial_depth(np.asarray(seen["depth"])),
            position=np.array(position, float),
        )

    def close(self) -> None:
        """End Habitat; a later `observe` starts it again."""
        if self._simulator is not None:
            self._simulator.close()
        self._simulator = None

    def _start(self, size: tuple[int, int]) -> Any:
        """A simulator with sensors of a size."""
        habitat = self._habitat
        backend = habitat.SimulatorConfiguration()
        backend.scene_id = str(self._scene)
        backend.enable_physics = False
        config = self._scene.parent.parent / "mp3d.scene_dataset_config.json"
        if config.is_file():  # without it there are no semantics
            backend.scene_dataset_config_file = str(config)
        kinds = habitat.SensorType
        sensors = []
        for name, kind in (
            ("rgb", kinds.COLOR),
            ("depth", kinds.DEPTH),
            ("semantic", kinds.SEMANTIC),
        ):
            sensor = habitat.EquirectangularSensorSpec()
            sensor.uuid, sensor.sensor_type = name, kind
            sensor.resolution = list(size)
            sensor.position = [0.0, 0.0, 0.0]  # the agent is where the camera is
            sensors.append(sensor)
        agent = habitat.agent.AgentConfiguration(sensor_specifications=sensors)
        return habitat.Simulator(habitat.Configuration(backend, [agent]))


def _import() -> Any:
    try:
        import habitat_sim  # type: ignore[import-not-found]  # pyright: ignore
    except ImportError:
        raise ValueError(
            "habitat-sim is not installed: pixels of Matterport3D need it (docs/habitat.md); "
            "views=symbolic does not"
        ) from None
    return habitat_sim
