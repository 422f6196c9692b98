"""Where Minari data sets are: the local folder of all of them, and Farama's server."""

import contextlib
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from learning.atomic import new_folder

_REMOTE_ID = re.compile(r"[\w-]+(/[\w-]+)+-v\d+")
_OWN_NAMESPACE = "decisive/"
_SERVERS = {"hf": "https://huggingface.co", "gcp": "https://storage.googleapis.com"}
# A request that takes longer is no network; Minari's own retries take 24 s to say so.
_TIMEOUT_S = 5.0


def minari_root(root: str | Path | None = None) -> Path:
    """The folder of all data sets: `root`, else `MINARI_DATASETS_PATH`, else Minari's default."""
    if root is not None:
        return Path(root)
    named = os.environ.get("MINARI_DATASETS_PATH")
    return Path(named) if named else Path.home() / ".minari" / "datasets"


@contextmanager
def minari_root_set(root: Path) -> Iterator[None]:
    """Minari takes its root from the environment alone: set it for the length of a block."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def with_version(name: str) -> str:
    """The id of a name: `-v0` is added where it has no version, which Minari asks for."""
    return name if re.search(r"-v\d+$", name) else f"{name}-v0"


def find_minari(dataset_id: str, root: str | Path | None = None) -> Path:
    """The folder of a local Minari data set.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    found = _local(dataset_id, minari_root(root))
    if found is None:
        raise ValueError(
            f"no file, folder or Minari data set {dataset_id!r}; {_listing(minari_root(root))}"
        )
    return found


def find_or_download(dataset_id: str, root: str | Path | None = None) -> Path:
    """The folder of a Minari data set, downloaded by Minari where it is not local.

    Asked for are ids with a namespace and a version, such as `D4RL/door/human-v2`; not our own
    (`decisive/...`), nor what looks like a path because its folder exists.

    Raises:
        ValueError: if it is neither here nor to be had; the message says what was tried.
    """
    base = minari_root(root)
    remote = (
        _REMOTE_ID.fullmatch(dataset_id) is not None
        and not dataset_id.startswith(_OWN_NAMESPACE)
        and not Path(dataset_id).parent.is_dir()
    )
    if _local(dataset_id, base) is None and remote:
        return download_minari(dataset_id, base)
    return find_minari(dataset_id, base)


def download_minari(dataset_id: str, root: str | Path | None = None) -> Path:
    """Download a data set with Minari; it appears whole or not at all.

    Only files are fetched: no environment is built and nothing is unpickled. Progress is told on
    standard error. `MINARI_REMOTE` names another server, as for Minari itself.

    Args:
        dataset_id: with namespace and version, such as `D4RL/door/human-v2`.
        root: folder of all data sets, see `minari_root`.

    Returns:
        The folder of the data set.

    Raises:
        ValueError: one line: no network, no such data set, or a package that Minari needs for it.
    """
    base = minari_root(root)
    remote = os.environ.get("MINARI_REMOTE", "hf://farama-minari")
    try:
        _check_remote(remote)
        print(f"{dataset_id} is not here; asking {remote} for it", file=sys.stderr)
        return _download(dataset_id, base)
    except Exception as error:  # the clients of the servers have no common kind of error
        detail = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"Minari data set {dataset_id!r} is not here and could not be downloaded from "
            f"{remote}: {detail}; {_listing(base)}"
        ) from None


def declare_namespaces(base: Path, namespace: str | None) -> None:
    """Leave the file by which Minari lists a namespace, as its `create_namespace` does."""
    folder = base
    for part in namespace.split("/") if namespace else []:
        folder = folder / part
        marker = folder / "namespace_metadata.json"
        if not marker.exists():
            marker.write_text("{}", encoding="utf-8")


def _local(dataset_id: str, base: Path) -> Path | None:
    for name in (dataset_id, with_version(dataset_id)):
        if (base / name / "data" / "metadata.json").is_file():
            return base / name
    return None


def _listing(base: Path) -> str:
    known = sorted(
        str(path.parent.parent.relative_to(base))
        for path in base.glob("**/data/metadata.json")
        if not any(part.startswith(".") for part in path.relative_to(base).parts)
    )
    return f"local data sets in {base}: {', '.join(known[:20]) or 'none'}"


def _check_remote(remote: str) -> None:
    """Fail at once where the client is not installed or its server not reached."""
    from minari.storage.remotes import get_cloud_storage

    get_cloud_storage(remote_path=remote)
    kind = remote.split("://")[0]
    server = _SERVERS.get(kind)
    if kind == "hf":
        server = os.environ.get("HF_ENDPOINT", server)
    if server is None:
        return
    try:
        urllib.request.urlopen(server, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # whatever it says, it is there
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"{server} cannot be reached ({reason}); is there a network?") from None


def _download(dataset_id: str, base: Path) -> Path:
    import minari

    base.mkdir(parents=True, exist_ok=True)
    # Beside the data sets: on the same disk, and hidden from Minari's own listing.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=base) as staging:
        with minari_root_set(Path(staging)), contextlib.redirect_stdout(sys.stderr):
            minari.download_dataset(dataset_id)
        data = Path(staging) / dataset_id / "data"
        if not (data / "metadata.json").is_file():
            raise ValueError("what came has no data/metadata.json")
        with new_folder(base / dataset_id) as beside:
            os.rename(data, beside / "data")
    declare_namespaces(base, dataset_id.rpartition("/")[0])
    return base / dataset_id
