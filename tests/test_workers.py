"""Worker processes end with their parent, and say what went wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decisive.workers import in_blocks, process_pool

ROOT = Path(__file__).resolve().parents[1]


def threads():
    return os.environ["OMP_NUM_THREADS"]


def interrupted(_):
    return signal.getsignal(signal.SIGINT)


def fail():
    raise ValueError("from a worker")


def prepared():
    os.environ["PREPARED_BY_TEST"] = "yes"


def was_prepared():
    return os.environ.get("PREPARED_BY_TEST")


def test_workers_have_one_thread_and_are_prepared():
    with process_pool(1, prepared) as pool:
        assert pool.submit(threads).result() == os.environ.get("OMP_NUM_THREADS", "1")
        assert pool.submit(was_prepared).result() == "yes"
        assert pool.submit(interrupted, 0).result() == signal.SIG_IGN
        with pytest.raises(ValueError, match="from a worker"):
            pool.submit(fail).result()
    assert was_prepared() is None


def test_workers_of_long_tasks_leave_ctrl_c_alone():
    with process_pool(1, interruptible=True) as pool:
        assert pool.submit(interrupted, 0).result() == signal.SIG_DFL


def children(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_worker_outlives_a_killed_command(tmp_path):
    words = ["record", "--env", "decisive/Particle-v0", "--episodes", "1000000", "--workers", "2"]
    command = [sys.executable, "-m", "decisive", *words, "--out", str(tmp_path / "never.npz")]
    parent = subprocess.Popen(command, cwd=ROOT)
    try:
        # The resource tracker of multiprocessing is a child too.
        wait_for(lambda: len(children(parent.pid)) >= 3)
        wait_for(lambda: list(tmp_path.glob(".never.npz.recording/shard-*")))
        workers = children(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert not (tmp_path / "never.npz").exists()


def test_blocks_are_drawn_whole_and_in_order() -> None:
    drawn = list(in_blocks(list, 10, 4, 1, "numbers"))
    assert drawn == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert not list(in_blocks(list, 0, 4, 1, "numbers"))
