"""A Slurm of its own on this machine: one node, no accounting, everything it writes in a folder.

Debian: apt-get install --no-install-recommends slurm-wlm munge. `SLURMCTLD` is the path of a slurmctld that must be there.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.readers.served import program

# No control groups, so that it runs in any container. A job that is queued again waits until its old credential has expired: two minutes, were
# it not for cred_expire (less than 5 is not taken). The scheduler looks once a second instead of once a minute.
SETTINGS = """
ClusterName=medgan
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
KillWait=1
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
PartitionName=tests Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


def run(*words: str) -> str:
    """What one of Slurm's programs says."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def until(what: Callable[[], object], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, run("squeue")
        time.sleep(0.1)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A block in which SLURM_CONF names a running Slurm with the partition `tests`."""
    path = Path(program("SLURMCTLD", "/usr/sbin/slurmctld", "no Slurm: apt-get install --no-install-recommends slurm-wlm munge"))
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, conf = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf.write_text(SETTINGS.format(host=host, ports=ports, user=getpass.getuser(), folder=folder))
    munged = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={key}",
        f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid",
    ]
    munged += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    daemons = (munged, [str(path), "-D", "-i"], ["slurmd", "-D", "-N", "node"])
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    running: list[subprocess.Popen[bytes]] = []
    try:
        with pytest.MonkeyPatch.context() as patch, (folder / "output").open("wb") as output:
            patch.setenv("SLURM_CONF", str(conf))
            running += [subprocess.Popen(words, env=environment, stdout=output, stderr=output) for words in daemons]
            deadline = time.monotonic() + 30
            while subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False).stdout != "idle\n":
                assert time.monotonic() < deadline, (folder / "output").read_text()
                time.sleep(0.1)
            try:
                yield
            finally:
                run("scancel", "--signal=KILL", "--full", "--me")
                run("scancel", "--me")
                until(lambda: not run("squeue", "--noheader"))
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=30)
