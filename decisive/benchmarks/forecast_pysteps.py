"""pysteps' side of the forecast benchmark: run by an interpreter of its own, which has no torch.

Reads one JSON request a line and answers with one line. Only the standard library, numpy and
pysteps are imported; frames and forecasts go through `.npy` files. CPU-seconds are those of this
process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

THRESHOLD = 0.1  # mm/h, -10 dB: less is dry to pysteps.
DRY = -15.0  # dB
LEVELS = 6  # Of the cascade.


def pysteps(name: str) -> Any:
    """A module of pysteps."""
    return importlib.import_module(f"pysteps.{name}")


def decibels(rain: np.ndarray) -> np.ndarray:
    """Rain in dB as pysteps' examples prepare it: dry and unknown cells are -15."""
    found, _ = pysteps("utils.transformation").dB_transform(
        rain, threshold=THRESHOLD, zerovalue=DRY
    )
    found[~np.isfinite(found)] = DRY
    return found


def rates(db: np.ndarray) -> np.ndarray:
    """Back to mm/h; what is outside stays NaN."""
    found, _ = pysteps("utils.transformation").dB_transform(
        db, threshold=-10.0, inverse=True, zerovalue=0.0
    )
    return found


def forecast(request: Mapping[str, Any]) -> dict[str, Any]:
    """One forecast, `(M, L, H, W)` float16 mm/h, in the file that the request names."""
    rain = np.load(request["frames"], allow_pickle=False).astype(np.float64)
    n, minutes = request["leads"], request["minutes"]
    for name in ("motion", "nowcasts", "utils.transformation"):
        pysteps(name)  # loading is not part of a forecast
    began = time.process_time()
    db = decibels(rain)
    velocity = pysteps("motion").get_method("LK")(db)
    moved = time.process_time()
    if request["method"] == "extrapolation":
        found = pysteps("nowcasts").get_method("extrapolation")(rain[-1], velocity, n)[None]
    elif request["method"] == "sprog":
        found = pysteps("nowcasts").get_method("sprog")(
            db[-3:], velocity, n, n_cascade_levels=LEVELS, precip_thr=-10.0
        )
        found = rates(found)[None]
    else:
        found = pysteps("nowcasts").get_method("steps")(
            db[-3:],
            velocity,
            n,
            n_ens_members=request["members"],
            n_cascade_levels=LEVELS,
            precip_thr=-10.0,
            kmperpixel=request["kilometres"],
            timestep=minutes,
            noise_method="nonparametric",
            vel_pert_method="bps",
            mask_method="incremental",
            seed=request["seed"],
            num_workers=1,
        )
        found = rates(found)
    ended = time.process_time()
    np.save(request["out"], found.astype(np.float16))
    return {"seconds": ended - began, "motion_seconds": moved - began, "shape": list(found.shape)}


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """What pysteps' importers make of a file: a few numbers in mm/h."""
    path, form, importers = request["path"], request["format"], pysteps("io.importers")
    if form == "PGM":
        values, _, about = importers.import_fmi_pgm(path, gzipped=True)
    elif form == "GIF":
        values, _, about = importers.import_mch_gif(path, "AQC", "mm", 5.0)
    elif form == "HDF5":
        values, _, about = importers.import_knmi_hdf5(path)
    else:
        values, _, about = importers.import_mrms_grib(path, window_size=1)
    rain, _ = pysteps("utils.conversion").to_rainrate(values, about)
    rows, columns = np.linspace(0, 1, 23), np.linspace(0, 1, 19)
    places = np.ix_(
        (rows * (rain.shape[0] - 1)).astype(int), (columns * (rain.shape[1] - 1)).astype(int)
    )
    sample = [[None if np.isnan(v) else float(v) for v in row] for row in rain[places]]
    wet = np.nan_to_num(rain) > 0
    return {
        "shape": list(rain.shape),
        "unknown": int(np.isnan(rain).sum()),
        "wet": int(wet.sum()),
        "sum": float(np.nansum(rain, dtype=np.float64)),
        "max": float(np.nanmax(rain)),
        "row_of_mean": float((wet.sum(axis=1) * np.arange(len(wet))).sum() / max(1, wet.sum())),
        "sample": sample,
    }


def scores(request: Mapping[str, Any]) -> dict[str, Any]:
    """Pysteps' own scores of arrays that both sides have."""
    members, observed = (np.array(request[key], np.float64) for key in ("members", "observed"))
    threshold, probscores = request["threshold"], pysteps("verification.probscores")
    probability = (members >= threshold).mean(axis=0)
    diagram = probscores.reldiag_init(threshold, n_bins=10, min_count=0)
    probscores.reldiag_accum(diagram, probability, observed)
    points = probscores.reldiag_compute(diagram)
    table = pysteps("verification.detcatscores").det_cat_fct(
        (probability >= 0.5).astype(float), (observed >= threshold).astype(float), 0.5, ["CSI"]
    )
    return {
        "crps": float(probscores.CRPS(members, observed)),
        "csi": float(table["CSI"]),
        "reliability": [[_plain(v) for v in row] for row in points],
        "counts": [int(v) for v in diagram["num_idx"]],
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def main() -> None:
    """Answers until the other side closes."""
    answers = {"forecast": forecast, "read": read, "scores": scores}
    version = {"pysteps": metadata.version("pysteps"), "numpy": np.__version__}
    speaking = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # pysteps prints
    for line in sys.stdin:
        request = json.loads(line)
        if request["ask"] == "version":
            answer: dict[str, Any] = version
        else:
            with contextlib.redirect_stdout(sys.stderr):
                try:
                    answer = answers[request["ask"]](request)
                except Exception as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=speaking, flush=True)


if __name__ == "__main__":
    main()
