"""HDF5 files that point out of themselves, claim too much or are damaged."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from learning.demonstrations import load_demonstrations
from learning.safe_hdf5 import open_hdf5

ROOT = Path(__file__).parents[1]


def good_file(path: Path) -> Path:
    """A small robomimic-style file."""
    with h5py.File(path, "w") as file:
        for name in ("demo_0", "demo_1"):
            group = file.create_group(f"data/{name}")
            group["actions"] = np.zeros((4, 2), np.float32)
            group["rewards"] = np.ones(4, np.float32)
            group["obs/state"] = np.ones((4, 3), np.float32)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=r"a\.hdf5") as caught:
        load_demonstrations(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return good_file(tmp_path / "a.hdf5")


def replace_actions(path: Path, **options) -> None:
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0"].create_dataset("actions", **options)


def test_the_good_file_is_read(path):
    assert load_demonstrations(path).actions.shape == (8, 2)


def test_external_links_are_refused(path, tmp_path):
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.full((4, 2), 0.5, np.float32)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = h5py.ExternalLink(str(secret), "/x")
    assert "external link" in refusal(path)


def test_a_link_beside_the_data_is_refused_too(path):
    with h5py.File(path, "a") as file:
        file["data/demo_7"] = h5py.ExternalLink("/etc/passwd", "/")
    assert "external link" in refusal(path)


@pytest.mark.parametrize("target", ["/data/demo_1/actions", "/data/demo_0/actions", "/nowhere"])
def test_soft_links_are_refused(path, target):
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = h5py.SoftLink(target)
    assert "soft link" in refusal(path)


def test_external_storage_is_refused(path, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(32))
    replace_actions(path, shape=(4, 2), dtype="f4", external=[(str(secret), 0, 32)])
    assert "another file" in refusal(path)


def test_virtual_data_sets_are_refused(path):
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "x", (4, 2))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0"].create_virtual_dataset("actions", layout)
    assert "another file" in refusal(path)


def test_a_claim_of_34_gigabytes_is_refused_without_the_memory(path):
    replace_actions(path, shape=(34_000_000, 250), dtype="f4", chunks=(1000, 250))
    assert path.stat().st_size < 100_000
    assert "claims 34.0 GB" in refusal(path)


def test_a_claim_within_the_limit_must_be_stored(path):
    replace_actions(path, shape=(1_000_000, 250), dtype="f4", chunks=(1000, 250))
    assert "claims 1000000000 bytes, the file stores" in refusal(path)


def test_the_limit_counts_for_the_whole_file(path):
    with open_hdf5(path, max_bytes=40) as file:
        file.read("/data/demo_0/actions")
        with pytest.raises(ValueError, match="limit"):
            file.read("/data/demo_1/actions")


def test_well_compressed_data_are_not_taken_for_a_bomb(path):
    replace_actions(path, data=np.zeros((4, 2), np.float32), compression="gzip")
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "zeros", data=np.zeros((2**22,), np.float32), compression="gzip", compression_opts=9
        )
    load_demonstrations(path)
    with open_hdf5(path) as file:
        assert not file.read("/zeros").any()


def test_unknown_filters_are_refused_before_a_plugin_is_sought(path):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((4, 2))
    creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (1,))
    with h5py.File(path, "a") as file:
        group = file["data/demo_0"]
        del group["actions"]
        space = h5py.h5s.create_simple((4, 2))
        h5py.h5d.create(group.id, b"actions", h5py.h5t.NATIVE_FLOAT, space, dcpl=creation)
    assert "plug-in" in refusal(path)


@pytest.mark.parametrize(
    "options",
    [
        {"data": np.array([[b"a", b"b"]] * 4, dtype=object), "dtype": h5py.string_dtype()},
        {"shape": (4, 2), "dtype": h5py.vlen_dtype(np.float32)},
        {"shape": (4, 2), "dtype": np.dtype([("x", "f4")])},
        {"shape": (4, 2), "dtype": h5py.ref_dtype},
        {"shape": (4, 2), "dtype": "c8"},
        {"data": np.zeros(4, np.float32)},
        {"data": 3.0},
        {"data": np.full((4, 2), np.nan)},
        {"data": np.zeros((3, 2), np.float32)},
        {"data": np.zeros((0, 2), np.float32)},
    ],
    ids=["text", "vlen", "compound", "reference", "complex", "1-D", "scalar", "nan", "3", "0"],
)
def test_other_kinds_and_shapes_are_refused(path, options):
    replace_actions(path, **options)
    refusal(path)


def test_groups_in_place_of_data_are_refused(path):
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file.create_group("data/demo_0/actions")
        del file["data/demo_1/obs"]
        file["data/demo_1/obs"] = np.zeros(3)
    assert "must be a data set" in refusal(path)
    with open_hdf5(path) as file, pytest.raises(ValueError, match="must be a group"):
        file.names("/data/demo_1/obs")


def test_missing_parts_are_named(path):
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs"]
    assert "has no /data/demo_1/obs" in refusal(path)
    with h5py.File(path, "a") as file:
        del file["data"]
    assert "no group 'data'" in refusal(path)


def test_a_group_that_holds_itself_ends(path):
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/state2"] = file["data"]
    assert "must be a data set" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_one_clear_line(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: max(8, int(len(data) * share))])
    assert "corrupt or truncated HDF5" in refusal(path)


def test_a_missing_file_is_told(tmp_path):
    with (
        pytest.raises(ValueError, match="no such file"),
        open_hdf5(tmp_path / "none.hdf5"),
    ):
        pass


def test_a_large_claim_takes_no_memory(path):
    replace_actions(path, shape=(2**40, 250), dtype="f4", chunks=(1000, 250))
    code = (
        "import resource, sys\n"
        "import h5py, torch\n"
        "from learning.demonstrations import load_demonstrations\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "try:\n    load_demonstrations(sys.argv[1])\n"
        "except ValueError as error:\n    print(error)\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    line, megabytes = done.stdout.splitlines()
    assert "claims" in line
    assert int(megabytes) < 200  # torch alone takes 300 to 1,000, by its build
