"""Running cells of a benchmark grid: record, train, evaluate, keep the result; all resumable."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decisive import provenance
from decisive.benchmarks.recipes import TASKS, find_recipe
from decisive.benchmarks.tabletop import EPISODES, FEW_SHARE, SHIFTS, Cell
from decisive.workers import process_pool
from learning.atomic import write_file


@dataclass(frozen=True)
class Places:
    """Where a benchmark keeps its files.

    Attributes:
        results: folder of one JSON file a cell; these are committed.
        work: folder of recorded data and training runs; these can be made again.
    """

    results: Path
    work: Path

    def data(self, cell: Cell) -> Path:
        """The demonstrations of a cell, shared by cells of fewer of them."""
        return self.work / "data" / f"{cell.task}-{cell.expert}.npz"

    def run(self, cell: Cell) -> Path:
        """The training of a cell."""
        return self.work / "runs" / cell.run.replace("/", "--")


def plan(cell: Cell) -> dict[str, Any]:
    """Everything that decides a cell's result; a result of another plan is out of date."""
    task = TASKS[cell.task]
    recipe = find_recipe(f"{cell.task}-{cell.method}")
    train = dict(recipe.train)
    if cell.demos < task.recorded and "cpu_seconds" in train:
        train["cpu_seconds"] *= FEW_SHARE
    told = {
        "env": task.env,
        "options": task.options,
        "noise": task.noise,
        "policy": recipe.policy,
        "train": train,
        "selection_episodes": recipe.selection_episodes,
        "evaluation_options": SHIFTS[cell.shift] if cell.shift else {},
        "episodes": EPISODES,
    }
    plain: dict[str, Any] = json.loads(json.dumps(told, default=dict))
    return plain


def read_result(cell: Cell, places: Places) -> dict[str, Any] | None:
    """The result of a cell; `None` if it was not run, or by another plan."""
    try:
        result: dict[str, Any] = json.loads((places.results / cell.file).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{places.results / cell.file} is not JSON: {error}") from None
    return result if result.get("plan") == plan(cell) else None


def record_data(cell: Cell, places: Places, workers: int) -> Path:
    """The demonstrations of a cell, recorded if they are not there."""
    from decisive.data_files import write_demonstrations
    from decisive.recording import RecordConfig, record

    path = places.data(cell)
    if not path.exists():
        task = TASKS[cell.task]
        config = RecordConfig(
            env=task.env,
            options=dict(task.options),
            expert=cell.expert,
            episodes=task.recorded,
            noise=task.noise,
            workers=workers,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        # The commit is in the name: a recording that another commit began is not gone on with.
        staging = path.with_name(f".{path.name}.{provenance.commit()}.recording")
        write_demonstrations(record(config, staging), str(path))
        shutil.rmtree(staging)
    return path


def run_cell(cell: Cell, places: Places) -> dict[str, Any]:
    """Train and evaluate a cell whose data are there, in this process, and write its result.

    A training or evaluation that was stopped goes on where it was.
    """
    from decisive.evaluation import EvaluationConfig, evaluate
    from decisive.training import TrainingRun, run_training
    from learning.loop import TrainConfig

    began = time.process_time()
    told = plan(cell)
    folder = places.run(cell)
    with _alone(folder):
        _forget_other_plans(folder, {k: v for k, v in told.items() if k != "evaluation_options"})
        command = f"decisive benchmark tabletop --only {cell.name}"
        trained = run_training(
            TrainingRun(
                data=(str(places.data(cell)),),
                method=cell.method,
                out=folder,
                train=TrainConfig(**{**told["train"], "seed": cell.seed}),
                policy=told["policy"],
                episodes=cell.demos,
                selection_episodes=told["selection_episodes"],
                command=command,
            ),
            progress=False,
        )
        evaluation = EvaluationConfig(
            env=told["env"],
            policy=str(trained.folder),
            episodes=told["episodes"],
            options={**told["options"], **told["evaluation_options"]},
        )
        partial = folder / f"evaluation{cell.shift and '-'}{cell.shift}.jsonl"
        results = evaluate(evaluation, partial, command)
        result = {
            "cell": asdict(cell),
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
    cells: list[Cell],
    places: Places,
    workers: int,
    deadline: float | None = None,
    on_done: Callable[[Cell, dict[str, Any] | None, str], None] = lambda *_: None,
) -> list[str]:
    """Run cells in parallel processes, in their order.

    Args:
        cells: what to run.
        places: where files are kept.
        workers: parallel processes, each of one thread.
        deadline: no cell is begun after this `time.monotonic()`.
        on_done: called with a cell, its result (`None` if it failed) and the error's text.

    Returns:
        The errors of cells that failed, one line each.
    """
    errors: list[str] = []
    waiting: dict[Future[dict[str, Any]], Cell] = {}
    todo = list(cells)

    def fail(cell: Cell, error: Exception) -> None:
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
                        record_data(cell, places, workers)
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
