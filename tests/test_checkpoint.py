"""Checkpoints: round trips, refusals, and what a kill or a full disk leaves."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from learning import atomic
from learning.checkpoint import (
    CheckpointError,
    find_checkpoint,
    find_shipped,
    list_checkpoints,
    load_module,
    load_saved,
    load_tensors,
    read_checkpoint,
    save_checkpoint,
    save_module,
)

ROOT = Path(__file__).parents[1]
CONFIG = {"method": "mse", "config": {"width": 4}, "spec": {"action_dim": 2}, "training": {}}


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 2), value), "n": torch.tensor(7), "mask": torch.tensor([True])}


def test_round_trip_keeps_every_bit(tmp_path):
    saved = {**tensors(), "half": torch.randn(5).to(torch.bfloat16), "t": torch.randn(3, 4).t()}
    save_checkpoint(tmp_path / "run" / "a", CONFIG, saved, "# card")
    config, found = read_checkpoint(tmp_path / "run" / "a")
    assert config == {"format": 1, **CONFIG}
    assert found.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    files = sorted(path.name for path in (tmp_path / "run" / "a").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    assert (tmp_path / "run" / "a" / "README.md").read_text() == "# card"
    assert os.listdir(tmp_path / "run") == ["a"]


def test_replacing_leaves_only_the_new_content(tmp_path):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(1), "old")
    (tmp_path / "a" / "stray").write_text("x")
    save_checkpoint(tmp_path / "a", CONFIG, tensors(2), "new")
    assert float(read_checkpoint(tmp_path / "a")[1]["w"][0, 0]) == 2
    assert not (tmp_path / "a" / "stray").exists()
    assert os.listdir(tmp_path) == ["a"]


def test_replacing_works_without_the_exchange_call(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    for value in (1, 2, 3):
        save_checkpoint(tmp_path / "a", CONFIG, tensors(value), "")
    assert float(read_checkpoint(tmp_path / "a")[1]["w"][0, 0]) == 3
    assert os.listdir(tmp_path) == ["a"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(1), "")
    os.rename(tmp_path / "a", tmp_path / ".a.old")
    assert float(read_checkpoint(tmp_path / "a")[1]["w"][0, 0]) == 1


@pytest.mark.parametrize(
    ("config", "content", "said"),
    [
        ({**CONFIG, "method": 3}, tensors(), "'method' must be a str"),
        ({"method": "mse"}, tensors(), "'config' must be a dict, got nothing"),
        ({**CONFIG, "config": {"x": float("nan")}}, tensors(), "not finite"),
        ({**CONFIG, "config": {"x": object()}}, tensors(), "JSON"),
        (CONFIG, {"w": torch.tensor([1.0, float("nan")])}, "w holds NaN"),
        (CONFIG, {"w": torch.tensor([float("inf")])}, "w holds NaN or infinite"),
        (CONFIG, {}, "no tensors"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, config, content, said):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(5), "")
    with pytest.raises(CheckpointError, match=said):
        save_checkpoint(tmp_path / "a", config, content, "")
    assert float(read_checkpoint(tmp_path / "a")[1]["w"][0, 0]) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "JSON object, got list"),
        (b'{"format": 2}', "format must be 1, got '2'"),
        (b'{"format": true}', "format must be 1"),
        (b'{"format": 1}', "'method' must be a str, got nothing"),
        (json.dumps({"format": 1, **CONFIG, "spec": []}).encode(), "'spec' must be a dict"),
        (b'{"format": 1, "method": "m", "config": {"x": NaN}}', "NaN is not allowed"),
        (
            b'{"format": 1, "method": "m", "config": {"x": 1e999}, "spec": {}, "training": {}}',
            "not finite",
        ),
    ],
)
def test_broken_configs_are_refused_in_one_line(tmp_path, text, said):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    (tmp_path / "a" / "config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_checkpoint(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_truncated_tensors_are_refused(tmp_path, keep):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    path = tmp_path / "a" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="corrupt or truncated"):
        read_checkpoint(tmp_path / "a")


def test_nan_weights_are_refused_when_read(tmp_path):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    bad = {"layer.weight": torch.tensor([float("nan")], dtype=torch.float16)}
    (tmp_path / "a" / "model.safetensors").write_bytes(save(bad))
    with pytest.raises(CheckpointError, match=r"layer\.weight holds NaN"):
        read_checkpoint(tmp_path / "a")


def test_a_pickle_in_place_of_tensors_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "a" / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "a")
    torch.save(Bomb(), tmp_path / "a" / "model.safetensors")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "a")
    assert not (tmp_path / "exploded").exists()


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="the folder does not exist"):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"expected a folder with config\.json"):
        read_checkpoint(tmp_path)
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        read_checkpoint(tmp_path / "a")


def test_a_run_means_its_best_checkpoint_else_its_last(tmp_path):
    save_checkpoint(tmp_path / "last", CONFIG, tensors(1), "")
    assert find_checkpoint(tmp_path) == tmp_path / "last"
    save_checkpoint(tmp_path / "best", CONFIG, tensors(2), "")
    assert find_checkpoint(tmp_path) == tmp_path / "best"
    assert find_checkpoint(tmp_path / "last") == tmp_path / "last"


def test_a_file_in_the_way_is_not_replaced(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(OSError, match="not a folder"):
        save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    assert (tmp_path / "a").read_text() == "mine"


def test_tensors_must_fit_the_module():
    module = nn.Linear(2, 3)
    good = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    load_tensors(module, good)
    assert torch.equal(module.weight, torch.ones(3, 2))
    for bad, said in (
        ({"weight": torch.zeros(3, 2)}, r"1 tensors missing \['bias'\]"),
        ({**good, "extra": torch.zeros(1)}, r"1 unknown \['extra'\]"),
        ({**good, "weight": torch.zeros(2, 3)}, r"weight must be \(3, 2\)"),
        ({**good, "bias": torch.zeros(3, dtype=torch.int64)}, "bias must be"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_tensors(module, bad)
        assert torch.equal(module.weight, torch.ones(3, 2))


WRITER = """
import sys, torch
from learning.checkpoint import save_checkpoint
config = {"method": "m", "config": {}, "spec": {}, "training": {}}
for value in range(1, 100_000):
    config["training"] = {"step": value}
    save_checkpoint(sys.argv[1], config, {"w": torch.full((40_000,), float(value))}, str(value))
    if value == 1:
        print("ready", flush=True)
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path, exchange):
    script = (
        WRITER
        if exchange
        else WRITER.replace(
            "config = {",
            "import learning.atomic as a; a._exchange = lambda x, y: False\nconfig = {",
            1,
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a")], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.15)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    config, found = read_checkpoint(tmp_path / "a")
    step = config["training"]["step"]
    assert (found["w"] == step).all()
    assert (tmp_path / "a" / "README.md").read_text() == str(step)
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    assert os.listdir(tmp_path) == ["a"]


def test_an_old_folder_that_a_kill_left_behind_goes_with_the_next_save(tmp_path):
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    (tmp_path / ".a.old").mkdir()
    (tmp_path / ".a.old" / "config.json").write_text("{}")
    save_checkpoint(tmp_path / "a", CONFIG, tensors(), "")
    assert os.listdir(tmp_path) == ["a"]


FULL_DISK = """
import resource, signal, sys, torch
from learning.checkpoint import read_checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
config = {"method": "m", "config": {}, "spec": {}, "training": {}}
save_checkpoint(sys.argv[1], config, {"w": torch.ones(1000)}, "")
try:
    save_checkpoint(sys.argv[1], config, {"w": torch.zeros(100_000)}, "")
except OSError as error:
    print("refused", error.strerror)
print(float(read_checkpoint(sys.argv[1])[1]["w"].sum()))
"""


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["refused File too large", "1000.0"]
    assert os.listdir(tmp_path) == ["a"]


def linear(document):
    return torch.nn.Linear(document["config"]["width"], 2)


def test_a_module_is_built_as_the_checkpoint_says(tmp_path):
    saved = torch.nn.Linear(3, 2)
    document = {"method": "line", "config": {"width": 3}, "spec": {}, "training": {"steps": 4}}
    save_checkpoint(tmp_path / "run" / "last", document, saved.state_dict(), "")
    module, read = load_module(tmp_path / "run", linear, "line")
    assert torch.equal(module.weight, saved.weight)
    assert not module.training
    assert read["training"] == {"steps": 4}
    with pytest.raises(CheckpointError, match="last holds 'line', not a circle"):
        load_module(tmp_path / "run", linear, "circle")


def test_a_module_that_the_tensors_do_not_fill_takes_no_memory(tmp_path):
    document = {"method": "line", "config": {"width": 10**12}, "spec": {}, "training": {}}
    save_checkpoint(tmp_path, document, torch.nn.Linear(3, 2).state_dict(), "")
    with pytest.raises(CheckpointError, match=r"weight must be \(2, 1000000000000\)"):
        load_module(tmp_path, linear)
    save_checkpoint(
        tmp_path, document | {"config": {"width": -1}}, torch.nn.Linear(3, 2).state_dict(), ""
    )
    with pytest.raises(CheckpointError, match="negative dimension") as caught:
        load_module(tmp_path, linear)
    assert "\n" not in str(caught.value)


LINE = {"method": "line", "config": {"width": 3}, "spec": {"unit": "m"}, "training": {}}


def test_a_module_that_its_document_does_not_make_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="must be the line of its configuration"):
        save_module(tmp_path / "a", LINE, torch.nn.Linear(4, 2), "", linear)
    assert not (tmp_path / "a").exists()


def test_a_module_saved_in_half_is_read_in_float32(tmp_path):
    module = torch.nn.Linear(3, 2)
    save_module(tmp_path / "whole", LINE, module, "", linear)
    save_module(tmp_path / "half", LINE, module, "", linear, half=True)
    for name, kind in (("whole", torch.float32), ("half", torch.float16)):
        assert read_checkpoint(tmp_path / name)[1]["weight"].dtype == kind
        read = load_module(tmp_path / name, linear)[0]
        assert torch.equal(read.weight, module.weight.to(kind).float())


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda module, document: document["spec"]["size"], "must hold 'size'"),
        (lambda module, document: int(document["spec"]["unit"]), "invalid literal for int"),
        (lambda module, document: tuple(document["config"]["width"]), "not iterable"),
    ],
)
def test_a_document_that_says_too_little_is_refused_in_one_line(tmp_path, read, said):
    save_module(tmp_path, LINE, torch.nn.Linear(3, 2), "", linear)
    unit = load_saved(tmp_path, linear, lambda _, document: document["spec"]["unit"], "line")
    assert unit == "m"
    with pytest.raises(CheckpointError, match=said) as caught:
        load_saved(tmp_path, linear, read, "line")
    assert str(caught.value).startswith(str(tmp_path))


def test_a_folder_comes_before_a_shipped_name(tmp_path, monkeypatch):
    document = {"method": "line", "config": {}, "spec": {}, "training": {}}
    save_checkpoint(tmp_path / "b", document, {"a": torch.zeros(1)}, "")
    save_checkpoint(tmp_path / "a", document, {"a": torch.zeros(1)}, "")
    (tmp_path / "notes").mkdir()
    shipped = list_checkpoints(tmp_path)
    assert shipped == {"a": tmp_path / "a", "b": tmp_path / "b"}
    assert list_checkpoints(tmp_path / "none") == {}
    monkeypatch.chdir(tmp_path)
    assert find_shipped("b", shipped, "line") == Path("b")
    monkeypatch.chdir(tmp_path / "notes")
    assert find_shipped("b", shipped, "line") == tmp_path / "b"
    with pytest.raises(
        CheckpointError, match="no line 'c': neither a folder nor a shipped line; shipped: a, b"
    ):
        find_shipped("c", shipped, "line")
