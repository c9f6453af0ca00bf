"""The Docker backend of the fake XNAT's Container Service: each of its launches becomes a container of a real engine.

    xnat.containers.runner = Backend(user="12345:12345", online=("project",))

Two resolvers meet here that know nothing of each other: the fake's (tests/xnat_server/launches.py) says which values and folders a launch has,
plugin/resolution.py makes the engine's request of the stored command and what was chosen. Where they differ, the launch fails.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from plugin.resolution import Server, Target, resolve
from tests.plugin.containers import Running
from tests.xnat_server.archive import Node
from tests.xnat_server.launches import Launch, properties

KINDS = {"projects": "Project", "experiments": "Session", "scans": "Scan"}


@dataclass(frozen=True)
class Backend:
    """Runs launches of the fake XNAT.

    Attributes:
        user: The container user of the server settings. XNAT itself runs as it too, or containers could not write what it made.
        online: Wrappers whose containers reach the site. The engine of the tests has no bridge: it is the host's network or none.
        inspected: What `docker inspect` says of each container after its end, but for its environment.
    """

    user: str
    online: tuple[str, ...] = ()
    inspected: list[str] = field(default_factory=list)

    def __call__(self, launch: Launch) -> int:
        import docker

        body = self.request(launch)
        for name in set(launch.mounts) - launch.fed:
            os.chown(launch.mounts[name], *map(int, self.user.split(":")))
        # A client for each thread: a connection of its own.
        client = docker.from_env(timeout=620)
        container = Running(client.api, body)
        try:
            while container.runs():
                if launch.killed.wait(0.1):
                    container.kill("SIGKILL")
            answer = container.end()
            launch.stdout, launch.stderr = ("".join(f"{line}\n" for line in lines) for lines in (answer.out, answer.err))
            shown = client.api.inspect_container(container.id)
            self.inspected.append(json.dumps(shown | {"Config": {k: v for k, v in shown["Config"].items() if k != "Env"}}))
            return answer.code
        finally:
            container.remove()
            client.close()

    def request(self, launch: Launch) -> dict[str, Any]:
        """The body of POST /containers/create."""
        external = {entry["name"] for entry in launch.wrapper["external-inputs"]}
        chosen = {name: value for name, value in launch.chosen.items() if name not in external}
        labels = {
            "XNAT_PROJECT": launch.project,
            "XNAT_ID": launch.root.id,
            "XNAT_DATATYPE": launch.root.xsi_type,
            "XNAT_USER_ID": launch.user,
        }
        server = Server(build=launch.build, user=self.user, environment=launch.environment, labels=labels)
        resolved = resolve(launch.command, launch.wrapper["name"], _target(launch.root), chosen, server)
        assert resolved.folders == launch.mounts
        given = dict(pair.split("=", 1) for pair in resolved.body["Env"])
        templates: dict[str, str] = launch.command["environment-variables"]
        assert {name: given[name] for name in templates} == {
            name: launch.inputs.get(text.strip("#"), text) for name, text in templates.items()
        }
        assert {handled.label for handled in resolved.handled} == {handler["label"] for handler in launch.wrapper["output-handlers"]}
        if launch.wrapper["name"] in self.online:
            resolved.body["HostConfig"]["NetworkMode"] = "host"
        # Beside other containers more threads only wait.
        resolved.body["Env"].append("OMP_NUM_THREADS=1")
        return resolved.body


def _target(node: Node) -> Target:
    session = node.up("experiments")
    return Target(
        kind=KINDS[node.kind],
        directory=node.folder,
        properties={name: value for name, value in properties(node).items() if value},
        related={"Session": _target(session)} if session and session is not node else {},
    )
