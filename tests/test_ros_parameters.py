"""Parameters, topics and services: files, tables and documentation agree with the running nodes."""

import ast
import importlib
import importlib.util
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
import segmenter_cases
import task_cases
from classifier_cases import save_small, save_triage
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as Setting

from perception.deep_mac.checkpoint import save_segmenter
from perception.multi_task_checkpoint import save_tasks
from ros_nodes import parameter_table
from ros_nodes.graph import GRAPHS, NodeSpec, command_line
from ros_nodes.interfaces import EVERYWHERE, INTERFACES, NODE_SERVICES

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "config").glob("*.yaml"))
KEY = "ros__parameters"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
SECTIONS = [
    (path, key) for path in FILES for key in yaml.safe_load(path.read_text()) if key != "/**"
]


def table_of(node: str):
    return {parameter.name: parameter for parameter in parameter_table.parameters_of(node)}


def node_class(node: str):
    module = importlib.import_module(f"ros_nodes.{node}")
    (made,) = (
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, rclpy.node.Node)
        and value.__module__ == module.__name__
    )
    return made


class Nodes:
    """Starts nodes in contexts of their own, and ends them."""

    def __init__(self):
        self._running = []

    def __call__(self, name, *words, overrides=None, **options):
        context = Context()
        rclpy.init(args=["--ros-args", *words], context=context, domain_id=50 + WORKER)
        settings = [Setting(key, value=value) for key, value in (overrides or {}).items()]
        node = node_class(name)(context=context, parameter_overrides=settings, **options)
        self._running.append((node, context))
        return node

    def end(self):
        while self._running:
            node, context = self._running.pop()
            getattr(node, "finish", lambda: None)()
            node.destroy_node()
            rclpy.try_shutdown(context=context)


