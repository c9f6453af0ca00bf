"""A command, a wrapper and a form's values become the request that XNAT's Docker backend sends to the engine.

What the Container Service 3.7.3 does at a launch (CommandResolutionServiceImpl, ShellSplitter, DockerControlApi), for what a command of ours may
hold. Whatever it does beyond that is refused with its name: a launch that differs from XNAT's in silence would prove nothing.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medgan.errors import ConfigError
from plugin.lint import ILLEGAL, INPUT_TYPES, form_inputs

MIB = 2**20
CPU = 10**9
SECRET = ("XNAT_PASS",)
"""Variables whose values are shown nowhere."""
MASK = "********"

# Keys of a definition that lead a launch elsewhere than through this module.
BEYOND = {
    "command": ("ports", "secrets"),
    "wrapper input": ("matcher", "parser", "multiple", "via-setup-command"),
    "handler": ("via-wrapup-command",),
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """An object of an archive as the Container Service sees it: a project, a session or a scan.

    Attributes:
        kind: Project, Session or Scan.
        directory: Its folder, which a mount gets.
        properties: What strings can be derived from it; a missing one has no value.
        related: Objects that can be derived from it, by kind.
    """

    kind: str
    directory: Path
    properties: Mapping[str, str]
    related: Mapping[str, Target] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a site adds of its own to each launch.

    Attributes:
        build: A fresh folder; each output mount becomes a folder in it.
        user: The container user of the server's settings; empty for the image's.
        environment: XNAT_HOST, XNAT_USER, XNAT_PASS, XNAT_WORKFLOW_ID, XNAT_EVENT_ID.
        labels: Labels of the container.
    """

    build: Path
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Handled:
    """Where one output goes when the container has ended well: the children of `folder` into the resource `label` of the object `parent`."""

    output: str
    folder: Path
    label: str
    parent: str
    required: bool


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A resolved launch.

    Attributes:
        body: The JSON of `POST /containers/create`.
        folders: Mount -> folder on this machine.
        made: The output folders among them, which must be made first.
        handled: What happens to the outputs.
        secrets: Values that are shown nowhere.
    """

    body: dict[str, Any]
    folders: dict[str, Path]
    made: tuple[Path, ...]
    handled: tuple[Handled, ...]
    secrets: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """The request for people: secrets masked."""

        def mask(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: mask(item) for key, item in value.items()}
            if isinstance(value, list):
                return [mask(item) for item in value]
            for secret in self.secrets:
                value = value.replace(secret, MASK) if isinstance(value, str) else value
            return value

        shown: dict[str, Any] = mask(self.body)
        return shown


def resolve(command: Mapping[str, Any], wrapper: str, target: Target, values: Mapping[str, str], server: Server) -> Launch:
    """The launch of a wrapper on an object with what the user chose in the form.

    Args:
        command: The parsed command file.
        wrapper: The wrapper's name.
        target: The object of its external input.
        values: Form field -> text; a field that is left out keeps its default, an empty one is blank.
        server: The site.

    Raises:
        ConfigError: XNAT would refuse the launch, or it needs what is not resolved here.
    """
    chosen = next((each for each in command.get("xnat", []) if each.get("name") == wrapper), None)
    if chosen is None:
        raise ConfigError(f"there is no wrapper {wrapper!r}", fix=f"one of {', '.join(each['name'] for each in command.get('xnat', []))}")
    _refuse_beyond(command, chosen)
    objects, texts = _wrapper_values(chosen, target)
    filled = _command_values(command, chosen, texts, values)
    keys = dict(_replacements(command, chosen, filled, texts))
    folders, made, binds = _mounts(command, chosen, objects, server, keys)
    line = _replace(command.get("command-line"), keys | dict(_with_flags(command, filled)))
    environment = {_replace(name, keys): _replace(_text(value), keys) for name, value in command.get("environment-variables", {}).items()}
    environment |= server.environment
    labels = {_replace(name, keys): _replace(value, keys) for name, value in command.get("container-labels", {}).items()}
    body: dict[str, Any] = {
        "Image": command["image"],
        "Cmd": ["/bin/sh", "-c", line] if command.get("override-entrypoint") else shell_words(line),
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "WorkingDir": _replace(command.get("working-directory"), keys),
        "User": server.user,
        "Labels": labels | dict(server.labels),
        "HostConfig": _host(command, binds),
    }
    if command.get("override-entrypoint"):
        body["Entrypoint"] = [""]
    sensitive = {str(entry.get("name")) for entry in command.get("inputs", []) if entry.get("sensitive") in (True, "true")}
    hidden = [environment.get(name, "") for name in SECRET] + [filled[name] for name in sensitive]
    return Launch(
        body=body,
        folders=folders,
        made=made,
        handled=tuple(_handled(command, chosen, folders, keys)),
        secrets=tuple(sorted(filter(None, hidden), key=len, reverse=True)),
    )


def shell_words(line: str) -> list[str]:
    """A command line split as a shell would: quotes and backslashes are honoured, variables and wildcards are not.

    Raises:
        ConfigError: A quote has no end.
    """
    try:
        return shlex.split(line)
    except ValueError:
        raise ConfigError("a quote in the command line has no end", fix="python -m plugin.xnat lint FILE") from None


def _refuse_beyond(command: Mapping[str, Any], wrapper: Mapping[str, Any]) -> None:
    entries: list[tuple[str, Mapping[str, Any]]] = [("command", command)]
    entries += [("input", entry) for entry in command.get("inputs", [])]
    entries += [("wrapper input", entry) for key in ("external-inputs", "derived-inputs") for entry in wrapper.get(key, [])]
    entries += [("handler", entry) for entry in wrapper.get("output-handlers", [])]
    for kind, entry in entries:
        name = f"{kind} {entry.get('name')!r}"
        for key in BEYOND.get(kind, ()):
            if entry.get(key):
                raise ConfigError(f"{name}: {key} is XNAT's to resolve", fix="leave it out, or launch in XNAT")
        if re.search(r"\^.*\^", str(entry.get("default-value", ""))):
            raise ConfigError(f"{name}: its default is a JSONPath, which is XNAT's to resolve", fix="give a plain default")
        if entry.get("type") in ("select-many", "file") and kind == "input":
            raise ConfigError(f"{name}: {entry['type']} is XNAT's to resolve", fix="another type of input")
        if kind == "handler" and entry.get("type", "Resource") != "Resource":
            raise ConfigError(f"{name}: {entry['type']} is XNAT's to make", fix="a handler of type Resource")


def _wrapper_values(wrapper: Mapping[str, Any], target: Target) -> tuple[dict[str, Target], dict[str, str | None]]:
    """Wrapper input -> object, and wrapper input -> text.

    Raises:
        ConfigError: A required one has no value.
    """
    objects: dict[str, Target] = {}
    texts: dict[str, str | None] = {}
    for entry in wrapper.get("external-inputs", []):
        if entry.get("type") != target.kind:
            raise ConfigError(f"the wrapper starts on a {entry.get('type')}, not on a {target.kind}")
        objects[entry["name"]] = target
        texts[entry["name"]] = target.properties.get("uri")
    for entry in wrapper.get("derived-inputs", []):
        name, parent = entry["name"], objects.get(str(entry.get("derived-from-wrapper-input")))
        if entry.get("type") == "string":
            # A misspelt property is null in XNAT's JSON as well.
            texts[name] = parent.properties.get(str(entry.get("derived-from-xnat-object-property"))) if parent else None
        elif parent and (found := parent.related.get(str(entry.get("type")))):
            objects[name] = found
            texts[name] = found.properties.get("uri", "")
        if texts.get(name) is None:
            texts[name] = _text(entry.get("default-value")) or None
        if texts[name] is None and entry.get("required", True) not in (False, "false"):
            raise ConfigError(f"the wrapper input {name!r} could not be resolved")
        _refuse_illegal(name, texts[name])
    return objects, texts


def _command_values(
    command: Mapping[str, Any], wrapper: Mapping[str, Any], texts: Mapping[str, str | None], values: Mapping[str, str]
) -> dict[str, str]:
    """Command input -> text: from the wrapper where it feeds the input, else as chosen, else the default.

    Raises:
        ConfigError: A field that the form does not have, a value that XNAT refuses, or a required one that has none.
    """
    form = [str(entry.get("name")) for entry in form_inputs(command)]
    for name in values:
        if name not in form:
            near = difflib.get_close_matches(name, form, n=1)
            raise ConfigError(f"the form has no field {name!r}", fix=f"--set {near[0]}=..." if near else f"one of {', '.join(form)}")
    feeds = {
        entry["provides-value-for-command-input"]: texts.get(entry["name"])
        for key in ("external-inputs", "derived-inputs")
        for entry in wrapper.get(key, [])
        if entry.get("provides-value-for-command-input")
    }
    filled: dict[str, str] = {}
    for entry in command.get("inputs", []):
        name = str(entry["name"])
        default = None if entry.get("default-value") is None else _text(entry["default-value"])
        value = feeds[name] if name in feeds else values.get(name, default)
        if value is None and entry.get("required") in (True, "true"):
            raise ConfigError(f"the input {name!r} is required and has no value", fix=f"--set {name}=...")
        _refuse_illegal(name, value)
        filled[name] = _coerced(entry, value or "")
    return filled


def _coerced(entry: Mapping[str, Any], value: str) -> str:
    """The text that stands for a value; only booleans are ever changed, and an unknown type is a string."""
    kind = entry.get("type") if entry.get("type") in INPUT_TYPES else "string"
    if kind != "boolean" or not value.strip():
        return value
    instead = entry.get("true-value" if value.strip().lower() == "true" else "false-value")
    return value if instead is None else _text(instead)


def _refuse_illegal(name: str, value: str | None) -> None:
    found = next((mark for mark in ILLEGAL if mark in (value or "")), None)
    if found:
        raise ConfigError(f'XNAT refuses the value of {name!r}: it holds the illegal string "{found}"', fix=f"a value without {found}")


def _replacements(
    command: Mapping[str, Any], wrapper: Mapping[str, Any], filled: Mapping[str, str], texts: Mapping[str, str | None]
) -> Iterator[tuple[str, str]]:
    """Key -> text, of the wrapper's inputs first, each in its order: XNAT replaces one after another."""
    for key in ("external-inputs", "derived-inputs"):
        for entry in wrapper.get(key, []):
            yield _key(entry), texts.get(entry["name"]) or ""
    for entry in command.get("inputs", []):
        yield _key(entry), filled[str(entry["name"])]


