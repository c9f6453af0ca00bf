"""What the image installs (requirements.lock), what is asked for (pyproject.toml) and what the tests ran with (constraints.txt) agree."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCKED = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+) \\$", LOCK, flags=re.MULTILINE)}
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE))
ASKED = [Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]]


def closure(asked: list[Requirement]) -> set[str]:
    """Names of what `asked` needs, by the metadata of what is installed here; without what only a CUDA build of torch brings."""
    seen: set[tuple[str, str]] = set()
    todo = {(canonicalize_name(requirement.name), "") for requirement in asked}
    while todo:
        name, extra = one = todo.pop()
        seen.add(one)
        for needed in map(Requirement, requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                todo |= {(canonicalize_name(needed.name), word) for word in ("", *needed.extras)}
        todo = {(name, extra) for name, extra in todo - seen if not re.match(r"nvidia-|cuda-|triton$", name)}
    return {name for name, _ in seen}


def test_every_locked_version_is_the_one_the_tests_ran_with():
    pinned = {canonicalize_name(name): version for name, version in PINNED.items()}
    assert {name: pinned.get(name) for name in LOCKED} == LOCKED


def test_every_locked_version_is_new_enough():
    too_old = [r.name for r in ASKED if not r.specifier.contains(LOCKED.get(canonicalize_name(r.name), "0"))]
    assert too_old == ["torch"]  # which is not in it


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the lock is solved for the image's Python, 3.11")
def test_the_lock_holds_all_that_is_needed_and_nothing_else():
    assert closure(ASKED) - {"torch"} == set(LOCKED)


def test_every_file_of_every_package_has_a_digest():
    blocks = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(LOCKED)
    for block in blocks:
        digests = block.splitlines()[1:]
        assert digests
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in digests), block


def test_the_image_installs_from_the_lock_alone_but_torch():
    steps = re.findall(r"^RUN (pip install .*) \\$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert steps == [
        "pip install --no-cache-dir --require-hashes --no-deps --requirement /opt/medgan/requirements.lock",
        "pip install --no-cache-dir --constraint /opt/medgan/constraints.txt ${TORCH_OPTIONS} torch",
    ]
