"""Tiles done elsewhere: the same numbers, kept when finished, also when a worker is killed."""

import importlib.util
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_cases import bars, waves, write_set
from torch import Tensor

from decisive import distill
from decisive.distill_cluster import RayTiles, tile_work
from learning.distillation import KernelConfig, kernel
from learning.distillation.tile_work import Here, Job, KeptTiles, TileWork, do_here
from learning.npz_format import write_npz

CONFIG = KernelConfig(depth=2)
CONV = KernelConfig(convs=(1, 1), prepend=True)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `cluster`)"
)


def on_ray(test: Any) -> Any:
    """Marks of a test that starts Ray, which leaves sockets to the garbage collector."""
    for mark in (
        needs_ray,
        pytest.mark.slow,
        pytest.mark.timeout(900),
        pytest.mark.filterwarnings("ignore::ResourceWarning"),
        pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    ):
        test = mark(test)
    return test


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value_and_gradients(
    config: KernelConfig, x: Tensor, y: Tensor | None, work: TileWork | None = None
) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = None if y is None else y.clone().requires_grad_()
    found = kernel(config, x, y, work=work)
    weights = normal(*found.shape, seed=3)
    sides = [x] if y is None else [x, y]
    return [found.detach(), *torch.autograd.grad((found * weights).sum(), sides)]