def _key(entry: Mapping[str, Any]) -> str:
    return str(entry.get("replacement-key") or f"#{entry['name']}#")


def _with_flags(command: Mapping[str, Any], filled: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Key -> text on the command line: flag, separator and value; a blank value takes its flag with it."""
    for entry in command.get("inputs", []):
        value, flag = filled[str(entry["name"])], _text(entry.get("command-line-flag"))
        if flag:
            separator = " " if entry.get("command-line-separator") is None else entry["command-line-separator"]
            yield _key(entry), f"{flag}{separator}{value}" if value.strip() else ""


def _replace(template: Any, keys: Mapping[str, str]) -> str:
    """A template with every key replaced as plain text; a key that nothing knows stays."""
    text = _text(template)
    for key, value in keys.items():
        text = text.replace(key, value)
    return text


def _mounts(
    command: Mapping[str, Any], wrapper: Mapping[str, Any], objects: Mapping[str, Target], server: Server, keys: Mapping[str, str]
) -> tuple[dict[str, Path], tuple[Path, ...], list[str]]:
    """Folder of each mount, the fresh ones among them, and the engine's binds. A mount that no input feeds is an output."""
    fed = {
        entry["provides-files-for-command-mount"]: objects[entry["name"]].directory
        for key in ("external-inputs", "derived-inputs")
        for entry in wrapper.get(key, [])
        if entry.get("provides-files-for-command-mount") and entry["name"] in objects
    }
    folders: dict[str, Path] = {}
    made, binds = [], []
    for mount in command.get("mounts", []):
        name, path = str(mount["name"]), _replace(mount.get("path"), keys)
        writable = mount.get("writable") in (True, "true")
        if name in fed and writable:
            raise ConfigError(f"mount {name!r}: a writable input is copied by XNAT first", fix="writable: false")
        folders[name] = (fed.get(name) or server.build / name).absolute()
        if ":" in str(folders[name]):
            raise ConfigError(f"the folder of mount {name!r} has a colon in its path, which a bind cannot hold", fix="another folder")
        if name not in fed:
            made.append(folders[name])
        binds.append(f"{folders[name]}:{path}" + (":ro" if name in fed else ""))
    return folders, tuple(made), binds


def _host(command: Mapping[str, Any], binds: Sequence[str]) -> dict[str, Any]:
    """HostConfig. No DeviceRequests and no generic resources: in Docker mode the runtime is the only way to a GPU."""
    host: dict[str, Any] = {
        "AutoRemove": command.get("auto-remove") in (True, "true"),
        "Runtime": command.get("runtime") or "",
        "IpcMode": command.get("ipc-mode") or "",
        "Binds": list(binds),
    }
    for key, name, unit in (("reserve-memory", "MemoryReservation", MIB), ("limit-memory", "Memory", MIB), ("shm-size", "ShmSize", 1)):
        if command.get(key):
            host[name] = int(command[key]) * unit
    if command.get("limit-cpu"):
        host["NanoCpus"] = int(float(command["limit-cpu"]) * CPU)
    if command.get("network"):
        host["NetworkMode"] = command["network"]
    if command.get("ulimits"):
        host["Ulimits"] = [
            {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
            for name, (soft, _, hard) in ((name, str(value).partition(":")) for name, value in command["ulimits"].items())
        ]
    return host


def _handled(
    command: Mapping[str, Any], wrapper: Mapping[str, Any], folders: Mapping[str, Path], keys: Mapping[str, str]
) -> Iterator[Handled]:
    outputs = {entry["name"]: entry for entry in command.get("outputs", [])}
    for handler in wrapper.get("output-handlers", []):
        output = outputs[handler["accepts-command-output"]]
        yield Handled(
            output=output["name"],
            folder=folders[output["mount"]] / _replace(output.get("path"), keys).strip("/"),
            label=_replace(handler.get("label"), keys),
            parent=str(handler["as-a-child-of"]),
            required=output.get("required") in (True, "true"),
        )


def _text(value: Any) -> str:
    """A JSON value as the text that XNAT's parser makes of it: `true`, `5`, `0.5`; null is blank."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
