"""One launch of the Container Service: from what was asked for to what the engine is given, and from its outputs to the archive (XNAT.md 1.7, 2)."""

from __future__ import annotations

import shutil
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.xnat_server.archive import Node
from tests.xnat_server.data import Data
from tests.xnat_server.web import Refusal

# A resolved value with one of these aborts the launch (XNAT.md 1.7).
ILLEGAL = (";", "&&", "||", "`", "(")


class LaunchError(Exception):
    """A launch that cannot be resolved."""


@dataclass(eq=False)
class Launch:
    """One container: what was asked for, what it was resolved to, and what became of it.

    Attributes:
        command: The command as it is registered, ids included.
        wrapper: The wrapper launched, one of command["xnat"].
        chosen: The body of the launch request.
        root: Object the external input names.
        inputs: Value of each command input, "" where there is none: what the replacement keys become.
        mounts: Folder on this machine by mount name: an input's archive folder, or a fresh folder for an output.
        build: Where the fresh folders are; nobody clears it up.
        environment: What XNAT adds: XNAT_HOST, XNAT_USER, XNAT_PASS (an alias token), XNAT_WORKFLOW_ID, XNAT_EVENT_ID.
        stdout, stderr: Logs, set by the runner.
        history: Each status it had.
        why: What could not be resolved.
        killed: Set by POST .../kill; a runner that can stop watches it.
    """

    id: int
    user: str
    project: str
    command: dict[str, Any]
    wrapper: dict[str, Any]
    chosen: dict[str, str]
    container_id: str = field(default_factory=lambda: uuid.uuid4().hex * 2)
    objects: dict[str, Node | str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, Path] = field(default_factory=dict)
    build: Path = field(default_factory=Path)
    environment: dict[str, str] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
    why: str = ""
    exit_code: int | None = None
    history: list[str] = field(default_factory=lambda: ["Created"])
    done: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)

    @property
    def status(self) -> str:
        return self.history[-1]

    @property
    def root(self) -> Node:
        node = self.objects[self.wrapper["external-inputs"][0]["name"]]
        assert isinstance(node, Node)
        return node

    def wait(self, seconds: float = 60) -> str:
        """Wait until the container is finished and its results are stored; the final status.

        Raises:
            TimeoutError: It is not, after so many seconds.
        """
        if not self.done.wait(seconds):
            raise TimeoutError(f"container {self.id} is {self.status} after {seconds} s")
        return self.status

    def as_json(self) -> dict[str, Any]:
        """The container as GET /xapi/containers/{id} shows it."""
        return {
            "id": self.id,
            "command-id": self.command["id"],
            "wrapper-id": self.wrapper["id"],
            "container-id": self.container_id,
            "workflow-id": str(self.id),
            "user-id": self.user,
            "project": self.project,
            "status": self.status,
            "docker-image": self.command["image"],
            "command-line": self.command.get("command-line", ""),
            "backend": "docker",
            "env": {k: v for k, v in self.environment.items() if k != "XNAT_PASS"},
            "inputs": [{"type": "command", "name": k, "value": v, "sensitive": False} for k, v in self.inputs.items()],
            "mounts": [{"name": name, "xnat-host-path": str(path), "writable": name not in self.fed} for name, path in self.mounts.items()],
            "history": [
                {"status": status, "entity-type": "system", "exitCode": "" if self.exit_code is None else str(self.exit_code)}
                for status in self.history
            ],
            "log-paths": [],
        }

    @property
    def fed(self) -> set[str]:
        """Mounts that a wrapper input fills."""
        inputs = self.wrapper.get("external-inputs", []) + self.wrapper.get("derived-inputs", [])
        return {i["provides-files-for-command-mount"] for i in inputs if i.get("provides-files-for-command-mount")}


def resolve(launch: Launch, root: str | None, data: Data, build: Path) -> None:
    """Fill a launch's objects, inputs and mounts.

    Args:
        launch: As it was asked for.
        root: External input that the request's path names.
        data: The archive, as the launching user may see it.
        build: Where fresh folders for outputs are made.

    Raises:
        LaunchError: A value is missing, nothing has the name, or a string is illegal.
    """
    external = launch.wrapper["external-inputs"]
    if root is not None and root not in [e["name"] for e in external]:
        raise LaunchError(f"the wrapper has no external input {root}")
    for entry in external + launch.wrapper.get("derived-inputs", []):
        launch.objects[entry["name"]] = _object(launch, entry, data)
    for entry in launch.command.get("inputs", []):
        value = launch.chosen.get(entry["name"], entry.get("default-value"))
        launch.inputs[entry["name"]] = "" if value is None else str(value)
        if entry.get("required") and value is None:
            raise LaunchError(f"no value for {entry['name']}")
    for entry in external + launch.wrapper.get("derived-inputs", []):
        found = launch.objects[entry["name"]]
        if target := entry.get("provides-value-for-command-input"):
            launch.inputs[target] = found if isinstance(found, str) else found.archive_uri
        if (mount := entry.get("provides-files-for-command-mount")) and isinstance(found, Node):
            launch.mounts[mount] = found.folder
    for name, value in launch.inputs.items():
        if any(word in value for word in ILLEGAL):
            raise LaunchError(f"input {name} has an illegal string")
    launch.build = build / uuid.uuid4().hex
    for mount in launch.command.get("mounts", []):
        if mount["name"] not in launch.mounts:
            launch.mounts[mount["name"]] = launch.build / mount["name"]
            launch.mounts[mount["name"]].mkdir(parents=True)


