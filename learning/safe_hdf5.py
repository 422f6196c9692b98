"""HDF5 files opened with suspicion.

A file may point out of itself (external and soft links, external storage, virtual data sets), load
a filter plug-in, or claim more than it holds. All of that is refused before anything is read.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MAX_BYTES = 8 * 2**30
# gzip cannot shrink below 1:1032; what claims more was never stored.
MAX_RATIO = 1100
_SLACK = 2**20
_MAX_CHUNK = 2**30
_MAX_NAMES = 1_000_000
# gzip, shuffle, fletcher32, szip, nbit, scaleoffset, and h5py's own lzf: all built in. Any other
# number makes the library look for a plug-in to load.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
_DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
    SystemError,
)


class SafeFile:
    """Checked access by absolute path; see `open_hdf5`."""

    def __init__(self, file: h5py.File, path: Path, max_bytes: int) -> None:
        """Wrap an open file that may give out `max_bytes` in all."""
        self._file = file
        self._path = path
        self._left = max_bytes
        self._max_bytes = max_bytes

    def names(self, group: str) -> list[str]:
        """Names of the members of a group, none of which may be a link out of it."""
        found = self._group(group)
        with _damage(self._path):
            if len(found) > _MAX_NAMES:
                raise _Refused(f"{group} holds {len(found)} members, more than {_MAX_NAMES}")
            names = list(found)
        for name in names:
            self._check_link(found, name, f"{group.rstrip('/')}/{name}")
        return names

    def has(self, path: str) -> bool:
        """Whether something of this name exists."""
        parent, _, name = path.rpartition("/")
        return (parent == "" or self.has(parent)) and name in self.names(parent or "/")

    def is_dataset(self, path: str) -> bool:
        """Whether the path names a data set rather than a group."""
        return isinstance(self._item(path), h5py.Dataset)

    def read(self, path: str, ndim: int | None = None) -> np.ndarray:
        """Read a data set of plain numbers or fixed-length strings.

        Args:
            path: absolute path inside the file.
            ndim: number of axes it must have; None allows any but zero.

        Raises:
            ValueError: if it is missing, leads out of the file, is of another kind, or claims more
                than the file stores or `max_bytes` allows.
        """
        item = self._item(path)
        with _damage(self._path):
            if not isinstance(item, h5py.Dataset):
                raise _Refused(f"{path} must be a data set, got a group")
            self._check_dataset(item, path, ndim)
            value = np.asarray(item[()])
            if value.shape != item.shape:
                raise _Refused(f"{path} has not the shape it claims")
            return value

    def text_attribute(self, path: str, name: str) -> str | None:
        """A string attribute; None where it is absent or no string."""
        item = self._item(path)
        with _damage(self._path):
            if name not in item.attrs:
                return None
            value = item.attrs[name]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return value if isinstance(value, str) else None

    def attribute(self, path: str, name: str) -> np.ndarray | None:
        """An attribute of plain numbers or fixed-length text; None where it is absent or other."""
        item = self._item(path)
        with _damage(self._path):
            if name not in item.attrs:
                return None
            value = np.asarray(item.attrs[name])
        return value if value.dtype.kind in "biufS" and value.size <= _MAX_NAMES else None

    def _group(self, path: str) -> h5py.Group:
        item = self._item(path)
        if not isinstance(item, h5py.Group):
            raise ValueError(f"{self._path}: {path} must be a group, got a data set")
        return item

    def _item(self, path: str) -> h5py.Group | h5py.Dataset:
        item: Any = self._file
        walked = ""
        for name in path.strip("/").split("/") if path.strip("/") else []:
            walked += f"/{name}"
            if not isinstance(item, h5py.Group):
                raise ValueError(f"{self._path}: has no {walked}")
            self._check_link(item, name, walked)
            with _damage(self._path):
                item = item[name]
            if not isinstance(item, h5py.Group | h5py.Dataset):
                raise ValueError(f"{self._path}: {walked} is neither a group nor a data set")
        return item

    def _check_link(self, group: h5py.Group, name: str, path: str) -> None:
        with _damage(self._path):
            link = group.get(name, getlink=True)
            if link is None:
                raise _Refused(f"has no {path}")
            if not isinstance(link, h5py.HardLink):
                kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
                raise _Refused(f"{path} is {kind} link; only what the file itself holds is read")

    def _check_dataset(self, item: h5py.Dataset, path: str, ndim: int | None) -> None:
        shape, dtype = item.shape, item.dtype
        if shape is None or len(shape) == 0 or (ndim is not None and len(shape) != ndim):
            raise _Refused(f"{path} must have {ndim or 'some'} axes, got shape {shape}")
        if dtype.hasobject or dtype.kind not in "biufS":
            raise _Refused(f"{path} must hold plain numbers, got {dtype}")
        properties = item.id.get_create_plist()
        if properties.get_external_count() > 0 or item.is_virtual:
            raise _Refused(f"{path} keeps its values in another file; refused")
        for number in range(properties.get_nfilters()):
            if properties.get_filter(number)[0] not in _FILTERS:
                raise _Refused(f"{path} needs a filter plug-in; refused")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed > self._left:
            raise _Refused(
                f"{path} claims {claimed / 1e9:.1f} GB, more than the limit of "
                f"{self._max_bytes / 1e9:.1f} GB for the file"
            )
        stored = min(item.id.get_storage_size(), self._path.stat().st_size)
        if claimed > MAX_RATIO * stored + _SLACK:
            raise _Refused(f"{path} claims {claimed} bytes, the file stores {stored} for it")
        if item.chunks and math.prod(item.chunks) * dtype.itemsize > min(
            _MAX_CHUNK, 4 * claimed + _SLACK
        ):
            raise _Refused(f"{path} claims chunks of {item.chunks}; refused")
        self._left -= claimed


@contextmanager
def open_hdf5(path: str | Path, max_bytes: int = MAX_BYTES) -> Iterator[SafeFile]:
    """Open an HDF5 file for checked reading.

    Args:
        path: the file.
        max_bytes: the most bytes that may be read from it in all.

    Yields:
        The reader.

    Raises:
        ValueError: one line: missing, truncated, not HDF5, or refused.
    """
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"{place}: no such file")
    with _damage(place):
        file = h5py.File(place, "r", locking=False)
    try:
        yield SafeFile(file, place, max_bytes)
    finally:
        file.close()


class _Refused(Exception):
    """A reason to refuse a file, already in words for the user."""


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what the HDF5 library raises on a damaged file into one line."""
    try:
        yield
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except _DAMAGE as error:
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"{path}: corrupt or truncated HDF5: {detail}") from None
