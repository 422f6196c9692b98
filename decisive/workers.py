"""Worker processes: started afresh, of one thread, and gone when their parent is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from decisive.progress import progress

T = TypeVar("T")


def process_pool(
    workers: int, prepare: Callable[[], None] | None = None, interruptible: bool = False
) -> ProcessPoolExecutor:
    """A pool of worker processes.

    They are spawned, not forked: a fork would copy the threads of torch and the clients of the
    simulator.

    Args:
        workers: number of processes.
        prepare: called once in every worker; it must be picklable.
        interruptible: whether Ctrl-C ends a worker at once, for tasks that take minutes and can be
            resumed. Otherwise a worker finishes its task, and the parent sees to the rest.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start, (prepare, interruptible))


def in_order(draw: Callable[[range], T], blocks: Sequence[range], workers: int) -> Iterator[T]:
    """What `draw` makes of each block, in their order, by several processes if asked for.

    Args:
        draw: picklable.
        blocks: its arguments.
        workers: processes; 1 stays in this one.

    Raises:
        OSError: if a worker process died.
    """
    if workers == 1:
        yield from map(draw, blocks)
        return
    with process_pool(workers) as pool:
        waiting: list[Future[T]] = []
        try:
            for number in range(len(blocks)):
                # A block ahead keeps every worker busy; all of them at once would fill the memory.
                while len(waiting) <= workers and number + len(waiting) < len(blocks):
                    waiting.append(pool.submit(draw, blocks[number + len(waiting)]))
                yield waiting.pop(0).result()
        except BrokenProcessPool as error:
            raise OSError("a worker process died (out of memory?); use fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)


def in_blocks(
    draw: Callable[[range], T], n: int, size: int, workers: int, what: str
) -> Iterator[T]:
    """What `draw` makes of 0 to n - 1, a block at a time and in order, with a progress bar.

    Args:
        draw: picklable.
        n: how many.
        size: of a block.
        workers: processes; what comes out does not depend on it.
        what: name of the bar.

    Raises:
        OSError: if a worker process died.
    """
    blocks = [range(start, min(start + size, n)) for start in range(0, n, size)]
    with progress(what, n) as meter:
        for block, drawn in zip(blocks, in_order(draw, blocks, workers), strict=True):
            yield drawn
            meter.advance(len(block))


def _start(prepare: Callable[[], None] | None, interruptible: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL if interruptible else signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _leave_with_parent() -> None:
    """End this process when its parent has gone.

    A worker holds both ends of the queue it reads from, so it would never learn that its parent
    was killed, and wait for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
