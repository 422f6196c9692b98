"""What a training tells while it runs: `metrics.jsonl`, TensorBoard and a progress bar."""

import json
import math
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from learning.atomic import write_file

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"
# Shown beside the bar, in this order, under the last part of their names.
_SHOWN = ("loss", "validation/accuracy", "validation/expert_rank", "score")
_TITLES = {"accuracy": "held-out", "expert_rank": "rank", "score": "success"}


def read_metrics(path: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` up to a step; half-written lines are skipped."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        step = row.get("step") if isinstance(row, dict) else None
        if isinstance(step, int) and (last_step is None or step <= last_step):
            rows.append(row)
    return rows


class TrainLog:
    """Rows of named numbers, one a logged step; silent in all processes but the first."""

    def __init__(
        self, out: Path, last_step: int, writing: bool, tensorboard: bool, progress: bool | None
    ) -> None:
        """Take up the log of a run after a step; later rows, from before a kill, are dropped.

        Args:
            out: folder of the run.
            last_step: the step that the run goes on from; 0 starts afresh.
            writing: False in processes that neither write nor print.
            tensorboard: whether to write event files under `out/tensorboard`.
            progress: whether to draw a bar; None where standard output is a terminal.
        """
        self._path = out / METRICS_FILE
        self._writing = writing
        self.history = read_metrics(self._path, last_step) if last_step else []
        self._board: SummaryWriter | None = None
        self._bar: Progress | None = None
        self._shown: dict[str, float] = {}
        if not writing:
            return
        write_file(self._path, "".join(json.dumps(row) + "\n" for row in self.history).encode())
        if tensorboard:
            # Imported late: it takes seconds.
            from torch.utils import tensorboard as boards

            self._board = boards.SummaryWriter(str(out / "tensorboard"), purge_step=last_step + 1)
        if sys.stdout.isatty() if progress is None else progress:
            self._bar = Progress(
                TextColumn("step {task.fields[step]}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
            )
            self._task = self._bar.add_task("train", total=1.0, step=last_step, shown="")

    def __enter__(self) -> "TrainLog":
        """Start drawing."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing and close the event file."""
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()

    def row(self, step: int, fraction: float, values: dict[str, float]) -> None:
        """Log one row.

        Args:
            step: steps done.
            fraction: share of the budget spent.
            values: numbers by name; what is not finite is left out, being no JSON.
        """
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.history.append({"step": step, **finite})
        if not self._writing:
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.history[-1]) + "\n")
        if self._board is not None:
            for name, value in finite.items():
                self._board.add_scalar(name, value, step)
        if self._bar is not None:
            self._shown.update({key: value for key, value in finite.items() if key in _SHOWN})
            shown = "  ".join(
                f"{_TITLES.get(key.split('/')[-1], key.split('/')[-1])} {self._shown[key]:.3g}"
                for key in _SHOWN
                if key in self._shown
            )
            self._bar.update(self._task, completed=fraction, step=step, shown=shown)
