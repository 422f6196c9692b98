"""The rain benchmark: moments, scores that add up, tables, and the peer's process."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import radar_cases
import torch
from radar_cases import REAL, START, STEP

from decisive.benchmarks import forecast, forecast_moments, forecast_report
from decisive.benchmarks.forecast_moments import Event, find_event, moments, read_cases
from decisive.benchmarks.forecast_peers import Peer
from decisive.benchmarks.forecast_picture import picture
from decisive.benchmarks.forecast_report import Cells
from decisive.benchmarks.forecast_scoring import LEVELS, Binned, Ensemble, score
from decisive.cli import main
from learning.radar import read_event
from world_models.metnet2.config import size
from world_models.metnet2.forecaster import Forecaster
from world_models.metnet2.model import MetNet2, save_forecaster
from world_models.metnet2.scores import crps, csi

EVENT = Event("small", "small", 16, "center", (5, 10, 15), 15, every=10)
PEER = """
import json, os, sys
import numpy as np
MODE = os.environ.get("PEER_MODE", "good")
for line in sys.stdin:
    asked = json.loads(line)
    if asked["ask"] == "version":
        answer = {"pysteps": "0"}
    elif MODE == "dies":
        print("no memory", file=sys.stderr)
        sys.exit(3)
    elif MODE == "fails":
        answer = {"error": "ValueError: too dry"}
    else:
        rain = np.load(asked["frames"])
        n = asked["members"] if asked["method"] == "steps" else 1
        found = np.broadcast_to(rain[-1], (n, asked["leads"], *rain[-1].shape))
        np.save(asked["out"], found.astype(np.float16))
        answer = {"seconds": 1.5}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def radar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An event of twelve frames, 18 x 20 cells, whose rain moves."""
    folder = tmp_path / "radar" / "small"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    wide = rng.integers(60, 130, (18, 40), dtype=np.uint8)
    for k in range(12):
        radar_cases.write_fmi(folder, START + k * STEP, wide[:, 12 - k : 32 - k])
    monkeypatch.setitem(forecast_moments.EVENTS, "small", EVENT)
    return folder.parent


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A peer that answers as pysteps' side does, with what is there now."""
    script = tmp_path / "peer.py"
    script.write_text(PEER)
    monkeypatch.setattr("decisive.benchmarks.forecast_peers.SCRIPT", script)
    return sys.executable


# Moments.


