"""Checkpoints: a folder of `config.json`, `model.safetensors` and a model card `README.md`.

Loading parses JSON and safetensors and nothing else: no content of the folder is ever executed.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from learning.atomic import new_folder, recover_folder

FORMAT = 1
CONFIG_FILE = "config.json"
TENSORS_FILE = "model.safetensors"
CARD_FILE = "README.md"
MAX_CONFIG_BYTES = 16 * 2**20
MAX_TENSOR_BYTES = 8 * 2**30
Module = TypeVar("Module", bound=nn.Module)
Saved = TypeVar("Saved")
Build = Callable[[dict[str, Any]], Module]
"""A module of the config document of its checkpoint; raises `ValueError` if there can be none."""
_REQUIRED: dict[str, type] = {"method": str, "config": dict, "spec": dict, "training": dict}


class CheckpointError(ValueError):
    """A checkpoint that is missing, broken or does not fit; the message is one clear line."""


def save_checkpoint(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str
) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        folder: where the checkpoint goes; a kill or a full disk leaves the old one untouched.
        config: JSON values under `method`, `config`, `spec` and `training`; `format` is added.
        tensors: parameters and buffers by name, all finite.
        card: the model card, Markdown.

    Raises:
        CheckpointError: if something could not be read back: a missing key, a NaN, no tensors.
        OSError: if the folder cannot be written.
    """
    document = {"format": FORMAT, **config}
    where = str(folder)
    _check_config(document, where)
    plain = {name: t.detach().to("cpu").clone().contiguous() for name, t in tensors.items()}
    _check_tensors(plain, where)
    try:
        text = json.dumps(document, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: config must hold JSON values only: {error}") from None
    payload = safetensors.torch.save(plain)
    with new_folder(Path(folder)) as beside:
        (beside / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        (beside / TENSORS_FILE).write_bytes(payload)
        (beside / CARD_FILE).write_text(card, encoding="utf-8")


def save_module(
    folder: str | Path,
    document: dict[str, Any],
    model: nn.Module,
    card: str,
    build: Build[nn.Module],
    *,
    half: bool = False,
) -> None:
    """`save_checkpoint` of a module that its config document must make again.

    Args:
        folder: where the checkpoint goes.
        document: as for `save_checkpoint`.
        model: what to save.
        card: the model card, Markdown.
        build: what `load_module` will be given.
        half: store float16, half the bytes; what is loaded computes in float32 again.

    Raises:
        CheckpointError: if a weight is not finite (beyond 65,504 if halved), or the document makes
            another module.
        OSError: if the folder cannot be written.
    """
    tensors = model.state_dict()
    with torch.device("meta"):
        expected = {name: value.shape for name, value in build(document).state_dict().items()}
    if expected != {name: value.shape for name, value in tensors.items()}:
        raise CheckpointError(
            f"model must be the {document['method']} of its configuration; its weights have other "
            "names or shapes"
        )
    if half:
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_checkpoint(folder, document, tensors, card)


def read_checkpoint(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read and check a checkpoint folder.

    Args:
        folder: a checkpoint, or a training run holding `best` or `last` (see `find_checkpoint`).

    Returns:
        The config document and the tensors by name, on the CPU.

    Raises:
        CheckpointError: one line saying what is missing or broken.
    """
    place = find_checkpoint(folder)
    return _read_config(place / CONFIG_FILE), _read_tensors(place / TENSORS_FILE)


def find_checkpoint(folder: str | Path) -> Path:
    """The checkpoint meant by a folder: itself, else the `best` or the `last` of a training run.

    Raises:
        CheckpointError: if there is none.
    """
    place = Path(folder)
    for candidate in (place, place / "best", place / "last"):
        recover_folder(candidate)
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    if not place.exists():
        raise CheckpointError(f"no checkpoint at {place}: the folder does not exist")
    raise CheckpointError(
        f"no checkpoint at {place}: expected a folder with {CONFIG_FILE} and {TENSORS_FILE}"
    )


def list_checkpoints(folder: Path) -> dict[str, Path]:
    """Checkpoints that lie in a folder, such as the shipped ones, by name."""
    if not folder.is_dir():
        return {}
    return {
        place.name: place for place in sorted(folder.iterdir()) if (place / CONFIG_FILE).is_file()
    }


def find_shipped(path_or_name: str | Path, shipped: Mapping[str, Path], what: str) -> Path:
    """The path itself where something is, else the shipped checkpoint of that name.

    Args:
        path_or_name: as a user gives it.
        shipped: by name.
        what: they are, for the message.

    Raises:
        CheckpointError: if it is neither; the shipped ones are listed.
    """
    if Path(path_or_name).exists():
        return Path(path_or_name)
    if str(path_or_name) not in shipped:
        raise CheckpointError(
            f"no {what} {str(path_or_name)!r}: neither a folder nor a shipped {what}; "
            f"shipped: {', '.join(shipped) or 'none'}"
        )
    return shipped[str(path_or_name)]


def load_module(
    folder: str | Path, build: Build[Module], method: str | None = None
) -> tuple[Module, dict[str, Any]]:
    """Build the module that a checkpoint describes, and fill it.

    Args:
        folder: as for `read_checkpoint`.
        build: makes the module after the config document, or raises `ValueError`; it is called
            twice, first without memory, because a document may ask for networks that the tensors
            do not fill.
        method: the only one that is taken; None takes all.

    Returns:
        The module, in evaluation mode, on the CPU, and the config document.

    Raises:
        CheckpointError: one line saying what is missing or broken, or that it holds another method.
    """
    where = str(find_checkpoint(folder))
    document, tensors = read_checkpoint(folder)
    if method not in (None, document["method"]):
        raise CheckpointError(f"{where} holds {document['method']!r:.60}, not a {method}")
    try:
        with torch.device("meta"):
            sketch = build(document)
        _check_fit(sketch, tensors, where)
        module = build(document)
    except CheckpointError:
        raise
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where}: {_one_line(error, 600)}") from None
    load_tensors(module, tensors, where)
    return module.eval(), document


def load_saved(
    folder: str | Path,
    build: Build[Module],
    read: Callable[[Module, dict[str, Any]], Saved],
    method: str,
) -> Saved:
    """A module, and what its document says beside it.

    Args:
        folder: as for `read_checkpoint`.
        build: as for `load_module`.
        read: puts the module and the rest of the document together, or raises `ValueError`,
            `TypeError` or `KeyError`.
        method: the only one that is taken.

    Raises:
        CheckpointError: one line saying what is missing or broken, or that it holds another method.
    """
    module, document = load_module(folder, build, method)
    try:
        return read(module, document)
    except KeyError as error:
        raise CheckpointError(f"{find_checkpoint(folder)}: must hold {error}") from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{find_checkpoint(folder)}: {error}") from None


def as_tuple(value: Any) -> Any:
    """A JSON value, its lists as tuples: JSON has no tuples, configurations have no lists."""
    return tuple(map(as_tuple, value)) if isinstance(value, list | tuple) else value


def load_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], where: str = "checkpoint"
) -> None:
    """Copy tensors into a module whose names, shapes and kinds must match exactly.

    Args:
        module: the module to fill.
        tensors: as `read_checkpoint` returns them.
        where: the name that an error message gives to the source.

    Raises:
        CheckpointError: naming the first difference; the module is then unchanged.
    """
    _check_fit(module, tensors, where)
    module.load_state_dict(dict(tensors))


def _check_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{where} does not fit {type(module).__name__}: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}"
        )
    for name, value in own.items():
        found = tensors[name]
        if found.shape != value.shape or found.is_floating_point() != value.is_floating_point():
            raise CheckpointError(
                f"{where}: {name} must be {tuple(value.shape)} {value.dtype}, "
                f"got {tuple(found.shape)} {found.dtype}"
            )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; not a config")
        document = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {_one_line(error)}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, got {type(document).__name__}")
    _check_config(document, str(path))
    return document


def _check_config(document: Mapping[str, Any], where: str) -> None:
    version = document.get("format")
    if version != FORMAT or isinstance(version, bool):
        raise CheckpointError(
            f"{where}: format must be {FORMAT}, got {str(version)[:40]!r}; "
            "a newer version of Decisive may have written it"
        )
    for key, kind in _REQUIRED.items():
        if not isinstance(document.get(key), kind):
            found = type(document[key]).__name__ if key in document else "nothing"
            raise CheckpointError(f"{where}: {key!r} must be a {kind.__name__}, got {found}")
    if not _all_finite(document):
        raise CheckpointError(f"{where}: holds a number that is not finite")


def _all_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_all_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_all_finite(item) for item in value)
    return True


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; the checkpoint is incomplete")
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_TENSOR_BYTES} bytes; refused")
        # Read first, parse then: a mapped file that shrinks meanwhile would end the process.
        tensors = safetensors.torch.load(path.read_bytes())
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path}: corrupt or truncated: {_one_line(error)}") from None
    _check_tensors(tensors, str(path))
    return tensors


def _check_tensors(tensors: Mapping[str, Tensor], where: str) -> None:
    if not tensors:
        raise CheckpointError(f"{where}: holds no tensors")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(f"{where}: {name} holds NaN or infinite values; retrain")


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not allowed")


def _one_line(error: BaseException, most: int = 200) -> str:
    return " ".join(str(error).split())[:most] or type(error).__name__
