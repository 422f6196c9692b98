"""What every simulator keeps, on each that is here; and Habitat's conversions without Habitat."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2r_cases import DATA, street

from envs.indoor.categories import ID
from envs.indoor.equirectangular import directions, pixels
from envs.indoor.habitat import (
    HabitatSimulator,
    category_table,
    from_habitat,
    radial_depth,
    scene_file,
    to_habitat,
)
from envs.indoor.simulator import Panorama, Simulator

SIZE = (32, 64)


def procedural() -> Simulator:
    house = pytest.importorskip("envs.indoor.house")
    backend = pytest.importorskip("envs.indoor.procedural")
    simulator: Simulator = backend.ProceduralSimulator(house.generate_house(0))
    return simulator


def habitat() -> Simulator:
    if importlib.util.find_spec("habitat_sim") is None:
        pytest.skip("habitat-sim is not installed; see docs/habitat.md")
    from envs.indoor.matterport import MatterportWorld

    scans = [path.stem for path in sorted((DATA / "mp3d").glob("*/*.glb"))]
    if not scans:
        pytest.skip("no mesh of Matterport3D in mp3d/ of the data folder")
    return MatterportWorld(DATA).simulator(scans[0])


BACKENDS: dict[str, Callable[[], Simulator]] = {"procedural": procedural, "habitat": habitat}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_simulator_keeps_the_contract(backend: str) -> None:
    simulator = BACKENDS[backend]()
    graph = simulator.graph
    name = graph.viewpoints[0]
    seen = simulator.observe(name, SIZE)
    assert (seen.rgb.shape, seen.rgb.dtype) == ((*SIZE, 3), np.uint8)
    assert (seen.semantic.shape, seen.semantic.dtype) == (SIZE, np.uint8)
    assert (seen.depth.shape, seen.depth.dtype) == (SIZE, np.float32)
    assert seen.semantic.max() <= 40
    assert np.isfinite(seen.depth).all()
    assert seen.depth.min() >= 0.0
    assert np.allclose(seen.position, graph.positions[0])
    again = simulator.observe(graph.positions[0], SIZE)
    assert np.array_equal(again.rgb, seen.rgb)
    assert np.array_equal(again.depth, seen.depth)
    for place, size in (("nowhere", SIZE), (np.array([math.nan, 0, 0]), SIZE), (name, (0, 4))):
        with pytest.raises(ValueError, match=r"\S"):
            simulator.observe(place, size)
    simulator.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_is_along_the_ray_and_panoramas_are_aligned_with_the_world(backend: str) -> None:
    # Points seen from one viewpoint are where another one sees a surface, or behind one: true
    # only if depth is radial and azimuth, elevation and axes are right.
    simulator = BACKENDS[backend]()
    graph = simulator.graph
    agreeing = []
    for here in range(min(len(graph), 6)):
        there = graph.neighbors[here][0]
        size = (64, 128)
        a, b = (simulator.observe(graph.viewpoints[k], size) for k in (here, there))
        points = a.position + directions(*size) * a.depth[..., None]
        away = points - b.position
        row, column = pixels(away, *size)
        gap = np.linalg.norm(away, axis=-1) - b.depth[row, column]
        known = (a.depth > 0) & (b.depth[row, column] > 0)
        # Nothing that is seen floats in front of a surface that the other viewpoint sees.
        agreeing.append((gap[known] > -0.35).mean())
        assert (np.abs(gap[known]) < 0.35).mean() > 0.4
        # The floor is right below.
        assert np.median(a.depth[-1]) == pytest.approx(graph.heights[here], abs=0.3)
    # Depth along the axes of cube faces gives 0.80 and at worst 0.29; a quarter turn 0.01 at worst.
    assert np.mean(agreeing) > 0.93
    simulator.close()


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3))
def test_positions_survive_the_way_to_habitat_and_back(position: list[float]) -> None:
    assert from_habitat(to_habitat(np.array(position))).tolist() == position


def test_axes_of_habitat() -> None:
    axes = np.eye(3)  # our x, y (north), z (up)
    assert to_habitat(axes).tolist() == [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    # A rotation, no reflection.
    assert np.linalg.det(to_habitat(axes)) == pytest.approx(1.0)


def test_depth_along_cube_axes_becomes_radial() -> None:
    # A cubic room, 2 m to each wall: along its axes everything is 2 m away.
    size = (64, 128)
    radial = radial_depth(np.full(size, 2.0, np.float32))
    points = directions(*size) * radial[..., None]
    assert np.abs(points).max(axis=-1) == pytest.approx(2.0, abs=1e-5)
    assert radial.max() <= 2.0 * math.sqrt(3) + 1e-5
    assert not radial_depth(np.zeros(size)).any()


def thing(name: str, category: int | None) -> SimpleNamespace:
    kind = None if category is None else SimpleNamespace(index=lambda mapping: category)
    return SimpleNamespace(id=name, category=kind)


def test_instances_become_categories() -> None:
    things = [thing("0_1_2", 5), None, thing("0_1_4", 41), thing("0_2_5", -1), thing("1_0_1", 40),
              thing("1_0_6", None)]  # fmt: skip
    table = category_table(SimpleNamespace(objects=things))
    assert table.dtype == np.uint8
    assert table.tolist() == [0, 40, 5, 0, 0, 0]
    assert category_table(SimpleNamespace(objects=[])).tolist() == [0]


class FakeHabitat:
    """The names of habitat_sim that we call, and nothing of what it does.

    It gives constant pictures and notes what it was asked: a test of our conversions, not of
    Habitat.
    """

    SensorType = SimpleNamespace(COLOR="color", DEPTH="depth", SEMANTIC="semantic")

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.started: list[Any] = []
        self.closed = 0
        self.agent = SimpleNamespace(AgentConfiguration=SimpleNamespace)

    SimulatorConfiguration = EquirectangularSensorSpec = AgentState = SimpleNamespace

    def Configuration(self, backend: Any, agents: list[Any]) -> Any:
        return SimpleNamespace(backend=backend, sensors=agents[0].sensor_specifications)

    def Simulator(self, config: Any) -> Any:
        self.started.append(config)
        height, width = config.sensors[0].resolution
        pictures = {
            "rgb": np.full((height, width, 4), 7, np.uint8),
            "depth": np.full((height, width), 2.0, np.float32),
            "semantic": np.arange(height * width, dtype=np.uint32).reshape(height, width),
        }

        def close() -> None:
            self.closed += 1

        return SimpleNamespace(
            get_agent=lambda number: SimpleNamespace(set_state=self.states.append),
            get_sensor_observations=lambda: pictures,
            semantic_scene=SimpleNamespace(objects=[thing("0_0_3", ID["door"])]),
            close=close,
        )


def test_conversions_with_a_fake_in_place_of_habitat() -> None:
    fake = FakeHabitat()
    simulator = HabitatSimulator(Path("mp3d/case/case.glb"), street(), load=lambda: fake)
    assert not fake.started  # the first panorama starts it
    seen = simulator.observe("c", SIZE)
    assert isinstance(seen, Panorama)
    assert fake.states[0].position.tolist() == [4.0, 1.5, -0.0]  # (4, 0, 1.5): up is y
    x, y, z, w = fake.states[0].rotation
    # Turned about the vertical so that Habitat's -z looks along x: R (0, 0, -1) = (1, 0, 0).
    assert (x, z) == (0.0, 0.0)
    forward = np.array([-2 * y * w, 0.0, -(1 - 2 * y * y)])
    assert forward == pytest.approx([1.0, 0.0, 0.0])
    assert to_habitat(np.array([1.0, 0.0, 0.0])) == pytest.approx(forward)
    config = fake.started[0]
    assert config.backend.scene_id == "mp3d/case/case.glb"
    assert [s.uuid for s in config.sensors] == ["rgb", "depth", "semantic"]
    assert [s.sensor_type for s in config.sensors] == ["color", "depth", "semantic"]
    assert all(s.position == [0.0, 0.0, 0.0] for s in config.sensors)
    assert seen.rgb.shape == (*SIZE, 3)
    assert seen.depth.min() >= 2.0
    assert np.argwhere(seen.semantic == ID["door"]).tolist() == [[0, 3]]
    assert seen.semantic.sum() == ID["door"]  # instances beyond the table are void
    assert seen.position.tolist() == [4.0, 0.0, 1.5]


def test_another_size_starts_habitat_again_with_a_fake_in_its_place() -> None:
    fake = FakeHabitat()
    simulator = HabitatSimulator(Path("case.glb"), street(), load=lambda: fake)
    for size in (SIZE, SIZE, (16, 32)):
        assert simulator.observe(np.array([0.0, 1.0, 2.0]), size).depth.shape == size
    assert (len(fake.started), fake.closed) == (2, 1)
    simulator.close()
    simulator.close()
    assert fake.closed == 2
    for place in (np.zeros(2), np.array([0.0, np.inf, 0.0])):
        with pytest.raises(ValueError, match="three finite numbers"):
            simulator.observe(place, SIZE)
    with pytest.raises(ValueError, match="at least"):
        simulator.observe("a", (0, 8))
    with pytest.raises(ValueError, match="no viewpoint"):
        simulator.observe("z", SIZE)


def test_without_habitat_one_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"docs/habitat\.md.*views=symbolic"):
        scene_file("case", tmp_path)
    monkeypatch.setenv("DECISIVE_MP3D", str(tmp_path))
    mesh = tmp_path / "case" / "case.glb"
    mesh.parent.mkdir()
    mesh.touch()
    assert scene_file("case", Path("elsewhere")) == mesh
    if importlib.util.find_spec("habitat_sim") is None:
        with pytest.raises(ValueError, match=r"not installed.*docs/habitat\.md"):
            HabitatSimulator(mesh, street())
