"""What is in the image: labels, size, packages, and what needs neither scans nor rights."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

import medgan
from plugin.command import ROOT
from tests.plugin.containers import HARDENED, UID, Place
from tests.test_lock import LOCKED, PINNED

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

OCI = "org.opencontainers.image."
GCC = 0.112e9  # gcc and libc6-dev, which only a CUDA image has; measured in docs/how-to/dgx.md


def test_the_label_is_the_command_files(image: Any, command: dict[str, Any]):
    check = json.loads((ROOT / "xnat-command.check.json").read_text(encoding="utf-8"))
    assert json.loads(image.labels["org.nrg.commands"]) == [command, check]


def test_the_image_says_what_it_is_and_where_it_is_from(image: Any):
    said = {name.removeprefix(OCI): value for name, value in image.labels.items() if name.startswith(OCI)}
    assert said["title"] == "medgan"
    assert said["version"] == medgan.__version__
    assert said["licenses"] == "Apache-2.0"
    assert len(said["revision"]) == 40
    assert said["created"][:2] == "20"
    assert said["base.name"] == "python:3.11-slim"
    assert set(said) == {
        "title", "description", "version", "revision", "created", "authors", "vendor", "licenses", "url", "source", "documentation", "base.name",
    }  # fmt: skip


def test_the_image_leaves_user_and_entry_to_the_platform(image: Any):
    config = image.attrs["Config"]
    assert config["Entrypoint"] == ["python", "-m", "plugin"]
    assert not config["User"]
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(config["Env"])


def test_a_cpu_image_has_at_most_two_gigabytes(image: Any, place: Place):
    place.give_to(UID)
    answer = place(["train"], user=f"{UID}:{UID}", **HARDENED)
    if not any("CUDA none" in line for line in answer.err):
        pytest.skip("an image with CUDA has the size of its wheels")
    assert image.attrs["Size"] <= 2e9


# Bytes that `pip install torch` alone would bring: what RECORD says of each wheel, and the bytecode that pip made of it. A CUDA build asks for
# NVIDIA's libraries as extras of one package.
WHEELS = """
from importlib.metadata import PackageNotFoundError, distribution
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
files, seen, todo = {}, set(), [("torch", "")]
while todo:
    name, extra = todo.pop()
    if (name, extra) in seen:
        continue
    seen.add((name, extra))
    try:
        one = distribution(name)
    except PackageNotFoundError:
        continue
    files[name] = sum(f.size or (f.locate().stat().st_size if f.locate().exists() else 0) for f in one.files or [])
    for need in map(Requirement, one.requires or []):
        if need.marker is None or need.marker.evaluate({"extra": extra}):
            todo += [(canonicalize_name(need.name), each) for each in ("", *need.extras)]
print(sorted(files), sum(files.values()))
"""


def test_an_image_has_at_most_a_gigabyte_beside_torchs_wheels(place: Place, image: Any):
    answer = place(["-c", WHEELS], entry="python")
    names, _, total = answer.out[-1].rpartition(" ")
    assert "'sympy', 'torch'" in names
    gcc = 0 if "nvidia" in names else GCC
    beside = image.attrs["Size"] - int(total) + gcc
    print(f"image {image.attrs['Size'] / 1e6:.0f} MB, torch's wheels {int(total) / 1e6:.0f} MB, beside them with gcc {beside / 1e6:.0f} MB")
    assert beside <= 1e9


LOADED = """
import importlib, os, sys
for name in ("plugin.container", "medgan.commands.train", "medgan.data.prepare", "medgan.training.loop", "medgan.reports.build"):
    importlib.import_module(name)
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
ours = [s for s in specs if s.cached and s.origin.endswith(".py") and ("-packages/" in s.origin or s.origin.startswith("/opt/medgan/"))]
print(len(ours), [s.name for s in ours if not os.path.exists(s.cached)][:5])
"""


def test_python_compiles_nothing_at_the_start(place: Place):
    answer = place(["-c", LOADED], entry="python", user=f"{UID}:{UID}", **HARDENED)
    assert answer.code == 0, answer.err
    count, _, without = answer.out[-1].partition(" ")
    assert int(count) > 500
    assert without == "[]"


def test_a_shell_and_the_command_file_are_inside(place: Place, command: dict[str, Any]):
    answer = place(["cat /xnat-command.json"], entry="")
    assert answer.code == 0
    assert json.loads("\n".join(answer.out)) == command


def test_the_other_command_files_come_from_the_image(place: Place):
    words = ["-m", "plugin.xnat", "write", "--variant", "cpu", "--out", "-"]
    answer = place(words, entry="python", user=f"{UID}:{UID}", **HARDENED)
    assert answer.code == 0
    assert json.loads("\n".join(answer.out))["name"] == "medgan-train-cpu"


def test_help_answers_without_anything(place: Place):
    answer = place(["--help"], user=f"{UID}:{UID}", **HARDENED)
    assert (answer.code, answer.err) == (0, [])
    assert any("train" in line for line in answer.out)


def test_the_bill_of_materials_is_what_pip_and_dpkg_say(place: Place):
    line = "cat /opt/medgan/sbom.cdx.json; echo; echo ---; pip list --format json; echo ---; dpkg-query -W -f '${Package} ${Version}\\n'; pip check"
    answer = place([line], entry="", user=f"{UID}:{UID}", **HARDENED)
    assert answer.code == 0, answer.out[-5:]
    written, pip, dpkg = "\n".join(answer.out).split("\n---\n")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written) is None
    components = json.loads(written)["components"]
    python = {canonicalize_name(c["name"]): c for c in components if c.get("purl", "").startswith("pkg:pypi/")}
    installed = {canonicalize_name(row["name"]): row["version"] for row in json.loads(pip)}
    assert {name: c["version"] for name, c in python.items()} == installed
    assert [name for name, c in python.items() if not c.get("licenses")] == []
    debian = {f"{c['name']} {c['version']}" for c in components if c.get("purl", "").startswith("pkg:deb/")}
    assert debian == set(dpkg.splitlines()) - {"No broken requirements found."}
    # And nothing of it is another version than the one the tests ran with.
    assert {name: installed[name] for name in LOCKED} == LOCKED
    assert installed["torch"].partition("+")[0] == PINNED["torch"]
    assert "cyclonedx-python-lib" not in installed
