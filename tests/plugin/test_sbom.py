"""The bill of materials against readers nobody here wrote: CycloneDX's own validator, pip, dpkg."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

import medgan
from medgan.weights import KNOWN
from plugin.command import ROOT
from plugin.sbom import document, licences


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    subprocess.run([sys.executable, "-m", "plugin.sbom", str(path)], check=True, cwd=ROOT)
    return path.read_text(encoding="utf-8")


def components(text: str, prefix: str) -> dict[str, dict[str, Any]]:
    return {c["name"]: c for c in json.loads(text)["components"] if c.get("purl", "").startswith(prefix)}


def test_it_is_cyclonedx_by_the_specifications_own_schema(written: str):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written) is None


def test_it_lists_what_pip_lists(written: str):
    done = subprocess.run([sys.executable, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True)
    listed = {canonicalize_name(row["name"]): row["version"] for row in json.loads(done.stdout)}
    listed.pop("medgan", None)  # installed here, a folder in the image
    found = {canonicalize_name(name): c["version"] for name, c in components(written, "pkg:pypi/").items()}
    found.pop("medgan", None)
    assert found == listed


def test_it_knows_the_licences(written: str):
    python = components(written, "pkg:pypi/")
    assert python["click"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert python["monai"]["licenses"] == [{"license": {"name": "Apache License 2.0"}}]
    assert python["contourpy"]["licenses"] == [{"license": {"name": "BSD License"}}]  # its metadata has the text instead of a name
    # Of the dev extra alone; its licence (MIT) is a file, and no field of its metadata names it.
    assert {name for name, c in python.items() if not c.get("licenses")} <= {"axe-playwright-python"}


def test_it_says_who_needs_whom_and_who_is_asked_for_first(written: str):
    content = json.loads(written)
    edges = {entry["ref"].partition("@")[0]: {ref.partition("@")[0] for ref in entry["dependsOn"]} for entry in content["dependencies"]}
    assert {"pkg:pypi/numpy", "pkg:pypi/torch"} <= edges["pkg:pypi/monai"]
    assert "pkg:pypi/colorama" not in edges["pkg:pypi/click"]  # for Windows
    assert "pkg:pypi/numpy" not in edges["medgan"]
    assert {"pkg:generic/python", "inception-2015-12-05"} <= edges["medgan"]


def test_the_weights_stand_in_it_with_their_digests(written: str):
    content = json.loads(written)
    assert content["metadata"]["component"]["version"] == medgan.__version__
    weights = {c["name"]: c["hashes"][0]["content"] for c in content["components"] if c["type"] == "machine-learning-model"}
    assert weights == {name: entry.sha256 for name, entry in KNOWN.items()}


def test_a_system_without_dpkg_has_no_debian_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert not [c for c in document()["components"] if c.get("purl", "").startswith("pkg:deb/")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other", [{"expression": "MIT OR Apache-2.0"}]),
        ("License: MIT", [{"license": {"name": "MIT"}}]),
        (
            "License: Copyright of many words that is no name of a licence but the first line of one\n"
            "Classifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: MIT License",
            [{"license": {"name": "MIT License"}}],
        ),
        ("", []),
    ],
)
def test_a_licence_is_taken_from_where_it_is_said_best(tmp_path: Path, fields: str, said: list[Any]):
    folder = tmp_path / "one-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: one\nVersion: 1.0\n{fields}\n")
    assert licences(Distribution.at(folder)) == said
