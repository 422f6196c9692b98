"""`decisive train`: a policy from demonstrations."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from decisive import provenance
from decisive.arguments import Flag, OptionalText, parse
from decisive.benchmarks.recipes import Recipe, find_recipe
from decisive.options import constructor_parameters, merged, nested_options, typed_options

DEFAULT_STEPS = 20_000

Repeated = tyro.conf.UseAppendAction[tuple[str, ...]]
Setting = Annotated[Repeated, tyro.conf.arg(metavar="NAME=VALUE")]


@dataclass(frozen=True)
class Arguments:
    r"""Train a policy on demonstrations.

    The checkpoint is chosen by episodes on seeds that no evaluation ever uses; data that name no
    environment give the last one. A run that was stopped goes on when
    the same command is given again. The folder holds `best` and `last` with a model card each,
    metrics.jsonl and TensorBoard files; `decisive evaluate --policy FOLDER` takes the best.

    Examples:
      decisive train --data push-diverse --method ibc --steps 20000 --out outputs/push
      decisive train --data outputs/slots1.npz --data outputs/slots2.npz --method ibc \
        --cpu-minutes 10 --set-policy width=128 --set-policy dfo.n_samples=512 --out outputs/ins
      decisive train --data push-diverse --recipe block-push-mdn --seed 1 --out outputs/mdn
      decisive train --data insertion --method kernel --set-policy points=500 \
        --set-policy frame=slot1 --set-policy relations=True --out outputs/kernel
      torchrun --nproc-per-node 2 -m decisive train --data push-diverse --method mse \
        --steps 5000 --out outputs/two-processes

    World models: `decisive train pathdreamer --help`. Forecasts on grids: `decisive train metnet2
    --help`. Classifiers of images: `decisive train classifier --help`. Instance masks: `decisive
    train segmenter --help`. Several perception tasks: `decisive train tasks --help`. Images and
    texts in many languages: `decisive train mural --help`.
    """

    data: Annotated[Repeated, tyro.conf.arg(metavar="NAME")]
    """Minari data set, or a file .npz, .hdf5 or .h5; give --data once for each."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the run."""
    method: OptionalText = None
    """ibc, mse, mdn, binned, diffusion, or kernel: in closed form, without training steps."""
    recipe: OptionalText = None
    """Settings of the benchmarks by name, such as block-insertion-ibc; others override them."""
    steps: int | None = None
    """Budget in training steps. 20000 where no budget is given."""
    cpu_minutes: float | None = None
    """Budget in CPU-minutes of training steps; with --steps, the first to be spent."""
    seed: int = 0
    """Seed of weights, data order and sampling."""
    episodes: int | None = None
    """Keep the first demonstrations of each data set; all if not given."""
    evaluate_every: int | None = None
    """Training steps between the episodes that choose a checkpoint; 10 times a run if not given."""
    selection_episodes: int | None = None
    """How many such episodes each time; 0 for none. 20 if not given."""
    set_policy: Setting = ()
    """Setting of the policy, such as width=128 or dfo.n_samples=512; once for each."""
    set_train: Setting = ()
    """Setting of the training, such as lr=0.0005 or device=cuda; once for each."""
    fresh: Flag = False
    """Start afresh instead of going on with what is in the folder."""
    json: Flag = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if list(argv[:1]) == ["pathdreamer"]:
        from decisive import train_pathdreamer

        return train_pathdreamer.main(argv[1:])
    if list(argv[:1]) == ["classifier"]:
        from decisive import train_classifier

        return train_classifier.main(argv[1:])
    if list(argv[:1]) == ["segmenter"]:
        from decisive import train_segmenter

        return train_segmenter.main(argv[1:])
    if list(argv[:1]) == ["metnet2"]:
        from decisive import train_forecast

        return train_forecast.main(argv[1:])
    if list(argv[:1]) == ["mural"]:
        from decisive import train_mural

        return train_mural.main(argv[1:])
    if list(argv[:1]) == ["tasks"]:
        from decisive import train_tasks

        return train_tasks.main(argv[1:])
    arguments = parse(Arguments, argv, "train")
    recipe = Recipe("", "") if arguments.recipe is None else find_recipe(arguments.recipe)
    method = arguments.method or recipe.method
    if not method:
        raise ValueError("name a method (--method ibc) or a recipe (--recipe block-push-ibc)")
    if recipe.method and method != recipe.method:
        raise ValueError(f"recipe {arguments.recipe} trains {recipe.method}, not {method}")
    if method == "kernel" and (arguments.steps is not None or arguments.cpu_minutes is not None):
        raise ValueError("kernel takes no training steps: leave out --steps and --cpu-minutes")

    # torch and everything above it take seconds to load: not before the arguments are read.
    from decisive.training import TrainingRun, run_training

    selection = arguments.selection_episodes
    result = run_training(
        TrainingRun(
            data=arguments.data,
            method=method,
            out=Path(arguments.out),
            train=_train_config(arguments, recipe),
            policy=merged(recipe.policy, nested_options(arguments.set_policy)),
            episodes=arguments.episodes,
            selection_episodes=recipe.selection_episodes if selection is None else selection,
            command=provenance.command("train", argv),
        ),
        resume=not arguments.fresh,
        progress=False if arguments.json else None,
    )
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun, one process speaks
        _report(arguments, {**asdict(result), "folder": str(result.folder), "method": method})
    return 0


def _train_config(arguments: Arguments, recipe: Recipe) -> Any:
    from learning.loop import TrainConfig

    settings = dict(recipe.train)
    named = {
        "steps": arguments.steps,
        "cpu_seconds": None if arguments.cpu_minutes is None else 60.0 * arguments.cpu_minutes,
    }
    if any(value is not None for value in named.values()):
        settings |= named  # a budget on the command line replaces the recipe's
    if arguments.evaluate_every is not None:
        settings["evaluate_every"] = arguments.evaluate_every
    settings["seed"] = arguments.seed
    known = constructor_parameters(TrainConfig)
    settings |= typed_options(arguments.set_train, known, "training setting")
    if settings.get("steps") is None and settings.get("cpu_seconds") is None:
        settings["steps"] = DEFAULT_STEPS
    return TrainConfig(**settings)


def _report(arguments: Arguments, result: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    final: dict[str, float] = {}
    for row in result["history"]:
        final |= row
    print(f"{result['step']} steps in {result['cpu_seconds']:.1f} CPU-seconds")
    measures = ("accuracy", "expert_rank", "action_error", "explained", "beyond")
    shown = ("loss", *(f"validation/{name}" for name in measures))
    for name in shown:
        if name in final:
            print(f"{name}: {final[name]:.4g}")
    if result["method"] == "kernel":
        print("fitted in closed form; no episodes: there was nothing to choose between")
    elif result["best_score"] is None:
        asked = arguments.selection_episodes != 0
        print("no episodes: " + ("the data name no environment" if asked else "none asked for"))
    else:
        print(f"best score on selection episodes: {result['best_score']:.3f}")
    print(result["folder"])
