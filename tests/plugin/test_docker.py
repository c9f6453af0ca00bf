"""The image in a real engine, as XNAT and a careful administrator start it: `scripts/engine up && scripts/engine build` come before.

Every container here has no network, and what it needs is in the image or mounted.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medgan.weights import KNOWN
from plugin.command import ROOT
from plugin.container import RESOURCES
from tests.phantoms import ct_nifti

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

# What an administrator may take away without breaking anything.
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "size=2g"},
    "user": "12345:12345",
}


def missing(reason: str) -> None:
    """Skip on a person's machine, fail in CI, where the engine and the image were asked for."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    import docker

    if not os.environ.get("DOCKER_HOST"):
        missing('no Docker engine: scripts/engine up, then eval "$(scripts/engine env)"')
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException:
        missing("the Docker engine of DOCKER_HOST does not answer")
    yield client
    client.close()


@pytest.fixture(scope="module")
def command() -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / "xnat-command.json").read_text(encoding="utf-8"))
    return result


@pytest.fixture(scope="module")
def image(engine: Any, command: dict[str, Any]) -> Any:
    import docker

    try:
        return engine.images.get(command["image"])
    except docker.errors.ImageNotFound:
        missing(f"no image {command['image']}: scripts/engine build")


class Place:
    """Folders for one container, and how to run it on them."""

    def __init__(self, root: Path, engine: Any, image: Any) -> None:
        self.input, self.output, self.engine, self.image = root / "input", root / "output", engine, image
        for folder in (self.input, self.output):
            folder.mkdir()
            folder.chmod(0o755)

    def __call__(self, words: list[str], *, env: dict[str, str] | None = None, **host: Any) -> tuple[int, list[str], list[str]]:
        """Exit code, lines of stdout, lines of stderr of one run."""
        binds = {str(self.input): {"bind": "/input", "mode": "ro"}, str(self.output): {"bind": "/output", "mode": "rw"}}
        container = self.engine.containers.create(
            self.image.id, words, network_mode="none", volumes=binds, environment=env or {}, **host
        )  # fmt: skip
        try:
            container.start()
            code = container.wait(timeout=800)["StatusCode"]
            out, err = (container.logs(stdout=first, stderr=not first).decode().splitlines() for first in (True, False))
        finally:
            container.remove(force=True)
        return code, out, err

    def give_to(self, uid: int) -> None:
        os.chown(self.output, uid, uid)


@pytest.fixture
def place(engine: Any, image: Any) -> Iterator[Place]:
    # Not tmp_path: pytest's folders are private, and these containers run as strangers.
    with tempfile.TemporaryDirectory(prefix="medgan-docker-") as root:
        Path(root).chmod(0o755)
        yield Place(Path(root), engine, image)


def test_the_label_is_the_command_files(image: Any, command: dict[str, Any]):
    check = json.loads((ROOT / "xnat-command.check.json").read_text(encoding="utf-8"))
    assert json.loads(image.labels["org.nrg.commands"]) == [command, check]


def test_the_image_leaves_user_and_entry_to_the_platform(image: Any):
    config = image.attrs["Config"]
    assert config["Entrypoint"] == ["python", "-m", "plugin"]
    assert not config["User"]
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(config["Env"])


def test_a_cpu_image_has_at_most_two_gigabytes(image: Any, place: Place):
    place.give_to(12345)
    _, _, err = place(["train"], **HARDENED)
    if not any("CUDA none" in line for line in err):
        pytest.skip("an image with CUDA has the size of its wheels")
    assert image.attrs["Size"] <= 2e9


def test_a_shell_and_the_command_file_are_inside(place: Place, command: dict[str, Any]):
    code, out, _ = place(["-c", "cat /xnat-command.json"], entrypoint=["/bin/sh"])
    assert code == 0
    assert json.loads("\n".join(out)) == command


def test_the_other_command_files_come_from_the_image(place: Place):
    code, out, _ = place(["-m", "plugin.xnat", "write", "--variant", "cpu", "--out", "-"], entrypoint=["python"], **HARDENED)
    assert code == 0
    assert json.loads("\n".join(out))["name"] == "medgan-train-cpu"


def test_help_answers_without_anything(place: Place):
    code, out, err = place(["--help"], **HARDENED)
    assert (code, err) == (0, [])
    assert any("train" in line for line in out)


def test_an_empty_input_under_an_unknown_uid(place: Place):
    place.give_to(12345)
    code, out, err = place(["train"], **HARDENED)
    assert (code, out) == (66, [])
    assert len(err) <= 13
    assert "uid:gid 12345:12345 (no passwd entry)" in "\n".join(err)
    assert [line.split()[1] for line in err if line.startswith(("input ", "output "))] == ["ro", "rw"]
    assert f"weights {len(KNOWN)} found" in err
    assert err[-1].startswith("ERROR E_INPUT /input is empty; fix: ")
    assert json.loads((place.output / "report/error.json").read_text())["exit_code"] == 66


def test_an_output_of_somebody_else(place: Place):
    code, _, err = place(["train"], **HARDENED)
    assert code == 73
    assert err == [
        "ERROR E_OUTPUT uid 12345 cannot write /output (owner 0, mode 0755, Permission denied); fix: --user 0:0, or make the folder writable"
    ]


@pytest.mark.parametrize("override", [False, True])
def test_started_as_xnat_starts_it(place: Place, command: dict[str, Any], override: bool):
    # The create-body of Container Service 3.7.3's Docker backend: all variables present, blank where the form is blank; the nvidia runtime by name.
    env = dict.fromkeys(command["environment-variables"], "")
    env |= {"XNAT_HOST": "http://x", "XNAT_USER": "alias", "XNAT_PASS": "planted-secret", "XNAT_WORKFLOW_ID": "77", "XNAT_EVENT_ID": "78"}
    words: dict[str, Any] = {"entrypoint": ["/bin/sh", "-c", "python -m plugin train"]} if override else {}
    code, _, err = place(
        [] if override else [command["command-line"]], env=env, runtime=command["runtime"], shm_size=command["shm-size"], **words
    )  # fmt: skip
    assert code == 66
    assert any(line.startswith("/dev/shm 2.0 of 2.0 GiB") for line in err)
    left = "".join(path.read_text() for path in place.output.rglob("*") if path.is_file())
    assert "planted-secret" not in left + "".join(err)
    assert (place.output / "report/run-77/error.json").exists()


def test_a_left_over_key_explains_itself(place: Place):
    code, _, err = place(["train"], env={"MEDGAN_KIMG": "#kimg#"})
    assert code == 2
    assert err[-1].startswith("ERROR E_CONFIG MEDGAN_KIMG is still #kimg#")
    assert not list(place.output.iterdir())


@pytest.mark.slow
def test_scans_to_results_without_network_home_or_rights(place: Place):
    for patient in range(4):
        ct_nifti(place.input / f"scan-{patient}", shift=patient)
    place.give_to(12345)
    env = {"MEDGAN_SIZE": "32", "MEDGAN_KIMG": "0.064", "MEDGAN_METRIC_IMAGES": "32", "MEDGAN_IMAGES": "8", "MEDGAN_PRESET": "demo"}
    code, out, err = place(["train"], env=env, **HARDENED)
    assert code == 0, err
    assert out[-1].startswith("RESULT status=complete")
    for name in RESOURCES:
        files = [path for path in (place.output / name).rglob("*") if path.is_file()]
        assert files, name
        assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)
    assert (place.output / "report/report.html").exists()
