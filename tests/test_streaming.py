"""Commanded positions, ways between them, and the worker that infers."""

import threading
import time

import gymnasium
import numpy as np
import pytest

from robots.streaming import SECOND, Outcome, Reference, Segment, Worker, Workspace

SPACE = Workspace((0.15, -0.48), (0.65, 0.48), 0.04)


def test_the_reference_moves_as_the_environment_moves_its_target() -> None:
    """To the last bit, at the workspace's edge and with the effector held back by a block too."""
    env = gymnasium.make("decisive/BlockInsertion-v0")
    env.reset(seed=3)
    table = env.unwrapped
    reference = Reference(SPACE)
    reference.start(table.scene.tip()[:2])
    rng = np.random.default_rng(0)
    pull = np.array([0.012, 0.004])
    for step in range(60):
        tip = table.scene.tip()[:2]
        action = (rng.normal(size=2) * 0.02 + (pull if step < 40 else -pull)).astype(np.float32)
        action = np.clip(action, -0.03, 0.03).astype(np.float32)
        env.step(action)
        reference.move(action, tip)
        assert reference.position.tolist() == table.target.tolist()
    env.close()


def test_the_reference_stays_in_the_workspace_and_near_the_robot() -> None:
    reference = Reference(SPACE)
    reference.start(np.array([0.64, 0.0]))
    for _ in range(10):
        reference.move(np.array([0.03, 0.03]), np.array([0.64, 0.0]))
    assert reference.position.tolist() == pytest.approx([0.65, 0.04])


def test_a_reference_that_was_not_started_says_so() -> None:
    reference = Reference(SPACE)
    assert not reference.started
    with pytest.raises(ValueError, match="not been started"):
        _ = reference.position


@pytest.mark.parametrize(
    ("low", "high", "lead"), [((0.0,), (1.0, 1.0), 0.1), ((1.0,), (1.0,), 0.1), ((0.0,), (1.0,), 0)]
)
def test_an_empty_workspace_is_refused(low: tuple, high: tuple, lead: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Workspace(low, high, lead)


def test_a_segment_is_straight_and_rests_at_its_end() -> None:
    segment = Segment(np.zeros(2), np.array([0.02, -0.01]), 5 * SECOND, 0.1)
    at = [segment.position(5 * SECOND + round(t * SECOND)) for t in (-1, 0.0, 0.05, 0.1, 9)]
    expected = [[0, 0], [0, 0], [0.01, -0.005], [0.02, -0.01], [0.02, -0.01]]
    np.testing.assert_allclose(at, expected)
    assert segment.velocity(5 * SECOND, 0.02).tolist() == pytest.approx([0.2, -0.1])
    assert segment.velocity(5 * SECOND + SECOND // 10, 0.02).tolist() == [0.0, 0.0]
    ticks = [5 * SECOND + round(i * 0.03 * SECOND) for i in range(6)]
    held = sum(0.03 * segment.velocity(tick, 0.03) for tick in ticks)
    np.testing.assert_allclose(held, [0.02, -0.01], atol=1e-9)
    assert not segment.over(5 * SECOND + SECOND // 5, grace=0.1)
    assert segment.over(5 * SECOND + SECOND // 5 + 1, grace=0.1)


class Desk:
    """Collects outcomes; `work` blocks on jobs that are gates."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.started = threading.Event()
        self.release = threading.Event()
        self.worker: Worker = Worker(self.work, self.outcomes.append)

    def work(self, job: object) -> object:
        self.started.set()
        if job == "hang":
            self.release.wait(5.0)
        if job == "fail":
            raise ValueError("no")
        return (job, "done")

    def wait(self, n: int) -> None:
        end = time.monotonic() + 5.0
        while len(self.outcomes) < n and time.monotonic() < end:
            time.sleep(0.002)
        assert len(self.outcomes) == n


def test_only_the_newest_waiting_job_runs() -> None:
    desk = Desk()
    desk.worker.submit("hang")
    assert desk.started.wait(5.0)
    for job in (1, 2, 3):
        desk.worker.submit(job)
    assert desk.worker.busy
    desk.release.set()
    desk.wait(2)
    assert [outcome.result[0] for outcome in desk.outcomes] == ["hang", 3]
    assert desk.worker.replaced == 2
    assert desk.worker.close()


def test_what_was_running_when_a_new_epoch_began_is_dropped() -> None:
    desk = Desk()
    desk.worker.submit("hang")
    assert desk.started.wait(5.0)
    desk.worker.submit("waiting")
    desk.worker.advance()
    desk.release.set()
    desk.worker.submit("new")
    desk.wait(1)
    assert desk.outcomes[0].result == ("new", "done")
    assert desk.outcomes[0].epoch == desk.worker.epoch
    assert desk.worker.stale == 1
    assert desk.worker.close()


def test_an_error_is_delivered_and_the_worker_goes_on() -> None:
    desk = Desk()
    desk.worker.submit("fail")
    desk.wait(1)
    assert isinstance(desk.outcomes[0].error, ValueError)
    desk.worker.submit(7)
    desk.wait(2)
    assert desk.outcomes[1].error is None
    assert desk.worker.close()


def test_a_worker_that_hangs_does_not_hold_up_the_end() -> None:
    desk = Desk()
    desk.worker.submit("hang")
    assert desk.started.wait(5.0)
    begin = time.monotonic()
    assert not desk.worker.close(timeout=0.1)
    assert time.monotonic() - begin < 2.0
    desk.release.set()
    assert desk.worker.close(timeout=5.0)
    assert desk.outcomes == []
