"""Files and folders that appear whole or not at all.

Everything is written beside its final place, flushed to the disk and renamed, so that a kill or a
full disk at any moment leaves either the old content or the new, never a mixture.
"""

import ctypes
import glob
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there in one step.

    Args:
        path: the final place; its folder must exist.
        data: the whole content.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the old file is untouched.
    """
    with new_file(path) as beside:
        beside.write_bytes(data)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file beside `path` and put it there when the block ends without an error.

    Args:
        path: the final place; its folder must exist.

    Yields:
        The path to write to.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the old file is untouched.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder beside `folder` and put it there when the block ends without an error.

    Args:
        folder: the final place; an existing folder is replaced, its parents are made.

    Yields:
        The empty folder to fill.

    Raises:
        OSError: if something cannot be written; `folder` is then as it was.
    """
    folder = Path(os.path.abspath(folder))
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FileExistsError(f"{folder} exists and is not a folder; choose another place")
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(folder)
    # What is left of an old folder now is what a kill kept the slow path from removing.
    shutil.rmtree(_old_name(folder), ignore_errors=True)
    for stale in folder.parent.glob(f".{glob.escape(folder.name)}.*.new"):
        # Left by a kill; one process writes a folder at a time.
        shutil.rmtree(stale, ignore_errors=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.new")
    beside.mkdir()
    try:
        yield beside
        _sync_tree(beside)
        _replace_folder(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def recover_folder(folder: Path) -> None:
    """Put back the old `folder` where a kill struck between the two renames of the slow path."""
    old = _old_name(folder)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


def _replace_folder(new: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(new, folder)
    elif _exchange(new, folder):
        shutil.rmtree(new, ignore_errors=True)
    else:
        old = _old_name(folder)
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
        os.rename(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    _sync_folder(folder.parent)


def _old_name(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one system call; False where the system or the disk cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    result = renameat2(
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(first)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(second)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    return bool(result == 0)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
