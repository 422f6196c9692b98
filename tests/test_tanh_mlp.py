"""Plain weights of a tanh network are a policy: parity with its formula, and refusals."""

import io
import itertools
import pickle

import numpy as np
import pytest
from test_demonstrations import DATA

from agents import load_policy, save_policy
from decisive import cli
from learning.npz_format import pack_arrays, read_arrays


def weights(sizes=(5, 8, 8, 3), **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        arrays[f"W{i}"] = rng.normal(size=(n_out, n_in)).astype(np.float32)
        arrays[f"b{i}"] = rng.normal(size=n_out).astype(np.float32)
    arrays["in_shift"] = rng.normal(size=sizes[0]).astype(np.float32)
    arrays["in_scale"] = rng.uniform(0.05, 2, sizes[0]).astype(np.float32)
    arrays["out_shift"] = rng.uniform(-0.3, 0.3, sizes[-1]).astype(np.float32)
    arrays["out_scale"] = rng.uniform(0.1, 0.5, sizes[-1]).astype(np.float32)
    arrays["log_std"] = np.zeros(sizes[-1], np.float32)
    arrays |= changes
    return {name: value for name, value in arrays.items() if value is not None}


def formula(arrays, obs):
    """The README of the data, in float64."""
    a = {name: value.astype(np.float64) for name, value in arrays.items()}
    h = (obs - a["in_shift"]) / (a["in_scale"] + 1e-8)
    last = max(int(name[1:]) for name in a if name[0] == "W")
    for i in range(last):
        h = np.tanh(h @ a[f"W{i}"].T + a[f"b{i}"])
    out = (h @ a[f"W{last}"].T + a[f"b{last}"]) * a["out_scale"] + a["out_shift"]
    return np.clip(out, -1, 1)


def written(tmp_path, arrays, name="expert.npz"):
    path = tmp_path / name
    path.write_bytes(pack_arrays(arrays))
    return path


@pytest.mark.parametrize("sizes", [(5, 8, 8, 3), (2, 16, 1), (7, 4, 4, 4, 6)])
def test_a_file_acts_as_its_formula_says(tmp_path, sizes):
    arrays = weights(sizes)
    policy = load_policy(written(tmp_path, arrays))
    # Far out too: these networks clip no observation.
    obs = np.random.default_rng(1).normal(scale=30, size=(64, sizes[0])).astype(np.float32)
    np.testing.assert_allclose(policy.act(obs), formula(arrays, obs), atol=2e-5)


def test_it_can_be_saved_as_a_checkpoint(tmp_path):
    policy = load_policy(written(tmp_path, weights()))
    save_policy(policy, tmp_path / "folder")
    obs = np.ones(5, np.float32)
    policy.reset()
    np.testing.assert_array_equal(load_policy(tmp_path / "folder").act(obs), policy.act(obs))


@pytest.mark.data
@pytest.mark.parametrize("name", ["pen", "hammer", "door", "relocate"])
def test_the_dapg_policies_act_on_real_observations_as_their_formula_says(name):
    path = DATA / f"adroit_dapg/{name}-v0_expert_policy.npz"
    if not path.is_file():
        pytest.skip("the DAPG policies are absent (set DECISIVE_DATA)")
    rollouts = read_arrays(DATA / f"adroit_expert_rollouts/{name}-expert_rollouts.npz")
    obs = rollouts["observations"][::50].astype(np.float32)
    np.testing.assert_allclose(
        load_policy(path).act(obs), formula(read_arrays(path), obs), atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"W1": None}, "needs W0, b0, W1"),
        ({"in_scale": None}, "needs W0, b0"),
        ({"b1": np.zeros(7, np.float32)}, r"W1 must be \(7, 8\)"),
        ({"out_shift": np.zeros(2, np.float32)}, r"out_shift must be \(3,\)"),
        ({"W0": np.full((8, 5), np.nan, np.float32)}, "W0 must hold finite numbers"),
        ({"W2": np.array([["x"] * 8] * 3)}, "W2 must hold finite numbers"),
        ({"W0": np.zeros((4, 5), np.float32), "b0": np.zeros(4, np.float32)}, r"W1 must be"),
    ],
)
def test_files_that_are_no_network_are_refused_in_one_line(tmp_path, changes, expected):
    path = written(tmp_path, weights(**changes))
    with pytest.raises(ValueError, match=expected) as error:
        load_policy(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_hidden_layers_of_two_widths_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one width; got \[6, 8\]"):
        load_policy(written(tmp_path, weights((5, 8, 6, 3))))


def test_a_pickle_in_disguise_is_never_loaded(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    disguised = tmp_path / "policy.npz"
    disguised.write_bytes(pickle.dumps(Trap()))
    stream = io.BytesIO()
    np.savez(stream, W0=np.array([Trap()], dtype=object))
    inside = tmp_path / "objects.npz"
    inside.write_bytes(stream.getvalue())
    for path in (disguised, inside):
        words = ["evaluate", "--env", "decisive/Particle-v0", "--policy", str(path)]
        assert cli.main([*words, "--episodes", "1"]) == 2
        told = capsys.readouterr()
        assert "executed" not in told.out + told.err
        assert told.err.count("\n") == 1


def test_a_network_for_another_task_is_refused_by_the_environment(tmp_path, capsys):
    path = written(tmp_path, weights())
    words = ["evaluate", "--env", "decisive/Particle-v0", "--policy", str(path)]
    assert cli.main([*words, "--episodes", "1"]) == 2
    assert "acts in 3 dimensions" in capsys.readouterr().err
