"""The state of a training between two steps, so that a killed one goes on bit by bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from learning.adamw import FlatAdamW
from learning.atomic import write_file
from learning.checkpoint import CheckpointError
from learning.ema import Ema

_KEY = "state"


def write_state(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors, and JSON values in the header, in one step.

    Raises:
        OSError: if it cannot be written; the old state is untouched.
    """
    plain = {name: t.detach().to("cpu").clone().contiguous() for name, t in tensors.items()}
    write_file(path, safetensors.torch.save(plain, {_KEY: json.dumps(values)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_state` wrote.

    Raises:
        CheckpointError: one line, if the file is damaged.
        OSError: if it cannot be read.
    """
    data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        values = json.loads(header["__metadata__"][_KEY])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        detail = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path}: corrupt ({detail}); delete it to train from the start"
        ) from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: corrupt; delete it to train from the start")
    return tensors, values


def training_tensors(model: nn.Module, optimizer: FlatAdamW, ema: Ema | None) -> dict[str, Tensor]:
    """Everything that a step changes in model, optimiser and average, by name."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if ema is not None:
        tensors |= {f"ema/{index}": value for index, value in enumerate(ema.tensors)}
    return tensors | {f"optimizer/{name}": value for name, value in optimizer.state().items()}


def restore_training(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: FlatAdamW,
    ema: Ema | None,
) -> None:
    """Put back what `training_tensors` gave.

    Raises:
        CheckpointError: if the model has other parameters.
    """
    try:
        model.load_state_dict(_under(tensors, "model/"))
        if ema is not None:
            for index, average in enumerate(ema.tensors):
                average.copy_(tensors[f"ema/{index}"])
        optimizer.load(_under(tensors, "optimizer/"))
    except (RuntimeError, KeyError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the saved training state is of another model: {detail}; use another folder"
        ) from None


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
