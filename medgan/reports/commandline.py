"""The commands that repeat a run, written from its stored settings, without any path of anybody's disk."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

# The container's own folders (CONTRACT.md) name nobody.
MOUNTS = ("/input", "/output", "/work", "/weights")
# Our own image only: a folder `scans/doe` has the shape of an image name as well.
_IMAGE = re.compile(r"([\w.\-:]+/)*medgan(:[\w.\-]+)?(@sha256:[0-9a-f]{64})?")


def without_paths(command: str) -> str:
    """A command line in which every path is replaced by `PATH`: the path of a scan may name a patient.

    The container's mount points and the name of the medgan image stay. Words without a slash stay too: whoever hands over
    a command line keeps names of scans out of it.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return "PATH"
    return " ".join(_word(word) for word in words)


def looks_like_path(value: str) -> bool:
    """Whether a setting might be a path, and so may not be shown."""
    return "/" in value or "\\" in value or value.startswith("~")


def command_line(start: str, settings: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """`start` followed by the flags of the named settings that are on.

    Args:
        start: Program, command and arguments.
        settings: Stored settings of the stage (run.json).
        names: The settings to show; others have their default or no influence on the result.
    """
    words = [start]
    for name in names:
        value = settings.get(name)
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, str) and looks_like_path(value):
            words.append(f"{flag} PATH")
        elif isinstance(value, list | tuple):
            words += [f"{flag} {' '.join(shlex.quote(_plain(item)) for item in value)}"] if value else []
        elif isinstance(value, str | int | float) and value not in ("", 0):
            words.append(f"{flag} {shlex.quote(_plain(value))}")
    return " ".join(words)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _word(word: str) -> str:
    if not looks_like_path(word) or _IMAGE.fullmatch(word):
        return shlex.quote(word)
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    host, colon, inside = value.partition(":")
    if colon and _mount(inside):  # docker -v HOST:/input:ro
        return f"{flag}{equals}PATH:{inside}"
    return flag + equals + (_mount(host) or "PATH")


def _mount(path: str) -> str:
    """The mount point a path lies in, with `/PATH` for what is below; empty when it lies in none."""
    for mount in MOUNTS:
        if path.split(":")[0].rstrip("/") == mount:
            return path
        if path.startswith(mount + "/"):
            return f"{mount}/PATH"
    return ""
