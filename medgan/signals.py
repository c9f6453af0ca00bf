"""SIGTERM and SIGUSR1 as a question that a loop asks: should I stop?

Schedulers send them before they kill (Slurm's `--signal=USR1@120`, `docker stop`, a drained Kubernetes node).
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from medgan.errors import Preempted

if TYPE_CHECKING:
    from medgan.progress import Step

STOPS = (signal.SIGTERM, signal.SIGUSR1)

REQUEST = "MEDGAN_STOP_FILE"
"""Variable with the path of a file whose appearance asks for a stop: a signal to a process that is still starting would end it."""


@contextmanager
def on_stop(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` when a stop is asked for inside the block; the former handlers come back after it.

    Python runs handlers in its main thread only; in any other nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        act()

    former = {number: signal.signal(number, handle) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def keep_exit_code() -> None:
    """Let no stop end this process outside the blocks of this module: what is left then is its end, whose last line and exit code hold.

    Whoever stops a job often tells each of its processes, and a container's runtime hands on what it was told: one stop comes several times.
    """
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            signal.signal(number, lambda *_: None)
        atexit.register(_ignore)


def _ignore() -> None:
    # While Python shuts down it gives the default handlers back for its own, and leaves alone what is ignored.
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


class _Stop(BaseException):
    """A stop on its way to the edge of a `preemptible` block."""


_told: threading.Event | None = None
"""Whether a stop is on its way, shared by all `preemptible` blocks that stand in one another."""


@contextmanager
def preemptible() -> Iterator[None]:
    """End the block with Preempted, wherever it is, when a stop is asked for. What stands in the block may take over with `stop_asked`.

    Without it the first process of a container, which has no default handlers, would not notice SIGTERM at all. Inside the block the
    stop is no Exception: code that answers whatever a broken file makes a library raise would list the scan or picture at hand as
    broken, and go on. It comes once: the same signal again, while things are tidied up, changes nothing.
    """
    global _told
    outermost, told = _told is None, _told or threading.Event()
    _told = told

    def stop() -> None:
        if not told.is_set():
            told.set()
            raise _Stop

    try:
        with on_stop(stop):
            yield
    except _Stop:
        raise Preempted("told to stop; what is done is kept", fix="the same command goes on") from None
    finally:
        if outermost:
            _told = None


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a stop was asked for: by a signal since the block began, or by the file of REQUEST."""
    asked = threading.Event()
    file = os.environ.get(REQUEST, "")
    with on_stop(asked.set):
        yield lambda: asked.is_set() or bool(file and os.path.exists(file))


def stoppable(step: Step, asked: Callable[[], bool], stop: Preempted) -> Step:
    """A step that shows progress as `step` does, and then raises `stop` when a stop is asked for.

    Args:
        step: Shows progress.
        asked: Whether to stop; called after each step, so it may ask other ranks where all of them step alike.
        stop: Where it stopped, and how to go on.
    """

    def look(done: int, total: int) -> None:
        step(done, total)
        if asked():
            raise stop

    return look
