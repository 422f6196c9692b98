"""`colcon build` makes a ROS 2 package of the project: files, index, executables, imports."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_packaging import ROOMS, copy_sources

pytest.importorskip("colcon_core")
pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[1]
COLCON = Path(sys.executable).with_name("colcon")


@pytest.fixture(scope="module", params=["copies", "links"])
def workspace(request, tmp_path_factory) -> Path:
    """Built from a copy, so that nothing of the checkout is written or found."""
    workspace = tmp_path_factory.mktemp(request.param)
    copy_sources(workspace / "src" / "decisive")
    words = ["--symlink-install"] if request.param == "links" else []
    env = {name: v for name, v in os.environ.items() if not name.startswith(("AMENT", "COLCON"))}
    result = subprocess.run(
        [str(COLCON), "build", "--executor", "sequential", *words],
        cwd=workspace,
        env={**env, "COLCON_HOME": str(workspace / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return workspace


def command(workspace: Path, *words: str) -> list[str]:
    """Words that run in the environment of the built workspace."""
    script = f'source "{workspace}/install/setup.bash" && exec "$@"'
    return ["bash", "--noprofile", "--norc", "-c", script, "bash", *words]


def run(workspace: Path, folder: Path, *words: str) -> str:
    result = subprocess.run(
        command(workspace, *words), cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def executables() -> set[str]:
    for line in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "NODES":
            return {"decisive", *ast.literal_eval(line.value)}
    raise AssertionError("setup.py has no NODES")


def test_share_holds_launch_files_parameters_and_the_package(workspace):
    share, sources = workspace / "install" / "decisive" / "share", workspace / "src" / "decisive"
    patterns = ("launch/*.launch.py", "config/*.yaml", "config/*.xml", "package.xml")
    paths = [path for pattern in patterns for path in sources.glob(pattern)]
    assert len(paths) > 8
    for path in paths:
        installed = share / "decisive" / path.relative_to(sources)
        assert installed.read_bytes() == path.read_bytes()
    index = share / "ament_index" / "resource_index" / "packages"
    assert [path.name for path in index.iterdir()] == ["decisive"]
    assert ElementTree.parse(share / "decisive" / "package.xml").findtext("name") == "decisive"


def test_ros2_run_finds_an_executable_for_every_node(workspace):
    programs = workspace / "install" / "decisive" / "lib" / "decisive"
    found = {path.name for path in programs.iterdir() if os.access(path, os.X_OK)}
    assert found == executables()


def test_environment_imports_the_build_and_finds_its_files(workspace, tmp_path):
    code = (
        f"import {', '.join(ROOMS)}\n"
        "from ros_nodes.graph import share\n"
        f"print(*(m.__file__ for m in ({', '.join(ROOMS)})), share('config/fastdds.xml'))\n"
        "import agents; print(*agents.shipped_policies().values())"
    )
    places = run(workspace, tmp_path, sys.executable, "-c", code).split()
    assert len(places) > len(ROOMS) + 1
    assert all(Path(place).is_relative_to(workspace) for place in places)


def test_installed_node_starts_with_installed_parameters_and_ends_by_a_signal(workspace, tmp_path):
    prefix = workspace / "install" / "decisive"
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    env = os.environ | {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(30 + worker),
        "ROS_LOG_DIR": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    }
    parameters = prefix / "share" / "decisive" / "config" / "hardware_servo.yaml"
    node = subprocess.Popen(
        command(
            workspace,
            str(prefix / "lib" / "decisive" / "safety_gate"),
            *("--ros-args", "--params-file", str(parameters), "-r", "__ns:=/arm"),
        ),
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "[arm.safety_gate]: disarmed" in node.stderr.readline()
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0
    finally:
        node.kill()
        node.communicate()


def test_package_names_the_ros_packages_that_the_nodes_import():
    package = ElementTree.parse(ROOT / "package.xml")
    named = {element.text for element in package.iter("exec_depend")}
    imported = {
        root
        for path in (ROOT / "ros_nodes").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for root in roots(node)
        if root.endswith(("_msgs", "_srvs", "_interfaces")) or root in ("rclpy", "launch_ros")
    }
    assert {"rclpy", "launch_ros", "sensor_msgs"} <= imported <= named


def roots(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.split(".")[0]}
    return set()
