"""What a person sees: lines a platform's log can hold."""

from __future__ import annotations

import io
import re

import pytest

from medgan.progress import PlainLine, bar, duration, watch

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ PROGRESS kimg=\d+")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.4, "59s"), (200, "3m20s"), (5820, "1h37m"), (187200, "2d04h"), (-5, "0s")])
def test_lengths_of_time(seconds, text):
    assert duration(seconds) == text


def test_at_most_one_line_in_thirty_seconds_but_always_the_last():
    now = [0.0]
    stream = io.StringIO()
    line = PlainLine(stream, clock=lambda: now[0])
    for i in range(100):
        now[0] = float(i)
        line({"kimg": str(i)}, final=i == 99)
    lines = stream.getvalue().splitlines()
    assert [re.search(r"kimg=(\d+)", text)[1] for text in lines] == ["0", "30", "60", "90", "99"]
    assert all(LINE.fullmatch(text) for text in lines)


@pytest.mark.parametrize(("days", "lines"), [(1 / 6, 480), (7, 2300), (90, 3625)])
def test_a_log_stays_below_a_megabyte_for_months(days, lines):
    # By hand: one in 30 s up to 500 * 30 s, then dn/dt = 500 / t: 500 + 500 ln(t / 15000 s).
    now = [0.0]
    stream = io.StringIO()
    line = PlainLine(stream, clock=lambda: now[0])
    while now[0] < days * 86400:
        line({"kimg": "12345.6/25000", "pct": "49", "eta": "12d14h", "sec_per_kimg": "100.2", "rest": "x" * 130})
        # Finer than lines are apart, or each waits for the next step.
        now[0] += max(1.0, now[0] / 100_000)
    text = stream.getvalue()
    assert text.count("\n") == pytest.approx(lines, rel=0.02)
    assert len(text) < 1e6


def test_no_bar_without_a_terminal(capsys):
    with bar("reading scans") as step:
        step(1, 2)
        step(2, 2)
    err = capsys.readouterr().err
    assert "PROGRESS stage=reading-scans done=2/2 pct=100" in err
    assert "\r" not in err
    assert "\x1b" not in err


def test_every_tick_is_in_the_log(tmp_path, capsys):
    with watch("training", tmp_path / "log.txt") as on_tick:
        for pct in ("10", "20", "100"):
            on_tick({"kimg": pct, "pct": pct})
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 3
    assert len(capsys.readouterr().err.splitlines()) == 2
