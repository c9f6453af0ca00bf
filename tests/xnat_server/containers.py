"""The Container Service over REST: `/xapi/commands`, wrappers enabled for site and project, launches, containers (XNAT.md 1, 2).

A launch is queued and answered with success whatever is wrong with it, as the real service does: what fails shows in the container's status.
It is then resolved (external input, derived inputs, defaults, forbidden strings), recorded as a `Launch`, and given to `Containers.runner`,
which stands for the container engine. After exit code 0 each output is stored as its handler says; after any other nothing is.
"""

from __future__ import annotations

import copy
import shutil
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.xnat_server.accounts import Accounts
from tests.xnat_server.archive import Archive, Node
from tests.xnat_server.data import Data
from tests.xnat_server.web import Answer, Refusal, Request

# A resolved value with one of these aborts the launch (XNAT.md 1.7).
ILLEGAL = (";", "&&", "||", "`", "(")
FINAL = ("Complete", "Failed", "Failed (Upload)", "Killed")


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
        environment: What XNAT adds: XNAT_HOST, XNAT_USER, XNAT_PASS (an alias token), XNAT_WORKFLOW_ID, XNAT_EVENT_ID.
        stdout, stderr: Logs, set by the runner.
        history: Each status it had.
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
    environment: dict[str, str] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    history: list[str] = field(default_factory=lambda: ["Created"])
    done: threading.Event = field(default_factory=threading.Event)

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
            "workflow-id": self.environment.get("XNAT_WORKFLOW_ID", ""),
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


