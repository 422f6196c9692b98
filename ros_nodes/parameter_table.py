"""Writes what the code says of itself: tables into docs/ros2.md, and config/sros2_policy.xml.

    python -m ros_nodes.parameter_table
    python -m ros_nodes.parameter_table --check

The second writes nothing and ends with status 1 where something is out of date.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from ros_nodes.graph import GRAPHS, ROOT
from ros_nodes.interfaces import EVERYWHERE, INTERFACES, NODE_SERVICES, Interface
from ros_nodes.parameters import Parameter, Value

PAGE = ROOT / "docs" / "ros2.md"
POLICY = ROOT / "config" / "sros2_policy.xml"
BEGIN, END = "<!-- generated: {} -->", "<!-- end of generated -->"
COMMENT = """
  What each node may do, for ros2 security. Made by `python -m ros_nodes.parameter_table`.
  The nodes are started with the enclaves /decisive/NODE. Namespaces need another ns="...".
"""


def parameters_of(node: str) -> Sequence[Parameter]:
    """The table of a node's parameters; imports the node, and so rclpy."""
    table: Sequence[Parameter] = importlib.import_module(f"ros_nodes.{node}").PARAMETERS
    return table


# Markdown.


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def show(value: Value) -> str:
    """A value as a YAML file has it; an empty text in a list stands for an empty list."""
    if isinstance(value, list):
        return f"`[{', '.join(str(item) for item in value if item != '')}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else '`""`'


def parameter_tables() -> str:
    """All parameters of all nodes; `*` marks those that can be changed while the node runs."""
    parts = []
    for node in INTERFACES:
        rows = [
            (f"`{p.name}`" + ("" if p.fixed else " *"), show(p.default), p.allowed(), p.doc)
            for p in parameters_of(node)
        ]
        parts += [f"### `{node}`", table(("parameter", "default", "allowed", "meaning"), rows)]
    return "\n\n".join(parts)


def interface_tables() -> str:
    """Topics and services of all nodes."""
    parts = []
    for node, interfaces in INTERFACES.items():
        rows = [
            (i.way, f"`{i.name}`", ", ".join(kind.split("/")[-1] for kind in i.types), i.doc)
            for i in interfaces
        ]
        parts += [f"### `{node}`", table(("", "name", "type", "meaning"), rows)]
    return "\n\n".join(parts)


def graph_table() -> str:
    """The graphs, and what their topics are called outside."""
    rows = []
    for name, graph in GRAPHS.items():
        remaps = {old: new for node in graph.nodes for old, new in node.remap.items()}
        rows.append(
            (
                f"`{name}`",
                ", ".join(f"`{file}`" for file in graph.files()),
                ", ".join(f"`{old}` is `{new}`" for old, new in remaps.items()),
                graph.doc,
            )
        )
    return table(("graph", "parameters", "topics", ""), rows)


SECTIONS: dict[str, Callable[[], str]] = {
    "graphs": graph_table,
    "topics and services": interface_tables,
    "parameters": parameter_tables,
}


def page(text: str) -> str:
    """The page with its generated parts made anew.

    Raises:
        ValueError: if a part has no place in it.
    """
    for name, make in SECTIONS.items():
        begin = BEGIN.format(name)
        pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(END)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{PAGE.name} needs one {begin} ... {END}")
        filled = f"{begin}\n\n{make()}\n\n{END}"
        text = pattern.sub(filled.replace("\\", r"\\"), text)
    return text


# SROS2.


def names_outside(name: str) -> list[str]:
    """What a topic is called in any of the graphs; `NAME` becomes a wildcard."""
    nodes = [node for graph in GRAPHS.values() for node in graph.nodes]
    found = {name, *(node.remap[name] for node in nodes if name in node.remap)}
    return [text.replace("NAME", "*") for text in sorted(found)]


def _rules(profile: Xml.Element, kind: str, verb: str, names: Iterable[str]) -> None:
    if names := list(dict.fromkeys(names)):
        block = Xml.SubElement(profile, f"{kind}s", {verb: "ALLOW"})
        for name in names:
            Xml.SubElement(block, kind).text = name


def _profile(enclaves: Xml.Element, node: str) -> Xml.Element:
    enclave = Xml.SubElement(enclaves, "enclave", path=f"/decisive/{node}")
    return Xml.SubElement(Xml.SubElement(enclave, "profiles"), "profile", ns="/", node=node)


def _outside(interfaces: Iterable[Interface], way: str) -> list[str]:
    return [name for i in interfaces if i.way == way for name in names_outside(i.name)]


def sros2_policy() -> str:
    """The policy file: each node may do what it does, and the operator may watch and ask all."""
    policy = Xml.Element("policy", version="0.2.0")
    policy.append(Xml.Comment(COMMENT))
    enclaves = Xml.SubElement(policy, "enclaves")
    watched: list[str] = []
    asked: list[str] = []
    for node, interfaces in INTERFACES.items():
        profile = _profile(enclaves, node)
        published = _outside(interfaces, "publishes")
        served = [*_outside(interfaces, "serves"), *NODE_SERVICES]
        _rules(profile, "topic", "publish", [*EVERYWHERE, *published])
        subscribed = _outside(interfaces, "subscribes")
        _rules(profile, "topic", "subscribe", ["/clock", "/parameter_events", *subscribed])
        _rules(profile, "service", "reply", served)
        watched += [name.replace("~", node, 1) for name in published]
        asked += [name.replace("~", node, 1) for name in served]
    operator = _profile(enclaves, "operator")
    _rules(operator, "topic", "publish", [*EVERYWHERE, "estop"])
    _rules(operator, "topic", "subscribe", ["/clock", "/parameter_events", *watched])
    _rules(operator, "service", "reply", NODE_SERVICES)
    _rules(operator, "service", "request", asked)
    Xml.indent(policy)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(policy, encoding="unicode")}\n'


def stale() -> dict[Path, str]:
    """Files that say something else than the code, and what they should say."""
    wanted = {PAGE: page(PAGE.read_text()), POLICY: sros2_policy()}
    return {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write, or check."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words not in ([], ["--check"]):
        print("usage: python -m ros_nodes.parameter_table [--check]", file=sys.stderr)
        return 2
    found = stale()
    for path, text in found.items():
        if words:
            print(f"{path.name} is out of date: run python -m ros_nodes.parameter_table")
        else:
            path.write_text(text)
            print(f"wrote {path.name}")
    return 1 if words and found else 0


if __name__ == "__main__":
    raise SystemExit(main())
