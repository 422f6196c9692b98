"""The `decisive` command: a table of verbs, and one place where errors become one clear line.

Every verb is a module of this package with a function `main(argv) -> int`. It is imported only
when its verb is called, so `decisive --help` needs neither torch nor a simulator.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from decisive import __version__


@dataclass(frozen=True)
class Verb:
    """One row of the verb table.

    Attributes:
        module: the module whose `main(argv)` runs the verb.
        summary: one line for `decisive --help`.
    """

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "demo": Verb("decisive.demo", "the main job in minutes: episodes, a table, films"),
    "record": Verb("decisive.record", "record demonstrations of a scripted expert"),
    "train": Verb("decisive.train", "train a policy on demonstrations"),
    "evaluate": Verb("decisive.evaluate", "run evaluation episodes: success rate and interval"),
    "benchmark": Verb("decisive.benchmark", "fill the tables of docs/results.md, resumably"),
    "dream": Verb("decisive.dream", "walk on in imagination: panoramas, a film, a point cloud"),
    "plan": Verb("decisive.plan", "where to look first for a room or an object"),
    "forecast": Verb("decisive.forecast", "how likely will it rain, where and when: maps, a film"),
    "distill": Verb("decisive.distill", "a few points that teach as much as a whole data set"),
    "group-tasks": Verb("decisive.group_tasks", "which tasks should share a network, by affinity"),
    "triage": Verb("decisive.triage", "order images so that the most abnormal are seen first"),
    "retrieve": Verb("decisive.retrieve", "images for a sentence in any language, and back"),
    "data": Verb("decisive.data", "show, export and import demonstration data sets"),
    "export": Verb("decisive.export", "write a classifier as ONNX or for OpenVINO"),
    "ros": Verb("ros_nodes.cli", "the same policy as ROS 2 nodes: doctor, demo, up"),
    "view": Verb("decisive.view", "watch an episode with the energy landscape beside it"),
}

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def usage() -> str:
    """The text of `decisive --help`: every verb with one line."""
    width = max(map(len, VERBS))
    rows = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: decisive VERB [options]\n\n"
        "Simulate, demonstrate, learn a decisive policy, evaluate it.\n\n"
        f"verbs:\n{rows}\n\n"
        "options:\n"
        "  -h, --help  this text; after a verb, all its options with examples\n"
        "  --version   the version\n\n"
        "For example:\n"
        "  decisive evaluate --env decisive/BlockInsertion-v0 --policy expert --episodes 20\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the words after `decisive`; those of the process when `None`.

    Returns:
        The exit status: 0 on success, 2 after one clear line on stderr for bad input or a file
        that could not be read or written, 130 after an interrupt.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if words[0] == "--version":
        print(f"decisive {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        print(f"decisive: unknown verb {name!r}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    _use_one_thread()
    try:
        result: int = importlib.import_module(VERBS[name].module).main(rest)
        return result
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; a second error while flushing helps nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not isinstance(error, _bad_input()):
            raise
        print(f"decisive {name}: {one_line(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(f"decisive {name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _bad_input() -> tuple[type[Exception], ...]:
    """Errors that say what was wrong with the input (CheckpointError is a ValueError)."""
    known: tuple[type[Exception], ...] = (ValueError, OSError, MemoryError)
    # Environments of others raise Gymnasium's, such as for a renderer that is not installed.
    module = sys.modules.get("gymnasium.error")
    return known if module is None else (*known, module.Error)


def one_line(error: BaseException) -> str:
    """The message of an error on one line, never empty."""
    return " ".join(str(error).split()) or type(error).__name__


def _use_one_thread() -> None:
    """Default to one OpenMP thread a process, unless the user has chosen.

    Two spinning threads on a busy machine made a training step 30 times dearer, and parallel
    episodes use processes. It must be set before torch is loaded.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
