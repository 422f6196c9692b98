"""Every number says where it came from: commit, versions, command, model card."""

import dataclasses
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from decisive import provenance
from decisive.model_card import CardFacts, card

ROOT = Path(__file__).resolve().parents[1]


def git(*words):
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_the_commit_is_the_one_that_git_tells():
    found = provenance.commit()
    assert found is not None
    hash_, _, dirty = found.partition("-")
    assert len(hash_) == 40
    assert git("cat-file", "-t", hash_) == "commit"
    assert dirty in ("", "dirty")


def test_versions_are_those_installed():
    found = provenance.versions()
    assert found["torch"] == metadata.version("torch")
    assert found["numpy"] == metadata.version("numpy")
    assert set(found) >= {"decisive", "python", "gymnasium", "pybullet"}


def test_the_command_can_be_pasted_into_a_shell():
    told = provenance.command("evaluate", ["--set", "goal order=any", "--out", "a b.json"])
    assert told == "decisive evaluate --set 'goal order=any' --out 'a b.json'"


def test_the_machine_has_a_processor_and_cores():
    told = provenance.machine()
    assert told["cpu"]
    assert int(told["cores"]) >= 1


FACTS = CardFacts(
    method="ibc",
    parameters=12345,
    data=("slots1.npz", "slots2.npz"),
    meta={
        "env": "decisive/BlockInsertion-v0",
        "expert": "diverse",
        "noise": 0.001,
        "license": "CC0-1.0",
        "parts": [
            {"env": "decisive/BlockInsertion-v0", "env_options": {}},
            {"env": "decisive/BlockInsertion-v0", "env_options": {"slots": 2}},
            {"env": "decisive/BlockInsertion-v0", "env_options": {"slots": 2}},
        ],
    },
    command="decisive train --data slots1.npz",
    versions={"torch": "2.13.0"},
    commit="0123abc",
    selection="mean score over 20 episodes",
)
TRAINING = {"step": 500, "score": 0.875, "cpu_seconds": 61.2, "episodes": 40, "rows": 1800}


def test_a_card_tells_data_licence_command_scores_and_limits():
    text = card(FACTS, TRAINING)
    for part in (
        *("# ibc policy for decisive/BlockInsertion-v0", "12,345 parameters"),
        *("`slots1.npz`", "`slots2.npz`", "40 episodes, 1800 actions", "demonstrator: diverse"),
        *("licence of the data: CC0-1.0", "decisive train --data slots1.npz", "`0123abc`"),
        *("torch 2.13.0", "500 steps, 61 CPU-seconds", "mean score over 20 episodes: 0.875"),
        "## Limits",
    ):
        assert part in text, part
    assert text.count('options `{"slots": 2}`') == 1
    assert text.count("options `{}`") == 1


def test_a_card_says_how_to_record_the_data_again():
    told = {"attempts": 504, "failed_episodes": 4, "expert": "diverse", "noise": 0.001, "seed": 7}
    part = {
        "env": "decisive/BlockInsertion-v0",
        "env_options": {"slots": 2},
        "commit": "9ab",
        **told,
    }
    text = card(dataclasses.replace(FACTS, meta={**FACTS.meta, "parts": [part]}), TRAINING)
    assert (
        "recorded by `decisive record --env decisive/BlockInsertion-v0 --expert diverse "
        "--episodes 500 --noise 0.001 --seed 7 --set slots=2 --out NAME` at commit `9ab`"
    ) in text


def test_a_card_hides_nothing_that_is_not_known():
    text = card(
        CardFacts("mse", 1, ("human.npz",), {}, "", {}, None, ""),
        {**TRAINING, "score": None},
    )
    assert "recorded data without an environment" in text
    assert "licence of the data: not stated by the data set" in text
    assert "No episodes were run" in text
    assert "Commit `unknown`" in text
    assert "0.875" not in text
