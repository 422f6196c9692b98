"""Files of rosbag2 (sqlite3 and MCAP), written whole or not at all, and read with bounds.

A bag may come from anywhere: nothing in it becomes code, and no compressed part grows beyond what
it declares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]
from rosbags.rosbag2 import Reader, StoragePlugin, Writer, storage_mcap
from ruamel.yaml import YAML

from learning.atomic import new_folder
from ros_nodes.bag_messages import store

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
MAX_CHUNK_BYTES = 256 * 2**20
MAX_METADATA_BYTES = 16 * 2**20


class BagWriter:
    """Writes messages; topics appear with their first one."""

    def __init__(self, writer: Writer) -> None:
        """Wrap an open writer."""
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def write(self, topic: str, stamp: int, message: Any) -> None:
        """Write a message at a time in nanoseconds."""
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=store())
        data = store().serialize_cdr(message, kind)
        self._writer.write(self._connections[topic], stamp, data)


@contextmanager
def new_bag(folder: Path, storage: str, custom: Mapping[str, str]) -> Iterator[BagWriter]:
    """Write a bag, which is there once the block has ended without an error.

    Args:
        folder: of the bag; an old one is replaced.
        storage: `mcap` or `sqlite3`.
        custom: texts for the metadata.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage must be one of {', '.join(STORAGES)}, got {storage!r}")
    with new_folder(folder) as beside:
        inner = beside / folder.name  # files of a bag are named after its folder
        writer = Writer(
            inner,
            version=9,  # of the metadata, as Jazzy writes them
            storage_plugin=STORAGES[storage],
        )
        for key, value in custom.items():
            writer.set_custom_data(key, value)
        with writer:
            yield BagWriter(writer)
        for path in inner.iterdir():
            os.rename(path, beside / path.name)
        inner.rmdir()


class BagReader:
    """What an open bag holds."""

    def __init__(self, reader: Reader) -> None:
        """Wrap an open reader."""
        self._reader = reader
        self.types: dict[str, set[str]] = {}
        """Message types of every topic."""
        for connection in reader.connections:
            self.types.setdefault(connection.topic, set()).add(connection.msgtype)
        custom = reader.storage.metadata.custom
        self.custom: dict[str, Any] = custom if isinstance(custom, dict) else {}

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any, int]]:
        """Messages of these topics in the order in which they were recorded.

        Yields:
            Topic, time in nanoseconds, message, and its size in bytes.

        Raises:
            ValueError: where the bag is damaged.
        """
        wanted = [c for c in self._reader.connections if c.topic in topics]
        found = self._reader.messages(wanted) if wanted else iter(())
        while True:
            try:
                item = next(found, None)
                if item is None:
                    return
                connection, time, data = item
                if not isinstance(time, int) or not isinstance(data, bytes):
                    raise ValueError(f"{connection.topic} holds what is no message")
                message = store().deserialize_cdr(data, connection.msgtype)
            except Exception as error:  # see _refusal
                raise _refusal(error) from None
            yield connection.topic, time, message, len(data)


@contextmanager
def open_bag(path: Path) -> Iterator[BagReader]:
    """Open the folder of a bag, or its file `.mcap` or `.db3` alone.

    Raises:
        ValueError: one line, if it is none, damaged, or compressed as a whole.
        OSError: if it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"no bag {path}")
    with ExitStack() as stack:
        try:
            if path.is_dir():
                _check_metadata(path / "metadata.yaml")
            stack.enter_context(_bounded_decompression())
            bag = BagReader(stack.enter_context(Reader(path)))
        except Exception as error:  # see _refusal
            raise _refusal(error) from None
        yield bag


def _refusal(error: Exception) -> ValueError:
    """One line about a bag that cannot be read.

    What reads bags has no common kind of error for damaged ones: half a file ends in errors of
    the database, of YAML, of `struct`, or in a TypeError.
    """
    detail = " ".join(str(error).split())[:300] or type(error).__name__
    known = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
    return ValueError(detail if known else f"no bag, or a damaged one: {detail}")


def _check_metadata(path: Path) -> None:
    if path.stat().st_size > MAX_METADATA_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_METADATA_BYTES} bytes")
    told = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    # Unpacked by the reader without a bound, on the disk or message by message.
    mode = told["rosbag2_bagfile_information"].get("compression_mode")
    if mode and str(mode).lower() != "none":
        raise ValueError(f"the bag is compressed by {mode}; unpack it with `ros2 bag convert`")


@contextmanager
def _bounded_decompression() -> Iterator[None]:
    """Chunks of MCAP files give what they declare, which is not too much, or an error.

    `rosbags` unpacks first and compares afterwards: 1 MiB can claim all memory.
    """
    table: dict[str, Any] = storage_mcap.DECOMPRESSORS
    before = dict(table)
    zstd: Any = vars(storage_mcap)["zstd"].ZstdDecompressor
    table["zstd"] = lambda data, size: _inflate(zstd, data, size)
    table["lz4"] = lambda data, size: _inflate(LZ4FrameDecompressor, data, size)
    try:
        yield
    finally:
        table.update(before)


def _inflate(make: Callable[[], Any], data: bytes, size: int) -> bytes:
    if not 0 <= size <= MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk claims {size} bytes, more than {MAX_CHUNK_BYTES}")
    found = b""
    while data and len(found) <= size:  # a chunk may be several frames
        machine = make()
        found += machine.decompress(data, size + 1 - len(found))
        if not machine.eof:
            break
        data = machine.unused_data
    return found