class Containers:
    """Commands and containers of one server.

    Attributes:
        runner: Given a resolved launch, runs it and returns the exit code; the one here at first runs nothing and returns 0.
        launches: Every container, in order.
    """

    def __init__(self, archive: Archive, data: Data, accounts: Accounts, build: Path) -> None:
        self.archive = archive
        self.data = data
        self.accounts = accounts
        self.build = build
        self.host = ""
        self.runner: Callable[[Launch], int] = lambda launch: 0
        self.commands: dict[int, dict[str, Any]] = {}
        self.launches: list[Launch] = []
        self.site: set[int] = set()
        self.enabled: set[tuple[str, int]] = set()
        self._numbers = iter(range(1, 10**6))

    # -- routes ----------------------------------------------------------------------------------------------------------

    def answer(self, request: Request, parts: list[str], user: str) -> Answer:
        """Carry out a request below /xapi.

        Raises:
            Refusal: 404 where there is no such route or object, 403 without right.
        """
        project = None
        if parts[:1] == ["projects"] and len(parts) > 2:
            project, parts = parts[1], parts[2:]
            if project not in [p.id for p in self.archive.projects]:
                raise Refusal(404, f"Unable to find project {project}")
        match [request.method, *parts]:
            case ["GET", "commands"]:
                keys = ("name", "version", "image")
                return Answer.json([c for c in self.commands.values() if all(request.query.get(k, c.get(k)) == c.get(k) for k in keys)])
            case ["POST", "commands"]:
                self._need_manager(user)
                return self._create(request)
            case ["GET", "commands", "available"]:
                return Answer.json(self._available(project or request.query.get("project", ""), request.query.get("xsiType", "")))
            case ["GET", "commands", id]:
                return Answer.json(self._command(id))
            case ["POST", "commands", id]:
                self._need_manager(user)
                return self._update(self._command(id), request)
            case ["DELETE", "commands", id]:
                self._need_manager(user)
                del self.commands[self._command(id)["id"]]
                return Answer(204)
            case [method, "commands", id, "wrappers", name, "enabled" | "disabled" as word] if method in ("GET", "PUT"):
                return self._switch(method, self._wrapper(name, self._command(id)), word, project, user)
            case [method, "wrappers", id, "enabled" | "disabled" as word] if method in ("GET", "PUT"):
                return self._switch(method, self._wrapper(id), word, project, user)
            case ["POST", "wrappers", id, "root", root, "launch"]:
                return self._queue(request, id, None, root, project, user)
            case ["POST", "wrappers", id, "launch"]:
                return self._queue(request, id, None, None, project, user)
            case ["POST", "commands", command, "wrappers", name, "root", root, "launch"]:
                return self._queue(request, name, command, root, project, user)
            case ["POST", "commands", command, "wrappers", name, "launch"]:
                return self._queue(request, name, command, None, project, user)
            case ["POST", "wrappers", id, "root", root, "bulklaunch"]:
                return self._bulk(request, id, root, project, user)
            case ["GET", "containers"]:
                return Answer.json([launch.as_json() for launch in self.launches if project in (None, launch.project)])
            case ["GET", "containers", id]:
                return Answer.json(self._launch(id).as_json())
            case ["GET", "containers", id, "logs", "stdout" | "stderr" as stream]:
                return Answer.text(getattr(self._launch(id), stream))
            case ["POST", "containers", id, "kill"]:
                self._launch(id).history.append("Killed")
                return Answer.text(self._launch(id).container_id)
        raise Refusal(404, "No such route")

    def _need_manager(self, user: str) -> None:
        if user not in self.accounts.administrators:
            raise Refusal(403, "Only users with the Container Manager role may change commands")

    def _command(self, id: str) -> dict[str, Any]:
        if not id.isdigit() or int(id) not in self.commands:
            raise Refusal(404, f"Could not find command {id}")
        return self.commands[int(id)]

    def _wrapper(self, name: str, command: dict[str, Any] | None = None) -> dict[str, Any]:
        for wrapper in (w for c in ([command] if command else self.commands.values()) for w in c["xnat"]):
            if name in (str(wrapper["id"]), *([wrapper["name"]] if command else [])):
                return wrapper
        raise Refusal(404, f"Could not find wrapper {name}")

    def _launch(self, id: str) -> Launch:
        for launch in self.launches:
            if id in (str(launch.id), launch.container_id):
                return launch
        raise Refusal(404, f"Could not find container {id}")

    # -- commands --------------------------------------------------------------------------------------------------------

    def _create(self, request: Request) -> Answer:
        command = self._parse(request)
        key = ("name", "image", "version")
        if any(all(other.get(k) == command.get(k) for k in key) for other in self.commands.values()):
            raise Refusal(409, f'A command with name "{command["name"]}", image "{command["image"]}" and the same version exists already')
        return Answer.json(self._keep(command, next(self._numbers)), 201)

    def _update(self, old: dict[str, Any], request: Request) -> Answer:
        return Answer.json(self._keep(self._parse(request), old["id"], {w["name"]: w["id"] for w in old["xnat"]}))

    def _parse(self, request: Request) -> dict[str, Any]:
        try:
            command = request.json()
        except ValueError as error:
            raise Refusal(400, "The body is not JSON") from error
        if not isinstance(command, dict):
            raise Refusal(400, "The body is not a command")
        for key in ("name", "image"):
            if not str(command.get(key) or "").strip():
                raise Refusal(400, f"Command {key} cannot be blank")
        if ":" not in command["image"].rpartition("/")[2]:
            command["image"] += ":latest"
        return command

    def _keep(self, command: dict[str, Any], id: int, wrappers: dict[str, int] | None = None) -> int:
        stored = copy.deepcopy(command)
        stored["id"] = id
        stored.setdefault("xnat", [])
        for wrapper in stored["xnat"]:
            wrapper["id"] = (wrappers or {}).get(wrapper["name"]) or next(self._numbers)
        self.commands[id] = stored
        return id

    def _switch(self, method: str, wrapper: dict[str, Any], word: str, project: str | None, user: str) -> Answer:
        id = wrapper["id"]
        if method == "GET" and project is None:
            return Answer.json(id in self.site)
        if method == "GET":
            return Answer.json(
                {"enabled-for-site": id in self.site, "enabled-for-project": (project, id) in self.enabled, "project": project}
            )
        if project is None:
            self._need_manager(user)
            (self.site.add if word == "enabled" else self.site.discard)(id)
        else:
            found = next(p for p in self.archive.projects if p.id == project)
            if user not in self.accounts.administrators and found.members.get(user) != "owner":
                raise Refusal(403, "Only owners of the project may enable commands in it")
            (self.enabled.add if word == "enabled" else self.enabled.discard)((project, id))
        return Answer.text("")

    def _available(self, project: str, xsi_type: str) -> list[dict[str, Any]]:
        rows = []
        for command in self.commands.values():
            for wrapper in command["xnat"]:
                if (
                    wrapper["id"] in self.site
                    and (project, wrapper["id"]) in self.enabled
                    and (not xsi_type or _covers(wrapper["contexts"], xsi_type))
                ):
                    names = {f"wrapper-{k}": wrapper.get(k, "") for k in ("id", "name", "label", "description")}
                    root = wrapper["external-inputs"][0]["name"] if wrapper.get("external-inputs") else ""
                    rows.append(
                        {
                            "command-id": command["id"],
                            "command-name": command["name"],
                            **names,
                            "image-name": command["image"],
                            "root-element-name": root,
                            "enabled": True,
                        }
                    )
        return rows

    # -- launches --------------------------------------------------------------------------------------------------------

    def _queue(self, request: Request, wrapper: str, command: str | None, root: str | None, project: str | None, user: str) -> Answer:
        chosen = request.json()
        if not isinstance(chosen, dict):
            raise Refusal(400, "The body is not an object")
        number = next(self._numbers)
        try:
            found = self._wrapper(wrapper, self._command(command) if command else None)
        except Refusal:
            found = None
        if found is not None:
            owner = next(c for c in self.commands.values() if found in c["xnat"])
            launch = Launch(number, user, project or "", owner, found, {k: str(v) for k, v in chosen.items()})
            self.launches.append(launch)
            threading.Thread(target=self._run, args=(launch, root), daemon=True).start()
        report = {"params": chosen, "type": "container", "workflow-id": str(number), "id": "To be assigned", "status": "success"}
        return Answer.json({**report, "wrapper-id": found["id"] if found else wrapper, "command-id": owner["id"] if found else 0})

    def _bulk(self, request: Request, id: str, root: str, project: str | None, user: str) -> Answer:
        import json

        body = request.json()
        assert isinstance(body, dict)
        reports = []
        for uri in json.loads(body[root]):
            one = Request(
                request.method, request.path, request.parts, request.query, request.headers, json.dumps({**body, root: uri}).encode(), True
            )
            reports.append(json.loads(self._queue(one, id, None, root, project, user).body))
        return Answer.json({"bulk-launch-id": uuid.uuid4().hex, "pipeline-name": "", "successes": reports, "failures": []})

    def _run(self, launch: Launch, root: str | None) -> None:
        try:
            self._resolve(launch, root)
            launch.history.append("Running")
            launch.exit_code = self.runner(launch)
            if launch.status == "Killed":
                return
            launch.history.append("Finalizing")
            launch.history.append(self._finalize(launch) if launch.exit_code == 0 else "Failed")
        except LaunchError as error:
            launch.stderr = str(error)
            launch.history.append("Failed")
        except Exception as error:
            launch.stderr += f"\nthe runner of the fake XNAT failed: {error!r}"
            launch.history.append("Failed")
            raise
        finally:
            token = launch.environment.get("XNAT_USER", "")
            self.accounts.tokens.pop(token, None)
            launch.done.set()

    def _resolve(self, launch: Launch, root: str | None) -> None:
        if launch.wrapper["id"] not in self.site or (launch.project and (launch.project, launch.wrapper["id"]) not in self.enabled):
            raise LaunchError("the wrapper is not enabled for the site and the project")
        external = launch.wrapper["external-inputs"]
        if root is not None and root not in [e["name"] for e in external]:
            raise LaunchError(f"the wrapper has no external input {root}")
        for entry in external + launch.wrapper.get("derived-inputs", []):
            launch.objects[entry["name"]] = self._object(launch, entry)
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
        for mount in launch.command.get("mounts", []):
            if mount["name"] not in launch.mounts:
                launch.mounts[mount["name"]] = self.build / uuid.uuid4().hex
                launch.mounts[mount["name"]].mkdir(parents=True)
        token = self.accounts.issue(launch.user)
        launch.environment = {
            "XNAT_HOST": self.host,
            "XNAT_USER": token.alias,
            "XNAT_PASS": token.secret,
            "XNAT_WORKFLOW_ID": str(launch.id),
            "XNAT_EVENT_ID": str(launch.id),
        }

    def _object(self, launch: Launch, entry: dict[str, Any]) -> Node | str:
        name = entry["name"]
        if "derived-from-wrapper-input" not in entry:
            uri = launch.chosen.get(name, entry.get("default-value") or "")
            parts = [p for p in uri.split("/") if p not in ("", "archive", "data")]
            try:
                found = self.data.walk(parts, launch.user)[1]
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

    def _finalize(self, launch: Launch) -> str:
        status = "Complete"
        outputs = {output["name"]: output for output in launch.command.get("outputs", [])}
        made: dict[str, Node] = {}
        for handler in launch.wrapper.get("output-handlers", []):
            output = outputs[handler["accepts-command-output"]]
            parent = made.get(handler["as-a-child-of"]) or launch.objects[handler["as-a-child-of"]]
            source = launch.mounts[output["mount"]] / (output.get("path") or "").strip("/")
            children = [source] if source.is_file() else sorted(source.iterdir()) if source.is_dir() else []
            if not isinstance(parent, Node) or not self.data.may(launch.user, parent, edit=True):
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


def _covers(contexts: list[str], xsi_type: str) -> bool:
    """Whether a wrapper's contexts, or a parent type of theirs, hold this type."""
    parents = {"SessionData": "xnat:imageSessionData", "ScanData": "xnat:imageScanData"}
    return xsi_type in contexts or any(xsi_type.endswith(end) and parent in contexts for end, parent in parents.items())
