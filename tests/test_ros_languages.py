"""The navigator over DDS: the same path from an English and from a Chinese instruction."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

from decisive.cli import main
from decisive.scenes import HouseScene
from ros_nodes import walks
from ros_nodes.demo import isolated
from ros_nodes.graph import find_graph
from ros_nodes.processes import running
from ros_nodes.walks import WalksConfig

pytestmark = pytest.mark.ros
HOUSE = "house_test_000001"
"""Chosen because all three of its first paths are walked exactly in both languages: the test is of
the nodes and not of the ranker. docs/ros2.md says how often paths are."""


def test_the_same_paths_are_told_in_both_languages() -> None:
    scene = HouseScene(HOUSE)
    try:
        english, chinese = (walks.instructions_of(scene, 0, 3, name) for name in ("en", "zh"))
    finally:
        scene.close()
    assert [one.path for one in english] == [one.path for one in chinese]
    assert [one.heading for one in english] == [one.heading for one in chinese]
    assert all(one.text.isascii() and not other.text.isascii()
               for one, other in zip(english, chinese, strict=True))  # fmt: skip


def test_a_base_follows_the_same_path_in_english_and_in_chinese(tmp_path: Path) -> None:
    faster = {
        "sim_base.house": HOUSE,
        "navigator.ranker": walks.BILINGUAL,
        "navigator.model": "",
        "navigator.speed": 1.2,
        "navigator.turn": 2.0,
        "safety_gate.velocity": [1.3, 0.0, 0.0, 0.0, 0.0, 2.1],
        # A busy machine may hold a process up for longer than a robot should be trusted without.
        "safety_gate.command_timeout": 1.0,
        "safety_gate.inference_timeout": 1.0,
    }
    scene = HouseScene(HOUSE)
    try:
        graph = scene.graph
        errands = [walks.instructions_of(scene, 0, 1, language)[0] for language in ("en", "zh")]
    finally:
        scene.close()
    with isolated(), running(find_graph(walks.GRAPH), faster, tmp_path) as processes:
        rows, _, gate = walks._through(WalksConfig(HOUSE), graph, errands, processes)
    english, chinese = rows
    assert english["success"], english
    assert chinese["success"], chinese
    assert english["path"] == chinese["path"] == english["asked"]
    assert gate["stops"] == 0


def test_chinese_walks_take_a_ranker_that_reads_chinese_unless_another_is_given() -> None:
    assert WalksConfig().parameters == {}
    assert WalksConfig(language="zh").parameters == {"navigator.ranker": walks.BILINGUAL}
    given = WalksConfig(language="zh", overrides={"navigator.ranker": "houses"})
    assert given.parameters == {"navigator.ranker": "houses"}


def test_an_unknown_language_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ros", "walk", "--language", "fr"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert "language must be one of en, zh" in said
