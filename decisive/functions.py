"""`decisive demo --functions`: explicit and implicit fits of functions with jumps and branches.

After the function fits of Florence et al. 2021, "Implicit Behavioral Cloning": an explicit model
bends through a jump and averages branches; the argmin of an energy need do neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from decisive import tables
from decisive.demo_jobs import Jobs, Pool
from decisive.landscape import action_range, implicit

if TYPE_CHECKING:
    from agents.implicit_bc.policy import ImplicitPolicy

Array = NDArray[np.float64]

METHODS = {"mse": "explicit (MSE)", "mdn": "mixture (MDN)", "ibc": "implicit (IBC)"}
STEPS = {"mse": 1200, "mdn": 1500, "ibc": 1500}
"""Updates; a training takes 2 (MSE) to 6 (IBC) CPU-seconds."""
SETTINGS: dict[str, dict[str, Any]] = {
    "mse": {"width": 128, "depth": 3},
    # Sampling, the default, errs more than twice as much at the jumps.
    "mdn": {"width": 128, "depth": 3, "decode": "mean"},
    "ibc": {
        "width": 64,
        "head_width": 64,
        "head_depth": 2,
        "n_negatives": 16,
        "dfo": {"n_samples": 256, "n_iterations": 5},
    },
}
BATCH = {"mse": 120, "mdn": 120, "ibc": 64}
RATE = {"mse": 1e-3, "mdn": 1e-3, "ibc": 2e-3}
N_TRAIN = 120
N_TEST = 400
NEAR = 0.08
"""The error at the jumps is the mean over test points so close to one."""


@dataclass(frozen=True)
class Function:
    """A function of x in [-1, 1], with one or several values.

    Attributes:
        name: for people.
        branches: `(N,)` x to `(N, k)` values.
        jumps: where it is discontinuous; empty for the multi-valued, judged everywhere.
    """

    name: str
    branches: Callable[[Array], Array]
    jumps: tuple[float, ...] = ()

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """`(n,)` x and `(n,)` y, the branch at random."""
        x = np.sort(rng.uniform(-1.0, 1.0, n))
        values = self.branches(x)
        return x, values[np.arange(n), rng.integers(values.shape[1], size=n)]

    def judged(self, x: Array) -> NDArray[np.bool_]:
        """Which test points count: those near a jump, or all."""
        if not self.jumps:
            return np.ones(len(x), bool)
        return np.any(np.abs(x[:, None] - np.array(self.jumps)) < NEAR, axis=1)

    def error(self, x: Array, y: Array) -> float:
        """Mean distance of predictions to the nearest value, where they count."""
        where = self.judged(x)
        gaps = np.abs(self.branches(x) - y[:, None]).min(axis=1)
        return float(gaps[where].mean())


def _step(x: Array) -> Array:
    return np.where(x < 0.0, -0.7, 0.7)[:, None]


def _pieces(x: Array) -> Array:
    parts = [x < -0.55, x < -0.1, x < 0.4]
    pieces = [0.4 + 0.6 * (x + 1), -0.8 + 0.5 * (x + 0.55), 0.6 - 1.2 * (x + 0.1)]
    return np.select(parts, pieces, -0.2 + 1.2 * (x - 0.4))[:, None]


def _hyperbola(x: Array) -> Array:
    upper = np.sqrt(0.04 + 0.8 * x**2)
    return np.stack([upper, -upper], axis=1)


def _circle(x: Array) -> Array:
    upper = 0.9 * np.sqrt(np.clip(1 - x**2, 0, None))
    return np.stack([upper, -upper], axis=1)


FUNCTIONS = (
    Function("step", _step, (0.0,)),
    Function("discontinuities", _pieces, (-0.55, -0.1, 0.4)),
    Function("hyperbola", _hyperbola),
    Function("circle", _circle),
)


@dataclass(frozen=True)
class Fit:
    """One method on one function: the data, the prediction at test points, and the energy.

    Attributes:
        x: `(N,)` training inputs.
        y: `(N,)` training values.
        test_x: `(M,)`.
        test_y: `(M,)` predictions.
        error: as `Function.error`.
        energy: `(rows, columns)` over y in `span` and x in [-1, 1], each column from its own
            minimum; implicit only.
        span: low and high y that the energy was trained on.
    """

    x: Array
    y: Array
    test_x: Array
    test_y: Array
    error: float
    energy: Array | None
    span: tuple[float, float]


def fit(number: int, method: str, seed: int, steps: int | None = None) -> Fit:
    """Train one method on one function; a function of its arguments alone.

    Args:
        number: index in `FUNCTIONS`.
        method: key of `METHODS`.
        seed: of data, weights and batches.
        steps: updates; by default those of `STEPS`.
    """
    import torch

    from agents import make_policy
    from learning.demonstrations import Demonstrations
    from learning.loop import TrainConfig, train

    torch.set_num_threads(1)
    function = FUNCTIONS[number]
    x, y = function.sample(N_TRAIN, np.random.default_rng((seed, number)))
    demos = Demonstrations(
        observations={"state": x[:, None].astype(np.float32)},
        actions=y[:, None].astype(np.float32),
        rewards=np.zeros(N_TRAIN, np.float32),
        episode_offsets=np.arange(N_TRAIN + 1),
        action_low=np.array([-1.2], np.float32),
        action_high=np.array([1.2], np.float32),
    )
    torch.manual_seed(seed)
    policy = make_policy(method, demos, SETTINGS[method])
    config = TrainConfig(
        steps=steps or STEPS[method],
        batch_size=BATCH[method],
        lr=RATE[method],
        holdout=0.0,
        seed=seed,
        tensorboard=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        train(policy, demos, config, folder, progress=False)
    policy.eval()
    policy.reset(seed)
    test_x = np.linspace(-1.0, 1.0, N_TEST)
    test_y = policy.act(test_x[:, None].astype(np.float32))[:, 0].astype(np.float64)
    error = function.error(test_x, test_y)
    if method != "ibc":
        return Fit(x, y, test_x, test_y, error, None, (0.0, 0.0))
    low, high = (float(end[0]) for end in action_range(implicit(policy)))
    return Fit(x, y, test_x, test_y, error, _energy(implicit(policy), low, high), (low, high))


def _energy(
    policy: ImplicitPolicy, low: float, high: float, columns: int = 100, rows: int = 120
) -> Array:
    values = np.linspace(low, high, rows, dtype=np.float32)[:, None]
    stripes = []
    for x in np.linspace(-1.0, 1.0, columns, dtype=np.float32):
        policy.reset(0)
        policy.act(np.array([x]))
        stripes.append(policy.landscape(values))
    energy = np.stack(stripes, axis=1).astype(np.float64)
    result: Array = energy - energy.min(axis=0)
    return result


def fit_all(out: Path, seed: int = 0, workers: int = 2, show: bool = True) -> dict[str, Any]:
    """Fit every function by every method, draw the grid and print the errors.

    Args:
        out: folder for `functions.png`.
        seed: of all.
        workers: parallel processes.
        show: whether to print the table.

    Returns:
        A JSON object: `errors` by function and method, and `files`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Pool(workers) as pool:
        jobs = Jobs(pool)
        futures = {
            (number, method): jobs.add(fit, number, method, seed)
            for method in reversed(METHODS)  # the longest first
            for number in range(len(FUNCTIONS))
        }
        jobs.finish("Fitting functions")
    fits = {key: future.result() for key, future in futures.items()}
    path = out / "functions.png"
    draw(fits, path)
    if show:
        tables.show(error_table(fits))
    errors = {
        function.name: {method: round(fits[number, method].error, 4) for method in METHODS}
        for number, function in enumerate(FUNCTIONS)
    }
    return {"errors": errors, "seed": seed, "files": {"functions": str(path)}}


