"""`decisive benchmark forecast`: forecasts of rain and of what is occupied, beside their peers."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks import forecast_moments, forecast_report
from decisive.benchmarks.cells import read_cell
from decisive.benchmarks.forecast_moments import Case, plain
from decisive.benchmarks.forecast_peers import METHODS, Peer
from decisive.benchmarks.forecast_scoring import Binned, Ensemble, score
from decisive.progress import progress
from learning.atomic import write_file

PERSISTENCE = "persistence"
Models = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER")]
Words = Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")]


@dataclass(frozen=True)
class Arguments:
    """Score forecasts on held-out events, beside persistence and pysteps.

    --world rain: the Finnish event of 2016-09-28, every half hour that has an hour of past and of
    truth, the 512 x 512 km in the middle; and an hour of MRMS over the wettest 256 x 256 cells,
    scored from 12 minutes because its frames repeat. Peers run where --peer-python names the Python
    of an environment with `pip install pysteps opencv-python-headless pygrib`: extrapolation along
    Lucas-Kanade motion, S-PROG, and STEPS with --members; without, they say 'not run'. CPU-seconds
    are of one forecast of all leads, one thread, everything but loading. --world occupancy: the
    sequences of --data (decisive data render-occupancy), beside constant velocity and persistence.
    Several --model are seeds of one training. A cell, a method at a moment, is one JSON file in
    --out and is not done again.

    Examples:
      decisive benchmark forecast --peer-python ~/pysteps/bin/python --model metnet2-rain
      decisive benchmark forecast --model outputs/m-0 --model outputs/m-1 --model outputs/m-2
      decisive benchmark forecast --world occupancy --data outputs/occupancy/test \
        --tune outputs/occupancy/val --model outputs/occupancy/model --out outputs/occupancy-table
    """

    world: Literal["rain", "occupancy"] = "rain"
    """What is forecast."""
    model: Models = ()
    """Shipped name or folder of a trained forecaster; once for each seed."""
    peer_python: Annotated[OptionalText, tyro.conf.arg(metavar="FILE")] = None
    """Python of an environment with pysteps."""
    members: int = 20
    """Of STEPS."""
    events: Annotated[OptionalText, tyro.conf.arg(metavar="NAME,NAME")] = None
    """Of rain: fmi, mrms; both if not given."""
    data: Words = None
    """Of rain: the folder that holds fmi and mrms; of occupancy: the sequences of the test."""
    tune: Words = None
    """Of occupancy: other sequences, by which the blur of the baselines is chosen."""
    label: str = "MetNet-2"
    """What tables call the model."""
    seed: int = 0
    """Of the noise of STEPS."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    out: Words = None
    """Folder of the cells and the table; docs/benchmarks/forecast if not given, and below it
    occupancy for that world."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 2 <= self.members <= 1000:
            raise ValueError(f"--members must be in 2..1000, got {self.members}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if len(set(self.model)) < len(self.model):
            raise ValueError("every --model must be another: they are seeds")
        if self.world == "occupancy" and self.data is None:
            raise ValueError("--world occupancy needs --data FOLDER")
        for name in (self.events or "").split(",") if self.events is not None else ():
            forecast_moments.find_event(name)

    @property
    def folder(self) -> Path:
        """Where results go."""
        place = Path("docs/benchmarks/forecast")
        return Path(self.out or (place if self.world == "rain" else place / "occupancy"))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `forecast`."""
    arguments = parse(Arguments, argv, "benchmark forecast")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    check_writable(arguments.folder / "README.md")
    command = provenance.command("benchmark", ["forecast", *_shown(argv)])
    if arguments.world == "occupancy":
        from decisive.benchmarks import forecast_occupancy

        return forecast_occupancy.run(arguments, command)
    cells = run_rain(arguments)
    header, rows = forecast_report.table(cells)
    forecast_report.write(cells, command, arguments.folder)
    if arguments.json:
        told = {"header": header, "rows": rows, "folder": str(arguments.folder)}
        print(json.dumps(told, indent=2))
    else:
        tables.show(tables.plain_table(header, rows, "forecasts of rain"), forecast_report.NOTES)
    return 0


def _shown(argv: Sequence[str]) -> list[str]:
    """The words, without where the peer's interpreter lies."""
    words = list(argv)
    for k, word in enumerate(argv):
        if word == "--peer-python" and k + 1 < len(words):
            words[k + 1] = "PYTHON"
        elif word.startswith("--peer-python="):
            words[k] = "--peer-python=PYTHON"
    return words


