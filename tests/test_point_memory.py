"""The memory: bounded, one real point a voxel, on disk and back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models.pathdreamer.guidance import Points, unproject
from world_models.pathdreamer.memory import MemoryConfig, PointMemory, read_ply, write_ply
from world_models.pathdreamer.panoramas import Seen


def panorama(seed: int = 0, depth: float | None = None, size: tuple[int, int] = (8, 16)) -> Seen:
    rng = np.random.default_rng(seed)
    metres = rng.uniform(0.5, 4, size=size) if depth is None else np.full(size, depth)
    return Seen(
        rng.integers(256, size=(*size, 3)).astype(np.uint8),
        rng.integers(1, 41, size=size).astype(np.uint8),
        metres.astype(np.float32),
        rng.uniform(-1, 1, size=3),
    )


def rows(points: Points) -> set[tuple[object, ...]]:
    table = np.concatenate([points.positions.T, points.channels], axis=1)
    return {tuple(row) for row in table.tolist()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.sampled_from([0.05, 0.4, 2.0]))
def test_a_voxel_keeps_one_real_point_the_nearest_seen(seeds: list[int], voxel: float) -> None:
    memory = PointMemory(MemoryConfig(voxel=voxel))
    everything: dict[tuple[int, ...], list[tuple[float, tuple[object, ...]]]] = {}
    for seed in seeds:
        seen = panorama(seed)
        memory.add(seen)
        alone = PointMemory(MemoryConfig(voxel=1e-4))
        alone.add(seen)
        away = np.linalg.norm(alone.points.positions - seen.position[:, None], axis=0)
        for k in range(len(alone)):
            place = alone.points.positions[:, k]
            row = next(iter(rows(alone.points.take(np.array([k])))))
            cell = tuple(np.floor(place / np.float32(voxel)).astype(int).tolist())
            everything.setdefault(cell, []).append((float(away[k]), row))
    assert len(memory) == len(everything)
    for row in rows(memory.points):
        cell = tuple(np.floor(np.array(row[:3], np.float32) / np.float32(voxel)).astype(int))
        nearest = min(distance for distance, _ in everything[cell])
        assert any(r == row and d <= nearest + 1e-5 for d, r in everything[cell])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.sampled_from([5, 60, 1000]))
def test_what_is_kept_is_what_sorting_all_at_once_keeps(seeds: list[int], most: int) -> None:
    """To the last bit, and where several points are equally near."""
    memory = PointMemory(MemoryConfig(voxel=0.7, max_points=most))
    kept: list[tuple[int, int, int, float, Points]] = []
    for seed in seeds:
        # Depths that are all alike: many points of a voxel, and of the whole, are equally near.
        seen = panorama(seed, depth=1.0 + seed % 3)
        seen.position[:] = np.round(seen.position)
        memory.add(seen)
        new = unproject(seen)
        cells = np.floor(new.positions / np.float32(0.7)).astype(int)
        away = np.linalg.norm(new.positions - seen.position[:, None], axis=0).astype(np.float32)
        kept += [(*cells[:, k], float(away[k]), new.take(np.array([k]))) for k in range(len(new))]
        kept = _first_of_each(sorted(kept, key=lambda row: row[:4]))
        far = [np.linalg.norm(row[4].positions[:, 0] - seen.position) for row in kept]
        kept = [kept[k] for k in sorted(np.argsort(far, kind="stable")[:most])]
    assert (
        memory.points.positions.tobytes() == Points.joined([r[4] for r in kept]).positions.tobytes()
    )
    assert np.array_equal(memory.points.channels, Points.joined([r[4] for r in kept]).channels)


def _first_of_each(
    rows: list[tuple[int, int, int, float, Points]],
) -> list[tuple[int, int, int, float, Points]]:
    return [row for k, row in enumerate(rows) if not k or row[:3] != rows[k - 1][:3]]


def test_the_same_panorama_again_adds_nothing() -> None:
    memory = PointMemory()
    assert memory.add(panorama()) == len(memory) > 0
    before = rows(memory.points)
    assert memory.add(panorama()) == 0
    assert rows(memory.points) == before


def test_a_mask_limits_what_is_remembered() -> None:
    mask = np.zeros((8, 16), bool)
    mask[3, 4] = True
    memory = PointMemory()
    assert memory.add(panorama(), mask) == 1


def test_the_furthest_points_are_forgotten_first() -> None:
    memory = PointMemory(MemoryConfig(voxel=0.01, max_points=100))
    for seed in range(3):
        memory.add(panorama(seed))
        assert len(memory) <= 100
    seen = panorama(3)
    memory.add(seen)
    away = np.linalg.norm(memory.points.positions - seen.position[:, None], axis=0)
    unbounded = PointMemory(MemoryConfig(voxel=0.01))
    unbounded.add(seen)
    nearest = np.linalg.norm(unbounded.points.positions - seen.position[:, None], axis=0)
    assert away.max() <= np.sort(nearest)[99] + 1e-5


def test_what_was_added_is_seen_from_where_it_was_seen() -> None:
    seen = panorama(3)
    memory = PointMemory(MemoryConfig(voxel=1e-3))
    memory.add(seen)
    guidance = memory.guidance(seen.position, (8, 16))
    assert guidance.valid.all()
    assert np.array_equal(guidance.semantic, seen.semantic)


def test_an_empty_memory_has_nothing_to_show() -> None:
    assert not PointMemory().guidance(np.zeros(3), (4, 8)).valid.any()


def test_positions_beyond_the_voxels_are_refused() -> None:
    far = panorama()
    memory = PointMemory()
    with pytest.raises(ValueError, match="stay within"):
        memory.add(Seen(far.rgb, far.semantic, far.depth, np.array([1e6, 0, 0])))
    assert len(memory) == 0


@pytest.mark.parametrize("values", [{"voxel": 0.0}, {"voxel": float("nan")}, {"max_points": 0}])
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        MemoryConfig(**values)  # type: ignore[arg-type]


def test_points_come_back_from_their_file(tmp_path: Path) -> None:
    memory = PointMemory()
    memory.add(panorama())
    write_ply(tmp_path / "a.ply", memory.points)
    again = read_ply(tmp_path / "a.ply")
    assert np.array_equal(again.positions, memory.points.positions)
    assert np.array_equal(again.rgb, memory.points.rgb)
    assert np.array_equal(again.semantic, memory.points.semantic)
    write_ply(tmp_path / "none.ply", Points.none())
    assert len(read_ply(tmp_path / "none.ply")) == 0


def test_other_programs_read_the_file(tmp_path: Path) -> None:
    import open3d

    memory = PointMemory()
    memory.add(panorama())
    write_ply(tmp_path / "a.ply", memory.points)
    read = open3d.io.read_point_cloud(tmp_path / "a.ply")
    assert np.allclose(np.asarray(read.points).T, memory.points.positions)
    assert np.allclose(np.asarray(read.colors) * 255, memory.points.rgb)


@pytest.mark.parametrize("cut", [0, 3, 60, -1])
def test_broken_files_are_refused(tmp_path: Path, cut: int) -> None:
    write_ply(tmp_path / "a.ply", Points.none())
    memory = PointMemory()
    memory.add(panorama())
    write_ply(tmp_path / "a.ply", memory.points)
    (tmp_path / "a.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"a\.ply"):
        read_ply(tmp_path / "a.ply")
