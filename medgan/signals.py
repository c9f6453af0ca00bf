"""SIGTERM and SIGUSR1 as a question that a loop asks: should I stop?

Schedulers send them before they kill (Slurm's `--signal=USR1@120`, `docker stop`, a drained Kubernetes node).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGUSR1)


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


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a stop was asked for since the block began."""
    asked = threading.Event()
    with on_stop(asked.set):
        yield asked.is_set
