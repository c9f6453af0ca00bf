"""A site's commands over REST: add them, enable them for the site and for a project, launch one, ask what became of it.

"I added the command and nobody sees it" is the first complaint of those who administer an XNAT: it takes four steps, each with its own right.
So each step here is done only where it is not done yet, looked at afterwards, and named when it fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from medgan.errors import ConfigError, InputError, OutputError
from plugin.lint import ILLEGAL
from plugin.rest import Connection, quoted
from plugin.target import Target, target_of

Say = Callable[[str], None]
"""Gets one line for people per step."""

REFUSED = (401, 403)
# What is launched and stored from a command; all else XNAT fills, renames or drops.
COMPARED = ("command-line", "override-entrypoint", "environment-variables", "runtime", "generic-resources", "shm-size")
BUMP = "give the file another version (python -m plugin.xnat write does), or delete the command in XNAT"


def register(
    connection: Connection, commands: list[dict[str, Any]], *, project: str = "", pull: bool = False, say: Say
) -> list[dict[str, Any]]:
    """Make commands launchable: image, command, enabled for the site, enabled for a project. Repeating it changes nothing.

    Args:
        connection: Open connection that raises OutputError.
        commands: Command definitions.
        project: Where they are enabled; for the site only if empty.
        pull: Whether the Docker server of the site pulls the image first, and XNAT reads its label.
        say: Gets a line per step.

    Returns:
        For each command its name, version and id, and what was done.

    Raises:
        OutputError: A step failed; its message names the step.
    """
    if pull:
        for image in sorted({command["image"] for command in commands}):
            _pull(connection, image, say)
    done = []
    for command in commands:
        stored, how = _command(connection, command, say)
        here, names = f"/xapi/commands/{stored['id']}/wrappers", [wrapper["name"] for wrapper in command["xnat"]]
        site = [_enable(connection, f"{here}/{quoted(name)}/enabled", "3 (enable for the site)", "a site administrator") for name in names]
        say(f"3 site      {command['name']}: {_words(names, site)}")
        result = {"command": command["name"], "version": command["version"], "id": stored["id"], "added": how == "added", "site": names}
        if project:
            there = f"/xapi/projects/{quoted(project)}/commands/{stored['id']}/wrappers"
            step = "4 (enable for the project)"
            local = [_enable(connection, f"{there}/{quoted(name)}/enabled", step, "an owner of the project") for name in names]
            say(f"4 project   {command['name']}: {_words(names, local)}")
            result["project"] = project
        done.append(result)
    return done


def _words(names: list[str], changed: list[bool]) -> str:
    return ", ".join(f"{name} {'enabled' if now else 'was enabled'}" for name, now in zip(names, changed, strict=True))


def _failed(step: str, status: int, why: Mapping[int, tuple[str, str]]) -> OutputError:
    reason, fix = why.get(status, (f"XNAT answers {status}", "look at containers.log of the site"))
    return OutputError(f"step {step} failed: {reason}", fix=fix, code="E_XNAT")


def _pull(connection: Connection, image: str, say: Say) -> None:
    status, _ = connection.answer("post", "/xapi/docker/pull", query={"image": image, "save-commands": "true"})
    if status >= 300:
        refused = (f"the user may not pull images ({status})", "ask somebody with the role Container Manager")
        missing = ("the site's backend pulls no image", "leave --pull out: Kubernetes and Swarm pull at launch")
        raise _failed("1 (pull the image)", status, {401: refused, 403: refused, 404: missing, 405: missing, 424: missing})
    say(f"1 image     {image}: pulled")


def _command(connection: Connection, command: dict[str, Any], say: Say) -> tuple[dict[str, Any], str]:
    """The command as XNAT keeps it, added if it is not there."""
    step, name = "2 (add the command)", f"{command['name']} {command['version']}"
    found = _stored(connection, command)
    if found is None:
        status, text = connection.answer("post", "/xapi/commands", json=command)
        if status >= 300:
            refused = (f"the user may not add commands ({status})", "the role Container Manager; being a site administrator is not enough")
            why = dict.fromkeys(REFUSED, refused)
            raise _failed(
                step,
                status,
                {**why, 409: ("XNAT has a command of this name, version and image", BUMP), 400: ("XNAT refuses the command", LINT_FIX)},
            )
        found = _stored(connection, command)
        if found is None:
            raise OutputError(
                f"step {step} failed: XNAT took the command (id {text[:20]}) but does not list it", fix=LINT_FIX, code="E_XNAT"
            )
        say(f"2 command   {name}: added as {found['id']}")
        return found, "added"
    if differing := _differing(command, found):
        raise OutputError(f"step {step} failed: XNAT has {name} with another {', '.join(differing)}", fix=BUMP, code="E_XNAT")
    say(f"2 command   {name}: already there as {found['id']}")
    return found, "there"


LINT_FIX = "python -m plugin.xnat lint FILE says what is wrong with it"


def _stored(connection: Connection, command: dict[str, Any]) -> dict[str, Any] | None:
    key = ("name", "version", "image")
    return next((other for other in commands_of(connection) if all(other.get(k) == command.get(k) for k in key)), None)


def commands_of(connection: Connection) -> list[dict[str, Any]]:
    """All commands of the site."""
    status, text = connection.answer("get", "/xapi/commands")
    why = {
        404: ("the site has no Container Service", "install the plug-in"),
        403: ("the user may not see commands (403)", "ask the site's administrator"),
    }
    if status >= 300:
        raise _failed("2 (look for the command)", status, why)
    try:
        return [entry for entry in json.loads(text) if isinstance(entry, dict)]
    except ValueError:
        raise connection.error("XNAT answers no list of commands", fix="check XNAT_HOST") from None


def _differing(sent: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """In what a stored command would run otherwise than the one to be added; XNAT leaves out what is empty."""
    parts = [key for key in COMPARED if (sent.get(key) or None) != (stored.get(key) or None)]
    for key, names in (
        ("mounts", ("name", "path")),
        ("inputs", ("name", "default-value")),
        ("outputs", ("name", "path")),
        ("xnat", ("name",)),
    ):
        if _columns(sent, key, names) != _columns(stored, key, names):
            parts.append("wrappers" if key == "xnat" else key)
    return parts


def _columns(command: dict[str, Any], key: str, names: tuple[str, ...]) -> list[list[str]]:
    return sorted([str(entry.get(name) or "") for name in names] for entry in command.get(key) or [])


def _enable(connection: Connection, path: str, step: str, who: str) -> bool:
    """Enable a wrapper where it is not yet; whether that was to be done."""
    status, text = connection.answer("get", path)
    if status < 300 and _is_enabled(text):
        return False
    if status < 300:
        status, _ = connection.answer("put", path)
    if status >= 300:
        refused = (f"the user may not ({status})", f"ask {who}")
        raise _failed(step, status, {401: refused, 403: refused, 404: ("XNAT has no such project or command (404)", "check --project")})
    status, text = connection.answer("get", path)
    if not _is_enabled(text):
        raise OutputError(f"step {step} failed: XNAT says yes and does not do it", fix=f"ask {who}", code="E_XNAT")
    return True


def _is_enabled(text: str) -> bool:
    """The answer of the site is true or false, that of a project says both."""
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    if isinstance(answer, dict):
        return bool(answer.get("enabled-for-project", answer.get("enabled", False)))
    return answer is True


def launch(
    connection: Connection, name: str, address: str, values: Mapping[str, str], *, project: str = "", version: str = ""
) -> dict[str, Any]:
    """Launch a command on a project, session or scan.

    Args:
        connection: Open connection that raises OutputError.
        name: The command's name.
        address: XNAT's address of the object.
        values: Field of the form -> value.
        project: The object's project, where the address does not say it.
        version: The command's version; empty for the one added last.

    Returns:
        `workflow`, by which `status` finds it, and what was launched.

    Raises:
        ConfigError: The command has no such field, or a value holds what XNAT refuses.
        OutputError: It is not enabled there, or XNAT did not take it.
    """
    target = target_of(address, project)
    project = project or _project_of(connection, target)
    found = [command for command in commands_of(connection) if command.get("name") == name and version in ("", command.get("version"))]
    if not found:
        raise OutputError(
            f"XNAT has no command {name}" + (f" {version}" if version else ""), fix="python -m plugin.xnat register", code="E_XNAT"
        )
    command = max(found, key=lambda entry: int(entry["id"]))
    wrapper = next((entry for entry in command["xnat"] if entry["name"] == target.level), None)
    if wrapper is None:
        raise OutputError(f"{name} cannot be launched on a {target.level}", fix="a newer version of the command", code="E_XNAT")
    _check_values(command, wrapper, values)
    enabled = f"/xapi/projects/{quoted(project)}/commands/{command['id']}/wrappers/{quoted(wrapper['name'])}/enabled"
    status, text = connection.answer("get", enabled)
    if status < 300 and not _is_enabled(text):
        fix = "python -m plugin.xnat register --project ID"
        raise OutputError(f"{name} is not enabled for {target.level}s of the project", fix=fix, code="E_XNAT")
    external = wrapper["external-inputs"][0]["name"]
    path = f"/xapi/projects/{quoted(project)}/wrappers/{wrapper['id']}/root/{quoted(external)}/launch"
    status, text = connection.answer("post", path, json={external: "/archive" + target.path.removeprefix("/data"), **values})
    answer = _object(text)
    if status >= 300 or answer.get("status") != "success":
        refused = ("the user may not launch there", "the user needs the right to edit what receives the results")
        raise _failed("launch", status, {401: refused, 403: refused, 200: ("XNAT does not take it", "look at containers.log of the site")})
    return {
        "command": name, "version": command.get("version", ""), "wrapper": wrapper["name"],
        "workflow": str(answer.get("workflow-id", "")), "container": str(answer.get("id", "")),
    }  # fmt: skip


def _object(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _project_of(connection: Connection, target: Target) -> str:
    """The project that an address names, else the one XNAT says the session is of."""
    parts = target.path.split("/")[2:]
    if parts[0] == "projects":
        return unquote(parts[1])
    answer = connection.read_json(target.path.partition("/scans/")[0])
    try:
        return str(answer["items"][0]["data_fields"]["project"])
    except (KeyError, IndexError, TypeError):
        raise ConfigError("XNAT does not say whose session that is", fix="--project ID") from None


def _check_values(command: dict[str, Any], wrapper: dict[str, Any], values: Mapping[str, str]) -> None:
    fed = {entry.get("provides-value-for-command-input") for entry in [*wrapper["external-inputs"], *wrapper.get("derived-inputs", [])]}
    fields = [entry["name"] for entry in command["inputs"] if entry["name"] not in fed]
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"the form has no field {name}", fix=f"one of {', '.join(fields)}")
        if bad := [word for word in ILLEGAL if word in value]:
            raise ConfigError(f"the value of {name} holds {bad[0]}, which XNAT refuses to launch with", fix="leave it out")


def status(connection: Connection, which: str, *, project: str = "") -> dict[str, Any]:
    """What became of a launch.

    Args:
        connection: Open connection that raises InputError.
        which: Its workflow id, as `launch` gives it, or its container's id.
        project: Where to look for a workflow id; in all that the user may see if empty.

    Returns:
        `status`, `exit_code` (None while it runs), `result` (the last line it wrote, if the user may read it), and ids.

    Raises:
        InputError: There is no such launch.
    """
    place = f"/xapi/projects/{quoted(project)}/containers" if project else "/xapi/containers"
    code, text = connection.answer("get", place)
    rows = json.loads(text) if code < 300 and text.lstrip().startswith("[") else []
    found = next((row for row in rows if which == str(row.get("workflow-id"))), None)
    if found is None:
        code, text = connection.answer("get", f"/xapi/containers/{quoted(which)}")
        found = _object(text) if code < 300 else None
    if not found:
        raise InputError(
            "XNAT knows no such launch, or not this user", fix="the workflow that `launch` printed, with --project", code="E_XNAT"
        )
    codes = [str(entry.get("exitCode") or "") for entry in found.get("history") or []]
    return {
        "status": found.get("status", ""),
        "exit_code": next((int(code) for code in reversed(codes) if code.lstrip("-").isdigit()), None),
        "result": _last_line(connection, str(found.get("id", ""))),
        "workflow": str(found.get("workflow-id") or ""),
        "container": found.get("id"),
    }


def _last_line(connection: Connection, container: str) -> str:
    """The RESULT line on stdout, else the ERROR or the last PROGRESS line on stderr; empty where the user may not read logs."""
    for stream in ("stdout", "stderr"):
        code, text = connection.answer("get", f"/xapi/containers/{quoted(container)}/logs/{stream}")
        lines = [line for line in text.splitlines() if line.startswith(("RESULT ", "ERROR ")) or " PROGRESS " in line] if code < 300 else []
        if lines:
            return lines[-1]
    return ""
