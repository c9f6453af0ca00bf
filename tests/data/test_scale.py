"""`prepare` on many scans: processes, kills, full disks."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medgan.data import spool
from medgan.data.prepare import PrepareConfig, _ordered, prepare
from medgan.data.recipe import Recipe
from medgan.data.scans import find_scans, volume_scan, walk
from medgan.data.schedule import usual_workers
from medgan.data.slices import Job, cut_scan
from medgan.errors import DiskError, OutputError
from tests.conftest import ROOT
from tests.phantoms import affine_for, ct_nifti, write_nifti

FILES = (".zip", ".held-out.zip", ".info/excluded.csv", ".info/splits.json", ".info/fingerprint.json", ".info/manifest.csv")


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"k" * 32)
    return str(path)


@pytest.fixture
def cohort(tmp_path):
    for i in range(11):
        ct_nifti(tmp_path / "in" / f"p{i}", shift=i, mask="")
    (tmp_path / "in" / "p3" / "broken.nii").write_bytes(b"no scan")
    return tmp_path / "in"


def settings(**changes):
    return PrepareConfig(**{"size": 32, "workers": 1, "mask_label": -1, **changes})


def same(one, other):
    for suffix in FILES:
        assert Path(f"{one.with_suffix('')}{suffix}").read_bytes() == Path(f"{other.with_suffix('')}{suffix}").read_bytes(), suffix


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def heavy(path, n=40, seed=0):
    """A scan that takes a moment: noise, a scan size as in hospitals, compressed."""
    values = np.random.default_rng(seed).integers(-1000, 400, (256, 256, n)).astype(np.int16)
    return write_nifti(path, values, affine_for("RAS", values.shape))


def medgan(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "medgan", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options,
    )  # fmt: skip


def finished(folder):
    return {path: path.stat().st_ino for path in folder.glob("??/*") if path.suffix != ".part"}


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("never happened")


def test_any_number_of_workers_gives_the_same_bytes(cohort, tmp_path, key):
    for workers in (1, 2, 4):
        prepare(settings(pseudonym_key=key, workers=workers), cohort, tmp_path / f"{workers}.zip")
    same(tmp_path / "1.zip", tmp_path / "2.zip")
    same(tmp_path / "1.zip", tmp_path / "4.zip")
    assert not list(tmp_path.glob(".*")), "the work folder goes with success"


def test_the_order_of_completion_does_not_matter(cohort, tmp_path):
    from medgan.data.results import Piece

    def pieces(numbers):
        scans = [volume_scan(volume) for volume in find_scans(walk(cohort)).volumes]
        jobs = [
            Job(scan=scan, mask=None, recipe=Recipe(name="x", title="", source="", width=350.0, size=32), spool=tmp_path / "spool")
            for scan in scans
        ]
        done = {i: cut_scan(jobs[i]) for i in numbers}
        return [Piece(scan=jobs[i].scan, outcome=done[i], spool=jobs[i].spool) for i in numbers]

    shuffled = list(range(11))
    random.Random(1).shuffle(shuffled)
    orders = [[piece.outcome.content for piece in _ordered(pieces(numbers), [])] for numbers in (range(11), shuffled)]
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == 11


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(cohort, tmp_path, key):
    out = tmp_path / "out.zip"
    heavy(cohort / "heavy" / "ct.nii.gz", 60)
    heavy(cohort / "heavy2" / "ct.nii.gz", 60, seed=1)
    words = ("prepare", cohort, out, "--mask-label", "-1", "--size", "32", "--workers", "2", "--pseudonym-key", key)
    work = tmp_path / ".out.zip.work"
    run = medgan(*words)
    wait_for(lambda: len(finished(work)) >= 2 if work.exists() else False)
    run.kill()
    run.communicate()
    assert not out.exists()
    assert oct(work.stat().st_mode & 0o777) == "0o700"
    before = finished(work)
    damaged, *kept = before
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (tmp_path / ".out.zip.abc.part").write_text("left by the kill")

    # Told to stop by a batch system: an answer, and nothing half-written.
    run = medgan(*words)
    wait_for(lambda: any(inode != before.get(path) for path, inode in finished(work).items()))
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 75
    assert said.splitlines()[-1] == "ERROR E_PREEMPTED told to stop; what is done is kept; fix: the same command goes on"
    assert names(tmp_path) == [".out.zip.work", "in", "secret"]
    assert not list(work.rglob("*.part"))

    now = {}
    prepare(settings(pseudonym_key=key, workers=2), cohort, out, step=lambda done, total: now.update(finished(work)))
    assert {path: now[path] for path in kept} == {path: before[path] for path in kept}, "what was done is not done again"
    assert now[damaged] != before[damaged] or len(now) == 13
    prepare(settings(pseudonym_key=key), cohort, tmp_path / "whole.zip")
    same(out, tmp_path / "whole.zip")
    assert not work.exists()


def test_a_scan_that_kills_its_process_is_listed_and_the_others_go_on(cohort, tmp_path):
    heavy(cohort / "deadly" / "ct.nii.gz", 150)
    config = settings(workers=2, size=128)
    [volume] = find_scans(walk(cohort / "deadly")).volumes
    key = spool.key_of(Job(scan=volume_scan(volume), mask=None, recipe=config.resolved(), spool=tmp_path))
    place = spool.place(tmp_path / ".out.zip.work", key).parent
    kills = []

    def kill():
        while len(kills) < 2:
            for name in os.listdir(place) if place.exists() else []:
                pid = int(name.split(".")[1]) if name.startswith(key) and name.endswith(".part") else 0
                if pid and pid not in kills:
                    kills.append(pid)
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    summary = prepare(config, cohort, tmp_path / "out.zip")
    assert len(kills) == 2
    assert summary["scans"] == 11
    assert summary["dropped"]["the process that read it was killed: too large for the memory, or a crash in a decoder"] == 150
    assert names(tmp_path) == ["in", "out.held-out.zip", "out.info", "out.zip"]


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from medgan.cli import main
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "workers"), [(3_000, 2), (20_000, 1)])
def test_a_full_disk_stops_everything_and_leaves_nothing_half_written(cohort, tmp_path, limit, workers):
    # 3,000 bytes are too few for the images of one scan, 20,000 for the zip of all.
    out = tmp_path / "result" / "out.zip"
    words = [
        sys.executable,
        "-c",
        FULL,
        str(limit),
        "prepare",
        cohort,
        out,
        "--mask-label",
        "-1",
        "--size",
        "32",
        "--workers",
        str(workers),
    ]
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 74, result.stderr
    assert result.stderr.splitlines()[-1].startswith("ERROR E_DISK writing failed: File too large; fix: free space")
    assert names(tmp_path / "result") == [".out.zip.work"]
    assert not list((tmp_path / "result").rglob("*.part"))


MEASURE = """
import resource, sys
from pathlib import Path
from medgan.data.prepare import PrepareConfig, prepare
prepare(PrepareConfig(size=32, workers=1, mask_label=-1), Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_scans(tmp_path):
    def peak(count):
        for i in range(count):
            values = np.random.default_rng(i).integers(-1000, 400, (192, 192, 24)).astype(np.int16)
            write_nifti(tmp_path / str(count) / f"{i}.nii", values, affine_for("RAS", values.shape))
        words = [sys.executable, "-c", MEASURE, str(tmp_path / str(count)), str(tmp_path / f"{count}.zip")]
        return int(subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout) / 1024

    few, many = peak(2), peak(20)
    # 18 more volumes are 64 MB as float32.
    assert many - few < 20, (few, many)


def test_two_runs_do_not_write_one_dataset(cohort, tmp_path):
    with (
        spool.work_folder(tmp_path / "out.zip"),
        pytest.raises(OutputError, match="another prepare is writing this dataset"),
    ):
        prepare(settings(), cohort, tmp_path / "out.zip")
    assert prepare(settings(), cohort, tmp_path / "out.zip")["scans"] == 11


def test_another_recipe_or_another_file_is_not_overwritten(cohort, tmp_path):
    out = tmp_path / "out.zip"
    out.write_text("thesis")
    with pytest.raises(OutputError, match="no dataset that prepare wrote") as caught:
        prepare(settings(), cohort, out)
    assert out.read_text() == "thesis"
    assert caught.value.exit_code == 73
    prepare(settings(overwrite=True), cohort, out)
    first = out.read_bytes()
    with pytest.raises(OutputError, match=r"another recipe \(plane, size\)"):
        prepare(settings(size=64, plane="coronal"), cohort, out)
    assert out.read_bytes() == first
    prepare(settings(size=64, overwrite=True), cohort, out)
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(OutputError):
        prepare(settings(), cohort, tmp_path / "folder.zip")


def job(tmp_path, **changes):
    path = ct_nifti(tmp_path / "one", mask="")
    [volume] = find_scans(walk(path.parent)).volumes
    return Job(
        scan=volume_scan(volume),
        mask=None,
        recipe=Recipe(name="x", title="", source="", width=350.0, **{"size": 32, **changes}),
        spool=tmp_path,
    )


def test_what_was_kept_is_what_was_cut(tmp_path):
    key, outcome = spool.cut_into(tmp_path, job(tmp_path))
    assert len(outcome.pictures) == 12
    assert spool.read(spool.place(tmp_path, key)) == outcome
    assert json.dumps(spool.dataclasses.asdict(outcome)) == json.dumps(spool.dataclasses.asdict(spool.cut_into(tmp_path, job(tmp_path))[1]))


def test_the_key_follows_content_and_recipe_not_names(tmp_path):
    one = spool.key_of(job(tmp_path))
    (tmp_path / "one").rename(tmp_path / "gone")
    assert spool.key_of(job(tmp_path)) == one
    assert spool.key_of(job(tmp_path, size=64)) != one
    assert spool.key_of(job(tmp_path, mask_label=1)) != one
    write_nifti(tmp_path / "one" / "ct.nii.gz", np.zeros((4, 4, 4)), np.eye(4))
    assert spool.key_of(job(tmp_path / "other")) == one
    changed = job(tmp_path / "changed")
    changed.scan.files[0].write_bytes(changed.scan.files[0].read_bytes() + b"x")
    assert spool.key_of(changed) != one


def test_the_voxels_beside_a_header_belong_to_its_key(tmp_path):
    def key(content):
        (tmp_path / "a.mhd").write_text("ObjectType = Image\nElementDataFile = elsewhere.raw\n")
        (tmp_path / "elsewhere.raw").write_bytes(content)
        found = []
        spool._file_digest.cache_clear()
        spool._add(tmp_path / "a.mhd", found.append)
        return found

    assert key(b"1") != key(b"2")
    assert key(b"1") == key(b"1")


def test_a_full_disk_is_no_fault_of_the_scan(tmp_path):
    one = job(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            spool.cut_into(tmp_path, one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.rglob("*.part"))


def test_a_stop_keeps_the_work_and_a_mistake_does_not(tmp_path):
    for error, stays in ((DiskError("full"), True), (KeyboardInterrupt(), True), (OutputError("x"), False)):
        with pytest.raises(type(error)), spool.work_folder(tmp_path / "out.zip"):
            raise error
        assert (tmp_path / ".out.zip.work").exists() == stays


def test_workers_have_room_in_the_memory(tmp_path, monkeypatch):
    from medgan import machine

    jobs = [job(tmp_path)] * 40
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(machine, "free_memory", lambda: 4 * 2**30)
    # 0.8 x 4 GiB hold eight processes of 400 MiB; the scan itself is small.
    assert usual_workers(jobs) == 8
    assert usual_workers(jobs[:3]) == 1
    assert Counter(map(type, jobs))[Job] == 40
