"""A stop that is asked for by a signal: where nobody asks it ends the block, where a loop asks it is an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from medgan.errors import Preempted
from medgan.signals import REQUEST, STOPS, preemptible, stop_asked, stoppable
from tests.conftest import ROOT


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_a_preemptible_block(number):
    before = signal.getsignal(number)
    with pytest.raises(Preempted), preemptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_is_not_taken_for_a_broken_file(number):
    def read_what_may_be_broken():
        try:
            signal.raise_signal(number)
        except Exception:
            return "unreadable"
        return "read"

    with pytest.raises(Preempted), preemptible():
        read_what_may_be_broken()


def test_a_loop_that_asks_takes_over_and_gives_back():
    reached = []

    def work():
        with stop_asked() as asked:
            reached.append(asked())
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append(asked())
        signal.raise_signal(signal.SIGUSR1)
        reached.append(None)

    with pytest.raises(Preempted), preemptible():
        work()
    assert reached == [False, True]


TOLD_AGAIN = """
import atexit, os, signal
from medgan.cli import run_and_exit
from medgan.signals import preemptible
from plugin.container import told_to_stop

class Late:
    def __del__(self):  # of a module's variable: when Python has given its own signal handlers back
        os.kill(PID, signal.{signal})

def tell():
    os.kill(PID, signal.{signal})

def body():
    with told_to_stop():
        try:
            with preemptible():
                try:
                    tell()
                finally:
                    tell()
                    print("tidied up", flush=True)
        finally:
            tell()

PID, late = os.getpid(), Late()
atexit.register(tell)
run_and_exit(body)
"""


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_that_comes_again_changes_neither_the_last_line_nor_the_exit_code(number):
    done = subprocess.run([sys.executable, "-c", TOLD_AGAIN.replace("{signal}", number.name)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (75, "tidied up\nRESULT status=preempted\n", "")


def test_a_file_asks_without_a_signal(tmp_path, monkeypatch):
    monkeypatch.setenv(REQUEST, str(tmp_path / "stop"))
    with stop_asked() as asked:
        assert not asked()
        (tmp_path / "stop").touch()
        assert asked()


def test_a_step_shows_progress_and_then_asks():
    shown, answers = [], iter([False, True])
    look = stoppable(
        lambda done, total: shown.append((done, total)), lambda: next(answers), Preempted("stopped at the second", fix="again")
    )
    look(1, 9)
    with pytest.raises(Preempted, match="stopped at the second") as caught:
        look(2, 9)
    assert shown == [(1, 9), (2, 9)]
    assert (caught.value.fix, caught.value.exit_code) == ("again", 75)
