"""The rooms: who may import whom, what stays unloaded, what no source may hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED: dict[str, set[str]] = {
    "envs": set(),
    "learning": set(),
    "perception": {"learning"},
    "agents": {"learning", "perception"},
    "world_models": {"learning", "perception"},
    "decisive": {"agents", "envs", "learning", "perception", "robots", "world_models"},
    "robots": set(),
    "ros_nodes": {"agents", "decisive", "envs", "learning", "perception", "robots", "world_models"},
}
ROOMS = [room for room in ALLOWED if (ROOT / room).is_dir()]
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported_roots(tree: ast.AST) -> set[str]:
    """First names of all absolute imports, at any depth: also those inside functions."""
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots


def forbidden_calls(tree: ast.AST) -> list[str]:
    """Names of what executes or trusts the contents of a file."""
    found = [f"import {root}" for root in imported_roots(tree) & {"pickle", "dill", "joblib"}]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in {"torch.load", "yaml.load", "eval", "exec"}:
                found.append(name)
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                    found.append("allow_pickle")
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_the_rooms_of_the_design_exist() -> None:
    assert {"decisive", "envs", "agents", "learning"} <= set(ROOMS)
    assert len(SOURCES) > 20


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for other in sorted(imported_roots(parse(path)) & set(ALLOWED) - ALLOWED[room] - {room})
    ]
    assert not wrong


def test_the_arrow_check_sees_a_wrong_arrow_inside_a_function() -> None:
    tree = ast.parse("def f():\n    from agents.policy import Policy\n    import learning.loop")
    assert imported_roots(tree) == {"agents", "learning"}


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "ros_nodes"])
def test_importing_a_room_loads_no_ros_and_envs_no_torch(room: str) -> None:
    code = f"import sys, {room}; print(*[m for m in ('rclpy', 'torch') if m in sys.modules])"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert "rclpy" not in loaded
    if room == "envs":
        assert "torch" not in loaded


def test_no_environment_module_loads_torch() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "envs").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        # Not `decisive` itself: its start-up hook is loaded wherever the project is installed.
        "unwanted = ('rclpy', 'torch', 'agents', 'learning', 'decisive.cli')\n"
        "print(*[name for name in unwanted if name in sys.modules])"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert loaded.splitlines()[-1] == ""  # PyBullet prints its build time first


def test_the_command_line_helps_without_torch_or_a_simulator() -> None:
    code = (
        "import sys; from decisive.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pybullet') if m in sys.modules])"
    )
    output = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert output.splitlines()[-1] == "[]"


def test_nothing_unpickles_or_executes_what_a_file_says() -> None:
    wrong = {str(path): calls for path in SOURCES if (calls := forbidden_calls(parse(path)))}
    assert not wrong


@pytest.mark.parametrize(
    "source",
    ["import pickle", "torch.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f)", "eval(s)"],
)
def test_the_unpickling_check_sees_each_way(source: str) -> None:
    assert forbidden_calls(ast.parse(source))
    assert not forbidden_calls(ast.parse("np.load(f, allow_pickle=False); model.eval()"))


def test_no_module_is_a_drawer() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "misc", "common"}]


def test_folders_that_must_not_be_packages_are_none() -> None:
    # With an __init__.py, `launch/` would shadow ROS's own `launch`.
    for folder in ("launch", "tests", "config", "benchmarks", "docs"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_every_folder_with_code_is_a_package() -> None:
    # find_packages leaves out a folder without __init__.py, and the wheel would lack it.
    folders = {path.parent for path in SOURCES}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_test_lines_reach_half_of_the_source_lines() -> None:
    source = sum(len(path.read_text().splitlines()) for path in SOURCES)
    tests = sum(len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py"))
    assert tests >= 0.5 * source, f"{tests} test lines for {source} source lines"