def run_rain(arguments: Arguments) -> forecast_report.Cells:
    """Every cell that is not there; all that there are."""
    names = (arguments.events or ",".join(forecast_moments.EVENTS)).split(",")
    root = None if arguments.data is None else Path(arguments.data)
    cases = []
    for name in names:
        event = forecast_moments.find_event(name)
        cases += forecast_moments.read_cases(event, forecast_moments.radar_folder(event, root))
    cells = forecast_report.Cells(arguments.label, [case.moment.name for case in cases])
    with ExitStack() as stack:
        ways = _methods(arguments, stack)
        deadline = None if arguments.minutes is None else 60 * arguments.minutes + time.monotonic()
        with progress("cells", len(cases) * len(ways)) as meter:
            for case in cases:
                for way in ways:
                    late = deadline is not None and time.monotonic() > deadline
                    cells.put(way.name, case.moment.name, _cell(way, case, arguments, late))
                    meter.advance(note=way.name)
    return cells


@dataclass(frozen=True)
class Way:
    """A method.

    Attributes:
        name: of its cells.
        told: what decides what it says, JSON values.
        forecast: a case to what it says, and CPU-seconds; None where it is not to be had.
    """

    name: str
    told: dict[str, Any]
    forecast: Callable[[Case], tuple[Ensemble | Binned, float]] | None


def _methods(arguments: Arguments, stack: ExitStack) -> list[Way]:
    ways = [Way(PERSISTENCE, {}, _persist)]
    peer, version = None, ""
    if arguments.peer_python is not None:
        peer = Peer(arguments.peer_python)
        stack.callback(peer.close)
        version = peer.version["pysteps"]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for method in METHODS:
        told: dict[str, Any] = {"pysteps": version}
        if method == "steps":
            told |= {"members": arguments.members, "seed": arguments.seed}
        ask = None if peer is None else _asking(peer, method, arguments, folder)
        ways.append(Way(method, told, ask))
    for number, model in enumerate(arguments.model):
        ways.append(_model(f"model-{number}", model))
    return ways


def _persist(case: Case) -> tuple[Ensemble, float]:
    began = time.process_time()
    last = case.past.quantity[-1]
    members = np.broadcast_to(last, (1, len(case.truth), *last.shape))
    return Ensemble(members), time.process_time() - began


def _asking(
    peer: Peer, method: str, arguments: Arguments, folder: Path
) -> Callable[[Case], tuple[Ensemble, float]]:
    def ask(case: Case) -> tuple[Ensemble, float]:
        # Steps of the event; those before the first lead are forecast and not scored.
        minutes = case.past.step / 60
        last = case.moment.event.leads[-1]
        found, cost = peer.forecast(
            method, case.past.quantity[-3:], round(last / minutes), minutes=minutes,
            kilometres=case.past.cell / 1000, members=arguments.members, seed=arguments.seed,
            folder=folder,
        )  # fmt: skip
        rows = [round(lead / minutes) - 1 for lead in case.moment.event.leads]
        return Ensemble(found[:, rows]), cost

    return ask


def _model(name: str, place: str) -> Way:
    import torch

    from world_models.metnet2.forecaster import Forecaster

    torch.set_num_threads(1)
    model = Forecaster.load(place)

    def forecast(case: Case) -> tuple[Binned, float]:
        leads = [60.0 * lead for lead in case.moment.event.leads]
        model.forecast(case.past, leads[:1])  # the first one loads what torch loads late
        began = time.process_time()
        found = model.forecast(case.past, leads)
        cost = time.process_time() - began
        return Binned(found.probabilities, found.edges), cost

    return Way(name, {"weights": digest(place)}, forecast)


def digest(place: str) -> str:
    """Of the weights of a shipped model or of a folder."""
    from world_models.metnet2.model import shipped_forecasters

    folder = shipped_forecasters().get(place, Path(place))
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def _cell(way: Way, case: Case, arguments: Arguments, late: bool) -> dict[str, Any] | None:
    """The result of a method at a moment: what is there, or now made; None where it cannot be."""
    path = arguments.folder / f"{case.moment.name}-{way.name}.json"
    told = plain({"moment": case.moment.told(), "method": way.name, **way.told})
    if way.forecast is None:
        # What a peer said once stands in the table also where it is not there today.
        return _earlier(path, told)
    result = read_cell(path, told)
    if result is not None or late:
        return result
    found, cost = way.forecast(case)
    result = {
        "plan": told,
        **score(found, case.truth, case.moment.event.leads),
        "silent": found.silent(),
        "cpu_seconds": cost,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    write_file(path, (json.dumps(result, separators=(",", ":")) + "\n").encode())
    print(f"{path.stem}  {cost:.2f} CPU-seconds", file=sys.stderr, flush=True)
    return result


def _earlier(path: Path, told: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return result if result.get("plan", {}).get("moment") == told["moment"] else None
