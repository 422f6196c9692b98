"""Running cells of a benchmark grid: find data, train, evaluate, keep the result; all resumable."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from decisive.workers import process_pool
from learning.atomic import write_file

EPISODES = 100
"""Unseen episodes a cell, seeds 0 to 99 of the stream `evaluate`."""
TRAINING_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Places:
    """Where a benchmark keeps its files.

    Attributes:
        results: folder of one JSON file a cell; these are committed.
        work: folder of recorded data and training runs; these can be made again.
    """

    results: Path
    work: Path

    def run(self, cell: Cell) -> Path:
        """The training of a cell."""
        return self.work / "runs" / cell.run.replace("/", "--")


class NoDataError(ValueError):
    """A cell whose demonstrations are not to be had here; the table says 'no data'."""


class Cell(ABC):
    """One training and its evaluation; a suite's cells are frozen dataclasses."""

    suite: ClassVar[str]
    """What `decisive benchmark` calls the grid."""
    task: str
    method: str
    """What tables call the method."""
    seed: int
    """Of the training."""

    @property
    @abstractmethod
    def run(self) -> str:
        """Name of the training; cells that differ in their evaluation only share one."""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return self.run

    @property
    def file(self) -> str:
        """Name of the file of its result."""
        return self.name.replace("/", "--") + ".json"

    @property
    @abstractmethod
    def kept(self) -> int | None:
        """Demonstrations trained on, the first of the data; all if `None`."""

    @abstractmethod
    def plan(self) -> dict[str, Any]:
        """Everything that decides the result; a result of another plan is out of date.

        JSON values: `env`, `options` of training, `policy` settings, `train` settings,
        `selection_episodes`, `evaluation_options`, `episodes`, and what else a suite has.
        """

    @property
    def trained_as(self) -> str:
        """Key of `agents.POLICIES`."""
        return self.method

    @abstractmethod
    def data(self, places: Places) -> str:
        """Name or path of the demonstrations.

        Raises:
            NoDataError: if there are none to be had.
        """

    def data_options(self, places: Places) -> dict[str, Any]:
        """Options of the environment that the demonstrations tell, beside those of the plan."""
        return {}

    @abstractmethod
    def prepare(self, places: Places, workers: int) -> None:
        """See to it that the demonstrations are there.

        Raises:
            NoDataError: if they are not to be had.
            ValueError: if they could not be made.
        """


C = TypeVar("C", bound=Cell)


def read_result(cell: Cell, places: Places) -> dict[str, Any] | None:
    """The result of a cell; `None` if it was not run, or by another plan."""
    try:
        result: dict[str, Any] = json.loads((places.results / cell.file).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{places.results / cell.file} is not JSON: {error}") from None
    return result if result.get("plan") == cell.plan() else None


def read_cell(path: Path, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result in a file; `None` if there is none.

    Args:
        path: JSON, with the `plan` that decided it.
        told: the plan that it must have.

    Raises:
        ValueError: if it is of another plan, or no JSON.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    plan, old = json.loads(json.dumps(told)), result.get("plan") or {}
    if old != plan:
        keys = ", ".join(key for key in {**plan, **old} if old.get(key) != plan.get(key))
        raise ValueError(f"{path} is of other settings ({keys}); use another --out, or remove it")
    return result


def run_cell(cell: Cell, places: Places) -> dict[str, Any]:
    """Train and evaluate a cell whose data are there, in this process, and write its result.

    A training or evaluation that was stopped goes on where it was.
    """
    from decisive.evaluation import EvaluationConfig, evaluate
    from decisive.training import TrainingRun, run_training
    from learning.loop import TrainConfig

    began = time.process_time()
    told = cell.plan()
    folder = places.run(cell)
    with _alone(folder):
        _forget_other_plans(folder, {k: v for k, v in told.items() if k != "evaluation_options"})
        command = f"decisive benchmark {cell.suite} --only {cell.name}"
        trained = run_training(
            TrainingRun(
                data=(cell.data(places),),
                method=cell.trained_as,
                out=folder,
                train=TrainConfig(**{**told["train"], "seed": cell.seed}),
                policy=told["policy"],
                episodes=cell.kept,
                selection_episodes=told["selection_episodes"],
                command=command,
            ),
            progress=False,
        )
        evaluation = EvaluationConfig(
            env=told["env"],
            policy=str(trained.folder),
            episodes=told["episodes"],
            options={
                **told["options"],
                **cell.data_options(places),
                **told["evaluation_options"],
            },
        )
        shift = cell.name.removeprefix(cell.run).replace("/", "-")
        partial = folder / f"evaluation{shift}.jsonl"
        results = evaluate(evaluation, partial, command)
        result = {
            "cell": asdict(cell) if is_dataclass(cell) else cell.name,
            "plan": told,
            "training": {
                "steps": trained.step,
                "cpu_seconds": round(trained.cpu_seconds, 2),
                "best_score": trained.best_score,
            },
            # Of this sitting: a cell that was stopped before cost more.
            "total_cpu_seconds": round(time.process_time() - began, 1),
            "results": results,
        }
        places.results.mkdir(parents=True, exist_ok=True)
        write_file(places.results / cell.file, _compact(result).encode())
        partial.unlink(missing_ok=True)
    return result


def run_cells(
    cells: Sequence[C],
    places: Places,
    workers: int,
    deadline: float | None = None,
    on_done: Callable[[C, dict[str, Any] | None, str], None] = lambda *_: None,
) -> list[str]:
    """Run cells in parallel processes, in their order.

    Args:
        cells: what to run.
        places: where files are kept.
        workers: parallel processes, each of one thread.
        deadline: no cell is begun after this `time.monotonic()`.
        on_done: called with a cell, its result (`None` if it failed or has no data) and why.

    Returns:
        The errors of cells that failed, one line each.
    """
    errors: list[str] = []
    waiting: dict[Future[dict[str, Any]], C] = {}
    todo = list(cells)

    def fail(cell: C, error: Exception) -> None:
        errors.append(f"{cell.name}: {' '.join(str(error).split())}")
        on_done(cell, None, errors[-1])

    with process_pool(workers, interruptible=True) as pool:
        try:
            while todo or waiting:
                if deadline is not None and time.monotonic() > deadline:
                    todo.clear()
                while todo and len(waiting) < workers:
                    cell = todo.pop(0)
                    try:
                        cell.prepare(places, workers)
                    except NoDataError as error:
                        on_done(cell, None, f"{cell.name}: {error}")
                        continue
                    except ValueError as error:
                        fail(cell, error)
                        continue
                    waiting[pool.submit(run_cell, cell, places)] = cell
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    cell = waiting.pop(future)
                    try:
                        on_done(cell, future.result(), "")
                    except (ValueError, OSError) as error:
                        fail(cell, error)
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died (out of memory?); the same command goes on from there"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return errors


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from the same training while the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_other_plans(folder: Path, told: Mapping[str, Any]) -> None:
    """Empty a run folder whose training followed another plan."""
    label = folder / "plan.json"
    text = json.dumps(told, indent=2, sort_keys=True)
    if not label.exists() or label.read_text(encoding="utf-8") != text:
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()
        write_file(label, text.encode())


def _compact(result: dict[str, Any]) -> str:
    """JSON with one line for each episode: 100 rows should not take 700 lines."""
    rows = result["results"]["per_episode"]
    marker = "@per_episode@"
    slim = {**result, "results": {**result["results"], "per_episode": marker}}
    lines = ",\n      ".join(json.dumps(row) for row in rows)
    text = json.dumps(slim, indent=2).replace(f'"{marker}"', f"[\n      {lines}\n    ]")
    return text + "\n"
