"""Routes through forecasts: files are read or refused, and costs are those of the arithmetic."""

import json

import numpy as np
import pytest

from decisive.forecast_route import FORMAT, Costs, Point, chances_along, read_route, weigh

SHAPE, ORIGIN, CELL = (10, 20), (1000.0, 9000.0), 100.0
LEADS = [0.0, 300.0, 600.0, 900.0, 1200.0]


def maps(values: list[float]) -> np.ndarray:
    return np.stack([np.full(SHAPE, value, np.float32) for value in values])


def written(tmp_path, text: str, name: str = "way.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_rows_and_columns_are_read(tmp_path):
    path = written(tmp_path, "row,column,minutes\n1,2,0\n3.5,4,10\n")
    assert read_route(path, SHAPE, ORIGIN, CELL) == [Point(1, 2, 0), Point(3.5, 4, 10)]


def test_the_example_of_the_format_is_a_route(tmp_path):
    text = FORMAT.split("For example:\n")[1].replace("  ", "")
    assert len(read_route(written(tmp_path, text), (300, 300), ORIGIN, CELL)) == 3


def test_metres_become_cells_northern_row_first(tmp_path):
    rows = [{"x": 1000.0, "y": 9000.0, "minutes": 0}, {"x": 1250.0, "y": 8500.0, "minutes": 5}]
    path = written(tmp_path, json.dumps(rows), "way.json")
    assert read_route(path, SHAPE, ORIGIN, CELL) == [Point(0, 0, 0), Point(5.0, 2.5, 5)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "2 to"),
        ("row,column,minutes\n1,2,0\n", "2 to"),
        ("row,minutes\n1,0\n2,5\n", "point 1 needs minutes, and x and y or row and column"),
        ("row,column,minutes\n1,2,0\n1,x,5\n", "column of point 2 must be a number, got 'x'"),
        ("row,column,minutes\n1,2,0\n1,nan,5\n", "must be a number"),
        ("row,column,minutes\n1,2,5\n1,3,5\n", "point 2 is reached no later"),
        ("row,column,minutes\n1,2,-5\n1,3,5\n", "too early"),
        ("row,column,minutes\n1,2,0\n1,30,5\n", "point 2 lies at row 1, column 30, outside"),
    ],
)
def test_what_is_no_route_is_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as error:
        read_route(written(tmp_path, text), SHAPE, ORIGIN, CELL)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "3", "[1, 2]", '{"row": 1}'])
def test_json_that_is_no_route_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="JSON"):
        read_route(written(tmp_path, text, "way.json"), SHAPE, ORIGIN, CELL)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "way.csv"
    path.write_bytes(b"\xff\xfe\x00row")
    with pytest.raises(ValueError, match="neither CSV nor JSON"):
        read_route(path, SHAPE, ORIGIN, CELL)


def test_chances_are_linear_between_lead_times():
    points = [Point(0, 0, 0), Point(0, 1, 2.5), Point(0, 2, 10)]
    found = chances_along(points, 0, LEADS, maps([0, 0.4, 0.8, 1, 1]))
    assert found == pytest.approx([0, 0.2, 0.8])
    assert chances_along(points, 2.5, LEADS, maps([0, 0.4, 0.8, 1, 1])) == pytest.approx(
        [0.2, 0.4, 0.9]
    )


def test_the_cost_of_going_is_the_minutes_in_the_rain():
    # A chance of a half all the way, 10 minutes long: 5 minutes wet.
    points = [Point(0, 0, 0), Point(0, 5, 10)]
    found = weigh(points, LEADS, maps([0.5] * 5), Costs(wet=2.0, wait=0.1, back=50.0), 5.0)
    go = found["options"][0]
    assert go["wet_minutes"] == pytest.approx(5)
    assert go["cost"] == pytest.approx(10)
    assert go["arithmetic"] == "0.1 x 0 min waiting + 2 x 5.00 min wet = 10.00"
    assert go["any_rain"] == pytest.approx([0.5, 0.75])
    assert found["advice"] == "go"


def test_rain_that_passes_is_waited_for():
    points = [Point(0, 0, 0), Point(0, 5, 5)]
    found = weigh(points, LEADS, maps([1, 1, 0, 0, 0]), Costs(wait=0.1), 5.0)
    # Going now: 5 wet minutes. After 10: dry, and 1 of waiting.
    assert found["options"][0]["cost"] == pytest.approx(5)
    assert (found["advice"], found["wait_minutes"]) == ("wait", 10.0)
    assert found["options"][2]["cost"] == pytest.approx(1)
    # The last start still arrives within the forecast.
    assert [o.get("wait_minutes") for o in found["options"]] == [0.0, 5.0, 10.0, 15.0, None]


def test_where_it_rains_for_long_one_returns():
    points = [Point(0, 0, 0), Point(0, 5, 15)]
    found = weigh(points, LEADS, maps([1] * 5), Costs(back=3.0), 5.0)
    assert found["advice"] == "return"
    assert found["wait_minutes"] is None


def test_routes_beyond_the_forecast_are_refused():
    points = [Point(0, 0, 0), Point(0, 5, 30)]
    with pytest.raises(ValueError, match="ends 30 minutes ahead, the forecast 20"):
        weigh(points, LEADS, maps([0] * 5), Costs(), 5.0)


def test_unknown_places_are_refused():
    unknown = maps([np.nan] * 5)
    with pytest.raises(ValueError, match="nothing is known of the rain at point 1"):
        weigh([Point(0, 0, 0), Point(0, 5, 5)], LEADS, unknown, Costs(), 5.0)


@pytest.mark.parametrize("changes", [{"wet": -1.0}, {"wait": float("nan")}, {"back": -0.1}])
def test_negative_costs_are_refused(changes):
    with pytest.raises(ValueError, match="cost of"):
        Costs(**changes)
