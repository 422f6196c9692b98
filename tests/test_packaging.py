"""A wheel of the project, installed in an empty folder, has everything it needs."""

import ast
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "agents",
    "decisive",
    "envs",
    "learning",
    "perception",
    "robots",
    "ros_nodes",
    "world_models",
)
SETTINGS = ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "LICENSE")
CARRIED = (*ROOMS, "config", "launch", "resource", *SETTINGS)


def copy_sources(folder: Path) -> None:
    """What a package is built from."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CARRIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder of the checkout leaks into it, nor ours out."""
    copy = tmp_path_factory.mktemp("source")
    copy_sources(copy)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    result = subprocess.run(
        [*command, "--wheel-dir", str(out), str(copy)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = out.glob("decisive-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has the wheel; other packages it borrows from ours.

    A path line in a .pth file adds a folder without running the .pth files in it, so an editable
    installation of the checkout stays invisible.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "zz_borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True)
    return folder / "bin" / "python"


def run_in_empty_folder(installed: Path, empty: Path, *arguments: str) -> str:
    result = subprocess.run(
        [str(installed), *arguments], cwd=empty, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def is_installed(place: str, python: Path) -> bool:
    return Path(place).is_relative_to(python.parents[1])


def test_wheel_holds_every_module_asset_and_checkpoint(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for room in ROOMS for p in (ROOT / room).rglob("*.py")}
    assert modules <= names
    data = {
        str(path.relative_to(ROOT))
        for pattern in ("agents/checkpoints/**/*", "envs/**/assets/**/*")
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert data <= names


def test_wheel_holds_nothing_but_the_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {
        *ROOMS,
        "decisive-0.1.0.dist-info",
        "decisive-0.1.0.data",
        "decisive_gymnasium.pth",
    }


def test_wheel_holds_what_ros_looks_for_and_no_short_command_names(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = set(archive.namelist())
    for pattern in ("launch/*.launch.py", "config/*.yaml", "config/*.xml"):
        paths = {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)}
        assert paths
        assert {f"decisive-0.1.0.data/data/share/decisive/{path}" for path in paths} <= names
    # `policy` on everybody's PATH would be somebody else's; setup.py says who gets it.
    points = archive.read("decisive-0.1.0.dist-info/entry_points.txt").decode()
    commands = points.partition("[console_scripts]")[2].partition("[")[0].split("\n")
    assert [line for line in commands if line] == ["decisive = decisive.cli:main"]


def test_installed_wheel_finds_its_parameter_files(installed: Path, tmp_path: Path) -> None:
    code = "from ros_nodes.graph import share; print(share('config/fastdds.xml'))"
    place = run_in_empty_folder(installed, tmp_path, "-c", code).strip()
    assert is_installed(place, installed)


def test_wheel_names_its_entry_points_licence_and_pythons(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = "decisive-0.1.0.dist-info"
    points = archive.read(f"{info}/entry_points.txt").decode()
    assert "decisive = decisive.cli:main" in points
    assert "__root__ = envs:register_envs" in points
    metadata = archive.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata or "License: Apache-2.0" in metadata
    assert any(
        set(line.split(": ")[-1].split(",")) == {">=3.11", "<3.13"}
        for line in metadata.splitlines()
        if line.startswith("Requires-Python")
    )
    assert f"{info}/licenses/LICENSE" in archive.namelist()


def test_installed_wheel_imports_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    code = (
        "import agents, decisive, envs, learning\n"
        "print(*{m.__file__ for m in (agents, decisive, envs, learning)}, sep='\\n')"
    )
    places = run_in_empty_folder(installed, tmp_path, "-c", code).split()
    assert len(places) == 4
    assert all(is_installed(place, installed) for place in places)


def test_gymnasium_finds_the_environments_without_an_import(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "import gymnasium\n"
        "for name in ('Particle', 'BlockInsertion'):\n"
        "    env = gymnasium.make(f'decisive/{name}-v0'); env.reset(seed=0)\n"
        "    env.step(env.action_space.sample()); env.close()\n"
        "import envs; print(envs.__file__)"
    )
    place = run_in_empty_folder(installed, tmp_path, "-c", code).split()[-1]
    assert is_installed(place, installed)


def test_the_order_of_imports_does_not_matter(installed: Path, tmp_path: Path) -> None:
    for first in (
        "envs",
        "gymnasium",
        "gymnasium.spaces",
        "envs.limits",
        "gymnasium.envs.registration",
    ):
        code = (
            f"import {first}, gymnasium; print(sum('decisive/' in i for i in gymnasium.registry))"
        )
        assert int(run_in_empty_folder(installed, tmp_path, "-c", code)) >= 5


def test_start_up_stays_cheap_and_a_foreign_envs_package_is_left_alone(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "envs.py").write_text("raise SystemExit('imported unasked')")
    code = (
        "import sys; print(sorted({'gymnasium', 'envs', 'numpy', 'torch'} & set(sys.modules)))\n"
        "import gymnasium; print([name for name in gymnasium.registry if 'decisive' in name])"
    )
    assert run_in_empty_folder(installed, tmp_path, "-c", code).splitlines() == ["[]", "[]"]


def test_installed_command_line_tells_its_version(installed: Path, tmp_path: Path) -> None:
    assert "0.1.0" in run_in_empty_folder(installed, tmp_path, "-m", "decisive", "--version")
    assert not list(tmp_path.iterdir())


def test_installed_wheel_finds_and_loads_its_checkpoints(installed: Path, tmp_path: Path) -> None:
    code = (
        "import agents\n"
        "shipped = agents.shipped_policies()\n"
        "assert shipped, 'no shipped policies in the wheel'\n"
        "for name in shipped: agents.load_policy(name)\n"
        "print(*shipped.values(), sep='\\n')"
    )
    places = run_in_empty_folder(installed, tmp_path, "-c", code).split()
    assert all(is_installed(place, installed) for place in places)


def test_ros_finds_the_package_by_the_same_name_and_version() -> None:
    setup = ast.parse((ROOT / "setup.py").read_text())
    call = next(
        node
        for node in ast.walk(setup)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"
    )
    values = {key.arg: key.value for key in call.keywords}
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.attrib["format"] == "3"
    for tag in ("name", "version"):
        value = values[tag]
        assert isinstance(value, ast.Constant)
        assert package.findtext(tag) == value.value
    assert package.findtext("export/build_type") == "ament_python"
    assert (ROOT / "resource" / str(package.findtext("name"))).is_file()


def test_lock_pins_every_direct_dependency_exactly_and_no_local_build() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import lock
    finally:
        sys.path.pop(0)
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in lock.LOCK.read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    for text in lock.wanted():
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if name.startswith(("nvidia-", "triton"))]
    assert "+" not in "".join(lines)


def test_version_is_told_the_same_everywhere() -> None:
    import decisive

    assert f'version="{decisive.__version__}"' in (ROOT / "setup.py").read_text()
