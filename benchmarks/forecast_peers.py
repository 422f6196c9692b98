"""What forecasts of rain cost and score beside pysteps, on one moment; and the values for tests.

    python -m benchmarks.forecast_peers --peer-python PATH [--methods extrapolation sprog steps]
    python -m benchmarks.forecast_peers --peer-python PATH --fixture tests/data/pysteps_values.json

PATH is the Python of an environment with pysteps: `pip install pysteps opencv-python-headless
pygrib`. The moment is 2016-09-28 16:00 UTC, the 512 x 512 km in the middle of the Finnish
composite, twelve leads of five minutes; every method sees the same three frames. CPU-seconds are
of the peer's process, one thread. CRPS in mm/h over cells where the truth is known: where a method
says nothing (its source lies outside the view) it is taken to say dry. `decisive benchmark
forecast` does the same at several moments, beside our models. `--fixture` writes what pysteps reads
in one file of each service, and its own scores of arrays that are given, instead.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policy_latency import commit, cpu_name
from decisive.benchmarks.forecast_peers import METHODS, Peer
from learning.atomic import write_file
from learning.image_set import data_folder
from learning.radar import FORMATS, read_event
from world_models.metnet2.scores import crps_ensemble

MOMENT = int(datetime(2016, 9, 28, 16, 0, tzinfo=UTC).timestamp())
SIDE, LEADS = 512, 12
FILES = {
    "PGM": "fmi/20160928/201609281600_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz",
    "GIF": "mch/20160711/AQC161932200V_00005.801.gif",
    "HDF5": "knmi/2010/08/RAD_NL25_RAP_5min_201008260300.h5",
    "GRIB2": "mrms/PrecipRate_00.00_20190610-002000.grib2",
}
"""One file of each service, below `radar` in the folder of data."""


def scored(members: int, rain: np.ndarray, threshold: float) -> dict[str, Any]:
    """Arrays that both sides score, from a seed."""
    rng = np.random.default_rng(7)
    drawn = rng.gamma(0.5, 2.0, (members, *rain.shape)).round(3) * (rng.random(rain.shape) < 0.7)
    return {"members": drawn.tolist(), "observed": rain.tolist(), "threshold": threshold}


def write_fixture(peer: Peer, path: Path) -> None:
    """What pysteps reads and scores, with its version."""
    known = {form.name for form in FORMATS}
    assert set(FILES) == known
    radar = data_folder() / "radar"
    files = {
        name: {"file": file, **peer.ask("read", path=str(radar / file), format=name)}
        for name, file in FILES.items()
    }
    # Half a unit of the last place off, so that no member equals an observation.
    rain = np.random.default_rng(8).gamma(0.5, 2.0, (12, 13)).round(3) + 0.0005
    cases = []
    for members, threshold in ((1, 1.0), (5, 0.5), (10, 2.0)):
        arrays = scored(members, rain, threshold)
        cases.append({**arrays, **peer.ask("scores", **arrays)})
    tied = {"members": [[[0.0]], [[0.0]], [[2.0]]], "observed": [[0.0]], "threshold": 1.0}
    ties = {**tied, "crps": peer.ask("scores", **tied)["crps"]}
    told = {"made by": "benchmarks/forecast_peers.py", **peer.ask("version")}
    text = json.dumps(
        {**told, "files": files, "scores": cases, "ties": ties}, separators=(",", ":")
    )
    write_file(path, (text + "\n").encode())


def measure(peer: Peer, methods: list[str], members: int) -> list[dict[str, Any]]:
    """CPU-seconds and CRPS at 5, 30 and 60 minutes."""
    event = read_event(data_folder() / "radar" / "fmi" / "20160928").center_crop(SIDE, SIDE)
    now = event.index_of(MOMENT)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            found, cost = peer.forecast(
                method,
                event.quantity[now - 2 : now + 1],
                LEADS,
                minutes=5.0,
                kilometres=event.cell / 1000.0,
                members=members,
                seed=0,
                folder=Path(folder),
            )
            row: dict[str, Any] = {"method": method, "cpu_seconds": round(cost, 2)}
            for lead in (1, 6, 12):
                scores = crps_ensemble(
                    np.nan_to_num(found[:, lead - 1]), event.quantity[now + lead]
                )
                row[f"crps_{5 * lead}"] = round(float(np.nanmean(scores)), 4)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description="forecasts of rain beside pysteps")
    parser.add_argument("--peer-python", required=True, metavar="PATH")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--members", type=int, default=20, help="of STEPS")
    parser.add_argument("--fixture", type=Path, help="write the values for tests, time nothing")
    args = parser.parse_args()
    if args.members < 2:
        parser.error("--members must be at least 2")
    peer = Peer(args.peer_python)
    if args.fixture is not None:
        write_fixture(peer, args.fixture)
    else:
        measure(peer, args.methods, args.members)
        print(json.dumps({"machine": cpu_name(), "commit": commit(), **peer.ask("version")}))
    peer.close()


if __name__ == "__main__":
    main()