def error_table(fits: dict[tuple[int, str], Fit]) -> Table:
    """The errors, one row a function."""
    table = Table(title="\nTest error of the fits", title_justify="left", title_style="bold")
    table.add_column("function")
    table.add_column("mean distance of the prediction", style="dim")
    for label in METHODS.values():
        table.add_column(label, justify="right")
    for number, function in enumerate(FUNCTIONS):
        where = f"within {NEAR} of a jump" if function.jumps else "to the nearest branch"
        cells = [f"{fits[number, method].error:.3f}" for method in METHODS]
        table.add_row(function.name, where, *cells)
    return table


def draw(fits: dict[tuple[int, str], Fit], path: Path) -> None:
    """One panel a fit: functions in rows, methods in columns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 10.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(FUNCTIONS), len(METHODS), sharex=True, sharey=True)
    for number, function in enumerate(FUNCTIONS):
        for column, (method, label) in enumerate(METHODS.items()):
            ax, one = axes[number, column], fits[number, method]
            if one.energy is not None:
                ax.imshow(
                    -one.energy,
                    extent=(-1, 1, *one.span),
                    origin="lower",
                    aspect="auto",
                    cmap="viridis",
                    vmin=-12,
                    vmax=0,
                    alpha=0.55,
                    interpolation="bilinear",
                )
            ax.plot(one.x, one.y, "o", color="#8a929c", markersize=5, markeredgewidth=0, alpha=0.55)
            ax.plot(one.test_x, one.test_y, ".", color="#d5400a", markersize=3.5)
            note = "at jumps" if function.jumps else "to nearest branch"
            ax.text(
                0.97,
                0.04,
                f"error {note} {one.error:.3f}",
                transform=ax.transAxes,
                ha="right",
                fontsize=8.5,
                color="#1c2026",
            )
            ax.set(xlim=(-1.03, 1.03), ylim=(-1.45, 1.1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
            ax.tick_params(length=0, labelsize=8.5, colors="#68707a")
            for spine in ax.spines.values():
                spine.set_color("#d0d5db")
            if number == 0:
                ax.set_title(label, fontsize=12, fontweight="bold", loc="left", pad=8)
            if column == 0:
                ax.set_ylabel(function.name, fontsize=11)
    figure.supxlabel(
        "grey: training data   red: prediction   shade: energy, bright where low",
        fontsize=9.5,
        color="#68707a",
    )
    part = path.with_name(f".{path.name}.part")
    try:
        canvas.print_png(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
