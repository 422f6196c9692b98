"""Latency from camera to command, missed periods and memory, with policy and gate over DDS.

    python benchmarks/ros_latency.py                      a minute
    python benchmarks/ros_latency.py --seconds 600 --json the soak of ten minutes

This process is the robot: it publishes poses at 50 Hz under the time
they were taken, policy (20 decisions a second) and safety gate are processes of their own. Latency
is from the stamp of the observation behind a decision to the arrival of its first command, after
the gate. A period is missed if there is no decision within 1.5 of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sensor_msgs.msg import TimeReference

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from ros_cell import cell

from decisive import provenance
from ros_nodes import messages
from ros_nodes.running import COMMAND

RATE = 20.0


def rss_mb(pid: int) -> float:
    """Memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no memory is told of process {pid}")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(seconds: float, domain: int = 70) -> dict[str, Any]:
    """Run the cell and measure."""
    beats: list[tuple[float, int]] = []
    patient = {"safety_gate__inference_timeout": 1.0}  # a late decision is counted, not acted upon
    with tempfile.TemporaryDirectory() as logs, cell(domain, Path(logs), **patient) as made:

        def beat(message: TimeReference) -> None:
            beats.append((time.monotonic(), messages.nanoseconds(message.header.stamp)))

        made.robot.node.create_subscription(TimeReference, "policy/inference", beat, COMMAND)
        made.start_moving()
        pids = {name: process.pid for name, process in made.processes.running.items()}
        time.sleep(5.0)  # caches, allocators
        first = {name: (rss_mb(pid), cpu_seconds(pid)) for name, pid in pids.items()}
        begin = time.monotonic()
        time.sleep(seconds)
        end = time.monotonic()
        last = {name: (rss_mb(pid), cpu_seconds(pid)) for name, pid in pids.items()}
        offset = time.time_ns() - time.monotonic_ns()
        report = made.operator.report()
    arrivals = np.array([t for t, _ in made.robot.commands])
    inside = [(t, stamp) for t, stamp in beats if begin <= t <= end]
    taken = np.array([(stamp - offset) / 1e9 for _, stamp in inside])
    heard = np.array([t for t, _ in inside])
    # The decision is published after the word that it was made, so its command comes after it too.
    after = np.searchsorted(arrivals, heard)
    known = after < len(arrivals)
    latency = (arrivals[after[known]] - taken[known]) * 1e3
    gaps = np.diff(heard)
    missed = int(np.maximum(np.round(gaps * RATE) - 1, 0).sum())
    return {
        "seconds": seconds,
        "decisions": len(inside),
        "latency_ms": {
            f"p{q}": round(float(np.percentile(latency, q)), 2) for q in (5, 50, 95, 99)
        },
        "missed_periods": missed,
        "missed_percent": round(100 * missed / (seconds * RATE), 3),
        "memory_growth_mb": {name: round(last[name][0] - first[name][0], 2) for name in pids},
        "cpu_percent": {
            name: round(100 * (last[name][1] - first[name][1]) / seconds, 1) for name in pids
        },
        "gate": report,
        "load": os.getloadavg()[0],
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    answer = measure(arguments.seconds)
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return
    ms = answer["latency_ms"]
    print(f"{answer['decisions']} decisions in {arguments.seconds:g} s, load {answer['load']:.1f}")
    print(f"camera to command: median {ms['p50']} ms, p95 {ms['p95']} ms, p99 {ms['p99']} ms")
    print(f"missed periods: {answer['missed_periods']} ({answer['missed_percent']} %)")
    print(f"memory growth in MB: {answer['memory_growth_mb']}; CPU in %: {answer['cpu_percent']}")
    print(f"gate: {answer['gate']}")


if __name__ == "__main__":
    main()
