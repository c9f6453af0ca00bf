"""Processes that each do one job at a time, and outlive the death of any of them.

A pool of the standard library is lost with its first dead process and does not say which job killed it. Here a job belongs to one process, so
a decoder that crashes or a scan too large for the memory costs that scan only. Pipes and no semaphores: /dev/shm is not needed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

# Imported once, by the server whose forks the processes are; the first call of a program decides, so it is the same for all.
PRELOAD = "medgan.data.slices"

J = TypeVar("J")
R = TypeVar("R")


class Died:
    """What comes instead of a result when the process that did the job was killed or crashed."""


DIED = Died()


@dataclass
class _Member(Generic[J]):
    process: BaseProcess
    pipe: Connection
    index: int = -1


def in_processes(function: Callable[[J], R], jobs: Sequence[J], count: int) -> Iterator[tuple[int, R | Died]]:
    """Results as they are ready, with the number of their job.

    A job whose process died is done again alone, after all others: where several scans together were too large for the memory, each by
    itself may not be. Only then the answer is DIED.

    Args:
        function: Importable by name; gets a job.
        jobs: What is to be done; handed out one by one.
        count: Processes at once.

    Raises:
        Exception: Whatever the function raises.
    """
    dead = []
    for index, result in _once(function, list(enumerate(jobs)), count):
        if isinstance(result, Died):
            dead.append((index, jobs[index]))
        else:
            yield index, result
    yield from _once(function, dead, 1)


def _once(function: Callable[[J], R], numbered: Sequence[tuple[int, J]], count: int) -> Iterator[tuple[int, R | Died]]:
    # A fork of this process may hang in torch's thread pool; a server that has only imported the modules is forked instead.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    waiting = deque(numbered)
    members: list[_Member[J]] = []

    def hand_out() -> None:
        while waiting and len(members) < count:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, function), daemon=True)
            process.start()
            theirs.close()
            members.append(_Member(process, ours))
        for member in members:
            if member.index < 0 and waiting:
                member.index, job = waiting.popleft()
                # A process that died before its job: reading from it says so.
                with contextlib.suppress(BrokenPipeError):
                    member.pipe.send(job)

    try:
        hand_out()
        while busy := {member.pipe: member for member in members if member.index >= 0}:
            for pipe in connection.wait(list(busy)):
                member = busy[pipe]  # type: ignore[index]
                index, member.index = member.index, -1
                try:
                    fine, result = member.pipe.recv()
                except (EOFError, ConnectionResetError):
                    members.remove(member)
                    _end(member)
                    yield index, DIED
                    continue
                if not fine:
                    raise result
                yield index, result
            hand_out()
    finally:
        for member in members:
            _end(member)


def _end(member: _Member[Any]) -> None:
    member.process.kill()
    member.process.join()
    member.pipe.close()


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    # Ctrl-C in a terminal reaches every process; the parent alone decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = True, function(job)
        except Exception as error:
            answer = False, error
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return
