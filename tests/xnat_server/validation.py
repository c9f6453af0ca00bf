"""What `Command.validate()` of Container Service 3.7.3 refuses at POST /xapi/commands (XNAT.md 1.8), and what it silently changes (1.1).

Written from that list alone, apart from plugin/lint.py, so that the two judge a command file independently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

NAME = re.compile(r"[A-Za-z0-9_-]+")
INPUT_TYPES = ("string", "boolean", "number", "select-one", "select-many", "file")
WRAPPER_TYPES = (
    *("string", "boolean", "number", "Directory", "File[]", "File", "Project", "ProjectAsset", "Subject", "SubjectAssessor", "Session"),
    *("Scan", "Assessor", "Resource", "Config", "file"),
)
RESERVED = ("XNAT_USER", "XNAT_PASS", "XNAT_HOST")
Part = dict[str, Any]


def problems(command: Part) -> list[str]:
    """Every reason to refuse a command; none for one that is stored."""
    return [*_top(command), *_mounts(command), *_inputs(command), *_outputs(command), *_wrappers(command)]


def as_stored(command: Part) -> Part:
    """The command with the changes that storing makes: unknown input types become string, an output is not required unless it says so."""
    inputs = [{**i, "type": i.get("type") if i.get("type") in INPUT_TYPES else "string"} for i in command.get("inputs", [])]
    outputs = [{**o, "required": bool(o.get("required"))} for o in command.get("outputs", [])]
    return {**command, "inputs": inputs, "outputs": outputs}


def _blank(part: Part, key: str) -> bool:
    return not str(part.get(key) or "").strip()


def _names(what: str, parts: list[Part]) -> Iterator[str]:
    """Blank, doubled and badly spelt names."""
    seen = set()
    for part in parts:
        name = part.get("name")
        if _blank(part, "name"):
            yield f"{what} name cannot be blank"
        elif what not in ("Mount", "Wrapper") and not NAME.fullmatch(str(name)):
            yield f"{what} name {name!r} has characters other than letters, digits, _ and -"
        if name in seen:
            yield f"{what} name {name!r} is used twice"
        seen.add(name)


def _top(command: Part) -> Iterator[str]:
    if _blank(command, "name"):
        yield "Command name cannot be blank"
    if _blank(command, "image"):
        yield "Command image cannot be blank"
    if command.get("type", "docker") not in ("docker", "docker-setup", "docker-wrapup"):
        yield f"Unknown command type {command['type']!r}"
    if command.get("visibility", "public") not in ("public", "private", "protected"):
        yield f"Unknown visibility {command['visibility']!r}"
    for name, limit in command.get("ulimits", {}).items():
        if not limit or str(limit).count(":") > 1:
            yield f"ulimit {name} is malformed"
    for secret in command.get("secrets", []):
        target = secret["destination"]["identifier"]
        if target in RESERVED or target in command.get("environment-variables", {}):
            yield f"A secret cannot be put into {target}"


def _mounts(command: Part) -> Iterator[str]:
    mounts = command.get("mounts", [])
    yield from _names("Mount", mounts)
    yield from (f"Mount {mount.get('name')!r} has no path" for mount in mounts if _blank(mount, "path"))


def _inputs(command: Part) -> Iterator[str]:
    inputs = command.get("inputs", [])
    yield from _names("Input", inputs)
    for entry in inputs:
        name, values = entry.get("name"), entry.get("select-values") or []
        select = entry.get("type") in ("select-one", "select-many")
        if select != bool(values):
            yield f"Input {name!r}: select-values belong to select types, and only to them"
        default = entry.get("default-value")
        if select and values and default and entry["type"] == "select-one" and default not in values:
            yield f"Input {name!r}: the default is not among the select-values"
        if entry.get("multiple-delimiter") not in (None, "", "quoted-space", "space", "comma", "flag"):
            yield f"Input {name!r}: unknown multiple-delimiter"


def _outputs(command: Part) -> Iterator[str]:
    outputs = command.get("outputs", [])
    mounts = [mount.get("name") for mount in command.get("mounts", [])]
    yield from _names("Output", outputs)
    yield from (f"Output {o.get('name')!r} names no mount of the command" for o in outputs if o.get("mount") not in mounts)


def _wrappers(command: Part) -> Iterator[str]:
    wrappers = command.get("xnat", [])
    yield from _names("Wrapper", wrappers)
    selects = {i.get("name") for i in command.get("inputs", []) if str(i.get("type", "")).startswith("select")}
    for wrapper in wrappers:
        external, derived = wrapper.get("external-inputs", []), wrapper.get("derived-inputs", [])
        yield from _names("Wrapper input", external + derived)
        for entry in external + derived:
            if entry.get("type", "string") not in WRAPPER_TYPES:
                yield f"Wrapper input {entry.get('name')!r}: unknown type {entry['type']!r}"
            if entry.get("via-setup-command") and not entry.get("provides-files-for-command-mount"):
                yield f"Wrapper input {entry.get('name')!r}: a setup command needs a mount"
            if entry.get("provides-value-for-command-input") in selects:
                yield f"Wrapper input {entry.get('name')!r} feeds a select input"
        earlier = [entry.get("name") for entry in external]
        for entry in derived:
            if entry.get("derived-from-wrapper-input") not in earlier:
                yield f"Derived input {entry.get('name')!r}: its parent is not declared before it"
            earlier.append(entry.get("name"))
            feeds = entry.get("provides-value-for-command-input")
            if entry.get("multiple") and (entry.get("provides-files-for-command-mount") or not feeds):
                yield f"Derived input {entry.get('name')!r}: multiple goes with a command input, never with a mount"
        yield from _handlers(command, wrapper)


def _handlers(command: Part, wrapper: Part) -> Iterator[str]:
    handlers = wrapper.get("output-handlers", [])
    outputs = [output.get("name") for output in command.get("outputs", [])]
    inputs = {entry.get("name"): entry for entry in wrapper.get("external-inputs", []) + wrapper.get("derived-inputs", [])}
    yield from _names("Output handler", handlers)
    earlier: list[object] = []
    for handler in handlers:
        name = handler.get("name")
        if handler.get("accepts-command-output") not in outputs:
            yield f"Output handler {name!r} accepts no output of the command"
        parent = handler.get("as-a-child-of") or handler.get("as-a-child-of-wrapper-input")
        if parent not in inputs and parent not in earlier:
            yield f"Output handler {name!r}: its parent is no wrapper input and no earlier handler"
        source = inputs.get(parent, {})
        if source.get("multiple") or source.get("derived-from-xnat-object-property", "uri") != "uri":
            yield f"Output handler {name!r}: its parent cannot hold results"
        if handler.get("type", "Resource") not in ("Resource", "Assessor", "Scan"):
            yield f"Output handler {name!r}: unknown type"
        if handler.get("type", "Resource") == "Resource" and _blank(handler, "label"):
            yield f"Output handler {name!r}: a resource needs a label"
        earlier.append(name)
    for output in outputs:
        if output not in [handler.get("accepts-command-output") for handler in handlers]:
            yield f"Wrapper {wrapper.get('name')!r} has no handler for output {output!r}"
