"""Launch descriptions from the graphs of `ros_nodes.graph`, which `decisive ros up` starts too.

The functions need `launch` and `launch_ros`, which come with a sourced ROS 2 and not as wheels;
importing this module does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ros_nodes.graph import Graph, defaults, enclave, find_graph, share
from ros_nodes.perceiving import COLORS, looks, perceiving

Read = Callable[[str], str]


def description(name: str) -> Any:
    """Launch description of one graph.

    Args:
        name: of the graph.

    Returns:
        A `launch.LaunchDescription` with the arguments `config`, `namespace`, `respawn`, where a
        table is looked at `segmenter`, and where the graph is calibrated `calibration`.
    """
    return _description([], {"": find_graph(name)}, "")


def choice(argument: str, doc: str, graphs: Mapping[str, str]) -> Any:
    """Launch description of several graphs, one of which an argument chooses.

    Args:
        argument: name of the launch argument; the first choice is its default.
        doc: one line for people.
        graphs: choice to name of the graph.

    Returns:
        As `description`, with one more argument.
    """
    from launch.actions import DeclareLaunchArgument  # pyright: ignore[reportMissingImports]

    words = list(graphs)
    declared = DeclareLaunchArgument(
        argument, default_value=words[0], choices=words, description=doc
    )
    found = {word: find_graph(name) for word, name in graphs.items()}
    return _description([declared], found, argument)


def _description(chosen: list[Any], graphs: Mapping[str, Graph], argument: str) -> Any:
    from launch.actions import (  # pyright: ignore[reportMissingImports]
        DeclareLaunchArgument,
        OpaqueFunction,
        SetEnvironmentVariable,
    )
    from launch.launch_description import (  # pyright: ignore[reportMissingImports]
        LaunchDescription,
    )
    from launch.substitutions import (  # pyright: ignore[reportMissingImports]
        EnvironmentVariable,
        LaunchConfiguration,
    )

    def nodes(context: Any) -> list[Any]:
        def read(name: str) -> str:
            return str(LaunchConfiguration(name).perform(context))

        return _nodes(graphs[read(argument) if argument else ""], read)

    arguments = {
        "config": ("", "file of parameters instead of the graph's own"),
        "namespace": ("", "of all nodes and topics"),
        "respawn": ("false", "true starts a node again that has ended; else all end with it"),
    }
    if any(looks(graph) for graph in graphs.values()):
        arguments["segmenter"] = (
            "",
            f"see the objects by the masks of this one, a folder or a shipped name; {COLORS}: by "
            "their colours",
        )
    if any(graph.calibration for graph in graphs.values()):
        arguments["calibration"] = ("", "file of calibrated parameters instead of the shipped one")
    return LaunchDescription(
        [
            *chosen,
            *(
                DeclareLaunchArgument(name, default_value=value, description=doc)
                for name, (value, doc) in arguments.items()
            ),
            *(
                SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
                for name, value in defaults().items()
            ),
            # Which files and topics depends on arguments, which have values only when it runs.
            OpaqueFunction(function=nodes),
        ]
    )


def _nodes(graph: Graph, read: Read) -> list[Any]:
    """The nodes of a graph; `read` gives the value of a launch argument."""
    from launch.actions import Shutdown  # pyright: ignore[reportMissingImports]
    from launch_ros.actions import Node  # pyright: ignore[reportMissingImports]

    files = parameter_files(graph, read)
    seen: dict[str, Any] = {}
    if looks(graph) and (segmenter := read("segmenter")):
        graph, seen = perceiving(graph, segmenter)
    actions = []
    for node in graph.nodes:
        # A gate that is started again is disarmed, so nothing moves by itself.
        if read("respawn").lower() in ("true", "1"):
            at_end: dict[str, Any] = {"respawn": True, "respawn_delay": 1.0}
        else:
            at_end = {"on_exit": Shutdown(reason=f"{node.name} has ended")}
        actions.append(
            Node(
                package="decisive",
                executable=node.name,
                name=node.name,
                namespace=read("namespace"),
                parameters=[*files, *own_parameters(seen, node.name)],
                remappings=list(node.remap.items()),
                ros_arguments=["--enclave", enclave(node)],
                output="screen",
                **at_end,
            )
        )
    return actions


def own_parameters(parameters: Mapping[str, Any], node: str) -> list[dict[str, Any]]:
    """Those of one node among values by `NODE.name`, as launch takes them: one dict, or none."""
    found = {
        key.removeprefix(f"{node}."): value
        for key, value in parameters.items()
        if key.startswith(f"{node}.")
    }
    return [found] if found else []


def parameter_files(graph: Graph, read: Read) -> list[str]:
    """Paths of the parameter files: the shipped ones, or those that the arguments name.

    Raises:
        ValueError: if one does not exist; a node would run with its defaults instead.
    """
    paths = []
    for argument, name in (("config", graph.config), ("calibration", graph.calibration)):
        if not name:
            continue
        given = read(argument)
        if given and not Path(given).is_file():
            raise ValueError(f"{argument}:={given} is not a file; leave it out for {name}")
        paths.append(given or str(share(f"config/{name}")))
    return paths
