"""`prepare --scheduler`: a local Dask cluster of two real worker processes."""

import io
import logging

import pytest

from medgan.data import cluster, spool
from medgan.data.prepare import PrepareConfig, prepare
from medgan.errors import ConfigError
from tests.phantoms import ct_nifti

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

SECRET = b"CANARYSECRETCANARYSECRET"


@pytest.fixture(scope="module")
def scheduler():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0", silence_logs=logging.DEBUG, memory_limit=0
    ) as local:
        yield local


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return str(path)


def settings(**changes):
    return PrepareConfig(**{"size": 32, "workers": 1, "mask_label": -1, **changes})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_cluster_gives_the_bytes_of_one_machine_and_learns_no_name(scheduler, tmp_path, key):
    for i in range(5):
        ct_nifti(tmp_path / "CANARYFOLDER" / f"CANARYPATIENT{i}", f"CANARYFILE{i}.nii.gz", shift=i, mask="")
    torn = tmp_path / "CANARYFOLDER" / "CANARYPATIENT4" / "CANARYFILE4.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-200])
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger("distributed").addHandler(handler)
    logging.getLogger("distributed").setLevel(logging.DEBUG)
    try:
        there = prepare(
            settings(scheduler=scheduler.scheduler_address, pseudonym_key=key), tmp_path / "CANARYFOLDER", tmp_path / "there.zip"
        )
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    here = prepare(settings(pseudonym_key=key), tmp_path / "CANARYFOLDER", tmp_path / "here.zip")
    assert there == here
    assert there["scans"] == 4
    for name in (".zip", ".info/manifest.csv", ".info/excluded.csv", ".info/fingerprint.json", ".info/splits.json", ".info/qc_sheet.png"):
        assert (tmp_path / f"there{name}").read_bytes() == (tmp_path / f"here{name}").read_bytes(), name
    assert names(tmp_path) == ["CANARYFOLDER", "here.info", "here.zip", "secret", "there.info", "there.zip"]
    # What the scheduler remembers and says: tasks, their history, and the logs of all processes.
    with distributed.Client(scheduler) as client:
        logs = [client.get_scheduler_logs(), client.get_worker_logs()]
        events = client.get_events()
    tasks = [str(state) for state in scheduler.scheduler.tasks.values()] + list(map(str, scheduler.scheduler.tasks))
    said = repr([logs, events, tasks, list(scheduler.scheduler.transition_log)]) + heard.getvalue()
    assert "medgan-" in said
    assert "CANARY" not in said


def test_an_unfinished_run_goes_on_with_the_cluster(scheduler, tmp_path, key):
    for i in range(3):
        ct_nifti(tmp_path / "in" / f"p{i}", shift=i, mask="")
    finished = []

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(settings(pseudonym_key=key), tmp_path / "in", tmp_path / "out.zip", step=stop)
    [first] = list((tmp_path / ".out.zip.work").glob("??/*"))
    inode = first.stat().st_ino
    config = settings(scheduler=scheduler.scheduler_address, pseudonym_key=key)
    prepare(config, tmp_path / "in", tmp_path / "out.zip", step=lambda done, total: finished.append(first.exists() and first.stat().st_ino))
    assert finished == [inode] * 4
    prepare(settings(pseudonym_key=key), tmp_path / "in", tmp_path / "whole.zip")
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_a_sealed_scan_shows_nothing():
    assert f"{cluster.Sealed('/data/DOE_JANE')!r} {cluster.Answer({}, 'k', 'DOE', b'DOE')!r}" == "<scan> <answer>"


def test_a_worker_of_other_versions_is_refused(tmp_path):
    class Future:
        def result(self):
            return cluster.Answer({**spool.versions(), "numpy": "1.0", "medgan": "0"}, "00", None, None)

    with pytest.raises(ConfigError, match="another version of medgan, numpy"):
        cluster._taken(distributed, Future(), tmp_path)


def test_no_scheduler_and_no_package(tmp_path, monkeypatch):
    ct_nifti(tmp_path / "in", mask="")
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(ConfigError, match="does not answer") as caught:
        prepare(settings(scheduler="tcp://127.0.0.1:9"), tmp_path / "in", tmp_path / "out.zip")
    assert caught.value.exit_code == 2
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ConfigError, match="needs the package distributed") as caught:
        prepare(settings(scheduler="tcp://127.0.0.1:9"), tmp_path / "in", tmp_path / "out.zip")
    assert caught.value.fix == 'pip install "medgan[cluster]"'
    assert names(tmp_path) == ["in"]


def test_a_cluster_without_workers_is_an_error_not_a_wait(tmp_path, monkeypatch):
    ct_nifti(tmp_path / "in", mask="")
    monkeypatch.setattr(cluster, "SECONDS_WITHOUT_WORKERS", 1)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty,
        pytest.raises(cluster.MedganError, match="no worker for 1 s"),
    ):
        prepare(settings(scheduler=empty.scheduler_address), tmp_path / "in", tmp_path / "out.zip")
