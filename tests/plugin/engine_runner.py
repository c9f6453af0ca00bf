"""The container engine behind the fake XNAT: a launch becomes the request that XNAT's Docker backend sends, and runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plugin.command import LEVELS
from plugin.resolution import Server, Target, resolve
from tests.plugin.containers import Running
from tests.xnat_server.archive import Node
from tests.xnat_server.launches import Launch, properties


def in_engine(api: Any) -> Callable[[Launch], int]:
    """What `XnatServer.containers.runner` is set to, with the engine's API client."""

    def run(launch: Launch) -> int:
        inputs = {entry["name"] for entry in launch.command["inputs"]}
        resolved = resolve(
            launch.command,
            launch.wrapper["name"],
            target(launch.root, launch.wrapper["name"]),
            {name: value for name, value in launch.chosen.items() if name in inputs},
            Server(build=launch.mounts["output"], environment=launch.environment),
        )
        for folder in resolved.made:
            folder.mkdir(parents=True, mode=0o755)
        launch.mounts |= resolved.folders
        # The test engine has no bridge; the fake XNAT listens on this machine's loopback.
        host = resolved.body["HostConfig"] | {"NetworkMode": "host"}
        container = Running(api, resolved.body | {"HostConfig": host})
        try:
            answer = container.end()
        finally:
            container.remove()
        launch.stdout, launch.stderr = "\n".join(answer.out) + "\n", "\n".join(answer.err) + "\n"
        return answer.code

    return run


def target(node: Node, level: str) -> Target:
    """An object of the fake XNAT as a launch sees it; a scan with its session."""
    session = node.up("experiments")
    related = {"Session": target(session, "session")} if session and session is not node else {}
    return Target(kind=LEVELS[level][0], directory=node.folder, properties=properties(node), related=related)
