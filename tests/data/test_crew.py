import functools
import os
import signal
import time
from pathlib import Path

import pytest

from medgan.data.crew import DIED, in_processes
from medgan.errors import DiskError


def slow_first(job):
    time.sleep(0.4 if job == 0 else 0.0)
    return job * job


def killed(folder, job):
    """Dies on the jobs `always`; on `once` the first time only."""
    if job in ("always", "once"):
        mark = Path(folder) / job
        if job == "always" or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return job


def full(job):
    raise DiskError("writing failed", fix="free space")


def own_signals(_job):
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_results_come_as_they_are_ready_with_their_numbers():
    results = list(in_processes(slow_first, range(6), 2))
    assert sorted(results) == [(i, i * i) for i in range(6)]
    assert results[0][0] != 0, "the first job is the slowest"


def test_a_killed_process_costs_its_own_job_only(tmp_path):
    jobs = ["a", "always", "b", "once", "c", "d"]
    results = dict(in_processes(functools.partial(killed, str(tmp_path)), jobs, 2))
    assert results == {0: "a", 1: DIED, 2: "b", 3: "once", 4: "c", 5: "d"}


def test_an_error_of_the_job_is_an_error_here():
    with pytest.raises(DiskError) as caught:
        list(in_processes(full, range(3), 2))
    assert caught.value.line == "ERROR E_DISK writing failed; fix: free space"


def test_ctrl_c_is_for_the_parent():
    assert dict(in_processes(own_signals, [0], 1)) == {0: True}
