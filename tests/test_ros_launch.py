"""Launch files: what they would start, and that it is the graph of `decisive ros up`.

ROS 2's launch does not come as a wheel. So the files are always run against a stand-in that notes
what is built, and against the real one where there is one.
"""

import ast
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from ros_nodes.graph import GRAPHS, command_line, defaults, environment, find_graph, share

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
CHOICES = {
    "sim_insertion": ("", ("",)),
    "hardware_arm": ("arm_controller", ("servo", "trajectory", "positions")),
    "navigation": ("base", ("sim", "hardware")),
}
CASES = [
    (path, argument, word)
    for path in FILES
    for argument, words in [CHOICES[path.name.removesuffix(".launch.py")]]
    for word in words
]


def real_launch() -> bool:
    # Our own folder launch/ would do for `import launch`; it has no module of this name.
    try:
        return all(importlib.util.find_spec(name) for name in ("launch.actions", "launch_ros"))
    except ModuleNotFoundError:
        return False


def run_file(path: Path):
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


# The stand-in.


class Noted(SimpleNamespace):
    """Keeps its arguments; those without a name in `words`."""

    def __init__(self, *words, **named):
        super().__init__(words=words, **named)


class LaunchDescription(Noted): ...


class DeclareLaunchArgument(Noted): ...


class SetEnvironmentVariable(Noted): ...


class OpaqueFunction(Noted): ...


class Shutdown(Noted): ...


class EnvironmentVariable(Noted): ...


class Node(Noted): ...


class LaunchConfiguration(Noted):
    def perform(self, context):
        return context[self.words[0]]


STAND_IN = {
    "launch": (),
    "launch.actions": (DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown),
    "launch.launch_description": (LaunchDescription,),
    "launch.substitutions": (EnvironmentVariable, LaunchConfiguration),
    "launch_ros": (),
    "launch_ros.actions": (Node,),
}


@pytest.fixture
def stand_in(monkeypatch):
    for name, classes in STAND_IN.items():
        module = ModuleType(name)
        module.__dict__.update({made.__name__: made for made in classes})
        monkeypatch.setitem(sys.modules, name, module)


def of(description, kind):
    return [action for action in description.words[0] if isinstance(action, kind)]


def nodes_of(description, **arguments):
    context = {a.words[0]: a.default_value for a in of(description, DeclareLaunchArgument)}
    assert set(arguments) <= set(context)
    (function,) = of(description, OpaqueFunction)
    return function.function(context | arguments)


def graph_name(path: Path, word: str) -> str:
    stem = path.name.removesuffix(".launch.py")
    if stem == "navigation":
        return f"{word}_navigation"
    return f"hardware_{word}" if word else stem


def test_every_launch_file_is_tested():
    assert {path.name.removesuffix(".launch.py") for path in FILES} == set(CHOICES)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("path", "argument", "word"), CASES)
