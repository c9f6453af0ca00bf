"""Command lines for the report: complete where they may be, masked where a path could name a patient."""

from __future__ import annotations

import pytest

from medgan.reports.commandline import command_line, without_paths


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("medgan demo --kimg 2", "medgan demo --kimg 2"),
        ("medgan demo --scans /data/doe", "medgan demo --scans PATH"),
        ("medgan demo --scans scans/doe --out=../x", "medgan demo --scans PATH --out=PATH"),
        ("medgan demo --scans ~doe", "medgan demo --scans PATH"),
        (r"medgan demo --scans 'C:\doe'", "medgan demo --scans PATH"),
        ("python -m plugin train --input /input --output /output/", "python -m plugin train --input /input --output /output/"),
        ("python -m plugin train --input /input/doe", "python -m plugin train --input /input/PATH"),
        ("python -m plugin train --input /inputdoe", "python -m plugin train --input PATH"),
        ("docker run -v /doe:/input:ro -v /x:/elsewhere/doe medgan:1", "docker run -v PATH:/input:ro -v PATH medgan:1"),
        ("docker run ghcr.io/lab/medgan:1@sha256:" + "0" * 64, "docker run ghcr.io/lab/medgan:1@sha256:" + "0" * 64),
        ("docker run lab/doe", "docker run PATH"),
        ("an open 'quote", "PATH"),
    ],
)
def test_only_paths_that_name_nobody_stay(given, shown):
    assert without_paths(given) == shown


def test_settings_become_flags_and_what_is_off_is_left_out():
    settings = {
        "window": [50.0, 350.0],
        "size": 64,
        "plane": "",
        "mirror": False,
        "ada": True,
        "seed": 0,
        "masks": "/data/doe",
        "odd": {"a": 1},
    }
    names = ("window", "size", "plane", "mirror", "ada", "seed", "masks", "odd", "absent")
    assert command_line("medgan x", settings, names) == "medgan x --window 50 350 --size 64 --no-mirror --ada --masks PATH"