def _object(launch: Launch, entry: dict[str, Any], data: Data) -> Node | str:
    name = entry["name"]
    if "derived-from-wrapper-input" not in entry:
        uri = launch.chosen.get(name, entry.get("default-value") or "")
        # A bare id will do for a project, a subject and a session.
        kind = {"Project": "projects", "Subject": "subjects", "Session": "experiments"}.get(entry["type"])
        parts = [p for p in uri.split("/") if p not in ("", "archive", "data")] if "/" in uri or not kind else [kind, uri]
        try:
            found = data.walk(parts, launch.user)[1]
        except Refusal as error:
            raise LaunchError(f"no {entry['type']} is called {uri}") from error
        if not found:
            raise LaunchError(f"no {entry['type']} is called {uri}")
        return found[0]
    parent = launch.objects[entry["derived-from-wrapper-input"]]
    if isinstance(parent, str):
        raise LaunchError(f"{name} is derived from a string")
    if entry["type"] == "string":
        value = properties(parent).get(entry.get("derived-from-xnat-object-property", ""), "")
        if not value and entry.get("required", True):
            raise LaunchError(f"{name} could not be resolved")
        return value
    above = parent.up({"Project": "projects", "Subject": "subjects", "Session": "experiments", "Scan": "scans"}.get(entry["type"], ""))
    if above is None:
        raise LaunchError(f"{name} could not be resolved")
    return above


def store(launch: Launch, data: Data) -> str:
    """Keep a launch's outputs as its wrapper's handlers say; the final status."""
    status = "Complete"
    outputs = {output["name"]: output for output in launch.command.get("outputs", [])}
    made: dict[str, Node] = {}
    for handler in launch.wrapper.get("output-handlers", []):
        output = outputs[handler["accepts-command-output"]]
        parent = made.get(handler["as-a-child-of"]) or launch.objects[handler["as-a-child-of"]]
        source = launch.mounts[output["mount"]] / (output.get("path") or "").strip("/")
        children = [source] if source.is_file() else sorted(source.iterdir()) if source.is_dir() else []
        if not isinstance(parent, Node) or not data.may(launch.user, parent, edit=True):
            status = "Failed (Upload)"
            continue
        label = _fill(handler["label"], launch)
        made[handler["name"]] = resource = parent.resource(
            label, format=_fill(handler.get("format") or "", launch), content=_fill(handler.get("content") or "", launch)
        )
        for child in children:
            if child.is_dir():
                shutil.copytree(child, resource.folder / child.name, dirs_exist_ok=True)
            else:
                shutil.copy2(child, resource.folder / child.name)
        resource.write_catalog()
        if not children and output.get("required"):
            status = "Failed (Upload)"
    return status


def properties(node: Node) -> dict[str, str]:
    """What a derived string can ask of an object (XNAT.md 1.6)."""
    subject, session = node.up("subjects"), node.up("experiments")
    common = {"id": node.id, "label": node.label, "xsiType": node.xsi_type, "uri": node.archive_uri, "directory": str(node.folder)}
    if node.kind == "projects":
        return {**common, "title": node.fields.get("name", ""), "description": node.fields.get("description", "")}
    above = {
        "project-id": node.project.id,
        "subject-id": subject.id if subject else "",
        "session-id": session.id if session and node is not session else "",
    }
    if node.kind == "scans":
        scan = {
            name: node.fields.get(name.replace("-", "_"), "")
            for name in ("quality", "note", "modality", "series-description", "uid", "frames")
        }
        return {**common, **scan, **above, "scan-type": node.fields.get("type", ""), "label": f"{node.id} - {node.fields.get('type', '')}"}
    return {**common, **above}


def _fill(template: str, launch: Launch) -> str:
    for entry in launch.command.get("inputs", []):
        template = template.replace(entry.get("replacement-key") or f"#{entry['name']}#", launch.inputs.get(entry["name"], ""))
    return template