def test_moments_have_past_and_truth(radar):
    # 23:50 to 00:45: at 00:10, 00:20 and 00:30 there are 15 minutes before and after.
    found = moments(EVENT, radar / "small")
    assert [(m.time - START) // 60 for m in found] == [20, 30, 40]
    assert [m.name for m in found] == ["small-0010", "small-0020", "small-0030"]
    assert found[0].crop == (1, 2, 16, 16)


def test_cases_hold_what_was_and_what_came(radar):
    sequence = read_event(radar / "small", crop=(1, 2, 16, 16))
    case = read_cases(EVENT, radar / "small")[1]
    now = sequence.index_of(case.moment.time)
    assert case.past.times.tolist() == sequence.times[now - 3 : now + 1].tolist()
    np.testing.assert_array_equal(case.truth, sequence.quantity[now + 1 : now + 4])


def test_a_missing_frame_takes_its_moments_away(radar):
    files = sorted((radar / "small").iterdir())
    files[7].unlink()  # 00:25 is truth of two moments
    assert [m.name for m in moments(EVENT, radar / "small")] == ["small-0030"]
    for path in files[:6]:
        path.unlink()
    with pytest.raises(ValueError, match="no moment has 15 minutes of past"):
        moments(EVENT, radar / "small")


def test_the_wettest_square_has_most_wet_cells(tmp_path):
    folder = tmp_path / "wet"
    folder.mkdir()
    pixels = np.zeros((8, 12), np.uint8)
    pixels[0, 0] = 250  # much rain in one cell
    pixels[4:, 8:] = 90
    for k in range(3):
        radar_cases.write_fmi(folder, START + k * STEP, pixels)
    event = Event("wet", "wet", 4, "wettest", (5,), 5, every=5)
    assert moments(event, folder)[0].crop == (4, 8, 4, 4)


@pytest.mark.data
def test_published_moment_is_among_those_of_the_test_event():
    if not REAL.is_dir():
        pytest.skip("no radar data: set DECISIVE_DATA")
    found = moments(find_event("fmi"), REAL / "fmi" / "20160928")
    assert [m.name for m in found] == ["fmi-1600", "fmi-1630", "fmi-1700"]
    assert found[0].crop == (357, 124, 512, 512)


@pytest.mark.data
def test_persistence_scores_what_was_published():
    # Measured before, with pysteps, on this event at 16:00: 0.201, 0.311 and 0.370 mm/h over a
    # mask of its own that left 5 % of the cells out.
    if not REAL.is_dir():
        pytest.skip("no radar data: set DECISIVE_DATA")
    event = find_event("fmi")
    case = read_cases(event, REAL / "fmi" / "20160928")[0]
    told = score(forecast._persist(case)[0], case.truth, event.leads)
    assert told["crps"][0] == pytest.approx(0.201, abs=0.002)
    assert told["crps"][5] == pytest.approx(0.311, abs=0.012)
    assert told["crps"][11] == pytest.approx(0.370, abs=0.012)


# Scores.


def truth(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.gamma(0.5, 2, (2, 30, 30)).astype(np.float32)
    found[:, 0, :5] = np.nan
    return found


def test_an_ensemble_and_the_bins_of_its_members_score_alike():
    observed = truth()
    edges = np.concatenate([[0.0], np.linspace(0.01, 60, 6000)])
    members = np.random.default_rng(1).gamma(0.5, 2, (4, 2, 30, 30)).astype(np.float32)
    p = np.zeros((2, 6000, 30, 30), np.float32)
    place = np.clip(np.searchsorted(edges, members, side="right") - 1, 0, 5999)
    for one in place:
        for lead in range(2):
            rows, columns = np.indices((30, 30))
            p[lead, one[lead], rows, columns] += 0.25
    a, b = score(Ensemble(members), observed, (5, 10)), score(Binned(p, edges), observed, (5, 10))
    np.testing.assert_allclose(a["crps"], b["crps"], atol=0.01)
    np.testing.assert_allclose(a["brier"]["1"], b["brier"]["1"], atol=0.01)
    assert a["known"] == b["known"] == [895, 895]


def test_what_is_not_said_is_dry():
    observed = truth()
    silent = np.full((3, 2, 30, 30), np.nan, np.float16)
    dry = score(Ensemble(np.zeros((1, 2, 30, 30), np.float32)), observed, (5, 10))
    assert score(Ensemble(silent), observed, (5, 10))["crps"] == dry["crps"]
    assert Ensemble(silent).silent() == 1.0
    bins = Binned(np.full((2, 3, 30, 30), np.nan, np.float32), np.array([0.0, 0.1, 1.0, 50.0]))
    told = score(bins, observed, (5, 10))
    np.testing.assert_allclose(told["crps"], dry["crps"], rtol=1e-5)
    assert bins.silent() == 1.0


def test_counts_give_the_csi_of_every_decision():
    observed = truth()
    members = np.random.default_rng(1).gamma(0.5, 2, (10, 2, 30, 30)).astype(np.float32)
    told = score(Ensemble(members), observed, (5, 10))
    ensemble = Ensemble(members)
    place = int(np.argmin(np.abs(LEVELS - 0.4)))
    said, hits = (told[name]["1"][1][place] for name in ("said", "hits"))
    event = np.where(np.isnan(observed[1]), np.nan, observed[1] >= 1)
    expected = csi(ensemble.probability(1, 1.0), event, float(LEVELS[place]))
    assert hits / (said + told["happened"]["1"][1] - hits) == pytest.approx(expected)


# Tables.


def cells(factor: float = 0.5, seeds: int = 2) -> Cells:
    """Results whose model errs `factor` times as much as STEPS."""
    names = ["fmi-1600", "fmi-1630", "fmi-1700"]
    found = Cells("Ours", names)
    for k, moment in enumerate(names):
        observed = truth(k)
        noise = np.random.default_rng(k).gamma(0.5, 2, (5, 2, 30, 30)).astype(np.float32)
        told = score(Ensemble(noise), observed, (5, 30))
        steps = {**told, "plan": {"members": 5}, "cpu_seconds": 30.0}
        found.put("steps", moment, steps)
        for seed in range(seeds):
            better = [factor * value for value in told["crps"]]
            ours = {**told, "crps": better, "plan": {}, "cpu_seconds": 2.0}
            found.put(f"model-{seed}", moment, ours)
    return found


def test_table_has_a_row_a_method_and_says_what_was_not_run():
    header, rows = forecast_report.table(cells())
    by_name = {row[1]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_name["S-PROG (pysteps)"]["CRPS: first lead"] == "not run"
    assert by_name["STEPS (pysteps), 5 members"]["of STEPS"] == "1"
    assert by_name["Ours, 2 seeds"]["of STEPS"] == "15.0 times cheaper"
    ours, theirs = (
        float(by_name[name]["CRPS: first lead"].split()[0])
        for name in ("Ours, 2 seeds", "STEPS (pysteps), 5 members")
    )
    assert ours == pytest.approx(theirs / 2, abs=0.001)


def test_differences_are_paired_by_moment():
    lines = forecast_report.differences(cells(0.9), "fmi")
    assert lines[2].startswith("| +5 | -")
    assert lines[2].endswith("| -10.0 |")  # the same at every moment: no interval


def test_interval_covers_the_mean_and_leaves_out_what_was_not_run():
    values = np.array([[1.0, 2.0, 3.0, np.nan], [1.0, 2.0, 3.0, 4.0]])
    mean, low, high = forecast_report.interval(values)
    assert mean == 2.0
    assert 1.0 <= low < 2.0 < high <= 3.0
    assert forecast_report.interval(np.full((1, 2), np.nan)) is None


def test_csi_is_decided_by_the_other_moments():
    found = cells()
    values = forecast_report.csi(found, "steps", "fmi", 0, "1")
    assert values.shape == (1, 3)
    told = found.results["steps", "fmi-1600"]
    own = np.array(told["hits"]["1"][0]) / (
        np.array(told["said"]["1"][0]) + told["happened"]["1"][0] - np.array(told["hits"]["1"][0])
    )
    assert values[0, 0] in own
    assert values[0, 0] <= own.max()


def test_page_and_picture_are_written(tmp_path):
    forecast_report.write(cells(), "decisive benchmark forecast", tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| Ours, 2 seeds |" in page
    assert "The model and STEPS at the same moments" in page
    assert (tmp_path / "fmi.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "results.json").read_text())["rows"]
    assert picture(Cells("Ours", ["fmi-1600"]), "fmi") == b""


# The command.


def run(radar: Path, out: Path, *words: str) -> int:
    return main(
        ["benchmark", "forecast", "--events", "small", "--data", str(radar), "--out", str(out),
         *words]
    )  # fmt: skip


def test_benchmark_without_a_peer_scores_persistence_alone(radar, tmp_path, capsys):
    assert run(radar, tmp_path / "out", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    names = {row[1]: row for row in told["rows"]}
    assert names["persistence"][2] != "not run"
    assert names["STEPS (pysteps)"][2] == "not run"
    assert len(list((tmp_path / "out").glob("small-*-persistence.json"))) == 3


def test_benchmark_asks_the_peer_once_and_keeps_what_it_said(radar, peer, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--peer-python", peer, "--members", "3", "--json")
    assert run(radar, out, *words) == 0
    told = json.loads(capsys.readouterr().out)
    row = next(row for row in told["rows"] if row[1] == "STEPS (pysteps), 3 members")
    persistence = next(row for row in told["rows"] if row[1] == "persistence")
    assert row[2:5] == persistence[2:5]  # this peer says what is there now
    page = (out / "README.md").read_text()
    assert "--peer-python PYTHON" in page
    assert peer not in page
    assert row[7] == "1.50"
    times = {path: path.stat().st_mtime_ns for path in out.glob("small-*.json")}
    assert run(radar, out, *words) == 0
    assert times == {path: path.stat().st_mtime_ns for path in out.glob("small-*.json")}
    capsys.readouterr()
    assert run(radar, out, "--json") == 0  # without the peer its cells are still in the table
    assert json.loads(capsys.readouterr().out)["rows"] == told["rows"]


def test_benchmark_scores_models_as_seeds_of_one_row(radar, tmp_path, capsys):
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        config = replace(
            size("small"), lstm_width=4, width=8, lead_width=8, fine_width=4, head_width=8,
            shared_dilations=(1,), lead_dilations=(1,), context=64, target=32,
        )  # fmt: skip
        folders.append(str(tmp_path / f"model-{seed}"))
        save_forecaster(MetNet2(config), folders[-1])
    words = [word for folder in folders for word in ("--model", folder)]
    assert run(radar, tmp_path / "out", *words, "--label", "Ours", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (row,) = (row for row in told["rows"] if row[1] == "Ours, 2 seeds")
    assert 0 < float(row[2].split()[0]) < 50
    assert float(row[7]) > 0
    with open(tmp_path / "out" / "small-0010-model-1.json") as file:
        result = json.load(file)
    event = find_event("small")
    case = read_cases(event, radar / "small")[0]
    found = Forecaster.load(folders[1]).forecast(case.past, [60.0 * lead for lead in event.leads])
    expected = crps(found.probabilities, found.edges, case.truth)
    np.testing.assert_allclose(result["crps"], expected.mean(axis=(1, 2)), rtol=1e-5)
    assert run(radar, tmp_path / "out", "--model", str(tmp_path / "none")) == 2
    assert "none" in capsys.readouterr().err


def test_cells_of_other_settings_are_not_taken_for_these(radar, peer, tmp_path, capsys):
    words = ("--peer-python", peer, "--members")
    assert run(radar, tmp_path / "out", *words, "3") == 0
    assert run(radar, tmp_path / "out", *words, "4") == 2
    assert "of other settings (members)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "words"), [("dies", "the peer ended: no memory"), ("fails", "too dry")]
)
def test_a_peer_that_fails_is_one_line(mode, words, radar, peer, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PEER_MODE", mode)
    assert run(radar, tmp_path / "out", "--peer-python", peer) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1]


def test_a_python_without_pysteps_or_none_at_all_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        Peer(str(tmp_path / "python"))
    with pytest.raises(ValueError, match=r"the peer ended: .*pysteps"):
        Peer(sys.executable)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--members", "1"), "2..1000"),
        (("--model", "a", "--model", "a"), "they are seeds"),
        (("--world", "occupancy"), "needs --data"),
        (("--events", "moon"), "unknown event 'moon'"),
        (("--seed", "-1"), "must not be negative"),
    ],
)
def test_words_that_cannot_run_are_refused(words, said, tmp_path, capsys):
    assert main(["benchmark", "forecast", "--out", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    "DECISIVE_PYSTEPS" not in os.environ, reason="name pysteps' Python in DECISIVE_PYSTEPS"
)
def test_pysteps_itself_forecasts_what_moves(tmp_path):
    # A blob that moves two cells a step to the right, over 96 x 96 cells.
    rows, columns = np.indices((96, 96))
    frames = [
        20 * np.exp(-((columns - 20 - 2 * k) ** 2 + (rows - 48) ** 2) / 80.0) for k in range(3)
    ]
    peer = Peer(os.environ["DECISIVE_PYSTEPS"])
    found, seconds = peer.forecast(
        "extrapolation", np.array(frames), 4, minutes=5.0, kilometres=1.0, members=1, seed=0,
        folder=tmp_path,
    )  # fmt: skip
    peer.close()
    assert found.shape == (1, 4, 96, 96)
    assert seconds > 0
    peak = np.unravel_index(int(np.nan_to_num(found[0, 3]).argmax()), (96, 96))
    assert abs(peak[1] - (24 + 8)) <= 2
    assert abs(peak[0] - 48) <= 2


def test_no_data_is_one_line(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["benchmark", "forecast", "--data", str(tmp_path), "--out", out]) == 2
    assert "no data" in capsys.readouterr().err
