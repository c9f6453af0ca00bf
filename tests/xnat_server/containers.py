"""The Container Service over REST: `/xapi/commands`, wrappers enabled for site and project, launches, containers (XNAT.md 1, 2).

A launch is queued and answered with success whatever is wrong with it, as the real service does. It is then resolved (external input,
derived inputs, defaults, forbidden strings), recorded as a `Launch`, and given to `Containers.runner`, which stands for the container engine.
After exit code 0 each output is stored as its handler says; after any other nothing is. A launch that cannot be resolved never becomes
a container: it fails in the workflow whose id the launch was answered with (GET /data/workflows/{id}).
"""

from __future__ import annotations

import copy
import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.xnat_server import documents, validation
from tests.xnat_server.accounts import Accounts
from tests.xnat_server.archive import Archive
from tests.xnat_server.data import Data
from tests.xnat_server.launches import Launch, LaunchError, resolve, store
from tests.xnat_server.web import Answer, Refusal, Request


class Containers:
    """Commands and containers of one server.

    Attributes:
        runner: Given a resolved launch, runs it and returns the exit code; the one here at first runs nothing and returns 0.
        launches: Every launch of a wrapper that exists, in order.
        images: What the registry holds: image to the commands of its label org.nrg.commands.
    """

    def __init__(self, archive: Archive, data: Data, accounts: Accounts, build: Path, lock: threading.RLock) -> None:
        self.archive = archive
        self.data = data
        self.accounts = accounts
        self.build = build
        self.lock = lock
        self.host = ""
        self.runner: Callable[[Launch], int] = lambda launch: 0
        self.commands: dict[int, dict[str, Any]] = {}
        self.launches: list[Launch] = []
        self.images: dict[str, list[dict[str, Any]]] = {}
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
            case ["POST", "docker", "pull"] | ["POST", "docker", "images", "save"]:
                self._need_manager(user)
                return self._pull(request.query, save=parts[-1] == "save" or request.query.get("save-commands") == "true")
            case ["GET", "containers"]:
                started = [launch for launch in self.launches if not launch.why and project in (None, launch.project)]
                return Answer.json([launch.as_json() for launch in started])
            case ["GET", "containers", id]:
                return Answer.json(self._launch(id).as_json())
            case ["GET", "containers", id, "logs", "stdout" | "stderr" as stream]:
                return Answer.text(getattr(self._launch(id), stream))
            case ["POST", "containers", id, "kill"]:
                return self._kill(self._launch(id))
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

    def _kill(self, launch: Launch) -> Answer:
        """SIGKILL for the container, and no results."""
        launch.killed.set()
        return Answer.text(launch.container_id)

    def workflow(self, id: str) -> Answer:
        """The workflow of a launch, whether or not it became a container."""
        for launch in self.launches:
            if id == str(launch.id):
                fields = {"wrk_workflowData_id": launch.id, "status": launch.status, "ExternalID": launch.project, "details": launch.why}
                return Answer.json({"items": [{"children": [], "meta": {"xsi:type": "wrk:workflowData"}, "data_fields": fields}]})
        raise Refusal(404, f"Unable to find workflow {id}")

    def _launch(self, id: str) -> Launch:
        for launch in self.launches:
            if id in (str(launch.id), launch.container_id) and not launch.why:
                return launch
        raise Refusal(404, f"Could not find container {id}")

    # -- commands --------------------------------------------------------------------------------------------------------

    def _create(self, request: Request) -> Answer:
        command = self._parse(request)
        if self._exists(command):
            raise Refusal(409, f'A command with name "{command["name"]}", image "{command["image"]}" and the same version exists already')
        return Answer.json(self._keep(command, next(self._numbers)), 201)

    def _exists(self, command: dict[str, Any]) -> bool:
        return any(all(other.get(k) == command.get(k) for k in ("name", "image", "version")) for other in self.commands.values())

    def _pull(self, query: dict[str, str], *, save: bool) -> Answer:
        """Pulling an image stores the commands of its label; what is wrong with one, or there already, is only logged."""
        image = query.get("image", "")
        if image not in self.images:
            raise Refusal(404, f"Image {image} was not found")
        new = [{**command, "image": image} for command in self.images[image]] if save else []
        kept = [command for command in new if not validation.problems(command) and not self._exists(command)]
        return Answer.json([self.commands[self._keep(command, next(self._numbers))] for command in kept])

    def _update(self, old: dict[str, Any], request: Request) -> Answer:
        return Answer.json(self._keep(self._parse(request), old["id"], {w["name"]: w["id"] for w in old["xnat"]}))

    def _parse(self, request: Request) -> dict[str, Any]:
        try:
            command = request.json()
        except ValueError as error:
            raise Refusal(400, "The body is not JSON") from error
        if not isinstance(command, dict):
            raise Refusal(400, "The body is not a command")
        if found := validation.problems(command):
            raise Refusal(400, "; ".join(found))
        if ":" not in command["image"].rpartition("/")[2]:
            command["image"] += ":latest"
        return command

    def _keep(self, command: dict[str, Any], id: int, wrappers: dict[str, int] | None = None) -> int:
        stored = copy.deepcopy(validation.as_stored(command))
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
                    and (not xsi_type or any(documents.covers(c, xsi_type) for c in wrapper["contexts"]))
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
            with self.lock:
                self._prepare(launch, root)
            launch.history.append("Running")
            launch.exit_code = self.runner(launch)
            if launch.killed.is_set():
                launch.history.append("Killed")
                return
            launch.history.append("Finalizing")
            with self.lock:
                launch.history.append(store(launch, self.data) if launch.exit_code == 0 else "Failed")
        except LaunchError as error:
            launch.why = str(error)
            launch.history.append("Failed (Command resolution)")
        except Exception as error:
            launch.stderr += f"\nthe runner of the fake XNAT failed: {error!r}"
            launch.history.append("Failed")
            raise
        finally:
            token = launch.environment.get("XNAT_USER", "")
            self.accounts.tokens.pop(token, None)
            launch.done.set()

    def _prepare(self, launch: Launch, root: str | None) -> None:
        if launch.wrapper["id"] not in self.site or (launch.project and (launch.project, launch.wrapper["id"]) not in self.enabled):
            raise LaunchError("the wrapper is not enabled for the site and the project")
        resolve(launch, root, self.data, self.build)
        token = self.accounts.issue(launch.user)
        launch.environment = {
            "XNAT_HOST": self.host,
            "XNAT_USER": token.alias,
            "XNAT_PASS": token.secret,
            "XNAT_WORKFLOW_ID": str(launch.id),
            "XNAT_EVENT_ID": str(launch.id),
        }
