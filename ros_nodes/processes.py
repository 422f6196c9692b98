"""Child processes of `decisive ros`: started together, watched, and ended in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ros_nodes.graph import Graph, command_line, environment
from ros_nodes.start import PARENT

PATIENCE = 5.0
"""Seconds a node has to end by itself before it is killed."""

SAVING = 60.0
"""The same for the recorder, which writes its data set then."""


class Processes:
    """The nodes of a graph as processes."""

    def __init__(
        self,
        graph: Graph,
        overrides: Mapping[str, Any],
        logs: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start them.

        Args:
            graph: what to start.
            overrides: parameters; see `ros_nodes.graph.command_line`.
            logs: folder for one file a node; None lets them write to the terminal.
            env: environment to start from; that of this process by default.
        """
        self._graph, self._overrides, self._logs = graph, dict(overrides), logs
        self._env = {**environment(env), PARENT: str(os.getpid())}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for node in graph.nodes:
            self.start(node.name)

    def start(self, name: str) -> None:
        """Start one node, anew if it has ended."""
        node = next(node for node in self._graph.nodes if node.name == name)
        words = command_line(node, self._graph, self._overrides)
        # In a session of its own: Ctrl-C reaches this process, which then ends the nodes in order.
        if self._logs is None:
            self.running[name] = subprocess.Popen(words, env=self._env, start_new_session=True)
            return
        self._logs.mkdir(parents=True, exist_ok=True)
        with open(self._logs / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                words, env=self._env, stdout=log, stderr=log, start_new_session=True
            )

    def ended(self) -> dict[str, int]:
        """Exit status of the nodes that have ended, by name."""
        return {
            name: process.returncode
            for name, process in self.running.items()
            if process.poll() is not None
        }

    def check(self) -> None:
        """Raise `ValueError` if a node has ended by itself."""
        for name, status in self.ended().items():
            raise ValueError(f"{name} has ended with status {status}; {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        if self._logs is None:
            return "see above"
        path = self._logs / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return lines[-1] if lines else f"see {path}"

    def stop(self, number: int = signal.SIGINT) -> dict[str, int]:
        """End all: those that command first, the robot last.

        Returns:
            Exit status by name; -9 of one that had to be killed.
        """
        order = sorted(self.running, key=lambda name: name.startswith("sim_"))
        for name in order:
            process = self.running[name]
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        end = time.monotonic() + PATIENCE
        for name in order:
            process = self.running[name]
            more = SAVING if name == "recorder" else 0.0
            try:
                process.wait(max(end + more - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return {name: self.running[name].returncode for name in order}


@contextlib.contextmanager
def running(
    graph: Graph,
    overrides: Mapping[str, Any],
    logs: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Processes]:
    """The nodes of a graph, for the duration of a block."""
    processes = Processes(graph, overrides, logs, env)
    try:
        yield processes
    finally:
        processes.stop()
