"""A stop that is asked for by a signal: where nobody asks it ends the block, where a loop asks it is an answer."""

from __future__ import annotations

import os
import signal

import pytest

from medgan.errors import Preempted
from medgan.signals import REQUEST, STOPS, preemptible, stop_asked, stoppable


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