@pytest.fixture
def start(monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
    monkeypatch.chdir(tmp_path)  # where a recorder writes
    nodes = Nodes()
    yield nodes
    nodes.end()


@pytest.fixture
def terminal():
    ours, theirs = os.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


# Files.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_of_a_file_match_in_every_namespace(path):
    for key, section in yaml.safe_load(path.read_text()).items():
        assert re.fullmatch(r"/\*\*(/\w+)?", key), f"{key} is no /** key"
        assert list(section) == [KEY]


@pytest.mark.parametrize(("path", "key"), SECTIONS, ids=lambda part: getattr(part, "stem", part))
def test_every_parameter_of_a_file_is_declared_with_its_type_and_range(path, key):
    table = table_of(key.removeprefix("/**/"))
    for name, value in yaml.safe_load(path.read_text())[key][KEY].items():
        parameter = table[name]
        assert type(value) is type(parameter.default), f"{name}: {value!r}"
        if isinstance(value, list):
            assert {type(item) for item in value} == {type(parameter.default[0])}
        elif isinstance(value, int | float):
            assert parameter.low <= value <= parameter.high
        if parameter.choices:
            assert value in parameter.choices


@pytest.mark.parametrize(("path", "key"), SECTIONS, ids=lambda part: getattr(part, "stem", part))
def test_a_node_reads_its_file_as_it_is_written(path, key, terminal, start):
    # In a namespace, and by ROS's own parser, for which a bare y is a boolean.
    name = key.removeprefix("/**/")
    options = {"descriptor": terminal} if name == "teleop_keyboard" else {}
    node = start(name, "--params-file", str(path), namespace="arm", **options)
    for parameter, value in yaml.safe_load(path.read_text())[key][KEY].items():
        read = node.get_parameter(parameter).value
        assert (list(read) if isinstance(value, list) else read) == value


@pytest.mark.parametrize("node", INTERFACES)
def test_every_parameter_has_a_description_and_a_default_within_its_range(node):
    table = parameter_table.parameters_of(node)
    assert len({parameter.name for parameter in table}) == len(table)
    for parameter in table:
        assert len(parameter.doc) > 8
        assert not parameter.choices or parameter.default in parameter.choices
        if isinstance(parameter.default, int | float):
            assert parameter.low <= parameter.default <= parameter.high


def test_words_of_the_command_line_reach_a_node_unchanged(start):
    given = {"joints": ["y", "on", "it's", ""], "command": "twist", "hold": 0.2, "lockstep": True}
    limits = {name: [1.0] * 6 for name in ("low", "high", "velocity", "acceleration")}
    words = command_line(NodeSpec("safety_gate"), GRAPHS["sim_insertion"], given | limits)
    node = start("safety_gate", *words[words.index("--ros-args") + 1 :])
    for name, value in (given | limits).items():
        read = node.get_parameter(name).value
        assert (list(read) if isinstance(value, list) else read) == value


# Topics and services.

LIMITS = {name: [1.0] * 6 for name in ("high", "velocity", "acceleration")} | {"low": [0.0] * 6}
AXES = {name: values[:3] for name, values in LIMITS.items()} | {"joints": ["x", "y", "z"]}
PIXELS = {"checkpoint": "block-push-pixels-ibc"}
JOINTS = {
    "features": [
        "target_xy = reference",
        "effector_xy = joints:joint_states x,y",
        *(
            f"{name}_{part} = pose:objects/{name} {part}"
            for name, parts in (
                ("block", ("xy", "yaw4")),
                ("slot1", ("xy", "heading")),
                ("slot2", ("xy", "heading")),
            )
            for part in parts
        ),
    ]
}
RECORDED = {"env": "decisive/BlockInsertion-v0"}
CASES = {
    "sim_robot": [
        {"stepping": "lockstep", "auto_reset": False, "camera_rate": 1.0, "policy_image": True},
        {"command": "trajectory", "auto_reset": False},
        {"command": "positions", "auto_reset": False},
        {"stepping": "lockstep", "command": "trajectory", "env": "decisive/Particle-v0"},
    ],
    "object_poses": [{}, {"masks": True}],
    "policy": [
        {"command": "twist"},
        {"command": "trajectory", **JOINTS},
        {"command": "positions", **PIXELS},
        {"command": "trajectory", "lockstep": True, "checkpoint": "particle-16-mse"},
    ],
    "safety_gate": [
        {"command": "twist", **LIMITS},
        {"command": "trajectory", **AXES},
        {"command": "positions", **AXES},
    ],
    "recorder": [
        {"command": "twist", **RECORDED},
        {"command": "trajectory", **RECORDED, **JOINTS},
        {"command": "positions", "env": "decisive/BlockPush-v0", "set": ["observation=pixels"]},
    ],
    "teleop_keyboard": [{}],
    "teleop_gamepad": [{}],
    "sim_base": [{}],
    "world_model": [{}],
    "navigator": [{}],
    "forecast": [{}],
    "goal_views": [{}, {"camera": "panorama"}],
    "perception": [
        {"checkpoint": "classes", "backend": "torch"},
        {"checkpoint": "triage", "backend": "torch"},
        {"checkpoint": "masks", "backend": "torch", "boxes": True},
        {"checkpoint": "tasks", "backend": "torch"},
    ],
}
"""Settings with which each node, taken together, opens all its topics."""

SAVED = {
    "classes": lambda folder: save_small(folder / "classes"),
    "triage": lambda folder: save_triage(folder / "triage"),
    "masks": lambda folder: save_segmenter(
        folder / "masks", segmenter_cases.saved(scores={"mask_iou": 0.5}), "# For tests\n"
    ),
    "tasks": lambda folder: save_tasks(
        folder / "tasks", task_cases.saved(scores={"images": 3}), "# For tests\n"
    ),
}
"""Checkpoints of those cases."""

ONE_OF_MANY = re.compile(
    r"^(/objects|/forecast|~/classification|~/scene|~/numbers|~/overlay)/(?!camera_info$)\w+$"
)
"""Topics whose last word is a name of something."""

QUERIES = {
    "publishes": "get_publisher_names_and_types_by_node",
    "subscribes": "get_subscriber_names_and_types_by_node",
    "serves": "get_service_names_and_types_by_node",
}


def opened(node) -> set[tuple[str, str, str]]:
    """Way, name and type of what a node has opened, without what every node has."""
    name = node.get_name()
    found = {
        (way, topic.replace(f"/{name}/", "~/", 1), kind)
        for way, query in QUERIES.items()
        for topic, kinds in getattr(node, query)(name, "/")
        for kind in kinds
    }
    apart = {*EVERYWHERE, *NODE_SERVICES}
    return {
        (way, ONE_OF_MANY.sub(r"\1/NAME", topic), kind)
        for way, topic, kind in found
        if topic not in apart
    }


def expected(name: str) -> set[tuple[str, str, str]]:
    """What its table says, in the messages that are installed here."""
    return {
        (i.way, i.name if i.name[0] in "/~" else f"/{i.name}", kind)
        for i in INTERFACES[name]
        for kind in i.types
        if importlib.util.find_spec(kind.split("/")[0])
    }


@pytest.mark.parametrize("name", INTERFACES)
def test_a_node_opens_the_topics_and_services_of_its_table(name, terminal, start, tmp_path):
    seen = set()
    for i, case in enumerate(CASES[name]):
        options = {"descriptor": terminal} if name == "teleop_keyboard" else {}
        if name == "recorder":
            case = {**case, "out": f"{i}.npz"}
        if name == "perception":
            SAVED[case["checkpoint"]](tmp_path)  # the folder where nodes run here
        # By a name that no other has: the graph remembers nodes for a while.
        node = start(name, "-r", f"__node:={name}_{i}", overrides=case, **options)
        if name in ("policy", "perception"):
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        if name == "perception":
            assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        found = opened(node)
        assert found <= expected(name)
        seen |= found
        start.end()
    assert seen == expected(name)


def test_every_node_is_in_the_tables_and_installed():
    setup = ast.parse((ROOT / "setup.py").read_text())
    (nodes,) = (
        ast.literal_eval(line.value)
        for line in setup.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "NODES"
    )
    programs = {
        path.stem
        for path in (ROOT / "ros_nodes").glob("*.py")
        if re.search(r"^    return run\(", path.read_text(), re.MULTILINE)
    }
    assert set(nodes) == programs
    for place in nodes.values():
        module, function = place.split(":")
        assert callable(getattr(importlib.import_module(f"ros_nodes.{module}"), function))
    assert set(INTERFACES) == programs


# Documentation.


def test_page_and_security_policy_say_what_the_code_says():
    stale = [path.name for path in parameter_table.stale()]
    assert not stale, f"{stale}: run python -m ros_nodes.parameter_table"
    assert parameter_table.main(["--check"]) == 0
    assert parameter_table.main(["--wrong"]) == 2


def test_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="needs one <!-- generated: graphs -->"):
        parameter_table.page("no place")


def test_security_lets_only_the_gate_command_a_robot():
    policy = ElementTree.fromstring(parameter_table.sros2_policy())
    commands = {n.remap.get("robot/command") for g in GRAPHS.values() for n in g.nodes}
    commands = {"robot/command", *commands} - {None}
    assert len(commands) == 5
    allowed = {
        profile.attrib["node"]
        for profile in policy.iter("profile")
        for topics in profile.findall("topics[@publish='ALLOW']")
        if commands & {topic.text for topic in topics}
    }
    assert allowed == {"safety_gate"}
    assert {e.attrib["path"] for e in policy.iter("enclave")} == {
        *(f"/decisive/{node}" for node in INTERFACES),
        "/decisive/operator",
    }
