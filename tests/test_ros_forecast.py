"""The node `forecast`: grids in, grids of what will be out, and that no grid ends it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from rclpy.context import Context
from rclpy.parameter import Parameter
from ros_cases import Sink, contexts, until
from std_srvs.srv import Trigger

from ros_nodes import messages
from ros_nodes.demo import isolated
from ros_nodes.forecast import ForecastNode, check_leads, topic_of
from ros_nodes.graph import find_graph
from ros_nodes.grid_messages import Geometry, grid_message, read_grid
from ros_nodes.grid_past import GridPast, as_sequence
from ros_nodes.operator import Operator
from ros_nodes.processes import running
from ros_nodes.running import LATCHED, RELIABLE
from world_models.metnet2.baselines import constant_velocity
from world_models.metnet2.config import size
from world_models.metnet2.forecaster import Forecaster
from world_models.metnet2.model import MetNet2, save_forecaster
from world_models.metnet2.scores import exceedance

pytestmark = pytest.mark.ros
PLACE = Geometry("map", 0.1, 20, 30, (1.0, -2.0, 0.0, 0.0, 0.0, 0.0, 1.0))
SECOND = 1_000_000_000
STEP = SECOND // 10


def frames(n: int, geometry: Geometry = PLACE, right: int = 1) -> np.ndarray:
    """`(n, H, W)`: a square of four cells a side that moves to the right, one cell a frame."""
    found = np.zeros((n, geometry.rows, geometry.columns), np.float32)
    for k, frame in enumerate(found):
        frame[6:10, 3 + right * k : 7 + right * k] = 1
    return found


# Messages.


def test_rows_of_a_message_begin_at_its_origin():
    message = grid_message(frames(1)[0], PLACE, Time(sec=1), Time(sec=2))
    values = np.array(message.data).reshape(20, 30)
    assert values[20 - 10 : 20 - 6, 3:7].min() == 100
    assert values.sum() == 1600
    assert (message.info.width, message.info.height) == (30, 20)
    assert message.info.origin.position.y == -2.0
    assert (message.header.stamp.sec, message.info.map_load_time.sec) == (1, 2)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_grid_survives_its_message(rows, columns, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 101, (rows, columns)).astype(np.float32) / 100
    values[rng.random((rows, columns)) < 0.2] = np.nan
    geometry = PLACE._replace(rows=rows, columns=columns)
    read, found = read_grid(grid_message(values, geometry, Time(), Time()))
    np.testing.assert_allclose(read, values, atol=1e-6)
    assert found.same(geometry)


def spoiled(**changes: Any) -> OccupancyGrid:
    message = grid_message(frames(1)[0], PLACE, Time(), Time())
    for name, value in changes.items():
        if name == "data":
            message.data = value
        elif name == "x":
            message.info.origin.position.x = value
        else:
            setattr(message.info, name, value)
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "1 to 4000000 cells"),
        ({"width": 4_000_000_000, "height": 4_000_000_000}, "1 to 4000000 cells"),
        ({"width": 31}, "need as many values"),
        ({"data": [101] * 600}, "values must be -1 to 100"),
        ({"data": [-2] * 600}, "values must be -1 to 100"),
        ({"resolution": 0.0}, "must be finite"),
        ({"resolution": float("nan")}, "must be finite"),
        ({"x": float("inf")}, "must be finite"),
    ],
)
def test_a_malformed_grid_is_refused_in_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_grid(spoiled(**changes))
    assert "\n" not in str(caught.value)


def test_a_forecast_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="20 x 30 cells"):
        grid_message(np.zeros((3, 3)), PLACE, Time(), Time())


@pytest.mark.parametrize(
    "changes",
    [{"frame": "odom"}, {"cell": 0.2}, {"rows": 21}, {"pose": (1.1, *PLACE.pose[1:])}],
)
def test_a_grid_elsewhere_is_not_the_same(changes):
    assert PLACE.same(PLACE._replace(cell=0.1 + 1e-9))
    assert not PLACE.same(PLACE._replace(**changes))


# The past.


@settings(max_examples=60, deadline=None)
@given(
    jitter=st.lists(st.floats(-0.25, 0.25), min_size=5, max_size=30),
    every=st.sampled_from([0.05, 0.1, 0.1, 0.02]),
)
def test_what_is_picked_lies_whole_steps_back(jitter, every):
    past = GridPast(4, 0.1, tolerance=0.3)
    stamps = [round((k * every + j * min(every, 0.1)) * SECOND) for k, j in enumerate(jitter)]
    for stamp in stamps:
        if past.newest is None or stamp > past.newest:
            past.add(stamp, np.zeros((1, 1), np.float32))
    picked = past.pick()
    if picked is None:
        return
    newest = picked[-1][0]
    assert newest == past.newest
    for back, (stamp, _) in enumerate(reversed(picked)):
        assert abs(newest - stamp - back * STEP) <= 0.3 * STEP
    assert len(past) <= 4 * round(0.1 / every) + 3


def test_a_missing_frame_is_waited_out():
    past = GridPast(3, 0.1)
    for k in (0, 1, 3, 4):
        past.add(k * STEP, np.full((1, 1), k, np.float32))
    assert past.pick() is None
    past.add(5 * STEP, np.full((1, 1), 5, np.float32))
    picked = past.pick()
    assert picked is not None
    assert [int(values[0, 0]) for _, values in picked] == [3, 4, 5]


def test_a_repeated_or_late_frame_is_refused():
    past = GridPast(2, 0.1)
    past.add(STEP, np.zeros((1, 1), np.float32))
    for stamp in (STEP, STEP - 1):
        with pytest.raises(ValueError, match="older than the newest one, or it again"):
            past.add(stamp, np.zeros((1, 1), np.float32))


def test_a_channel_that_no_grid_tells_is_refused():
    picked = [(0, np.zeros((2, 2), np.float32))]
    with pytest.raises(ValueError, match="wants a channel 'rain_rate'"):
        as_sequence(picked, 0.1, 0.1, None, ("rain_rate",))


@pytest.mark.parametrize("leads", [[], [0.0], [1.0, 1.0], [2.0, 1.0], [0.1] * 40, [float("nan")]])
def test_leads_that_are_none_are_refused(leads):
    with pytest.raises(ValueError, match="leads must be 1 to 32"):
        check_leads(leads)


def test_topics_name_milliseconds():
    assert topic_of(0.5) == "forecast/ahead_500ms"
    assert topic_of(3.0) == "forecast/ahead_3000ms"


# The node, alone.


@pytest.fixture
def context() -> Iterator[Context]:
    yield from contexts(58)


class Cell:
    """A node whose output is kept."""

    def __init__(self, context: Context, **changes: Any) -> None:
        given = {"max_age": 100.0, "leads": [0.2, 1.0], "spread": 0.0, **changes}
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        self.node = ForecastNode(context=context, parameter_overrides=overrides)
        self.out = {lead: Sink() for lead in self.node._out}
        self.node._out.update(self.out)
        self.diagnostics = self.node._diagnostics = Sink()  # type: ignore[assignment]
        self.begin = self.node.get_clock().now().nanoseconds - 20 * SECOND
        self._grid = self.node._guarded(self.node._on_grid)
        self._map = self.node._guarded(self.node._on_map)

    @property
    def counts(self) -> dict[str, int]:
        return self.node._counts

    def see(self, values: np.ndarray, k: int, geometry: Geometry = PLACE) -> int:
        stamp = self.begin + k * STEP
        self._grid(grid_message(values, geometry, messages.stamp_of(stamp), Time()))
        return stamp

    def see_map(self, values: np.ndarray, geometry: Geometry = PLACE) -> None:
        self._map(grid_message(values, geometry, Time(), Time()))

    def close(self) -> None:
        self.node.finish()
        self.node.destroy_node()


@pytest.fixture
def cell(context: Context) -> Iterator[Cell]:
    made = Cell(context)
    yield made
    made.close()


def test_every_lead_is_said_under_the_stamp_of_the_newest_grid(cell):
    shown = frames(8)
    for k in range(6):
        stamp = cell.see(shown[k], k)
    until(lambda: all(sink.messages for sink in cell.out.values()))
    for lead, sink in cell.out.items():
        (said,) = sink.messages
        assert messages.nanoseconds(said.header.stamp) == stamp
        assert messages.nanoseconds(said.info.map_load_time) == stamp + round(lead * SECOND)
        assert said.header.frame_id == "map"
    values, geometry = read_grid(cell.out[0.2].messages[0])
    assert geometry.same(PLACE)
    np.testing.assert_allclose(values, frames(8)[7], atol=0.011)  # two frames on, two cells on


def test_it_waits_for_as_many_frames_as_it_needs(cell):
    for k in range(5):
        cell.see(frames(6)[k], k)
    assert cell.counts["incomplete"] == 5
    cell.see(frames(6)[5], 5)
    until(lambda: cell.counts["answered"])


def test_frames_that_are_repeated_late_stale_or_malformed_are_counted_and_dropped(cell):
    shown = frames(8)
    for k in (0, 1, 1, 0):
        cell.see(shown[k], k)
    assert cell.counts["late"] == 2
    cell.see(shown[2], -2000)
    cell.see(shown[2], 5000)
    assert cell.counts["stale"] == 2
    cell._grid(spoiled(width=31))
    assert cell.counts["malformed"] == 1
    for k in range(2, 6):
        cell.see(shown[k], k)
    until(lambda: cell.counts["answered"] == 1)


def test_a_grid_that_changes_is_refused_until_a_reset(cell):
    shown = frames(20)
    for k in range(3):
        cell.see(shown[k], k)
    elsewhere = PLACE._replace(pose=(9.0, *PLACE.pose[1:]))
    cell.see(shown[3], 3, elsewhere)
    assert cell.counts["changed"] == 1
    response = cell.node._on_reset(Trigger.Request(), Trigger.Response())
    assert response.success
    for k in range(4, 10):
        cell.see(shown[k], k, elsewhere)
    until(lambda: cell.counts["answered"])
    assert read_grid(cell.out[1.0].messages[0])[1].pose[0] == 9.0


def test_unknown_cells_stay_unknown(cell):
    for k, frame in enumerate(frames(6)):
        frame[15:, 20:] = np.nan
        cell.see(frame, k)
    until(lambda: cell.out[1.0].messages)
    values = np.array(cell.out[1.0].messages[0].data).reshape(20, 30)[::-1]
    assert (values[15:, 20:] == -1).all()
    assert (values == -1).sum() == 50


def test_diagnostics_tell_counts_and_times(cell):
    for k, frame in enumerate(frames(6)):
        cell.see(frame, k)
    until(lambda: cell.counts["answered"])
    cell.node._report()
    (status,) = cell.diagnostics.messages[-1].status
    facts = {pair.key: pair.value for pair in status.values}
    assert status.level == DiagnosticStatus.OK
    assert facts["model"] == "constant-velocity"
    assert (facts["grids"], facts["answered"], facts["map"]) == ("6", "1", "none")
    assert float(facts["ms p50"]) > 0
    assert float(facts["age ms p95"]) > 0
    cell.node._report()
    assert cell.diagnostics.messages[-1].status[0].level == DiagnosticStatus.WARN


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": ""}, "name a model"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"leads": [1.0, 0.5]}, "leads must be"),
    ],
)
def test_a_node_that_cannot_forecast_does_not_start(context, changes, words):
    with pytest.raises(ValueError, match=words):
        Cell(context, **changes)


# With a trained model's form.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of occupancy, as it is initialised: what it says is no good, but its own."""
    torch.manual_seed(0)
    config = replace(
        size("occupancy"), n_frames=3, lstm_width=4, width=8, lead_width=8, fine_width=4,
        head_width=8, shared_dilations=(1,), lead_dilations=(1, 2), context=32, target=16,
    )  # fmt: skip
    network = MetNet2(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("models") / "occupancy"
    save_forecaster(network, folder)
    return folder


def direct(model: Path, shown: np.ndarray, static: np.ndarray, leads: list[float]) -> np.ndarray:
    """What the model says when nothing is between."""
    picked = [(k, frame) for k, frame in enumerate(shown)]
    forecaster = Forecaster.load(model)
    channels = (*forecaster.config.channels, *forecaster.config.still)
    sequence = as_sequence(picked, 0.1, 0.1, static, channels)
    found = forecaster.forecast(sequence, leads)
    return exceedance(found.probabilities, found.edges, 0.5)


def test_a_model_sees_the_map(context, model):
    cell = Cell(context, model=str(model), leads=[0.5, 1.0])
    try:
        walls = np.zeros((20, 30), np.float32)
        walls[:, 15] = 1
        shown = frames(6)
        for k in range(3):
            cell.see(shown[k], k)
        until(lambda: cell.counts["answered"] == 1)
        cell.see_map(walls)
        cell.see_map(walls[:10], PLACE._replace(rows=10))  # of other cells: left alone
        assert cell.counts["changed"] == 1
        cell.see_map(walls)
        cell.see(shown[3], 3)
        until(lambda: cell.counts["answered"] == 2)
        for sink, k, static in ((cell.out, 0, 0 * walls), (cell.out, 1, walls)):
            expected = direct(model, shown[k : k + 3], static, [0.5, 1.0])
            for lead, one in zip((0.5, 1.0), expected, strict=True):
                found = read_grid(sink[lead].messages[k])[0]
                np.testing.assert_allclose(found, one, atol=0.0051)
        apart = read_grid(cell.out[0.5].messages[0])[0] - read_grid(cell.out[0.5].messages[1])[0]
        assert np.abs(apart).max() > 0.02
    finally:
        cell.close()


def test_a_model_of_rain_is_refused(context, tmp_path):
    torch.manual_seed(0)
    config = replace(
        size("small"), lstm_width=4, width=8, lead_width=8, fine_width=4, head_width=8,
        shared_dilations=(1,), lead_dilations=(1,), context=64, target=32,
    )  # fmt: skip
    save_forecaster(MetNet2(config), tmp_path / "rain")
    with pytest.raises(ValueError, match="forecasts 'rain_rate', not occupancy"):
        Cell(context, model=str(tmp_path / "rain"))


# Through real DDS.


class Watch:
    """Publishes grids that move, ten a second, and keeps what comes back."""

    def __init__(self, operator: Operator, leads: tuple[float, ...]) -> None:
        node = operator.node
        self.operator = operator
        self.said: dict[float, dict[int, OccupancyGrid]] = {lead: {} for lead in leads}
        self.sent: list[tuple[int, np.ndarray]] = []
        self.reports: list[DiagnosticArray] = []
        self._grids = node.create_publisher(OccupancyGrid, "occupancy", RELIABLE)
        self._walls = node.create_publisher(OccupancyGrid, "map", LATCHED)
        for lead in leads:
            node.create_subscription(OccupancyGrid, topic_of(lead), self._keeper(lead), RELIABLE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self.reports.append, RELIABLE)

    def _keeper(self, lead: float) -> Callable[[OccupancyGrid], None]:
        def keep(message: OccupancyGrid) -> None:
            self.said[lead][messages.nanoseconds(message.header.stamp)] = message

        return keep

    def heard(self) -> bool:
        """Whether the node listens, and says that it has the map."""
        facts = {
            pair.key: pair.value for report in self.reports for pair in report.status[0].values
        }
        return bool(self._grids.get_subscription_count()) and facts.get("map", "none") != "none"

    def walls(self, values: np.ndarray) -> None:
        self._walls.publish(grid_message(values, PLACE, Time(), Time()))

    def drive(self, seconds: float, enough: Callable[[], Any]) -> None:
        """Send the next grid every 0.1 s until there is enough."""
        end, due, k = time.monotonic() + seconds, time.monotonic(), 0
        stamp = self.operator.node.get_clock().now().nanoseconds
        while not enough():
            assert time.monotonic() < end, "no forecasts came"
            now = self.operator.node.get_clock().now().nanoseconds
            stamp = max(stamp + STEP, now - now % STEP)
            values = frames(1, right=0)[0]
            values = np.roll(values, k % 20, axis=1)
            self.sent.append((stamp, values))
            self._grids.publish(grid_message(values, PLACE, messages.stamp_of(stamp), Time()))
            k, due = k + 1, due + 0.1
            self.operator.rest(max(due - time.monotonic(), 0.0))


@pytest.mark.parametrize("trained", [False, True])
def test_grids_are_forecast_through_dds(trained, model, tmp_path):
    leads = (0.5, 1.0)
    overrides = {
        "forecast.leads": list(leads), "forecast.max_age": 5.0, "forecast.future": 1.0,
        "forecast.spread": 0.0,
    }  # fmt: skip
    if trained:
        overrides["forecast.model"] = str(model)
    walls = np.zeros((20, 30), np.float32)
    walls[0] = 1
    graph = find_graph("occupancy_forecast")
    with isolated(), running(graph, overrides, tmp_path) as processes:
        operator = Operator(check=processes.check)
        try:
            watch = Watch(operator, leads)
            watch.walls(walls)
            operator.spin_until(watch.heard, 90.0, "the node and its map")
            watch.drive(60.0, lambda: all(len(found) >= 3 for found in watch.said.values()))
        finally:
            operator.close()
        assert set(processes.stop().values()) == {0}
    stamps = [stamp for stamp, _ in watch.sent]
    for stamp in set.intersection(*(set(found) for found in watch.said.values())):
        newest = stamps.index(stamp)
        n = 3 if trained else 6
        shown = np.stack([values for _, values in watch.sent[newest - n + 1 : newest + 1]])
        if trained:
            expected = direct(model, shown, walls, list(leads))
        else:
            picked = [(k, frame) for k, frame in enumerate(shown)]
            past = as_sequence(picked, 0.1, 0.1, None, ("occupancy",))
            expected = constant_velocity(past, leads)
        for lead, one in zip(leads, expected, strict=True):
            found = read_grid(watch.said[lead][stamp])[0]
            np.testing.assert_allclose(found, one, atol=0.0051)
