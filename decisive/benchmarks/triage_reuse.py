"""What a trained network is worth where there are few pictures: the reuse part of the triage study.

Twenty, fifty or a hundred radiographs, half of them abnormal, are learned from a random start, from
the shipped classifier of rendered parts, and from a network that learned to tell the other disease
from normal. That network and the few pictures share no normal picture: each has half of those for
training. Test pictures are in neither.

Source of the question: Nabulsi et al. 2021, whose networks began from others; the sizes are ours.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decisive import provenance, tables
from decisive.benchmarks.cells import read_cell
from decisive.benchmarks.triage_data import Pictures, Rows, image_set, read_folders, split
from decisive.benchmarks.triage_report import markdown
from decisive.benchmarks.triage_study import area, logits_of
from learning.atomic import write_file
from learning.image_set import ImageSet
from perception.abnormality_scores import delong_interval, delong_test
from perception.checkpoint import SavedClassifier, load_classifier

if TYPE_CHECKING:
    from torch import nn

    from decisive.benchmarks.triage import Arguments

STARTS = ("random", "parts", "other disease")
"""Where a training begins."""

PARTS = "triage-inspection"
"""The shipped classifier of rendered parts."""

NOTES = (
    "Area under the curve of normal against the disease on test radiographs: mean of the seeds "
    "(each draws other pictures to learn from), and their 95% DeLong intervals together. In "
    "brackets the seeds in which it is above that from a random start with p below 0.05 (paired "
    "DeLong). Research software, not a medical device."
)


@dataclass(frozen=True)
class Reuse:
    """What is compared.

    Attributes:
        normal: folder of normal pictures.
        disease: folder that few pictures are learned from.
        other: folder that the other network learns from.
        backbone: name in the catalogue; that of the classifier of parts.
        side: pixels a side.
        sizes: how many pictures, half of them abnormal.
        steps: of each training on few pictures.
        source_steps: of the other network.
        lr: peak learning rate.
    """

    normal: str = "no_findings"
    disease: str = "pneumonia"
    other: str = "covid19"
    backbone: str = "efficientnetv2_b0_quarter_fine"
    side: int = 64
    sizes: tuple[int, ...] = (20, 50, 100)
    steps: int = 150
    source_steps: int = 400
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn or trained."""
        if len({self.normal, self.disease, self.other}) < 3:
            raise ValueError("normal, disease and the other disease must be three folders")
        if not self.sizes or any(size < 4 or size % 2 for size in self.sizes):
            raise ValueError(f"sizes must be even and at least 4, got {self.sizes}")
        if min(self.steps, self.source_steps) < 1 or not self.lr > 0 or self.side < 16:
            raise ValueError("steps, lr and side must be positive, the side at least 16 pixels")


def run(arguments: Arguments, command: str) -> int:
    """Run the study with the options of `decisive benchmark triage`."""
    from decisive.benchmarks.triage import CXR, cell_text, data_root, deadline

    study = _study(arguments)
    folder = arguments.folder
    late = deadline(arguments.minutes)
    pictures = read_folders(
        data_root(arguments), (study.normal, study.disease, study.other), study.side
    )
    folder.mkdir(parents=True, exist_ok=True)
    source = arguments.source or (CXR if arguments.data is None else "Pictures of the user")
    digest = hashlib.sha256("".join(pictures.digests).encode()).hexdigest()
    found: list[dict[str, Any] | None] = []
    for seed in range(arguments.seeds):
        plain = {"study": asdict(study), "seed": seed, "pictures": digest, "source": source}
        plan = json.loads(json.dumps(plain))
        path = folder / f"seed-{seed}.json"
        result = read_cell(path, plan)
        if result is None and not late():
            result = {"plan": plan, **run_seed(study, seed, pictures, source, arguments.place)}
            write_file(path, cell_text(result).encode())
            print(f"{path.stem}  {result['cpu_seconds']:.0f} CPU-seconds", file=sys.stderr)
        found.append(result)
    header, rows = table(found, study)
    write_file(folder / "README.md", _page(header, rows, study, source, command).encode())
    if arguments.json:
        print(json.dumps({"header": header, "rows": rows, "folder": str(folder)}, indent=2))
    else:
        tables.show(tables.plain_table(header, rows, "triage: reuse"), NOTES)
    return 0


def _study(arguments: Arguments) -> Reuse:
    known = Reuse(backbone=arguments.backbone or arguments.defaults.backbone)
    return replace(
        known,
        normal=arguments.normal,
        disease=(arguments.abnormal or (known.disease,))[0],
        other=(arguments.unseen or (known.other,))[0],
        side=arguments.side or known.side,
    )


def parts_of(study: Reuse, pictures: Pictures) -> dict[str, Rows]:
    """Rows of the test, of what few pictures are drawn from, and of the other network.

    Normal training pictures are dealt out in turn: no picture teaches both networks.
    """
    splits = split(pictures, (study.normal, study.disease, study.other), ())
    folders = np.array(pictures.folders)

    def of(name: str, *chosen: str) -> Rows:
        rows = splits[name]
        return rows[np.isin(folders[rows], chosen)]

    normal = of("train", study.normal)
    return {
        "test": of("test", study.normal, study.disease),
        "tune": of("tune", study.normal, study.disease),
        "few": np.sort(np.concatenate([normal[::2], of("train", study.disease)])),
        "other": np.sort(np.concatenate([normal[1::2], of("train", study.other)])),
    }


