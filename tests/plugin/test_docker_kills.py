"""SIGKILL, as XNAT kills: at any moment, twenty times in a row on the same folders."""

from __future__ import annotations

import random
import time

import pytest

from tests.plugin.containers import SMALL, UID, Place, Unbroken, half_written

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

# Moments in which files are being written: a state, the images, the results.
WRITING = ("run/checkpoint", "run/synthetic", "run/bundle", "output/synthetic", "output/model", "output/report")


def test_twenty_kills_leave_nothing_half_written_and_the_end_is_the_same(filled: Place, unbroken: Unbroken):
    draw = random.Random(20)
    codes = []
    for number in range(20):
        with filled.started(["train"], env=SMALL, user=f"{UID}:{UID}", work=True) as container:
            began = time.time()
            if number % 2:
                place = draw.choice(WRITING)
                folder, _, rest = place.partition("/")
                wait = draw.uniform(0, 0.3)
                while container.runs():
                    roots = [filled.output] if folder == "output" else list(filled.work.glob("medgan-*/run"))
                    if any((root / rest).exists() and (root / rest).stat().st_mtime >= began for root in roots):
                        time.sleep(wait)
                        break
                    time.sleep(0.02)
            else:
                end = began + draw.uniform(0.05, 1) * unbroken.seconds
                while container.runs() and time.time() < end:
                    time.sleep(0.05)
            container.kill("SIGKILL")
            codes.append(container.end().code)
        assert half_written(filled.output) == [], (number, codes)
    # Killed, or done before the moment came; never an error of its own.
    assert set(codes) <= {0, 137}, codes
    assert codes.count(137) >= 15, codes
    answer = filled(["train"], env=SMALL, user=f"{UID}:{UID}", work=True)
    assert answer.code == 0, answer.err
    assert half_written(filled.output) == []
    assert filled.results() == unbroken.results
