"""`decisive forecast`: how likely will it rain, where and when, from the newest radar frames."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, parse
from decisive.forecast_route import Costs, read_route
from decisive.progress import Meter, progress
from learning.atomic import new_folder, write_file

if TYPE_CHECKING:
    from decisive.forecast_making import Made
    from learning.grid_sequence import GridSequence
    from world_models.metnet2.config import MetNet2Config

MODEL = "metnet2-rain"
RESULTS = "results.json"
_LEADS = "5,30,60"


@dataclass(frozen=True)
class Arguments:
    r"""How likely will it rain? Probabilities on a map, from the newest frames of a radar.

    DIR is an event: files of MRMS (GRIB2), FMI (PGM), MeteoSwiss (GIF) or KNMI (HDF5), or one .npz
    sequence of this project. --out gets for each lead time a picture of the probability of
    --threshold and more, a film over the lead times, `forecast.npz` (probability, mean and
    quantiles at every cell) and `results.json`. Where the event goes on, so that the truth is
    there, the CRPS is told: the mean error of the distribution, in mm/h, lower is better; beside
    it the mean errors of the newest frame carried along the motion, and of no change at all.

    --route FILE weighs going, waiting and returning. Points and arrival times are a table (.csv
    with a header, or a JSON list of objects): minutes (after the forecast's time, rising), and x, y
    (metres in the radar's projection) or row, column (cells from the upper left), such as

      row,column,minutes
      200,210,0
      215,230,12
      230,262,25

    The expected minutes in the rain are the integral of the probability along the way. Going after
    w minutes costs wait-cost x w + wet-cost x (those minutes); returning costs return-cost;
    the cheapest is advised.

    --attribution draws which past frames and channels each lead time rests on: one after the other
    is made unknown (occlusion), and the change of the forecast is measured.

    Examples:
      decisive forecast my-radar --leads 5,30,60
      decisive forecast my-radar --time 2016-09-28T16:00 --crop 512 --json
      decisive forecast my-radar --route way.csv --threshold 0.5 --wet-cost 2
      decisive forecast my-radar --attribution --model outputs/rain
    """

    folder: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR")]
    """Folder of the event, or its name below `radar` in the data folder."""
    leads: Annotated[str, tyro.conf.arg(metavar="A,B,C")] = _LEADS
    """Lead times in minutes, or in seconds with an s: 0.5s,1s."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME|FOLDER")] = MODEL
    """Checkpoint folder, or the name of a shipped forecaster."""
    time: Annotated[OptionalText, tyro.conf.arg(metavar="UTC")] = None
    """Moment to forecast from, such as 2016-09-28T16:00; the newest frame if not given."""
    crop: int | None = None
    """Look at so many cells a side in the middle of the grid; all if not given."""
    threshold: float | None = None
    """Rain in mm/h whose probability is drawn; 0.2 if not given, 0.5 for occupancy."""
    route: Annotated[OptionalText, tyro.conf.arg(metavar="FILE")] = None
    """Table of points and arrival times."""
    wet_cost: float = 1.0
    """Cost of a minute in the rain."""
    wait_cost: float = 0.1
    """Cost of a minute of waiting."""
    return_cost: float = 10.0
    """Cost of returning without having gone."""
    attribution: Flag = False
    """Draw what each lead time rests on."""
    memory: Annotated[float | None, tyro.conf.arg(metavar="MIB")] = None
    """Compute in tiles whose layers take at most so much memory; the result is the same."""
    no_film: Flag = False
    """Leave the film out."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/forecast"
    """Folder for what is made; what was there before is replaced when all is done."""
    json: Flag = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    arguments = parse(Arguments, argv, "forecast")
    wanted = read_leads(arguments.leads)
    costs = Costs(arguments.wet_cost, arguments.wait_cost, arguments.return_cost)
    out = Path(arguments.out)
    if out.exists() and not (
        (out / RESULTS).is_file() or (out.is_dir() and not any(out.iterdir()))
    ):
        raise ValueError(f"{out} exists and holds something else than a forecast; name another")
    began = time.perf_counter()

    # torch takes seconds to load: not before the arguments are read.
    from decisive import forecast_making as making
    from world_models.metnet2.forecaster import Forecaster

    forecaster = Forecaster.load(arguments.model, arguments.memory)
    check_leads(wanted, forecaster.config)
    sequence = _sequence(arguments, forecaster.config)
    index = find_moment(sequence, arguments.time)
    points = None
    if arguments.route is not None:
        points = read_route(arguments.route, sequence.shape, sequence.origin, sequence.cell)
    threshold = _threshold(arguments, forecaster.config)
    task = making.Task(sequence, index, wanted, threshold, points, costs, not arguments.no_film)
    with progress("forecasting", making.work(task, forecaster, arguments.attribution)) as meter:
        made = making.make(task, forecaster, meter)
        results = _write(arguments, argv, made, forecaster, out, began, meter)
    _report(arguments, results, out)
    return 0


def read_leads(text: str) -> tuple[float, ...]:
    """Seconds of lead times such as `5,30,60` (minutes) or `0.5s,1s`, rising, each once.

    Raises:
        ValueError: for anything else.
    """
    found = []
    for word in (w.strip() for w in text.split(",")):
        number, unit = (word[:-1], 1.0) if word.endswith("s") else (word, 60.0)
        try:
            seconds = float(number) * unit
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(
                f"--leads must be minutes above 0 such as 5,30,60, or seconds such as 0.5s, got "
                f"{word!r}"
            )
        found.append(seconds)
    return tuple(sorted(set(found)))


def check_leads(leads: Sequence[float], config: MetNet2Config) -> None:
    """Refuse lead times that the model was not trained for.

    Raises:
        ValueError: naming those it was.
    """
    first, last = config.leads[0], config.leads[-1]
    wrong = [lead for lead in leads if not first - 1e-6 <= lead <= last + 1e-6]
    if wrong:
        raise ValueError(
            f"the model forecasts {named(first)} to {named(last)} ahead, not {named(wrong[0])}"
        )


def named(seconds: float) -> str:
    """A lead time in words: `30 min`, `0.5 s`."""
    whole = seconds >= 60 and abs(seconds / 60 - round(seconds / 60)) < 1e-6
    return f"{round(seconds / 60)} min" if whole else f"{seconds:g} s"


def find_moment(sequence: GridSequence, text: str | None) -> int:
    """Index of the frame of a time in UTC, ISO 8601 or seconds since the epoch; the last if None.

    Raises:
        ValueError: for no time, or one without a frame.
    """
    if text is None:
        return len(sequence) - 1
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"--time must be such as 2016-09-28T16:00, got {text!r}") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    near = int(np.argmin(np.abs(sequence.times * sequence.tick - seconds)))
    if abs(float(sequence.times[near]) * sequence.tick - seconds) > 1e-3:
        first, last = (moment_of(sequence, k) for k in (0, len(sequence) - 1))
        raise ValueError(
            f"{sequence.name} has no frame at {text}; the nearest is {moment_of(sequence, near)}, "
            f"it has {len(sequence)} from {first} to {last}"
        )
    return near


def moment_of(sequence: GridSequence, index: int) -> str:
    """The time of a frame; sequences that count from 0 say seconds."""
    seconds = float(sequence.times[index]) * sequence.tick
    if seconds < 86_400:
        return f"{seconds:g} s"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sequence(arguments: Arguments, config: MetNet2Config) -> GridSequence:
    from decisive.train_forecast import event_folder
    from learning.radar import read_event
    from world_models.metnet2.inputs import check_sequence

    sequence = read_event(event_folder(arguments.folder))
    if arguments.crop is not None:
        if not 1 <= arguments.crop <= min(sequence.shape):
            rows, columns = sequence.shape
            raise ValueError(
                f"--crop must be 1 to {min(rows, columns)} cells of {rows} x {columns}, got "
                f"{arguments.crop}"
            )
        sequence = sequence.center_crop(arguments.crop, arguments.crop)
    check_sequence(sequence, config)
    return sequence


def _threshold(arguments: Arguments, config: MetNet2Config) -> float:
    usual = 0.2 if config.quantity == "rain_rate" else 0.5
    value = usual if arguments.threshold is None else arguments.threshold
    if not config.edges[0] < value < config.edges[-1]:
        raise ValueError(
            f"--threshold must lie between {config.edges[0]:g} and {config.edges[-1]:g}, got "
            f"{value:g}"
        )
    return value


def _write(
    arguments: Arguments,
    argv: Sequence[str],
    made: Made,
    forecaster: Any,
    out: Path,
    began: float,
    meter: Meter,
) -> dict[str, Any]:
    from decisive import forecast_files

    with new_folder(out) as folder:
        results = forecast_files.write_maps(folder, made, forecaster.config, meter)
        if arguments.attribution:
            results["attribution"] = forecast_files.write_attribution(
                folder, made, forecaster, meter
            )
            results["files"].append("attribution.png")
        results |= {
            "model": arguments.model,
            "seconds": round(time.perf_counter() - began, 2),
            "command": provenance.command("forecast", argv),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
        }
        write_file(folder / RESULTS, f"{json.dumps(results, indent=2)}\n".encode())
    return results


def _report(arguments: Arguments, results: dict[str, Any], out: Path) -> None:
    """Tell what came out."""
    if arguments.json:
        print(json.dumps({"folder": str(out), **results}, indent=2))
        return
    from decisive import tables

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    rows = [
        (
            named(lead["seconds"]),
            f"{lead['mean']:.3f}",
            tables.percent(lead["probability"]),
            shown(lead["crps"]),
            shown(lead["extrapolation"]),
            shown(lead["persistence"]),
        )
        for lead in results["leads"]
    ]
    header = ("lead", "mean", "probability %", "crps", "extrapolation", "no change")
    tables.show(tables.plain_table(header, rows, f"{results['event']}, {results['time']}"))
    if results["missing_frames"]:
        print(f"{results['missing_frames']} past frames were missing; taken as unknown")
    if results["dry"]:
        print("the newest frame is dry: there is no motion to follow")
    for option in results.get("route", {}).get("options", ()):
        wait = option.get("wait_minutes")
        after = f" {wait:g} min" if wait else ""
        print(f"{option['option']}{after}: cost {option['cost']:.2f} ({option['arithmetic']})")
    if "route" in results:
        print(f"advice: {results['route']['advice']}")
    for name in results["files"]:
        print(out / name)
