"""Mutated files: every loader answers with data or with one clean line, and nothing else.

The files are read in one child process, so that a crash of a library is a failure of the test and
not of the run, under a limit of memory and with the current folder watched for files that appear.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_demonstrations import make_demos

from learning.checkpoint import read_checkpoint, save_checkpoint
from learning.demonstrations import Demonstrations, load_demonstrations
from learning.minari_format import write_minari
from learning.npz_format import to_arrays, write_npz
from learning.robomimic_format import write_robomimic
from learning.train_state import read_state, write_state

TESTS = Path(__file__).parent
KINDS = {
    "checkpoint config": "checkpoint/config.json",
    "checkpoint tensors": "checkpoint/model.safetensors",
    "training state": "train_state.safetensors",
    "npz": "a.npz",
    "npz stored": "b.npz",
    "robomimic": "a.hdf5",
    "d4rl": "door-human-v1.hdf5",
    "minari data": "sets/decisive/set-v0/data/main_data.hdf5",
    "minari metadata": "sets/decisive/set-v0/data/metadata.json",
}
PER_KIND = 150
# Pieces that parsers care about, put where chance would rarely put them.
PIECES = [
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    (2**31).to_bytes(8, "little"),
    (2**63).to_bytes(8, "little"),
    b"1e999",
    b"NaN",
    b"-1",
    b"[[[[[[[[",
    b'{"a":',
    b"\\ud800",
    b"|O",
    b"PK\x05\x06",
    b"\x89HDF\r\n\x1a\n",
    b"OHDR",
    b"TREE",
    b"cos\nsystem\n",
]


def write_good_files(folder: Path) -> None:
    """One good file of every kind."""
    demos = make_demos()
    config = {"method": "m", "config": {"a": [1, 2.5]}, "spec": {}, "training": {"data": {}}}
    tensors = {"w": torch.ones(4, 3), "b": torch.zeros(3, dtype=torch.int64)}
    save_checkpoint(folder / "checkpoint", config, tensors, "card")
    write_state(folder / "train_state.safetensors", tensors, {"at": {"step": 1}})
    write_npz(demos, folder / "a.npz")
    write_npz(demos, folder / "b.npz", compress=False)
    write_robomimic(demos, folder / "a.hdf5")
    write_d4rl(demos, folder / "door-human-v1.hdf5")
    write_minari(demos, "decisive/set-v0", folder / "sets")


def write_d4rl(demos: Demonstrations, path: Path) -> None:
    """The arrays of D4RL's schema."""
    arrays = to_arrays(demos)
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards", "terminals", "timeouts"):
            file.create_dataset(name, data=arrays[name], compression="gzip")
        file["next_observations"] = arrays["observations"]
        file["infos/qpos"] = np.zeros((len(demos), 3))


def load(kind: str, folder: Path) -> None:
    """Read the file of a kind with the loader that a user would meet."""
    if kind.startswith("checkpoint"):
        read_checkpoint(folder / "checkpoint")
    elif kind == "training state":
        read_state(folder / KINDS[kind])
    elif kind.startswith("minari"):
        load_demonstrations(folder / "sets/decisive/set-v0")
    else:
        load_demonstrations(folder / KINDS[kind])


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """A few edits: where (as a share of the file), how, and with what."""
    how = st.sampled_from(["flip", "put", "insert", "cut", "truncate", "repeat"])
    what = st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=4))
    # Headers stand at both ends; half of the edits go there.
    where = st.one_of(st.floats(0, 1), st.floats(0, 0.1), st.floats(0.9, 1))
    return draw(st.lists(st.tuples(how, where, what), min_size=1, max_size=4))


def mutate(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """Apply the edits in turn."""
    for how, where, what in edits:
        at = min(int(where * len(data)), max(0, len(data) - 1))
        if how == "flip":
            flipped = bytes(a ^ b for a, b in zip(data[at:], what, strict=False))
            data = data[:at] + flipped + data[at + len(flipped) :]
        elif how == "put":
            data = data[:at] + what + data[at + len(what) :]
        elif how == "insert":
            data = data[:at] + what + data[at:]
        elif how == "cut":
            data = data[:at] + data[at + len(what) :]
        elif how == "truncate":
            data = data[:at]
        else:
            data = data[:at] + data[at : at + 64] + data[at:]
    return data


def fuzz(kind: str, folder: Path) -> dict[str, int]:
    """Load mutated files of one kind and count what came of it; anything unclean is raised."""
    path = folder / KINDS[kind]
    good = path.read_bytes()
    listing = sorted(p.name for p in folder.rglob("*"))
    counts = {"loaded": 0, "refused": 0}

    @settings(
        max_examples=PER_KIND,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations())
    def one(edits: list[tuple[str, float, bytes]]) -> None:
        path.write_bytes(mutate(good, edits))
        try:
            load(kind, folder)
            counts["loaded"] += 1
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            text = str(error)
            assert text, edits
            assert "\n" not in text, text
            assert len(text) < 2000, text
        assert sorted(p.name for p in folder.rglob("*")) == listing

    try:
        one()
    finally:
        path.write_bytes(good)
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_unmutated_files_load(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("good")
    write_good_files(folder)
    load(kind, folder)


def test_a_thousand_mutated_files_are_loaded_or_refused_cleanly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(TESTS / "test_fuzz_loaders.py"), str(tmp_path)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "error",
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert sum(kind["loaded"] + kind["refused"] for kind in counts.values()) >= 1000
    for kind, count in counts.items():
        assert count["refused"] > 10, (kind, count)
    assert {p.name for p in tmp_path.iterdir()} <= {"good", ".hypothesis"}


if __name__ == "__main__":
    import resource

    # What a few kilobytes of damaged file may not make a loader allocate.
    resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, 4 * 2**30))
    place = Path(sys.argv[1]) / "good"
    place.mkdir()
    write_good_files(place)
    np.seterr(all="ignore")
    print(json.dumps({kind: fuzz(kind, place) for kind in KINDS}))
