"""A GPU that is missing, one that PyTorch cannot use, and which of several a training takes: real processes beside a driver's tool of the test's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plugin.command import ROOT
from tests.plugin.test_container import Place

DRIVER = "NVIDIA A100-SXM4-80GB, 81920 MiB, 470.57.02"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def site(bin: Path, *, found: bool) -> dict[str, str]:
    """A CUDA build of PyTorch: as much of one as is asked before the first scan is read."""
    torch = bin.parent / "site" / "torch"
    torch.mkdir(parents=True)
    (torch / "version.py").write_text("__version__ = '9.9.9+cu130'\ncuda = '13.0'\n")
    (torch / "__init__.py").write_text(f"from types import SimpleNamespace\ncuda = SimpleNamespace(is_available=lambda: {found})\n")
    return {"PYTHONPATH": f"{torch.parent}:{ROOT}", "MEDGAN_DEVICE": "", "PATH": f"{bin}:{os.environ['PATH']}"}


def driver(bin: Path, *rows: str, kinds: str = DRIVER) -> None:
    """nvidia-smi: what it says of GPUs in general, and a row for each with uuid, free memory and MIG."""
    tool = bin / "nvidia-smi"
    said = "\n".join(rows)
    tool.write_text(f"#!/bin/sh\ncase $1 in *uuid*) cat <<E\n{said}\nE\n;; *) echo '{kinds}' ;; esac\n")
    tool.chmod(0o755)


def test_a_cuda_build_without_a_gpu_trains_only_when_told_to(place: Place, bin: Path):
    env = site(bin, found=False)
    done = place("fine", env=env)
    assert (done.returncode, done.stdout) == (71, "")
    assert done.stderr.splitlines()[-1] == (
        "ERROR E_GPU there is no GPU for PyTorch for CUDA 13.0; fix: docker run --gpus all, srun --gpus 1, apptainer --nv, "
        "in XNAT the command of your kind of backend; or MEDGAN_DEVICE=cpu"
    )
    assert place.error()["exit_code"] == 71
    assert place("fine", env=env | {"MEDGAN_DEVICE": "cpu"}).returncode == 0
    assert place("fine", env=env, command="check").returncode == 0


def test_a_driver_that_is_too_old_is_not_called_a_missing_gpu(place: Place, bin: Path):
    driver(bin, "GPU-a, 81000 MiB, Disabled")
    done = place("fine", env=site(bin, found=False))
    assert done.returncode == 71
    assert done.stderr.splitlines()[-1].startswith(
        f"ERROR E_GPU PyTorch for CUDA 13.0 cannot use what the driver shows (1 x {DRIVER}); fix: a driver for CUDA 13.0, "
    )


FOUR = ("GPU-a, 2000 MiB, Disabled", "GPU-b, 81000 MiB, Disabled", "GPU-c, 500 MiB, Disabled", "GPU-d, 81000 MiB, Disabled")


@pytest.mark.parametrize(
    ("rows", "more", "taken"),
    [
        (FOUR, {}, "GPU-b"),
        (FOUR, {"CUDA_VISIBLE_DEVICES": "2"}, "2"),
        (FOUR, {"MEDGAN_DEVICE": "cuda:3"}, ""),
        (FOUR, {"RANK": "1"}, ""),
        (FOUR[:1], {}, ""),
        (("GPU-a, 2000 MiB, Disabled", "GPU-b, 81000 MiB, Enabled"), {}, ""),
        (("GPU-a, [N/A], Disabled", "GPU-b, 81000 MiB, Disabled"), {}, ""),
        ((), {}, ""),
    ],
)
def test_a_training_takes_the_gpu_with_the_most_free_memory(
    place: Place, bin: Path, rows: tuple[str, ...], more: dict[str, str], taken: str
):
    driver(bin, *rows)
    done = place("environment", env=site(bin, found=True) | more)
    assert done.returncode == 0, done.stderr
    assert json.loads((place.output / "report/seen.json").read_text())["CUDA_VISIBLE_DEVICES"] == taken
    assert ("takes 1 of 4 GPUs, by free memory: 81000 MiB" in done.stderr) == (taken == "GPU-b")


def test_several_are_taken_in_the_drivers_order(monkeypatch: pytest.MonkeyPatch, bin: Path):
    from plugin import gpus

    driver(bin, *FOUR)
    for name, value in (("PATH", f"{bin}:{os.environ['PATH']}"), ("CUDA_VISIBLE_DEVICES", ""), ("MEDGAN_DEVICE", "")):
        monkeypatch.setenv(name, value)
    gpus.choose(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b,GPU-d,GPU-a"
