"""What the documents say of Slurm, on a Slurm: an ablation as an array of jobs, and the script that queues its job again."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from medgan import runs
from medgan.cli import main
from medgan.experiments.launchers import ATTEMPTS
from tests.conftest import ROOT
from tests.metrics.pretrained import inception
from tests.phantoms import affine_for, body, ct_series, turned, write_nifti
from tests.slurm import run, slurm, until
from tests.test_docs_commands import blocks
from tests.toy import discs

pytestmark = pytest.mark.slurm

SETTINGS = {"batch": 4, "channel_base": 256, "channel_max": 8, "latent": 8, "map_layers": 2, "tick_kimg": 0.008}
SETTINGS |= {"snapshot_ticks": 10, "metrics": ["cosine_pixels"], "metric_images": 8}


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory) -> Iterator[None]:
    with slurm(tmp_path_factory.mktemp("slurm")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDGAN_DEVICE", "cpu")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def ablate(root: Path, *more: object, kimg: float) -> Result:
    design = {"preset": "demo", "settings": {**SETTINGS, "kimg": kimg}, "experiments": [{"name": "a"}], "tests": [], "repeats": 2}
    (root / "design.json").write_text(json.dumps(design))
    words = ["--design", root / "design.json", "--data", discs(root / "data").path, "--out", root / "out"]
    words += ["--launcher", "slurm", "--job-cpus", 1, *more]
    return CliRunner().invoke(main, ["ablate", "run", *map(str, words)])


def codes(folder: Path) -> list[int]:
    return [row["exit_code"] for row in runs.read_json_lines(folder / ATTEMPTS)]


def test_an_ablation_is_queued_once_one_run_makes_room_and_goes_on_the_other_is_cancelled_and_named(tmp_path):
    """SIGUSR2 comes as before a time limit, to all processes of a job; SIGTERM and then SIGKILL as by scancel, a second apart."""
    jobs = json.loads(ablate(tmp_path, "--partition", "tests", kimg=0.2).stdout)["jobs"]
    assert list(jobs) == ["a-1", "a-2"]
    assert json.loads(ablate(tmp_path, kimg=0.2).stdout)["jobs"] == jobs
    folders = [tmp_path / "out/runs" / name for name in jobs]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ablate, tmp_path, "--wait", kimg=0.2)
        until(lambda: all((folder / runs.STATE).exists() for folder in folders))
        run("scancel", "--signal=USR2", jobs["a-1"])
        run("scancel", "--signal=TERM", jobs["a-2"])
        until(lambda: codes(folders[1]))
        run("scancel", jobs["a-2"])
        done = waiting.result()
    assert done.exit_code == 75
    assert "1 of 2 runs have not ended well; a-2: stopped" in done.stderr
    assert [codes(folder) for folder in folders] == [[75, 0], [75]]
    assert json.loads(ablate(tmp_path, "--only", "1", kimg=0.2).stdout)["jobs"] == {}


def test_what_slurm_refuses_is_one_line_without_a_path(tmp_path):
    done = ablate(tmp_path, "--partition", "nowhere", kimg=0.2)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("ERROR E_CONFIG Slurm refused the jobs: invalid partition specified: nowhere;")
    assert str(tmp_path) not in done.stderr


def small(folder: Path) -> str:
    """Options for a job of seconds on a phantom."""
    inception()
    hu, liver = body()
    ct_series(folder / "scans/DICOM", hu)
    write_nifti(folder / "scans/NIFTI/liver.nii.gz", turned(liver, "LPS"), affine_for("LPS", liver.shape), dtype=np.uint8)
    folders = f"--input {folder}/scans --output {folder}/output --work {folder}/work"
    return f"{folders} --size 32 --preset demo --kimg 0.06 --metric-images 4 --images 2 --privacy off"


def test_the_script_of_the_how_to_queues_its_job_again(tmp_path):
    """Without pyxis' options, and with a small training."""
    (script,) = [block for block in blocks("how-to/dgx.md", tried=False) if "#SBATCH" in block]
    for old, new in (
        (r"^srun .*\\\n.*\\\n +python ", "srun " + sys.executable + " "),
        (r" --gpus=1 --cpus-per-task=8 --time=24:00:00 ", " --cpus-per-task=1 --time=10 "),
        (r" --kimg 1000$", " " + small(tmp_path)),
    ):
        script, times = re.subn(old, lambda _, new=new: new, script, flags=re.M)
        assert times == 1, old
    (tmp_path / "medgan.sbatch").write_text(script)
    job = run("sbatch", "--parsable", f"--chdir={ROOT}", f"--output={tmp_path}/log", str(tmp_path / "medgan.sbatch"))
    until((tmp_path / "work/run" / runs.STATE).exists)
    run("scancel", "--signal=USR1", job)
    until(lambda: not run("squeue", "--noheader", f"--jobs={job}"))
    results = re.findall(r"^RESULT status=\w+", (tmp_path / "log").read_text(), re.M)
    assert results == ["RESULT status=preempted", "RESULT status=complete"]
