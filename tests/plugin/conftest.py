"""The engine, the image and the folders of the docker tests: `scripts/engine up && scripts/engine build` come before."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.command import ROOT
from tests.plugin.containers import SMALL, UID, Place, Unbroken, missing


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """Docker's client."""
    import docker

    if not os.environ.get("DOCKER_HOST"):
        missing('no Docker engine: scripts/engine up, then eval "$(scripts/engine env)"')
    try:
        client = docker.from_env(timeout=620)
        client.ping()
    except docker.errors.DockerException:
        missing("the Docker engine of DOCKER_HOST does not answer")
    yield client
    client.close()


@pytest.fixture(scope="session")
def command() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / "xnat-command.json").read_text(encoding="utf-8"))
    return result


@pytest.fixture(scope="session")
def image(engine: Any, command: dict[str, Any]) -> Any:
    import docker

    try:
        return engine.images.get(command["image"])
    except docker.errors.ImageNotFound:
        missing(f"no image {command['image']}: scripts/engine build")


@pytest.fixture(scope="session")
def small(engine: Any, image: Any) -> Iterator[str]:
    """The name of an image that differs from ours by variables: whatever it trains, it trains for some seconds."""
    name = f"medgan-small:{os.getpid()}"
    lines = [f"FROM {image.id}", *(f"ENV {variable}={value}" for variable, value in SMALL.items())]
    engine.images.build(fileobj=io.BytesIO("\n".join(lines).encode()), tag=name)
    yield name
    engine.images.remove(name, force=True)


def folders(engine: Any, image: Any) -> Iterator[Place]:
    # Not tmp_path: pytest's folders are private, and these containers run as strangers.
    with tempfile.TemporaryDirectory(prefix="medgan-docker-") as root:
        Path(root).chmod(0o755)
        yield Place(Path(root), engine.api, image)


@pytest.fixture
def place(engine: Any, image: Any) -> Iterator[Place]:
    """Folders of one test, root's own."""
    yield from folders(engine, image)


@pytest.fixture
def filled(place: Place) -> Place:
    """The same with scans, for the unknown user."""
    place.fill()
    place.give_to(UID)
    return place


@pytest.fixture(scope="session")
def unbroken(engine: Any, image: Any) -> Unbroken:
    """The small job when nobody disturbs it."""
    for place in folders(engine, image):
        place.fill()
        place.give_to(UID)
        began = time.monotonic()
        answer = place(["train"], env=SMALL, user=f"{UID}:{UID}")
        assert answer.code == 0, answer.err
        return Unbroken(place.results(), time.monotonic() - began)
    raise AssertionError
