"""Camera frames between two processes, with the Fast DDS profiles that are shipped."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[1]
PROFILES = [ROOT / "config" / name for name in ("fastdds.xml", "fastdds_localhost.xml")]
N_FRAMES = 120


def environment(profile, tmp_path):
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return os.environ | {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "PYTHONPATH": str(ROOT),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(60 + worker % 40),
        "ROS_LOG_DIR": str(tmp_path),
        "ROS_PYTHON_CHECK_FIELDS": "1",
    }


def start(role, topic, env):
    command = [sys.executable, str(ROOT / "tests/ros_transport_peer.py"), role, topic]
    return subprocess.Popen(
        [*command, str(N_FRAMES)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_best_effort_frames_at_30_hz_arrive_between_processes(profile, tmp_path):
    env = environment(profile, tmp_path)
    topic = f"frames_{uuid.uuid4().hex}"  # another run on this machine may have the same domain
    publisher, subscriber = start("publish", topic, env), start("subscribe", topic, env)
    try:
        matched = subscriber.stdout.readline()
        _, trouble = publisher.communicate(matched, timeout=100)
        output, more = subscriber.communicate(timeout=10)
    finally:
        for peer in (publisher, subscriber):
            peer.kill()
            peer.communicate()
    assert (publisher.returncode, subscriber.returncode) == (0, 0), trouble + more
    result = json.loads(output)
    assert result["wrong"] == 0
    assert result["indices"] == sorted(set(result["indices"]))
    assert len(result["indices"]) >= N_FRAMES - 1


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_profile_gives_shared_memory_room_for_many_frames(profile):
    text = "".join(
        f"{element.tag} {element.text} " for element in ElementTree.parse(profile).iter()
    )
    assert "SHM" in text
    assert "UDPv4" in text
    assert f"segment_size {32 * 2**20} " in text
    assert "useBuiltinTransports false" in text
    assert ("127.0.0.1" in text) == ("localhost" in profile.stem)
