"""`python -m plugin.docker`: what it refuses without an engine, and in an engine the command file itself from launch to filed results.

The engine is that of `scripts/engine up && scripts/engine build`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medgan import runs
from plugin.command import ROOT, TASKS
from plugin.docker import refusal
from plugin.resolution import Launch
from tests.phantoms import ct_nifti
from tests.plugin.containers import missing

FAST = ("--variant", "cpu", "--network", "none")


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "plugin.docker", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | env)


def launched(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    process = start("run", *words, **env)
    stdout, stderr = process.communicate(timeout=800)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture
def place() -> Iterator[Path]:
    """Two folders that every user can reach: an archive with one project of phantoms, and room for results."""
    with tempfile.TemporaryDirectory(prefix="medgan-launch-") as name:
        root = Path(name)
        root.chmod(0o755)
        for patient in range(4):
            ct_nifti(root / "archive" / "P1" / "arc001" / f"Muster_{patient}" / "SCANS" / "1" / "NIFTI", shift=patient)
        yield root


def test_the_request_is_shown_without_secrets_and_without_an_engine(place: Path):
    words = ("--archive", place / "archive", "--project", "P1", "--output", place / "out", "--set", "size=64", "--xnat", "--dry-run")
    done = launched(*words, XNAT_HOST="http://x", XNAT_USER="alias", XNAT_PASS="planted-secret", DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert {"MEDGAN_SIZE=64", "XNAT_HOST=http://x", "XNAT_WORKFLOW_ID=1"} <= set(body["Env"])
    assert body["HostConfig"]["Runtime"] == "nvidia"
    assert body["User"] == f"{os.getuid()}:{os.getgid()}"
    assert "planted-secret" not in done.stdout + done.stderr
    assert not (place / "out").exists()


def test_without_the_flag_no_credentials_leave_this_environment(place: Path):
    done = launched(
        "--archive", place / "archive", "--output", place / "out", "--dry-run", XNAT_PASS="planted-secret", XNAT_HOST="http://x"
    )
    assert "XNAT_PASS" not in done.stdout
    assert "XNAT_HOST" not in done.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--set", "size"), "ERROR E_CONFIG --set size has no value; fix: --set size=VALUE"),
        (("--set", "sise=64"), "ERROR E_CONFIG the form has no field 'sise'; fix: --set size=..."),
        (("--set", "window=50;350"), "ERROR E_CONFIG XNAT refuses the value of 'window'"),
        (("--workflow-id", "x"), "ERROR E_CONFIG --workflow-id is not a number"),
        (("--xnat",), "ERROR E_CONFIG --xnat, but XNAT_HOST, XNAT_USER, XNAT_PASS is not set"),
        (("--gpus", "some"), "ERROR E_CONFIG --gpus is all or a number"),
        (("--gpus", "0"), "ERROR E_CONFIG --gpus is all or a number"),
        (("--command", "pyproject.toml"), "ERROR E_CONFIG the file is not JSON"),
    ],
)
def test_a_bad_option_touches_nothing(place: Path, words: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("XNAT_HOST", "XNAT_USER", "XNAT_PASS"):
        monkeypatch.delenv(name, raising=False)
    done = launched("--archive", place / "archive", "--output", place / "out", *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(line)
    assert not (place / "out").exists()


def test_a_faulty_command_file_is_not_run(place: Path):
    command = json.loads((ROOT / "xnat-command.json").read_text())
    command["xnat"][0]["external-inputs"][0]["provides-files-for-command-mount"] = "inputs"
    runs.write_json(place / "command.json", command)
    done = launched("--archive", place / "archive", "--output", place / "out", "--command", place / "command.json")
    assert done.returncode == 2
    assert "there is no such mount" in done.stderr


@pytest.mark.parametrize(
    "said",
    [
        'could not select device driver "" with capabilities: [[gpu]]',
        "failed to discover GPU vendor from CDI: no known GPU vendor found",
        "failed to create task for container: OCI runtime create failed: nvidia-container-cli: initialization error: nvml error: driver not loaded",
    ],
)
def test_whatever_an_engine_says_that_has_no_gpu_becomes_one_line(said: str):
    import docker

    launch = Launch(body={"Image": "medgan:0.1.0", "HostConfig": {"Runtime": "nvidia"}}, folders={}, made=(), handled=())
    problem = refusal(docker.errors.APIError("500 Server Error", explanation=said), launch)
    assert problem.line.startswith("ERROR E_GPU the engine has no GPU to give; fix: NVIDIA's driver and container toolkit")


def test_not_every_failure_of_a_gpus_runtime_is_a_missing_runtime():
    import docker

    launch = Launch(
        body={"Image": "medgan:0.1.0", "HostConfig": {"Runtime": "nvidia"}}, folders={"input": Path("/a/b")}, made=(), handled=()
    )
    problem = refusal(docker.errors.APIError("500", explanation="OCI runtime create failed: mounting /a/b: permission denied"), launch)
    assert (
        problem.line
        == "ERROR E_ENGINE the engine refuses the container: OCI runtime create failed: mounting the folder of input: permission denied"
    )
    newer = refusal(docker.errors.APIError("400", explanation="unknown or invalid runtime name: nvidia"), launch)
    assert newer.line.startswith("ERROR E_GPU the engine does not know the runtime nvidia; fix: ")


def test_no_engine(place: Path):
    done = launched("--archive", place / "archive", "--output", place / "out", DOCKER_HOST=f"unix://{place}/none.sock")
    assert done.returncode == 69
    assert done.stderr == "ERROR E_ENGINE no Docker engine answers; fix: start Docker, or set DOCKER_HOST\n"


# --- in an engine


@pytest.fixture
def ready(engine: Any, place: Path) -> Path:
    import docker

    try:
        engine.images.get(json.loads((ROOT / "xnat-command.json").read_text())["image"])
    except docker.errors.ImageNotFound:
        missing("no image: scripts/engine build")
    return place


@pytest.fixture
def quick(ready: Path) -> Path:
    """The command file with one variable beside its form: FID of 8 images, for a measurement takes longer than all else here."""
    command = json.loads((ROOT / "xnat-command.json").read_text())
    command["environment-variables"]["MEDGAN_METRIC_IMAGES"] = "8"
    del command["runtime"]
    runs.write_json(ready / "command.json", command)
    return ready


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.docker
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("wrapper", "names"),
    [
        ("project", ("--project", "P1")),
        ("session", ("--project", "P1", "--session", "Muster_1")),
        ("scan", ("--project", "P1", "--session", "Muster_1", "--scan", "1")),
    ],
)
def test_a_check_at_each_level_is_filed_under_its_label(ready: Path, wrapper: str, names: tuple[str, ...]):
    out = ready / "out"
    words = ("--task", "check", "--wrapper", wrapper, "--archive", ready / "archive", *names, "--output", out, "--network", "none")
    done = launched(*words, "--set", "size=32")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"RESULT status=checked images={32 if wrapper == 'project' else 8} size=32 ")
    assert {path.name for path in out.iterdir()} == {"MEDGAN_CHECK"}
    assert {"run-1/report.html", "run-1/plan.json", "run-1/dataset/qc_sheet.png"} <= files(out / "MEDGAN_CHECK")
    assert "Muster" not in done.stdout + done.stderr


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_from_the_command_file_fills_a_folder_for_each_resource(quick: Path):
    out = quick / "out"
    form = {"size": "32", "preset": "demo", "kimg": "0.064", "images": "8"}
    words = [word for name, value in form.items() for word in ("--set", f"{name}={value}")]
    done = launched(*FAST, "--command", quick / "command.json", "--archive", quick / "archive", "--project", "P1", "--output", out, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RESULT status=complete kimg=0.064")
    assert done.stdout.count("\n") == 1
    assert {path.name for path in out.iterdir()} == {label for label, _ in TASKS["train"].outputs.values()}
    assert {"run-1/synthetic.zip", "run-1/manifest.csv"} <= files(out / "MEDGAN_SYNTHETIC")
    assert all(files(folder) for folder in out.iterdir())


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_a_failure_ends_with_the_containers_code_and_stores_nothing(ready: Path):
    (ready / "empty").mkdir()
    done = launched(*FAST, "--archive", ready / "empty", "--output", ready / "out", "--xnat",
                    XNAT_HOST="http://127.0.0.1:9", XNAT_USER="alias", XNAT_PASS="planted-secret")  # fmt: skip
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.splitlines()[-1].startswith("ERROR E_INPUT /input is empty")
    assert files(ready / "out") == {"failed/run-1/output/report/run-1/error.json", "failed/run-1/output/report/run-1/run.log"}
    said = done.stderr + "".join(path.read_text() for path in (ready / "out").rglob("*") if path.is_file())
    assert "planted-secret" not in said


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_signal_goes_to_the_container_and_the_next_run_goes_on(quick: Path):
    out, work = quick / "out", quick / "work"
    form = ("--set", "size=32", "--set", "preset=demo", "--set", "kimg=0.2", "--set", "images=4")
    common = (*FAST, "--command", quick / "command.json", "--archive", quick / "archive", "--project", "P1")
    words = (*common, "--output", out, "--work", work, *form)
    process = start("run", *words)
    try:
        deadline = time.monotonic() + 600
        while not (work / "run" / runs.STATE).exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, stderr
    assert stdout.startswith("RESULT status=preempted kimg=")
    assert not [path for path in out.iterdir() if path.name.startswith("MEDGAN_")]
    done = launched(*words)
    assert done.returncode == 0, done.stderr
    assert "RESULT status=complete kimg=0.2" in done.stdout


@pytest.mark.docker
@pytest.mark.timeout(900)
@pytest.mark.parametrize("gpus", ["all", "1"])
def test_a_gpu_that_the_engine_does_not_have(ready: Path, gpus: str):
    done = launched("--archive", ready / "archive", "--output", ready / "out", "--gpus", gpus)
    assert (done.returncode, done.stdout) == (71, "")
    assert done.stderr == (
        "ERROR E_GPU the engine has no GPU to give; fix: NVIDIA's driver and container toolkit on the engine's machine,"
        " or --variant cpu without --gpus\n"
    )
    assert files(ready / "out") == set()


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_the_image_is_built_through_the_engines_interface(ready: Path, engine: Any):
    # What `scripts/engine build` made is in the builder's cache: only labels and variables are new.
    process = start("build", "--tag", "medgan:built-by-test", "--network", "host", "--build-arg", "MEDGAN_SOURCE=https://code.example.org")
    stdout, stderr = process.communicate(timeout=800)
    assert process.returncode == 0, stderr
    said = json.loads(stdout)
    built = engine.images.get("medgan:built-by-test")
    try:
        assert (said["image"], said["id"], said["bytes"]) == ("medgan:built-by-test", built.id, built.attrs["Size"])
        assert built.labels["org.opencontainers.image.source"] == "https://code.example.org"
        assert built.labels["org.opencontainers.image.created"].startswith("20")
        assert "Step 1/" in stderr
    finally:
        engine.images.remove("medgan:built-by-test")


@pytest.mark.docker
def test_a_build_that_fails_ends_with_one_line(ready: Path):
    process = start("build", "--tag", "medgan:never", "--build-arg", "BASE=medgan-no-such-base:1")
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (69, "")
    assert stderr.splitlines()[-1].startswith("ERROR E_ENGINE the image cannot be built: ")


@pytest.mark.docker
@pytest.mark.timeout(900)
def test_what_the_engine_refuses_names_the_remedy_and_no_path(ready: Path):
    shutil.rmtree(ready / "archive" / "P1" / "arc001" / "Muster_0")
    common = ("--archive", ready / "archive", "--output", ready / "out")
    unknown = launched(*common, "--image", "medgan:none")
    assert unknown.returncode == 69
    assert unknown.stderr.endswith(
        "ERROR E_ENGINE the engine has no image medgan:none; fix: python -m plugin.docker build, or --image NAME\n"
    )
    command = json.loads((ROOT / "xnat-command.json").read_text()) | {"runtime": "nothing-there"}
    runs.write_json(ready / "command.json", command)
    runtime = launched(*common, "--command", ready / "command.json")
    assert runtime.returncode == 71
    assert "the engine does not know the runtime nothing-there" in runtime.stderr
    assert str(ready) not in unknown.stderr + runtime.stderr
