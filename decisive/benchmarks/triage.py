"""`decisive benchmark triage`: is an abnormal score about the thing, and what is it worth?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.cells import read_cell
from learning.atomic import write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decisive.benchmarks.triage_study import Study

Folders = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER")]
Cells = dict[str, list[dict[str, Any] | None]]


@dataclass(frozen=True)
class Defaults:
    """What a study takes where nothing else is said."""

    backbone: str
    side: int
    epochs: float
    out: str
    work: str


STUDIES: dict[str, Defaults] = {
    "pictures": Defaults(
        "efficientnetv2_b0_quarter", 64, 50,
        "docs/benchmarks/triage", "outputs/benchmarks/triage",
    ),
    "inspection": Defaults(
        "efficientnetv2_b0_quarter_fine", 128, 0,
        "docs/benchmarks/triage/inspection", "outputs/benchmarks/triage-inspection",
    ),
    "reuse": Defaults(
        "efficientnetv2_b0_quarter_fine", 64, 0,
        "docs/benchmarks/triage/reuse", "outputs/benchmarks/triage-reuse",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    r"""Train normal-or-abnormal classifiers on pictures, and score them beside controls.

    --study pictures: --data holds a folder of pictures for each class; without options it is the
    chest radiographs of cxr (normal: no_findings, abnormal: pneumonia, unseen: covid19). Pictures
    are cut to squares and made grey; near copies are never split; 60% are learned from, 15% choose
    calibration and thresholds, 25% are the test, by a fixed rule. --study inspection: rendered
    parts on a conveyor belt (decisive data render-inspection), sound or with one of four kinds of
    defects, and four more in the test alone; it also asks whether heat maps point at the defect.
    Beside the classifier two controls are trained that see only the border, or 8 x 8 means: what
    they score is no knowledge of a disease or a defect. Paired tests compare them, and the
    turnaround of abnormal cases is simulated. --study reuse: 20, 50 and 100 radiographs, learned
    from a random start, from the shipped classifier of parts, and from one of another disease.

    A cell, a control and a seed, is one JSON file in --out and is not done again. Research
    software, not a medical device.

    Examples:
      decisive benchmark triage --seeds 1
      decisive benchmark triage --study inspection --seeds 1 --only all
      decisive benchmark triage --study reuse
      decisive benchmark triage --data outputs/parts --normal sound --abnormal scratched \
        --unseen dented --out outputs/parts-triage
    """

    study: Literal["pictures", "inspection", "reuse"] = "pictures"
    """What is asked: of folders of pictures, of rendered parts, of little data."""
    data: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Holds the folders; cxr in the folder that DECISIVE_DATA names if not given."""
    normal: str = "no_findings"
    """Folder of normal pictures."""
    abnormal: Folders = ()
    """Folder of abnormal pictures to learn from; once for each; pneumonia if not given."""
    unseen: Folders = ()
    """Folder of abnormal pictures that are only tested; once for each; covid19 for cxr."""
    seeds: int = 3
    """Trainings of each control."""
    only: Literal["everything", "all", "border", "thumbnail"] = "everything"
    """Begin cells of one control alone: all is the classifier that sees everything."""
    backbone: Annotated[OptionalText, tyro.conf.arg(metavar="NAME")] = None
    """Name in the catalogue; that of the study if not given."""
    side: int | None = None
    """Pixels a side of the pictures; that of the study if not given."""
    epochs: float | None = None
    """Passes over the training pictures of --study pictures; 50 if not given."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    source: str = ""
    """One line for model cards: what the pictures are and their licence."""
    workers: int = 1
    """Processes that render."""
    out: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the cells and the table; docs/benchmarks/triage or a folder in it if not given."""
    work: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the trainings; CONTROL-SEED/last is the classifier of a control and a seed."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 1 <= self.seeds <= 10:
            raise ValueError(f"seeds must be 1 to 10, got {self.seeds}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.data is not None and self.study == "inspection":
            raise ValueError("--study inspection renders its pictures; leave --data")
        if self.data is not None and self.study == "pictures" and not self.abnormal:
            raise ValueError("name a folder of abnormal pictures: --abnormal FOLDER")

    @property
    def defaults(self) -> Defaults:
        """Of the study."""
        return STUDIES[self.study]

    @property
    def folder(self) -> Path:
        """Of the cells and the table."""
        return Path(self.out or self.defaults.out)

    @property
    def place(self) -> Path:
        """Of the trainings."""
        return Path(self.work or self.defaults.work)


CXR = (
    "Chest radiographs: no_findings and pneumonia from ChestX-ray8 (NIH), covid19 from the Cohen "
    "collection, as collected by muhammedtalo/COVID-19; research use only"
)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `triage`."""
    arguments = parse(Arguments, argv, "benchmark triage")
    command = provenance.command("benchmark", ["triage", *argv])
    if arguments.study == "reuse":
        from decisive.benchmarks.triage_reuse import run

        return run(arguments, command)
    if arguments.study == "inspection":
        return _inspection(arguments, command)
    return _pictures(arguments, command)


def _pictures(arguments: Arguments, command: str) -> int:
    """Folders of pictures by class."""
    import numpy as np

    from decisive.benchmarks.triage_data import image_set, read_folders, split
    from decisive.benchmarks.triage_study import run_arm

    study, root, source = _study(arguments)
    pictures = read_folders(root, (study.normal, *study.abnormal, *study.unseen), study.side)
    splits = split(pictures, (study.normal, *study.abnormal), study.unseen)
    _check_sizes(splits, np.array(pictures.folders) != study.normal)
    _prepare(arguments)
    sets = {name: image_set(pictures, rows, study.normal, source) for name, rows in splits.items()}
    folders = np.array(pictures.folders)[splits["test"]]

    def run(control: str, seed: int, place: Path) -> dict[str, Any]:
        return run_arm(study, control, seed, sets, folders, place, command=command)

    found = _fill(arguments, study, _digest(pictures.digests), source, run)
    return _finish(arguments, found, study, source, command)


def _inspection(arguments: Arguments, command: str) -> int:
    """Rendered parts."""
    from decisive.benchmarks import triage_inspection as inspection
    from decisive.benchmarks.triage_study import run_arm

    study = inspection.inspection_study(
        arguments.backbone or arguments.defaults.backbone,
        arguments.side or arguments.defaults.side,
    )
    _prepare(arguments)
    pictures = inspection.inspection_sets(
        arguments.place, inspection.FRAMES, study.side, arguments.workers
    )
    source = pictures["train"].images.source

    def run(control: str, seed: int, place: Path) -> dict[str, Any]:
        small = min(study.side, inspection.CONTROL_SIDE)
        own = pictures if control == "all" else inspection.sets_at(pictures, small)
        return run_arm(
            study,
            control,
            seed,
            {name: part.images for name, part in own.items()},
            own["test"].folders,
            place,
            lambda saved: inspection.pointing_game(saved, own["test"], study),
            inspection.learner(own["train"]),
            command,
        )

    what = _digest([json.dumps(inspection.facts_of(pictures), sort_keys=True)])
    found = _fill(arguments, study, what, source, run)
    return _finish(arguments, found, study, source, command)


def _prepare(arguments: Arguments) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    check_writable(arguments.folder / "README.md")


Run = Callable[[str, int, Path], dict[str, Any]]
"""Runs the cell of a control and a seed in a folder."""


def _fill(arguments: Arguments, study: Study, pictures: str, source: str, run: Run) -> Cells:
    """Results of all cells; those that are not there are run, as long as there is time."""
    from decisive.benchmarks.triage_study import CONTROLS

    found: Cells = {control: [] for control in CONTROLS}
    late = deadline(arguments.minutes)
    for seed in range(arguments.seeds):
        for control in CONTROLS:
            told = plan(study, control, seed, pictures, source)
            path = arguments.folder / f"{control}-{seed}.json"
            result = read_cell(path, told)
            wanted = arguments.only in ("everything", control)
            if result is None and wanted and not late():
                result = {"plan": told, **run(control, seed, arguments.place / path.stem)}
                write_file(path, cell_text(result).encode())
                print(f"{path.stem}  {result['cpu_seconds']:.0f} CPU-seconds", file=sys.stderr)
            found[control].append(result)
    return found


def cell_text(result: Mapping[str, Any]) -> str:
    """A result as JSON, a line for each of its parts: it holds long lists of scores."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    return "{\n" + lines + "\n}\n"


def deadline(minutes: float | None) -> Callable[[], bool]:
    """Says whether so many minutes are over; None is never."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    return lambda: end is not None and time.monotonic() > end


def _finish(arguments: Arguments, found: Cells, study: Study, source: str, command: str) -> int:
    from decisive.benchmarks import triage_report

    header, rows = triage_report.table(found, study)
    triage_report.write(found, study, command, source, arguments.folder)
    if arguments.json:
        told = {"header": header, "rows": rows, "folder": str(arguments.folder)}
        print(json.dumps(told, indent=2))
    else:
        tables.show(tables.plain_table(header, rows, "triage"), triage_report.NOTES)
    return 0


def _digest(words: Sequence[str]) -> str:
    import hashlib

    return hashlib.sha256("".join(words).encode()).hexdigest()


def plan(study: Study, control: str, seed: int, pictures: str, source: str) -> dict[str, Any]:
    """Everything that decides a result, as JSON gives it back."""
    told = {
        "study": asdict(study), "control": control, "seed": seed,
        "pictures": pictures, "source": source,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain


def _study(arguments: Arguments) -> tuple[Study, Path, str]:
    from decisive.benchmarks.triage_study import Study

    known = arguments.data is None
    defaults = arguments.defaults
    study = Study(
        normal=arguments.normal,
        abnormal=arguments.abnormal or ("pneumonia",),
        unseen=arguments.unseen or (("covid19",) if known else ()),
        backbone=arguments.backbone or defaults.backbone,
        side=defaults.side if arguments.side is None else arguments.side,
        epochs=defaults.epochs if arguments.epochs is None else arguments.epochs,
    )
    return (
        study,
        data_root(arguments),
        arguments.source or (CXR if known else "Pictures of the user"),
    )


def data_root(arguments: Arguments) -> Path:
    """Folder that holds the folders of pictures.

    Raises:
        ValueError: if it is not there.
    """
    from learning.image_set import data_folder

    root = data_folder() / "cxr" if arguments.data is None else Path(arguments.data)
    if not root.is_dir():
        raise ValueError(f"no data: {root} is not there; give --data or set DECISIVE_DATA")
    return root


def _check_sizes(splits: Mapping[str, Any], abnormal: NDArray[Any]) -> None:
    """Refuse pictures of one kind before the training, not after it."""
    for name, rows in splits.items():
        counts = int((~abnormal[rows]).sum()), int(abnormal[rows].sum())
        if min(counts) < 2:
            raise ValueError(
                f"too few pictures: {counts[0]} normal and {counts[1]} abnormal for {name}, 2 of "
                "each are the least, and ten of each class together hardly make a training"
            )
