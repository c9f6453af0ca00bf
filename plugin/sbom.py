"""What is in the image, as a CycloneDX 1.6 document: Python packages, Debian packages and pretrained weights, with versions and licences.

`python -m plugin.sbom FILE` is the last step of the build, on the very file system that is given away; why not a tool from outside:
docs/decisions/0025-locked-image.md. Only the standard library is used, and nothing is downloaded.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import medgan
from medgan.runs import utc_now, write_json
from medgan.weights import KNOWN

# The texts that Debian's policy asks of every package; those in DEP-5's form name licences in lines of their own.
COPYRIGHTS = Path("/usr/share/doc")
# Longer, it is the licence's text and no name.
LONGEST_NAME = 60

Component = dict[str, Any]


def document() -> dict[str, Any]:
    """The whole document."""
    python = python_packages()
    needed = {one for entry in python for one in entry["dependsOn"]}
    components = [interpreter(), *(entry["component"] for entry in python), *debian_packages(), *weights()]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": utc_now(),
            "authors": [{"name": "The medgan authors"}],
            "component": {
                "type": "container",
                "bom-ref": "medgan",
                "name": "medgan",
                "version": medgan.__version__,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": components,
        "dependencies": [
            {"ref": "medgan", "dependsOn": [c["bom-ref"] for c in components if c["bom-ref"] not in needed]},
            *({"ref": entry["component"]["bom-ref"], "dependsOn": entry["dependsOn"]} for entry in python),
        ],
    }


def interpreter() -> Component:
    """Python itself: the official image builds it from source, so no package names it."""
    version = platform.python_version()
    return _component("application", "python", version, f"pkg:generic/python@{version}", [{"license": {"id": "PSF-2.0"}}])


def python_packages() -> list[dict[str, Any]]:
    """Every installed distribution that Python would import, in the order of names: {component, dependsOn}."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(_normal(distribution.name), distribution)
    refs = {name: f"pkg:pypi/{name}@{distribution.version}" for name, distribution in found.items()}
    entries = []
    for name, distribution in sorted(found.items()):
        # What an extra or another system would need is not here, or is here for another's sake.
        asked = {_normal(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in distribution.requires or [] if "extra ==" not in text}
        component = _component("library", distribution.name, distribution.version, refs[name], licences(distribution))
        entries.append({"component": component, "dependsOn": sorted(refs[one] for one in asked - {name} if one in refs)})
    return entries


def licences(distribution: Distribution) -> list[dict[str, Any]]:
    """What the metadata says: an SPDX expression, a short name, or its classifiers; empty where it says nothing."""

    def said(field: str) -> list[str]:
        return [text.strip() for text in distribution.metadata.get_all(field) or []]

    for expression in said("License-Expression"):
        return [{"expression": expression}]
    for name in said("License"):
        if name and "\n" not in name and len(name) <= LONGEST_NAME:
            return [{"license": {"name": name}}]
    classified = [text.rpartition(" :: ")[2] for text in said("Classifier") if text.startswith("License ::")]
    return [{"license": {"name": text}} for text in classified if text != "OSI Approved"]


def _normal(name: str) -> str:
    """A name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def debian_packages() -> list[Component]:
    """What dpkg has installed; empty on another system."""
    if shutil.which("dpkg-query") is None:
        return []
    words = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"]
    rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    components = []
    for status, name, version, architecture in map(str.split, rows):
        if status == "installed":
            purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}"
            components.append(_component("library", name, version, purl, _debian_licences(name)))
    return components


def _debian_licences(name: str) -> list[dict[str, Any]]:
    path = COPYRIGHTS / name / "copyright"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not text.startswith("Format:"):
        return []
    names = sorted(set(re.findall(r"^License: *(\S.*)$", text, flags=re.MULTILINE)))
    return [{"license": {"name": name}} for name in names]


def weights() -> list[Component]:
    """The pretrained files of the table, which the build fetches, with their digests."""
    components = []
    for entry in KNOWN.values():
        component = _component("machine-learning-model", entry.name, "", "", [{"license": {"name": entry.licence}}])
        components.append(component | {"hashes": [{"alg": "SHA-256", "content": entry.sha256}], "description": entry.purpose})
    return components


def _component(kind: str, name: str, version: str, purl: str, licences: list[dict[str, Any]]) -> Component:
    """A component; keys without a value are left out."""
    values = {"type": kind, "bom-ref": purl or name, "name": name, "version": version, "licenses": licences, "purl": purl}
    return {key: value for key, value in values.items() if value}


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), document())