def draw_few(labels: Sequence[int], size: int, seed: int) -> Rows:
    """Places of `size` pictures, half of each kind; those of a smaller size are among them.

    Raises:
        ValueError: if there are not so many.
    """
    truth = np.asarray(labels)
    chosen = []
    for kind in (0, 1):
        places = np.random.default_rng((seed, kind)).permutation(np.flatnonzero(truth == kind))
        if len(places) < size // 2:
            raise ValueError(f"{size} pictures need {size // 2} of each kind, got {len(places)}")
        chosen.append(places[: size // 2])
    return np.sort(np.concatenate(chosen))


def run_seed(
    study: Reuse, seed: int, pictures: Pictures, source: str, work: Path
) -> dict[str, Any]:
    """All trainings of a seed; JSON values."""
    began = time.process_time()
    rows = parts_of(study, pictures)
    sets = {
        name: _colored(image_set(pictures, part, study.normal, source))
        for name, part in rows.items()
    }
    place = work / f"seed-{seed}"
    other = _train(study, study.source_steps, sets["other"], sets["tune"], seed, None, place / "o")
    states: dict[str, Mapping[str, Any] | None] = {
        "random": None,
        "parts": load_classifier(PARTS).model.state_dict(),
        "other disease": other.model.state_dict(),
    }
    truth = sets["test"].labels[:, 0]
    areas: dict[str, dict[str, Any]] = {}
    for size in study.sizes:
        few = sets["few"].take(draw_few(sets["few"].labels[:, 0].tolist(), size, seed))
        logits = {
            start: logits_of(
                _train(
                    study, study.steps, few, sets["tune"], seed, state, place / f"{start}-{size}"
                ),
                sets["test"],
            )
            for start, state in states.items()
        }
        areas[str(size)] = {
            start: {
                **area(delong_interval(values, truth)),
                "against_random": list(delong_test(values, logits["random"], truth)),
            }
            for start, values in logits.items()
        }
    return {
        "areas": areas,
        "other_area": area(delong_interval(logits_of(other, sets["test"]), truth)),
        "pictures": {
            name: np.bincount(part.labels[:, 0], minlength=2).tolist()
            for name, part in sets.items()
        },
        "cpu_seconds": time.process_time() - began,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def _colored(data: ImageSet) -> ImageSet:
    """Grey pictures in three channels, as a network of colour takes them."""
    return replace(data, images=np.repeat(data.images, 3, axis=-1))


def _train(
    study: Reuse,
    steps: int,
    train: ImageSet,
    held_out: ImageSet,
    seed: int,
    state: Mapping[str, Any] | None,
    folder: Path,
) -> SavedClassifier:
    """A classifier from a random start, or from the weights of another, but for its last layer."""
    import torch

    from perception.catalogue import create
    from perception.train_config import ClassifierTrainConfig
    from perception.training import train_classifier

    torch.manual_seed(seed)
    model = create(study.backbone, n_classes=train.n_classes, in_channels=3)
    if state is not None:
        load_all_but_last(model, state)
    config = ClassifierTrainConfig(
        steps=steps,
        batch_size=min(32, len(train)),
        lr=study.lr,
        warmup_steps=max(1, steps // 10),
        ema_decay=0.95,
        precision="float32",
        seed=seed,
        tensorboard=False,
    )
    result = train_classifier(model, train, held_out, config, folder, resume=False, progress=False)
    return SavedClassifier(
        model, study.backbone, {}, train.tasks, result.size, result.mean, result.std
    )


def load_all_but_last(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Take over the weights of another network of this kind, but for the last layer.

    Raises:
        ValueError: if the other one is of another kind.
    """
    own = model.state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    wanted = {
        name: value.shape for name, value in own.items() if not name.startswith("classifier.")
    }
    if wanted != {name: value.shape for name, value in kept.items()}:
        raise ValueError("the weights to begin from must be of the same backbone and channels")
    model.load_state_dict({**own, **kept})


def table(
    found: Sequence[Mapping[str, Any] | None], study: Reuse
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: where it begins, and the area for each number of pictures."""
    known = [one["areas"] for one in found if one is not None]
    header = ["start", *(f"{size} pictures" for size in study.sizes), "seeds"]
    rows = []
    for start in STARTS:
        cells = [_cell([one[str(size)][start] for one in known]) for size in study.sizes]
        rows.append([start, *cells, f"{len(known)} of {len(found)}"])
    return header, rows


def _cell(areas: Sequence[Mapping[str, Any]]) -> str:
    if not areas:
        return "not run"
    low, high = min(one["ci95"][0] for one in areas), max(one["ci95"][1] for one in areas)
    better = sum(one["against_random"][0] > 0 and one["against_random"][1] < 0.05 for one in areas)
    mean = np.mean([one["value"] for one in areas])
    return f"{mean:.3f} [{low:.3f}, {high:.3f}] ({better} of {len(areas)})"


def _page(
    header: Sequence[str], rows: Sequence[Sequence[str]], study: Reuse, source: str, command: str
) -> str:
    lines = [
        "# Triage: few pictures",
        "",
        f"{source}. {study.normal} against {study.disease}; the other disease is {study.other}. "
        f"{study.backbone}, {study.side} pixels a side, {study.steps} steps of at most 32 "
        "pictures.",
        "",
        "```sh",
        command,
        "```",
        "",
        *markdown(header, rows),
        "",
        NOTES,
        "",
    ]
    return "\n".join(lines)
