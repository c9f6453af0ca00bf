"""The commands that repeat a run, written from its stored settings, without any path of anybody's disk."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from medgan.config import flag_name

# Stored only as whether they were given, because a path may name a patient; the words are those of `--help`.
PATHS = {"masks": "PATH", "pseudonym_key": "FILE", "scheduler": "ADDRESS"}


def looks_like_path(value: str) -> bool:
    """Whether a setting might be a path, and so may not be shown."""
    return "/" in value or "\\" in value or value.startswith("~")


def command_line(start: str, settings: Mapping[str, Any], names: tuple[str, ...], defaults: object = None) -> str:
    """`start` followed by the flags of the named settings.

    Args:
        start: Program, command and arguments.
        settings: Stored settings of the stage (run.json).
        names: The settings to show; others have no influence on the result.
        defaults: The stage's settings class with nothing set. A setting that equals its default is left out; without it all are shown.
    """
    words = [start]
    flags = {} if defaults is None else {field.name: flag_name(field) for field in dataclasses.fields(defaults)}  # type: ignore[arg-type]
    for name in names:
        value = settings.get(name)
        value = tuple(value) if isinstance(value, list) else value
        flag = flags.get(name, "--" + name.replace("_", "-"))
        if name in PATHS:
            words += [f"{flag} {PATHS[name]}"] if value else []
        elif defaults is not None and value == getattr(defaults, name):
            continue
        elif isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, str) and looks_like_path(value):
            words.append(f"{flag} PATH")
        elif isinstance(value, tuple):
            words.append(" ".join([flag, *(shlex.quote(_plain(item)) for item in value)]))
        elif isinstance(value, str | int | float):
            words.append(f"{flag} {shlex.quote(_plain(value))}")
    return " ".join(words)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