def test_launch_starts_the_nodes_of_the_graph_with_their_files(path, argument, word):
    nodes = nodes_of(run_file(path), **({argument: word} if argument else {}))
    graph = find_graph(graph_name(path, word))
    assert [node.executable for node in nodes] == [spec.name for spec in graph.nodes]
    for node, spec in zip(nodes, graph.nodes, strict=True):
        assert (node.package, node.name, node.namespace) == ("decisive", spec.name, "")
        assert dict(node.remappings) == dict(spec.remap)
        assert node.parameters == [str(share(f"config/{name}")) for name in graph.files()]
        words = command_line(spec, graph, {})
        assert node.ros_arguments[1] == words[words.index("--enclave") + 1]
        for file in node.parameters:
            assert file in words


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("path", "argument", "word"), CASES)
def test_all_ends_with_a_node_unless_it_shall_be_started_again(path, argument, word):
    chosen = {argument: word} if argument else {}
    for node in nodes_of(run_file(path), **chosen):
        assert isinstance(node.on_exit, Shutdown)
        assert not hasattr(node, "respawn")
    for node in nodes_of(run_file(path), respawn="true", **chosen):
        assert node.respawn
        assert not hasattr(node, "on_exit")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_launch_sets_what_ros_up_sets_and_the_user_has_not(path):
    variables = of(run_file(path), SetEnvironmentVariable)
    assert {v.words[0]: v.words[1].default_value for v in variables} == defaults()
    assert all(v.words[1].words == v.words[:1] for v in variables)
    assert environment({"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    assert environment({})["FASTRTPS_DEFAULT_PROFILES_FILE"].endswith("config/fastdds.xml")


@pytest.mark.usefixtures("stand_in")
def test_own_files_and_a_namespace_go_to_every_node(tmp_path):
    mine = [tmp_path / "cell.yaml", tmp_path / "camera.yaml"]
    for path in mine:
        path.write_text("{}\n")
    description = run_file(ROOT / "launch" / "hardware_arm.launch.py")
    config, calibration = map(str, mine)
    nodes = nodes_of(description, config=config, calibration=calibration, namespace="arm")
    assert {node.namespace for node in nodes} == {"arm"}
    assert all(node.parameters == [config, calibration] for node in nodes)
    with pytest.raises(ValueError, match="is not a file"):
        nodes_of(description, config=str(tmp_path / "none.yaml"))


@pytest.mark.usefixtures("stand_in")
def test_a_segmenter_starts_what_sees_and_tells_it_so():
    hardware = run_file(ROOT / "launch" / "hardware_arm.launch.py")
    names = [node.name for node in nodes_of(hardware)]
    seeing = nodes_of(hardware, segmenter="masks")
    assert [node.name for node in seeing] == [*names, "perception"]
    own = {node.name: node.parameters[2:] for node in seeing}
    assert own["perception"] == [{"checkpoint": "masks"}]
    assert own["object_poses"] == [{"masks": True}]
    assert own["policy"] == own["safety_gate"] == []
    simulated = run_file(ROOT / "launch" / "sim_insertion.launch.py")
    seeing = nodes_of(simulated, segmenter="colors")
    assert [node.name for node in seeing][3:] == ["object_poses"]
    assert seeing[0].parameters[1:] == [{"objects": False, "camera_rate": 15.0}]
    with pytest.raises(AssertionError):  # nothing there sees a table
        nodes_of(run_file(ROOT / "launch" / "navigation.launch.py"), segmenter="masks")


def test_names_in_the_graphs_are_relative_so_that_a_namespace_holds():
    names = [
        name
        for graph in GRAPHS.values()
        for node in graph.nodes
        for pair in node.remap.items()
        for name in pair
    ]
    assert names
    assert not [name for name in names if name.startswith(("/", "~"))]


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_names_existing_files_and_only_the_gate_commands(name):
    graph = GRAPHS[name]
    assert all(share(f"config/{file}").is_file() for file in graph.files())
    outside = {node.name: node.remap.get("robot/command") for node in graph.nodes}
    assert {node for node, topic in outside.items() if topic} <= {"safety_gate"}


def test_only_simulation_has_exact_poses():
    for name, graph in GRAPHS.items():
        nodes = [node.name for node in graph.nodes]
        if name == "hardware_navigation":
            assert nodes == ["world_model", "navigator", "safety_gate"]
        elif name.startswith("hardware"):
            assert nodes == ["object_poses", "policy", "safety_gate"]


@pytest.mark.parametrize("name", sorted({n.name for g in GRAPHS.values() for n in g.nodes}))
def test_every_node_of_a_graph_is_a_program(name):
    path = ROOT / "ros_nodes" / f"{name}.py"
    functions = [n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    assert "main" in functions


@pytest.mark.skipif(not real_launch(), reason="launch and launch_ros are not importable")
@pytest.mark.parametrize(("path", "argument", "word"), CASES)
def test_real_launch_makes_the_same_nodes(path, argument, word):
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.launch_context import LaunchContext

    description = run_file(path)
    context = LaunchContext()
    if argument:
        context.launch_configurations[argument] = word
    nodes = []
    for entity in description.entities:
        if isinstance(entity, OpaqueFunction):
            nodes = entity.execute(context)
        else:
            assert not isinstance(entity, DeclareLaunchArgument) or entity.description
            entity.execute(context)
    graph = find_graph(graph_name(path, word))
    assert [node.node_executable for node in nodes] == [spec.name for spec in graph.nodes]
    assert {node.node_package for node in nodes} == {"decisive"}
    assert os.path.isfile(context.environment["FASTRTPS_DEFAULT_PROFILES_FILE"])
