"""Writing demonstrations under a name: a Minari data set, or a file of another format."""

from __future__ import annotations

from pathlib import Path

from learning.demonstrations import Demonstrations

SUFFIXES = (".npz", ".hdf5", ".h5")


def is_file_name(name: str) -> bool:
    """Whether a name means a file rather than a Minari data set."""
    return name.endswith(SUFFIXES)


def write_demonstrations(demos: Demonstrations, name: str, overwrite: bool = False) -> Path:
    """Write demonstrations; what was there before stays until the new data set is complete.

    Args:
        demos: what to write.
        name: id of a Minari data set (`push-diverse-v0`), an `.npz` file, or an `.hdf5` or `.h5`
            file, which is written as robomimic does.
        overwrite: whether to replace what has this name.

    Returns:
        The file, or the folder of the data set.

    Raises:
        ValueError: if the name is taken or malformed.
        OSError: if it cannot be written.
    """
    if not is_file_name(name):
        from learning.minari_format import write_minari

        return write_minari(demos, name, overwrite=overwrite)
    path = Path(name)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another name, or say --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        from learning.npz_format import write_npz

        write_npz(demos, path)
    else:
        from learning.robomimic_format import write_robomimic

        write_robomimic(demos, path)
    return path
