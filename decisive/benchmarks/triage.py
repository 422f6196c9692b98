"""`decisive benchmark triage`: is an abnormal score about the thing, and what is it worth?"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from decisive import provenance, tables
from decisive.arguments import Flag, OptionalText, check_writable, parse
from decisive.benchmarks.vision import read_cell
from learning.atomic import write_file

if TYPE_CHECKING:
    from decisive.benchmarks.triage_study import Study

Folders = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="FOLDER")]


@dataclass(frozen=True)
class Arguments:
    r"""Train normal-or-abnormal classifiers on folders of pictures, and score them with controls.

    --data holds a folder of pictures for each class; without options it is the chest radiographs
    of cxr (normal: no_findings, abnormal: pneumonia, unseen: covid19). Pictures are cut to squares
    and made grey; near copies are never split; 60% are learned from, 15% choose calibration and
    thresholds, 25% are the test, by a fixed rule. Beside the classifier two controls are trained
    that see only the border, or 8 x 8 means: what they score is no knowledge of a disease. The
    turnaround of abnormal cases is simulated. A cell, a control and a seed, is one JSON file in
    --out and is not done again. Research software, not a medical device.

    Examples:
      decisive benchmark triage --seeds 1
      decisive benchmark triage --data outputs/parts --normal sound --abnormal scratched \
        --unseen dented --out outputs/parts-triage
    """

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
    backbone: str = "efficientnetv2_b0_quarter"
    """Name in the catalogue."""
    side: int = 64
    """Pixels a side of the pictures."""
    epochs: float = 50
    """Passes over the training pictures."""
    minutes: float | None = None
    """Begin no cell after so many minutes."""
    source: str = ""
    """One line for model cards: what the pictures are and their licence."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "docs/benchmarks/triage"
    """Folder of the cells and the table."""
    work: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "outputs/benchmarks/triage"
    """Folder of the trainings; CONTROL-SEED/last is the classifier of a control and a seed."""
    json: Flag = False
    """Print one JSON object instead of a table."""

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        if not 1 <= self.seeds <= 10:
            raise ValueError(f"seeds must be 1 to 10, got {self.seeds}")
        if self.data is not None and not self.abnormal:
            raise ValueError("name a folder of abnormal pictures: --abnormal FOLDER")


CXR = (
    "Chest radiographs: no_findings and pneumonia from ChestX-ray8 (NIH), covid19 from the Cohen "
    "collection, as collected by muhammedtalo/COVID-19; research use only"
)


def main(argv: Sequence[str]) -> int:
    """Run the benchmark with the words after `triage`."""
    arguments = parse(Arguments, argv, "benchmark triage")
    from decisive.benchmarks import triage_report
    from decisive.benchmarks.triage_data import read_folders, split
    from decisive.benchmarks.triage_study import CONTROLS, run_arm

    study, root, source = _study(arguments)
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "README.md")
    pictures = read_folders(root, (study.normal, *study.abnormal, *study.unseen), study.side)
    splits = split(pictures, (study.normal, *study.abnormal), study.unseen)
    _check_sizes(splits)
    deadline = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    found: dict[str, list[dict[str, Any] | None]] = {control: [] for control in CONTROLS}
    for seed in range(arguments.seeds):
        for control in CONTROLS:
            told = plan(study, control, seed, pictures.digests, source)
            path = folder / f"{control}-{seed}.json"
            result = read_cell(path, told)
            late = deadline is not None and time.monotonic() > deadline
            if result is None and not late:
                place = Path(arguments.work) / path.stem
                result = run_arm(study, control, seed, pictures, splits, source, place)
                result = {"plan": told, **result}
                write_file(path, (json.dumps(result, indent=2) + "\n").encode())
                print(f"{path.stem}  {result['cpu_seconds']:.0f} CPU-seconds", file=sys.stderr)
            found[control].append(result)
    command = provenance.command("benchmark", ["triage", *argv])
    header, rows = triage_report.table(found, study)
    triage_report.write(found, study, command, source, folder)
    if arguments.json:
        print(json.dumps({"header": header, "rows": rows, "folder": str(folder)}, indent=2))
    else:
        tables.show(tables.plain_table(header, rows, "triage"), triage_report.NOTES)
    return 0


def plan(
    study: Study, control: str, seed: int, digests: Sequence[str], source: str
) -> dict[str, Any]:
    """Everything that decides a result, as JSON gives it back."""
    import hashlib

    pictures = hashlib.sha256("".join(digests).encode()).hexdigest()
    told = {
        "study": asdict(study), "control": control, "seed": seed,
        "pictures": pictures, "source": source,
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain


def _study(arguments: Arguments) -> tuple[Study, Path, str]:
    from decisive.benchmarks.triage_study import Study
    from learning.image_set import data_folder

    known = arguments.data is None
    root = data_folder() / "cxr" if arguments.data is None else Path(arguments.data)
    if not root.is_dir():
        raise ValueError(f"no data: {root} is not there; give --data or set DECISIVE_DATA")
    study = Study(
        normal=arguments.normal,
        abnormal=arguments.abnormal or ("pneumonia",),
        unseen=arguments.unseen or (("covid19",) if known else ()),
        backbone=arguments.backbone,
        side=arguments.side,
        epochs=arguments.epochs,
    )
    return study, root, arguments.source or (CXR if known else "Pictures of the user")


def _check_sizes(splits: Any) -> None:
    for name, rows in splits.items():
        if len(rows) < 4:
            raise ValueError(
                f"too few pictures: {len(rows)} for {name}, 4 are the least, and ten of each "
                "class together hardly make a training"
            )
