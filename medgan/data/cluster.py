"""Scans cut by the workers of a Dask cluster (dask.distributed, the extra `cluster`).

The workers read the scans where they lie, so these must have the same paths there; images travel back to this machine, which alone writes.
Scheduler and workers log names of tasks and sometimes arguments: names are numbers, and arguments are sealed. The pseudonym key stays here.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgan.data.crew import DIED, Died
from medgan.data.spool import cut_into, place, read, versions
from medgan.errors import ConfigError, MedganError

if TYPE_CHECKING:
    from medgan.data.slices import Job, Outcome

SECONDS_TO_CONNECT = 20
# Workers of a batch system come and go; with none for so long nobody is working.
SECONDS_WITHOUT_WORKERS = 120
# The network is busy while a worker cuts its next scan.
SCANS_PER_WORKER = 2

# A worker may have several threads, but it holds one scan, and reading silences the logs of the whole process.
_one_scan = threading.Lock()


class Sealed:
    """A value that shows nothing of itself in logs."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<scan>"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a worker sends back: its versions, the key of the scan, its outcome, and the file unless it lies here already."""

    versions: dict[str, str]
    key: str
    outcome: Any
    content: bytes | None

    def __repr__(self) -> str:
        return "<answer>"


def cut_there(job: Sealed, known: Sealed) -> Answer:
    """Runs on a worker: the whole result of a scan in memory."""
    from medgan.data.spool import key_of

    with _one_scan:
        key = key_of(job.value)
        if key in known.value:
            return Answer(versions(), key, None, None)
        with tempfile.TemporaryDirectory(prefix="medgan-") as folder:
            key, outcome = cut_into(Path(folder), job.value)
            file = place(Path(folder), key)
            return Answer(versions(), key, outcome, file.read_bytes() if file.exists() else None)


def on_cluster(address: str, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[int, tuple[str, Outcome] | Died]]:
    """Results as they are ready, with the number of their job; as `crew.in_processes` gives them.

    Args:
        address: Of the scheduler (`tcp://host:8786`, `tls://...`), or the path of its file.
        jobs: Scans to cut.
        folder: Work folder on this machine.

    Raises:
        ConfigError: distributed is not installed, the scheduler does not answer, or a worker has other versions.
        MedganError: All workers have gone.
    """
    try:
        import distributed
    except ImportError:
        raise ConfigError("--scheduler needs the package distributed", fix='pip install "medgan[cluster]"') from None
    target = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = distributed.Client(**target, timeout=SECONDS_TO_CONNECT, set_as_default=False, name="medgan")
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigError("--scheduler does not answer", fix="dask scheduler, and its address, e.g. tcp://host:8786") from None
    with client, client.as_current():
        yield from _all(distributed, client, jobs, folder)


def _all(distributed: Any, client: Any, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[int, tuple[str, Outcome] | Died]]:
    done = frozenset(path.name for path in folder.glob("??/*") if read(path))
    # Large when a long run goes on; sent once.
    known = client.scatter(Sealed(done), broadcast=True) if done and _workers(client) else Sealed(done)
    waiting = iter(enumerate(jobs))
    numbers: dict[Any, int] = {}
    last_seen = time.monotonic()
    finished = 0
    while finished < len(jobs):
        workers = _workers(client)
        if workers:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > SECONDS_WITHOUT_WORKERS:
            raise MedganError(
                f"the cluster has had no worker for {SECONDS_WITHOUT_WORKERS} s", fix="dask worker ADDRESS; the same command goes on"
            )
        for index, job in itertools.islice(waiting, max(SCANS_PER_WORKER * workers - len(numbers), 0)):
            future = client.submit(cut_there, Sealed(job), known, key=f"medgan-{client.id}-{index}", pure=False)
            numbers[future] = index
        if not numbers:
            time.sleep(0.2)
            continue
        try:
            ready = distributed.wait(list(numbers), timeout=5, return_when="FIRST_COMPLETED").done
        except (TimeoutError, distributed.TimeoutError):
            continue
        for future in ready:
            yield numbers.pop(future), _taken(distributed, future, folder)
            finished += 1


def _workers(client: Any) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _taken(distributed: Any, future: Any, folder: Path) -> tuple[str, Outcome] | Died:
    """A worker's answer, its file now in the work folder."""
    try:
        answer: Answer = future.result()
    except distributed.KilledWorker:
        return DIED
    except distributed.CancelledError:
        raise MedganError("the scheduler forgot this run", fix="the same command goes on") from None
    except Exception as error:
        raise MedganError(
            f"a worker of the cluster failed ({type(error).__name__})", fix="medgan info on the worker: is it installed there?"
        ) from None
    if differing := [name for name, value in versions().items() if answer.versions.get(name) != value]:
        raise ConfigError(
            f"a worker of the cluster has another version of {', '.join(differing)}", fix="the same environment on all machines"
        )
    path = place(folder, answer.key)
    if answer.content is not None:
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f"{answer.key}.part")
        try:
            part.write_bytes(answer.content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    outcome = answer.outcome or read(path)
    if outcome is None:
        raise MedganError("a result vanished from the work folder", fix="the same command goes on")
    return answer.key, outcome
