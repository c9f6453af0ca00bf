"""Command lines for the report: they repeat the run, and hide what could name a patient."""

from __future__ import annotations

from medgan.data.prepare import PrepareConfig
from medgan.reports.commandline import PATHS, command_line


def test_settings_become_flags():
    settings = {"window": [50.0, 350.0], "size": 64, "mirror": False, "ada": True, "seed": 0, "odd": {"a": 1}, "out": "/data/doe"}
    names = ("window", "size", "mirror", "ada", "seed", "odd", "absent", "out")
    assert command_line("medgan x", settings, names) == "medgan x --window 50 350 --size 64 --no-mirror --ada --seed 0 --out PATH"


def test_a_setting_is_left_out_only_where_it_equals_its_default():
    assert command_line("medgan x", PrepareConfig().shown(), ("window", "size", "held_out", "plane"), PrepareConfig()) == "medgan x"
    nothing_held_out = PrepareConfig(held_out=0.0, seed=3).shown()
    assert command_line("medgan x", nothing_held_out, ("held_out", "seed"), PrepareConfig()) == "medgan x --held-out 0 --seed 3"


def test_files_that_were_given_are_asked_for_without_their_names():
    given = PrepareConfig(masks="/data/doe", pseudonym_key="doe.key").shown()
    names = ("masks", "pseudonym_key")
    assert command_line("medgan x", given, names, PrepareConfig()) == "medgan x --masks PATH --pseudonym-key FILE"
    assert command_line("medgan x", PrepareConfig().shown(), names, PrepareConfig()) == "medgan x"
    shown, defaults = PrepareConfig().shown(), PrepareConfig()
    assert {name for name in shown if isinstance(shown[name], bool) and not isinstance(getattr(defaults, name), bool)} == set(PATHS)


def test_an_option_goes_by_the_name_of_its_flag():
    settings = PrepareConfig(recipe="pneumonia-mnist", only_class="normal", derived=True).shown()
    assert command_line("medgan x", settings, ("only_class", "derived"), PrepareConfig()) == "medgan x --class normal --derived"