class Counted:
    """Work in this process that counts, and stops after so many jobs as a kill would."""

    def __init__(self, most: int, stop_after: int | None = None) -> None:
        self.most, self.stop_after, self.count = most, stop_after, 0

    def pairs(self, config: KernelConfig) -> int:
        return self.most

    def __call__(self, jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
        for result in do_here(jobs):
            if self.count == self.stop_after:
                raise KeyboardInterrupt
            self.count += 1
            yield result


@pytest.mark.parametrize(
    ("config", "shape"), [(CONFIG, (6,)), (CONV, (2, 4, 4))], ids=["fc", "conv"]
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_work_in_tiles_is_the_kernel_to_rounding(
    config: KernelConfig, shape: tuple[int, ...], symmetric: bool
) -> None:
    x, y = normal(9, *shape), None if symmetric else normal(7, *shape, seed=1)
    whole = value_and_gradients(config, x, y)
    parts = value_and_gradients(config, x, y, Here(most=12))
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_only_the_side_that_is_learned_gets_a_gradient() -> None:
    x, y = normal(9, 4), normal(7, 4, seed=1).requires_grad_()
    found = kernel(CONFIG, x, y, work=Here(most=12)).sum()
    (grad,) = torch.autograd.grad(found, y)
    (expected,) = torch.autograd.grad(kernel(CONFIG, x, y).sum(), y)
    assert torch.allclose(grad, expected, rtol=1e-12)


def test_finished_tiles_are_not_done_again(tmp_path: Path) -> None:
    x, y = normal(20, 6), normal(15, 6, seed=1)
    expected = value_and_gradients(CONFIG, x, y, Here(most=25))  # 12 tiles, 12 backward passes
    killed = Counted(25, stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        value_and_gradients(CONFIG, x, y, KeptTiles(killed, tmp_path))
    assert len(list(tmp_path.glob("*.safetensors"))) == 5
    again = Counted(25)
    kept = KeptTiles(again, tmp_path)
    found = value_and_gradients(CONFIG, x, y, kept)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert (kept.n_read, kept.n_done, again.count) == (5, 19, 19)


def test_a_damaged_tile_is_done_again(tmp_path: Path) -> None:
    x = normal(10, 6)
    first = kernel(CONFIG, x, work=KeptTiles(Counted(25), tmp_path))
    for path in list(tmp_path.glob("*.safetensors"))[:2]:
        path.write_bytes(path.read_bytes()[:50])
    again = Counted(25)
    assert torch.equal(kernel(CONFIG, x, work=KeptTiles(again, tmp_path)), first)
    assert again.count == 2


def test_other_points_networks_and_gradients_are_other_jobs() -> None:
    x, y = normal(3, 4), normal(2, 4, seed=1)
    jobs = [
        Job(CONFIG, x, y),
        Job(KernelConfig(depth=3), x, y),
        Job(CONFIG, x + 1e-15, y),
        Job(CONFIG, x, y, torch.ones(3, 2)),
        Job(CONFIG, x, y, torch.ones(3, 2), (True, False)),
        Job(CONFIG, x.float(), y.float()),
    ]
    assert len({job.digest() for job in jobs}) == len(jobs)
    assert Job(CONFIG, x.clone(), y).digest() == jobs[0].digest()


def test_the_oldest_tiles_make_room(tmp_path: Path) -> None:
    x, y = normal(20, 6), normal(15, 6, seed=1)
    kernel(CONFIG, x, y, work=KeptTiles(Counted(25), tmp_path, most_bytes=1200))
    kept = list(tmp_path.glob("*.safetensors"))
    assert 0 < sum(path.stat().st_size for path in kept) <= 1200
    assert len(kept) < 12


def tile_workers() -> set[int]:
    """Process ids of Ray workers that are doing one of our tiles."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::kernel_tile_task"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def kill_one(killed: list[int], before: set[int], stop: threading.Event) -> None:
    """Kill one worker that began after the test did, once tiles are done."""
    while not stop.is_set():
        fresh = sorted(tile_workers() - before)
        if fresh:
            os.kill(fresh[0], signal.SIGKILL)
            killed.append(fresh[0])
            return
        time.sleep(0.002)


@on_ray
def test_a_killed_worker_changes_no_bit() -> None:
    x, y = normal(24, 3, 12, 12), normal(16, 3, 12, 12, seed=1)
    network = KernelConfig(convs=(1, 1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = value_and_gradients(network, x, y, Here(most=16))
    finally:
        torch.set_num_threads(threads)
    killed: list[int] = []
    stop = threading.Event()
    with tile_work("local", 2, pairs=16) as work:
        assert isinstance(work, RayTiles)
        killer = threading.Thread(target=kill_one, args=(killed, tile_workers(), stop))
        killer.start()
        try:
            found = value_and_gradients(network, x, y, work)
        finally:
            stop.set()
            killer.join()
    assert killed, "no worker was seen doing a tile"
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@on_ray
def test_distill_on_ray_gives_the_set_of_one_process(tmp_path: Path, capsys: Any) -> None:
    write_npz(waves(), tmp_path / "waves.npz")
    words = [str(tmp_path / "waves.npz"), "--points", "12", "--steps", "3", "--batch", "40"]
    sets = {}
    for name, more in (("here", []), ("ray", ["--ray", "local", "--workers", "2"])):
        out = tmp_path / name
        assert distill.main([*words, *more, "--out", str(out), "--json"]) == 0
        sets[name] = json.loads(capsys.readouterr().out)
        assert not (out / "tiles").exists()  # the run is over
    assert sets["ray"]["explained"] == pytest.approx(sets["here"]["explained"], abs=1e-12)
    from learning.distillation import load_distilled

    one, other = (load_distilled(tmp_path / name)[0] for name in sets)
    assert torch.allclose(one.points, other.points, atol=1e-6)  # stored in float32


@on_ray
def test_bad_points_on_ray_are_the_same_error() -> None:
    with tile_work("local", 1) as work, pytest.raises(ValueError, match="must be finite"):
        kernel(CONFIG, torch.full((3, 4), torch.nan, dtype=torch.float64), work=work)


@needs_ray
def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    data = str(write_set(tmp_path / "set", bars(60)))
    out = tmp_path / "run"
    with pytest.raises(OSError, match="no Ray cluster") as caught:
        distill.main([data, "--per-class", "1", "--ray", "127.0.0.1:1", "--out", str(out)])
    assert "\n" not in str(caught.value)
    assert not (out / "last").exists()
